"""Orthogonal real transforms: the discrete cosine transform and the Hartley transform."""

import jax.numpy as jnp
import numpy as np


def dct_matrix(n):
    """The orthogonal cosine transform (type II) as a numpy matrix [n, n]; row 0 is constant."""
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    d = np.sqrt(2 / n) * np.cos(np.pi * (2 * i + 1) * k / (2 * n))
    d[0] /= np.sqrt(2)
    return d


def hartley(x, axes=(1, 2)):
    """Orthogonal Hartley transform Re F x - Im F x of a real array, F the unitary FFT; its own inverse.

    It diagonalizes every symmetric circular convolution, as the Fourier transform does, without complex numbers.
    """
    f = jnp.fft.fftn(x, axes=axes, norm="ortho")
    return (f.real - f.imag).astype(x.dtype)
