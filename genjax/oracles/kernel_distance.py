"""The squared MMD of Gaussians under a Gaussian kernel, in closed form.

For k(x, y) = exp(-|x - y|^2 / (2 s^2)) and isotropic laws in D dimensions, x - y is Gaussian, and
E exp(-|d|^2 / (2 s^2)) = (s^2 / (s^2 + v))^{D/2} exp(-|m|^2 / (2 (s^2 + v))) for d ~ N(m, v I).
"""

import jax.numpy as jnp


def gaussian_overlap(variance, bandwidth, gap=0.0, dim=1):
    """E k(x, y) where x - y ~ N(m, variance I) with |m| = gap, in `dim` dimensions."""
    total = bandwidth**2 + variance
    return (bandwidth**2 / total) ** (dim / 2) * jnp.exp(-0.5 * gap**2 / total)


def gaussian_mmd2(std_p, std_q, bandwidth, gap=0.0, dim=1):
    """MMD^2 of N(0, std_p^2 I) and N(m, std_q^2 I), |m| = gap, under the Gaussian kernel; differentiable.

    Args:
      std_p, std_q, gap: scalars.
      bandwidth: s of the kernel.
      dim: D.
    """
    within = gaussian_overlap(2 * std_p**2, bandwidth, dim=dim) + gaussian_overlap(2 * std_q**2, bandwidth, dim=dim)
    return within - 2 * gaussian_overlap(std_p**2 + std_q**2, bandwidth, gap, dim)
