"""Blur by convolution: circular (by FFT), with reflected edges (separable), and varying over the image."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.inverse.operators import base
from genjax.inverse.operators.bases import hartley
from genjax.inverse.operators.kernels import gaussian_kernel, motion_kernel
from genjax.inverse.operators.super_resolution import resize_matrix, separable


def transfer(kernel, height, width, *, real=True):
    """Fourier transform of kernels [..., h, w] centered at pixel (0, 0), [..., H, W // 2 + 1] (or W)."""
    h, w = kernel.shape[-2:]
    pad = [(0, 0)] * (kernel.ndim - 2) + [(0, height - h), (0, width - w)]
    placed = jnp.roll(jnp.pad(kernel, pad), (-(h // 2), -(w // 2)), axis=(-2, -1))
    return (jnp.fft.rfft2 if real else jnp.fft.fft2)(placed)


def convolve(x, kernel, *, flip=False):
    """Circular convolution of x [B, H, W, C] with kernels [h, w] or [B, h, w]; flip gives the adjoint."""
    kernel = kernel.astype(x.dtype)
    factor = transfer(kernel if kernel.ndim == 3 else kernel[None], *x.shape[1:3])[..., None]
    spectrum = jnp.fft.rfft2(x, axes=(1, 2)) * (jnp.conj(factor) if flip else factor)
    return jnp.fft.irfft2(spectrum, s=x.shape[1:3], axes=(1, 2)).astype(x.dtype)


@struct.dataclass
class Blur:
    """y = kernel * x, circular. Blind: `phi` holds the logits of the kernel, softmax(phi) over its taps.

    A blind kernel is found up to a shift at best (x shifts the other way), and only with a prior.

    Attributes:
      kernel: [h, w], no larger than the image.
      in_shape: (H, W, C).
      tol: singular values below tol times the largest count as zero in `pinv`.
    """

    kernel: Any
    in_shape: tuple = struct.field(pytree_node=False)
    tol: float = struct.field(pytree_node=False, default=1e-3)

    @property
    def out_shape(self):
        return self.in_shape

    def phi_init(self, batch):
        """Logits [B, h, w] of the uniform kernel."""
        return jnp.zeros((batch, *self.kernel.shape), self.kernel.dtype)

    def kernel_of(self, phi):
        """The kernels [B, h, w] (or [h, w]) that logits of that shape stand for; None: the known one."""
        if phi is None:
            return self.kernel
        if phi.shape[-2:] != self.kernel.shape:
            raise ValueError(f"phi: expected logits of shape [B, *{self.kernel.shape}], got {phi.shape}")
        return jax.nn.softmax(phi.reshape(*phi.shape[:-2], -1)).reshape(phi.shape)

    def forward(self, x, phi=None):
        return convolve(base.check(x, self.in_shape, "x"), self.kernel_of(phi))

    def adjoint(self, y, phi=None):
        return convolve(base.check(y, self.in_shape, "y"), self.kernel_of(phi), flip=True)

    def svd(self):
        """V is the Hartley transform; singular values are the transfer function's moduli, its phases go into U."""
        height, width, channels = self.in_shape
        spectrum = transfer(self.kernel, height, width, real=False)
        modulus = jnp.abs(spectrum)
        zero = modulus == 0
        phase = jnp.where(zero, 1, spectrum / jnp.where(zero, 1, modulus))[None, ..., None]
        image = lambda z: z.reshape(-1, *self.in_shape)

        def turn(x, phase):
            kind = jnp.complex128 if x.dtype == jnp.float64 else jnp.complex64
            return jnp.fft.ifft2(jnp.fft.fft2(x, axes=(1, 2)) * phase.astype(kind), axes=(1, 2)).real.astype(x.dtype)

        return base.SVD(
            u=lambda z: turn(hartley(image(z)), phase),
            ut=lambda y: base.flat(hartley(turn(y, jnp.conj(phase)))),
            v=lambda z: hartley(image(z)),
            vt=lambda x: base.flat(hartley(x)),
            singular=jnp.broadcast_to(modulus[..., None], (height, width, channels)).reshape(-1),
        )

    def pinv(self, y):
        return base.pinv_svd(self, y, self.tol)

    prox = base.prox_svd

    def x_init(self, y):
        """The blurred image itself."""
        return base.check(y, self.in_shape, "y")


def blur(shape, std=1.0, size=None, boundary="circular"):
    """Gaussian blur.

    Args:
      shape: (H, W, C).
      std: in pixels, > 0.
      size: odd side of the kernel; None: six standard deviations, cut to the image (circular alone).
      boundary: "circular" (`Blur`) or "reflect" (`Separable`; no blind form).
    """
    shape = base.image_shape(shape)
    if boundary == "reflect":
        if not std > 0:
            raise ValueError(f"std: expected > 0, got {std}")
        bell = lambda x: np.exp(-0.5 * (x / std) ** 2)
        rows, cols = (resize_matrix(n, n, bell, reach=np.ceil(4 * std)) for n in shape[:2])
        return separable(rows, cols, shape[2])
    if boundary != "circular":
        raise ValueError(f"boundary: expected 'circular' or 'reflect', got {boundary!r}")
    return given_blur(_cut(gaussian_kernel(std, size), shape), shape)


def motion_blur(shape, length=5.0, angle=30.0, bend=0.0, seed=0):
    """Blur along a camera's path (`motion_kernel`), circular."""
    return given_blur(motion_kernel(length, angle, bend, seed), base.image_shape(shape))


def _cut(kernel, shape):
    """The middle of a kernel, no larger than the image and odd, again of sum 1."""
    for axis in (0, 1):
        most = shape[axis] - (shape[axis] + 1) % 2
        extra = max(0, kernel.shape[axis] - most) // 2
        kernel = np.take(kernel, np.arange(extra, kernel.shape[axis] - extra), axis=axis)
    return kernel / kernel.sum()


def given_blur(kernel, shape, tol=1e-3):
    """`Blur` with a given kernel [h, w]."""
    shape = base.image_shape(shape)
    if np.ndim(kernel) != 2 or kernel.shape[0] > shape[0] or kernel.shape[1] > shape[1]:
        raise ValueError(f"kernel: expected [h, w] no larger than {shape[:2]}, got shape {np.shape(kernel)}")
    return Blur(jnp.asarray(kernel, jnp.result_type(float)), shape, tol)


@struct.dataclass
class VaryingBlur:
    """y = sum_k weights_k (kernel_k * x): a blur that changes over the image, circular at its edges.

    Attributes:
      kernels: [K, h, w].
      weights: [K, H, W], summing to 1 over K where brightness is kept.
      in_shape: (H, W, C).
    """

    kernels: Any
    weights: Any
    in_shape: tuple = struct.field(pytree_node=False)

    @property
    def out_shape(self):
        return self.in_shape

    def forward(self, x, phi=None):
        base.apply_phi(phi, "VaryingBlur")
        x = base.check(x, self.in_shape, "x")
        each = jax.vmap(lambda kernel: convolve(x, kernel))(self.kernels)
        return jnp.einsum("khw,kbhwc->bhwc", self.weights.astype(x.dtype), each)

    def adjoint(self, y):
        y = base.check(y, self.in_shape, "y")
        weighted = jnp.einsum("khw,bhwc->kbhwc", self.weights.astype(y.dtype), y)
        return jnp.sum(jax.vmap(lambda y, kernel: convolve(y, kernel, flip=True))(weighted, self.kernels), axis=0)

    prox = base.prox_cg

    def x_init(self, y):
        """The blurred image itself."""
        return base.check(y, self.in_shape, "y")


def varying_blur(shape, std=0.5, edge_std=2.0, count=4):
    """Gaussian blur whose width grows from the middle to the corners, as with a simple lens.

    Args:
      shape: (H, W, C).
      std, edge_std: widths in the middle and in the corners, > 0.
      count: number of widths between which the image interpolates, >= 2.
    """
    shape = base.image_shape(shape)
    if count < 2:
        raise ValueError(f"count: expected >= 2, got {count}")
    stds = np.linspace(std, edge_std, count)
    side = 2 * int(np.ceil(3 * max(std, edge_std))) + 1
    kernels = np.stack([_cut(gaussian_kernel(s, side), shape) for s in stds])
    rows, cols = (np.abs(np.arange(n) - (n - 1) / 2) / max((n - 1) / 2, 1) for n in shape[:2])
    place = np.sqrt((rows[:, None] ** 2 + cols[None] ** 2) / 2) * (count - 1)
    weights = np.maximum(0, 1 - np.abs(place[None] - np.arange(count)[:, None, None]))
    kind = jnp.result_type(float)
    return VaryingBlur(jnp.asarray(kernels, kind), jnp.asarray(weights, kind), shape)
