"""Nonlinear measurements of a camera: clipping, exposure and low light, blur in linear light.

Images are in [-1, 1]; light is u = (x + 1) / 2, which formulas that need it take as at least 0.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.core.numerics import bcast, float_leaves
from genjax.inverse.operators import base
from genjax.inverse.operators.blur import convolve
from genjax.inverse.operators.kernels import motion_kernel


@struct.dataclass
class Clip:
    """y = clip(gain x, -1, 1): high dynamic range from a saturated image. No gradient where it is saturated."""

    in_shape: tuple = struct.field(pytree_node=False)
    gain: Any = 2.0

    def __post_init__(self):
        float_leaves(self, "gain")

    @property
    def out_shape(self):
        return self.in_shape

    def forward(self, x, phi=None):
        base.apply_phi(phi, "Clip")
        x = base.check(x, self.in_shape, "x")
        return jnp.clip(jnp.asarray(self.gain, x.dtype) * x, -1, 1)

    def x_init(self, y):
        """y / gain: right wherever y is not saturated."""
        return base.check(y, self.in_shape, "y") / jnp.asarray(self.gain, y.dtype)


def hdr(shape, gain=2.0):
    """`Clip` of any sample shape; gain > 0."""
    if not gain > 0:
        raise ValueError(f"gain: expected > 0, got {gain}")
    return Clip(tuple(shape), gain)


@struct.dataclass
class Exposure:
    """y = 2 v - 1 with v = gain u^gamma + offset, u the light of x (2304.01247: y = f x + M).

    Blind: phi = {"log_gain": [B], "offset": [B, ...]}, offset of any shape that broadcasts against
    the image (one number, or a smooth or full map); gain = exp(log_gain) stays positive. Gain and
    brightness of the image can be told apart by a prior alone.

    Attributes:
      gain: > 0, small in low light.
      offset: stray light.
      gamma: >= 1.
      in_shape: (H, W, C).
      saturate: whether v is clipped to [0, 1].
    """

    gain: Any
    offset: Any
    gamma: Any
    in_shape: tuple = struct.field(pytree_node=False)
    saturate: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self):
        float_leaves(self, "gain", "offset", "gamma")

    @property
    def out_shape(self):
        return self.in_shape

    def phi_init(self, batch):
        """Gain 1 and no stray light: one number each a sample."""
        kind = jnp.result_type(float)
        return {"log_gain": jnp.zeros(batch, kind), "offset": jnp.zeros((batch, *(1,) * len(self.in_shape)), kind)}

    def parameters(self, phi):
        """(gain, offset) from phi, or the known ones where it is None."""
        if phi is None:
            return self.gain, self.offset
        if not isinstance(phi, dict) or set(phi) != {"log_gain", "offset"}:
            raise ValueError(f"phi: expected a dict of 'log_gain' and 'offset', got {phi!r}")
        return jnp.exp(phi["log_gain"]), phi["offset"]

    def forward(self, x, phi=None):
        x = base.check(x, self.in_shape, "x")
        gain, offset = (bcast(a, x).astype(x.dtype) for a in self.parameters(phi))
        light = jnp.maximum((x + 1) / 2, 0) ** jnp.asarray(self.gamma, x.dtype)
        v = gain * light + offset
        return 2 * (jnp.clip(v, 0, 1) if self.saturate else v) - 1

    def x_init(self, y, phi=None):
        """The inverse, clipped to the range of images; without phi that of the known parameters."""
        y = base.check(y, self.in_shape, "y")
        gain, offset = (bcast(a, y).astype(y.dtype) for a in self.parameters(phi))
        light = jnp.clip(((y + 1) / 2 - offset) / gain, 0, 1)
        return 2 * light ** (1 / jnp.asarray(self.gamma, y.dtype)) - 1


def low_light(shape, gain=0.25, offset=0.05, gamma=1.0, saturate=False):
    """`Exposure` of any sample shape; gain > 0, gamma >= 1."""
    if not gain > 0 or gamma < 1:
        raise ValueError(f"gain, gamma: expected > 0 and >= 1, got {gain} and {gamma}")
    return Exposure(gain, offset, gamma, tuple(shape), saturate)


# Below this much light the response is a straight line: a power less than one has no slope at zero.
DARK = 1e-3


@struct.dataclass
class LinearLightBlur:
    """y = 2 v - 1, v = r(kernel * r^-1(u)): frames are averaged in linear light, the camera's response follows.

    This is how motion blur arises in data sets that average the frames of a fast camera; with gamma = 1 it
    is a plain blur. r(l) = (l + d)^(1/gamma) - d^(1/gamma), scaled to keep 0 and 1, with a small d.

    Attributes:
      kernel: [h, w], no larger than the image.
      gamma: >= 1, of the response curve (2.2 for displays).
      in_shape: (H, W, C).
    """

    kernel: Any
    gamma: Any
    in_shape: tuple = struct.field(pytree_node=False)

    def __post_init__(self):
        float_leaves(self, "gamma")

    @property
    def out_shape(self):
        return self.in_shape

    def _power(self, dtype):
        power = 1 / jnp.asarray(self.gamma, dtype)
        low = DARK**power
        return power, low, (1 + DARK) ** power - low

    def response(self, light):
        """r: linear light in [0, 1] -> pixel value in [0, 1]."""
        power, low, span = self._power(light.dtype)
        return ((jnp.maximum(light, 0) + DARK) ** power - low) / span

    def inverse_response(self, value):
        """r^-1: pixel value -> linear light."""
        power, low, span = self._power(value.dtype)
        return (span * jnp.maximum(value, 0) + low) ** (1 / power) - DARK

    def forward(self, x, phi=None):
        base.apply_phi(phi, "LinearLightBlur")
        x = base.check(x, self.in_shape, "x")
        return 2 * self.response(convolve(self.inverse_response((x + 1) / 2), self.kernel)) - 1

    def x_init(self, y):
        """The blurred image itself."""
        return base.check(y, self.in_shape, "y")


def nonlinear_blur(shape, length=5.0, angle=30.0, bend=0.5, seed=0, gamma=2.2):
    """`LinearLightBlur` along a camera's path (`motion_kernel`)."""
    shape = base.image_shape(shape)
    if gamma < 1:
        raise ValueError(f"gamma: expected >= 1, got {gamma}")
    kernel = motion_kernel(length, angle, bend, seed)
    if any(np.greater(kernel.shape, shape[:2])):
        raise ValueError(f"length: expected a path that fits into {shape[:2]}, got a kernel of {kernel.shape}")
    return LinearLightBlur(jnp.asarray(kernel, jnp.result_type(float)), gamma, shape)
