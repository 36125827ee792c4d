"""Measurements in the Fourier domain: sub-sampled (magnetic resonance) and magnitudes alone (phase retrieval).

Transforms are unitary, so noise is as strong there as in the image. Complex numbers are pairs of real
channels: the C real parts first, then the C imaginary ones.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.core.numerics import safe_norm
from genjax.inverse.operators import base
from genjax.inverse.operators.bases import hartley


def to_complex(x):
    """[..., 2 C] -> complex [..., C]."""
    real, imag = jnp.split(x, 2, axis=-1)
    return real + 1j * imag


def to_real(z):
    """Complex [..., C] -> [..., 2 C]."""
    return jnp.concatenate([z.real, z.imag], axis=-1)


@struct.dataclass
class FourierSampling:
    """y = mask * F x, one coil. What is not measured is 0 in y.

    Attributes:
      mask: [H, W] of zeros and ones over frequencies, in FFT order (frequency 0 first).
      in_shape: (H, W, C): C real channels, or C / 2 complex ones as pairs.
      complex_image: whether x is complex.
    """

    mask: Any
    in_shape: tuple = struct.field(pytree_node=False)
    complex_image: bool = struct.field(pytree_node=False, default=False)

    @property
    def out_shape(self):
        height, width, channels = self.in_shape
        return (height, width, channels if self.complex_image else 2 * channels)

    def support(self):
        """Where y is measured."""
        return jnp.broadcast_to(self.mask[..., None], self.out_shape)

    def _keep(self, y):
        return y * self.mask[None, ..., None].astype(y.dtype)

    def forward(self, x, phi=None):
        base.apply_phi(phi, "FourierSampling")
        x = base.check(x, self.in_shape, "x")
        z = to_complex(x) if self.complex_image else x
        return self._keep(to_real(jnp.fft.fft2(z, axes=(1, 2), norm="ortho")).astype(x.dtype))

    def adjoint(self, y):
        y = self._keep(base.check(y, self.out_shape, "y"))
        z = jnp.fft.ifft2(to_complex(y), axes=(1, 2), norm="ortho")
        return (to_real(z) if self.complex_image else z.real).astype(y.dtype)

    def svd(self):
        """Of a complex image the Fourier transform itself, singular values the mask.

        Of a real one the Hartley transform: A^T A averages the mask with its mirror image, so the squares
        of the singular values are 1 where both frequencies of a pair are measured, 1/2 where one is.
        """
        image = lambda z: z.reshape(-1, *self.in_shape)
        if self.complex_image:
            whole = self.replace(mask=jnp.ones_like(self.mask))
            return base.SVD(
                u=lambda z: self._keep(image(z)),
                ut=lambda y: base.flat(self._keep(y)),
                v=lambda z: whole.adjoint(image(z)),
                vt=lambda x: base.flat(whole.forward(x)),
                singular=self.support().reshape(-1),
            )
        mirror = jnp.roll(jnp.flip(self.mask), (1, 1), axis=(0, 1))
        singular = jnp.sqrt((self.mask + mirror) / 2)
        singular = jnp.broadcast_to(singular[..., None], self.in_shape).reshape(-1)
        return base.gram_svd(self, lambda z: hartley(image(z)), lambda x: base.flat(hartley(x)), singular)

    pinv = base.pinv_svd
    prox = base.prox_svd
    x_init = base.x_init_pinv


def fourier(shape, acceleration=4.0, center=0.1, seed=0, pattern="lines", complex_image=False):
    """Sub-sampled Fourier measurements.

    Args:
      shape: (H, W, C).
      acceleration: >= 1; about 1 / acceleration of the frequencies are measured.
      center: share of low frequencies (of the width, or of both sides) that is always measured, in [0, 1].
      seed: of the choice of the others.
      pattern: "lines" (whole columns) or "points".
      complex_image: whether channels are pairs (real, imaginary), an even number.
    """
    shape = base.image_shape(shape)
    if acceleration < 1 or not 0 <= center <= 1:
        raise ValueError(f"acceleration, center: expected >= 1 and in [0, 1], got {acceleration} and {center}")
    if complex_image and shape[2] % 2:
        raise ValueError(f"shape: expected an even number of channels for complex images, got {shape[2]}")
    if pattern not in ("lines", "points"):
        raise ValueError(f"pattern: expected 'lines' or 'points', got {pattern!r}")
    height, width, _ = shape
    lines = (1, width) if pattern == "lines" else (height, width)
    near = [np.abs(np.fft.fftfreq(n)) <= max(center / 2, 1e-9) for n in lines]
    low = near[0][:, None] & near[1][None]
    rank = np.where(low, -1, np.random.default_rng(seed).random(lines)).reshape(-1)
    keep = max(int(low.sum()), round(rank.size / acceleration))
    mask = np.zeros(rank.size)
    mask[np.argsort(rank, kind="stable")[:keep]] = 1
    mask = np.broadcast_to(mask.reshape(lines), (height, width))
    return FourierSampling(jnp.asarray(mask, jnp.result_type(float)), shape, complex_image)


@struct.dataclass
class PhaseRetrieval:
    """y = |F (x + 1) / 2| of the image padded with zeros: magnitudes alone, the phases are lost.

    Images that differ by a shift within the padding or a rotation by half a turn give the same y.

    Attributes:
      in_shape: (H, W, C).
      padded: (H', W'), at least (H, W); twice the sides makes the answer unique but for the above.
    """

    in_shape: tuple = struct.field(pytree_node=False)
    padded: tuple = struct.field(pytree_node=False)

    @property
    def out_shape(self):
        return (*self.padded, self.in_shape[2])

    def forward(self, x, phi=None):
        base.apply_phi(phi, "PhaseRetrieval")
        x = base.check(x, self.in_shape, "x")
        z = jnp.fft.fft2((x + 1) / 2, s=self.padded, axes=(1, 2), norm="ortho")
        return safe_norm(jnp.stack([z.real, z.imag]), axis=0).astype(x.dtype)

    def x_init(self, y):
        """The constant image with the right mean, which the zero frequency tells."""
        y = base.check(y, self.out_shape, "y")
        mean = y[:, :1, :1] * np.sqrt(base.size(self.padded)) / base.size(self.in_shape[:2])
        return jnp.broadcast_to(2 * jnp.clip(mean, 0, 1) - 1, (y.shape[0], *self.in_shape))


def phase_retrieval(shape, oversampling=2.0):
    """`PhaseRetrieval`; oversampling >= 1 is the ratio of the padded sides to the image's."""
    shape = base.image_shape(shape)
    if oversampling < 1:
        raise ValueError(f"oversampling: expected >= 1, got {oversampling}")
    return PhaseRetrieval(shape, tuple(round(oversampling * n) for n in shape[:2]))
