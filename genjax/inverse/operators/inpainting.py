"""Inpainting: y = mask * x. What is not measured is 0 in y, and y keeps the image's shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.inverse.operators import base


@struct.dataclass
class Inpainting:
    """y = mask * x.

    Attributes:
      mask: [*in_shape], 1 where x is seen, 0 where it is missing.
    """

    mask: Any

    @property
    def in_shape(self):
        return tuple(self.mask.shape)

    @property
    def out_shape(self):
        return self.in_shape

    def support(self):
        """The mask."""
        return self.mask

    def forward(self, x, phi=None):
        base.apply_phi(phi, "Inpainting")
        x = base.check(x, self.in_shape, "x")
        return x * self.mask[None].astype(x.dtype)

    def adjoint(self, y):
        y = base.check(y, self.in_shape, "y")
        return y * self.mask[None].astype(y.dtype)

    def svd(self):
        back = lambda z: z.reshape(-1, *self.in_shape)
        return base.SVD(u=back, ut=base.flat, v=back, vt=base.flat, singular=self.mask.reshape(-1))

    pinv = adjoint
    x_init = adjoint
    prox = base.prox_svd


def given(mask, shape=None):
    """`Inpainting` with a given mask.

    Args:
      mask: of zeros and ones (or booleans), [H, W] or of the sample's shape.
      shape: of one sample; None: the mask's.

    Raises:
      ValueError: other values than 0 and 1, another shape, or nothing that is seen.
    """
    if isinstance(mask, jax.core.Tracer):
        raise ValueError("mask: expected concrete values (build the operator outside jit), got a traced array")
    mask = np.asarray(mask)
    shape = mask.shape if shape is None else tuple(shape)
    if mask.ndim == len(shape) - 1:
        mask = mask[..., None]
    if mask.ndim != len(shape) or any(m not in (1, n) for m, n in zip(mask.shape, shape)):
        raise ValueError(f"mask: expected shape {shape} or {shape[:-1]}, got {mask.shape}")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("mask: expected zeros and ones alone, got other values")
    if not mask.any():
        raise ValueError("mask: expected at least one measured element, got all zeros")
    return Inpainting(jnp.asarray(np.broadcast_to(mask, shape), jnp.result_type(float)))


def box(shape, size=0.5, top=None, left=None):
    """A missing box.

    Args:
      shape: (H, W, C).
      size: its side as a share of the image's, in (0, 1); sides are rounded to pixels.
      top, left: its corner in pixels; None: centered.
    """
    height, width, _ = base.image_shape(shape)
    if not 0 < size < 1:
        raise ValueError(f"size: expected in (0, 1), got {size}")
    h, w = max(1, round(size * height)), max(1, round(size * width))
    top = (height - h) // 2 if top is None else top
    left = (width - w) // 2 if left is None else left
    if not (0 <= top <= height - h and 0 <= left <= width - w):
        raise ValueError(f"top, left: expected a box of {(h, w)} inside {(height, width)}, got {(top, left)}")
    mask = np.ones((height, width))
    mask[top : top + h, left : left + w] = 0
    return given(mask, shape)


def random(shape, missing=0.7, seed=0):
    """Pixels missing at random, whole (all channels), an exact number of them.

    Args:
      shape: of one sample, the last axis is channels where there is more than one axis.
      missing: share of pixels, in [0, 1).
      seed: of the choice.
    """
    if not 0 <= missing < 1:
        raise ValueError(f"missing: expected in [0, 1), got {missing}")
    shape = tuple(shape)
    pixels = shape[:-1] if len(shape) > 1 else shape
    n = base.size(pixels)
    mask = np.ones(n)
    mask[np.random.default_rng(seed).permutation(n)[: min(n - 1, round(missing * n))]] = 0
    return given(mask.reshape(pixels), shape)


def identity(shape):
    """`Inpainting` that misses nothing: plain denoising."""
    return given(np.ones(tuple(shape)))
