"""The Radon transform (parallel-beam tomography): sparse views, limited angles, and slices of a volume.

A pixel is a square of side 1; a detector bin is 1 wide. Bin j of the view at angle a holds the exact integral of
the image over its strip, so that every view sums to the image's sum. The shadow of a pixel is a trapezoid no
wider than sqrt(2): it meets at most three bins.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.inverse.operators import base
from genjax.inverse.operators.wrappers import slices

BINS = 3


@struct.dataclass
class Radon:
    """y[a, j] = integral of x over the strip j at angle a.

    Attributes:
      first: [A, H W] int, first bin that each pixel's shadow meets.
      weights: [A, BINS, H W], shares of the pixel in the bins from there on.
      angles: [A] in radians; 0 sums over the height.
      in_shape: (H, W, C).
      bins: number of detector bins.
    """

    first: Any
    weights: Any
    angles: Any
    in_shape: tuple = struct.field(pytree_node=False)
    bins: int = struct.field(pytree_node=False)

    @property
    def out_shape(self):
        return (self.angles.shape[0], self.bins, self.in_shape[2])

    def forward(self, x, phi=None):
        base.apply_phi(phi, "Radon")
        x = base.check(x, self.in_shape, "x")
        pixels = jnp.moveaxis(x.reshape(x.shape[0], -1, self.in_shape[2]), 1, 0)  # [P, B, C]

        def view(table):
            first, weights = table
            out = jnp.zeros((self.bins + 2 * BINS, *pixels.shape[1:]), x.dtype)
            for k in range(BINS):
                out = out.at[first + BINS + k].add(weights[k, :, None, None].astype(x.dtype) * pixels, mode="drop")
            return out[BINS:-BINS]

        return jnp.moveaxis(jax.lax.map(view, (self.first, self.weights)), 2, 0)

    def adjoint(self, y):
        y = base.check(y, self.out_shape, "y")
        views = jnp.moveaxis(y, 0, 2)  # [A, bins, B, C]

        def back(total, table):
            first, weights, view = table
            view = jnp.pad(view, ((BINS, BINS), (0, 0), (0, 0)))
            for k in range(BINS):
                total = total + weights[k, :, None, None].astype(y.dtype) * view[first + BINS + k]
            return total, None

        start = jnp.zeros((self.first.shape[1], *views.shape[2:]), y.dtype)
        total = jax.lax.scan(back, start, (self.first, self.weights, views))[0]
        return jnp.moveaxis(total, 0, 1).reshape(-1, *self.in_shape)

    def fbp(self, y):
        """Filtered back-projection with the ramp filter; right for many views over half a turn.

        Angles count as evenly spaced; over less than half a turn it is the integral over what was seen.
        """
        y = base.check(y, self.out_shape, "y")
        size = 2 ** int(np.ceil(np.log2(2 * self.bins)))
        n = np.fft.fftfreq(size, 1 / size)
        odd = n % 2 == 1
        ramp = np.where(odd, -1 / (np.pi * np.where(odd, n, 1)) ** 2, 0)
        ramp[0] = 1 / 4
        response = jnp.asarray(np.fft.rfft(ramp).real, y.dtype)[None, None, :, None]
        filtered = jnp.fft.irfft(jnp.fft.rfft(y, n=size, axis=2) * response, n=size, axis=2)[:, :, : self.bins]
        step = self.angles[1] - self.angles[0] if self.angles.shape[0] > 1 else np.pi
        return self.adjoint(filtered.astype(y.dtype)) * jnp.asarray(step, y.dtype)

    prox = base.prox_cg
    x_init = fbp


def _tables(angles, height, width, bins):
    """(first bin [A, P], weights [A, BINS, P]) in double precision."""
    rows, cols = (np.arange(n) - (n - 1) / 2 for n in (height, width))
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    center = (cols[None, None] * cos[..., None] + rows[None, :, None] * sin[..., None]).reshape(len(angles), -1)
    center = center + bins / 2  # bin j covers [j, j + 1)
    # The shadow is a box of width `long` smeared by a box of width `short`.
    long, short = np.maximum(np.abs(cos), np.abs(sin)), np.maximum(np.minimum(np.abs(cos), np.abs(sin)), 1e-6)
    first = np.floor(center - (long + short) / 2)

    def antiderivative(u):  # of clip(u, 0, 1)
        return np.where(u < 0, 0, np.where(u < 1, u**2 / 2, u - 0.5))

    def share_below(z):
        return (
            (antiderivative((z + short / 2) / long + 0.5) - antiderivative((z - short / 2) / long + 0.5)) * long / short
        )

    edges = [share_below(first + k - center) for k in range(BINS + 1)]
    weights = np.stack([edges[k + 1] - edges[k] for k in range(BINS)], axis=1)
    return np.clip(first, -BINS, bins).astype(np.int32), weights


def radon(shape, views=30, span=180.0, start=0.0, bins=None):
    """Tomography by parallel beams.

    Args:
      shape: (H, W, C), or (depth, H, W, C): then each slice for itself.
      views: number of angles, evenly spaced over the span (its end left out), >= 1.
      span: in degrees, in (0, 180]; less than 180 is limited-angle tomography.
      start: first angle, in degrees.
      bins: of the detector, one pixel wide each; None: the image's diagonal, rounded up to hold all of it.
    """
    shape = tuple(shape)
    if len(shape) == 4:
        return slices(radon(shape[1:], views, span, start, bins), shape[0])
    height, width, _ = base.image_shape(shape)
    if views < 1 or not 0 < span <= 180:
        raise ValueError(f"views, span: expected >= 1 and in (0, 180], got {views} and {span}")
    bins = int(np.ceil(np.hypot(height, width))) if bins is None else bins
    angles = np.deg2rad(start + span * np.arange(views) / views)
    first, weights = _tables(angles, height, width, bins)
    kind = jnp.result_type(float)
    return Radon(jnp.asarray(first), jnp.asarray(weights, kind), jnp.asarray(angles, kind), shape, bins)


def limited_angle(shape, views=30, span=90.0):
    """`radon` that sees a part of the half turn only."""
    return radon(shape, views, span)
