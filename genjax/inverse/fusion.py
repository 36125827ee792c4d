"""Fusion of two registered images by a diffusion prior and one EM step a level (DDFM, 2303.06840).

Fidelity |f - i|_1 + |f - v|_1 to an infrared image i and a visible one v. With x = f - v and y = i - v both x and
y - x are Laplacian, that is Gaussian with a scale of each pixel's own; H is y - x, smoothed.

  E   D = sqrt(2 / (tau_b (x^2 + e))),  C = sqrt(2 / (tau_a (y - x + e)^2)),  D <- min(D, 2 C)
      tau_b <- mean(1 / D + tau_b / 2),  tau_a <- mean(1 / C + tau_a / 2)
  M   (1 + |k1|^2 + |k2|^2) H^ = FFT(y - x) + conj(k1) FFT(F1) + conj(k2) FFT(F2)
      F_j = rho / (2 lambda + rho) grad_j H
      x = (2 C y + rho (y - H)) / (2 C + 2 D + rho)
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct

from genjax.core.keys import fold
from genjax.core.numerics import mean_except_batch
from genjax.core.prediction import with_x0
from genjax.core.types import SolverState
from genjax.inverse import sampler
from genjax.inverse.operators import base
from genjax.solvers.base import from_step, info_of

LUMA = (0.299, 0.587, 0.114)
FORMS = ("mirrored", "consistent")


def luminance(x):
    """[B, H, W, C] -> [B, H, W]: Y of YCbCr for three channels, else their mean."""
    if x.shape[-1] == 3:
        return jnp.sum(x * jnp.asarray(LUMA, x.dtype)[None, None, None], axis=-1)
    return jnp.mean(x, axis=-1)


def with_luminance(x, new):
    """x with another luminance [B, H, W]; the color differences stay, as all channels move alike."""
    return x + (new - luminance(x))[..., None]


@struct.dataclass
class TwoSensors:
    """y [B, H, W, 2]: two pictures of the same scene, each of its luminance as far as it goes.

    Attributes:
      in_shape: (H, W, C).
    """

    in_shape: tuple = struct.field(pytree_node=False)

    @property
    def out_shape(self):
        return (*self.in_shape[:2], 2)

    def forward(self, x, phi=None):
        base.apply_phi(phi, "TwoSensors")
        return jnp.repeat(luminance(base.check(x, self.in_shape, "x"))[..., None], 2, axis=-1)

    def x_init(self, y):
        """The average of both, in every channel."""
        return jnp.broadcast_to(jnp.mean(y, axis=-1, keepdims=True), (y.shape[0], *self.in_shape))


class Scales(NamedTuple):
    """What EM carries on."""

    rows: Any  # [B, H, W] F1
    columns: Any  # [B, H, W] F2
    tau_a: Any  # [B]
    tau_b: Any  # [B]


def scales_init(y):
    """Scales at the start for y [B, H, W, 2]."""
    image, one = jnp.zeros_like(y[..., 0]), jnp.ones_like(y[:, 0, 0, 0])
    return Scales(image, image, one, one)


def slopes(x):
    """Forward differences of [B, H, W] along rows and columns, around the edges."""
    return jnp.roll(x, -1, axis=1) - x, jnp.roll(x, -1, axis=2) - x


def smooth(target, rows, columns):
    """H = argmin |H - target|^2 + |grad_1 H - rows|^2 + |grad_2 H - columns|^2, by FFT; all [B, H, W]."""
    height, width = target.shape[1:]
    k1 = jnp.exp(2j * jnp.pi * jnp.fft.fftfreq(height))[None, :, None] - 1
    k2 = jnp.exp(2j * jnp.pi * jnp.fft.fftfreq(width))[None, None, :] - 1
    right = jnp.fft.fft2(target) + jnp.conj(k1) * jnp.fft.fft2(rows) + jnp.conj(k2) * jnp.fft.fft2(columns)
    return jnp.fft.ifft2(right / (1 + jnp.abs(k1) ** 2 + jnp.abs(k2) ** 2)).real.astype(target.dtype)


def em_step(f, i, v, state, strength=0.5, rho=1e-3, form="mirrored"):
    """One EM step of the fusion: (f, Scales).

    Args:
      f, i, v: [B, H, W] the fused image and the two sources.
      strength: lambda of the smoothness; rho: of the splitting.
      form: "mirrored", f = i - x, as released: it stays balanced; "consistent", f = v + x, the model's own: the
        sum of absolute values is flat between the sources, and it collapses onto one of them.
    """
    sampler.one_of(form, FORMS, "form")
    y, x = i - v, f - v
    each = lambda tau: tau[:, None, None]
    d = jnp.sqrt(2 / (each(state.tau_b) * (x**2 + 1e-6)))
    c = jnp.sqrt(2 / (each(state.tau_a) * (y - x + 1e-6) ** 2 + jnp.finfo(x.dtype).tiny))
    d = jnp.minimum(d, 2 * c)
    tau_b = mean_except_batch(1 / (d + 1e-10)) + state.tau_b / 2
    tau_a = mean_except_batch(1 / (c + 1e-10)) + state.tau_a / 2
    h = smooth(y - x, state.rows, state.columns)
    rows, columns = (rho / (2 * strength + rho) * slope for slope in slopes(h))
    x = m_step(y, c, d, h, rho)
    return (i - x if form == "mirrored" else v + x), Scales(rows, columns, tau_a, tau_b)


def m_step(y, c, d, h, rho):
    """argmin_x C (y - x)^2 + D x^2 + (rho / 2)(y - x - H)^2, elementwise."""
    return (2 * c * y + rho * (y - h)) / (2 * c + 2 * d + rho)


def fused(measurement, strength=0.5, rho=1e-3, form="mirrored", eta=0.0, clip=(-1.0, 1.0)):
    """The Solver of DDFM: x0's luminance passes one EM step, eps is recomputed, then DDIM. Scales in the memory."""
    i, v = measurement.y[..., 0], measurement.y[..., 1]

    def step(keys, denoiser, process, state, t, s):
        x, scales = state
        pred = denoiser(x, t, key=fold(keys, 0))
        x0 = pred.x0 if clip is None else jnp.clip(pred.x0, *clip)
        f, scales = em_step(luminance(x0), i, v, scales, strength, rho, form)
        pred = with_x0(pred, with_luminance(x0, f), x, process, t)
        law = process.posterior(x, pred, t, s, eta)
        return law.sample(fold(keys, 1)), scales, info_of(pred)

    return from_step(step, lambda x, t: SolverState(x, scales_init(measurement.y)))


def ddfm(strength=0.5, rho=1e-3, form="mirrored", clip=(-1.0, 1.0), steps=100, eta=0.0, grid="cosine"):
    """DDFM (2303.06840, algorithm 2) for measurements y [B, H, W, 2], infrared first, of `TwoSensors`.

    Args:
      strength, rho, form: see `em_step`.
      clip: range of x0, or None.
      eta: of the DDIM step.
    """
    sampler.one_of(form, FORMS, "form")
    make = lambda measurement, like: fused(measurement, strength, rho, form, eta, clip)
    return sampler.from_solver("ddfm", make, steps, grid)
