"""Kernels, the unbiased squared MMD and the witness function, differentiable, for games played in feature space.

A kernel is a function of x [N, F] and y [M, F] to [N, M]. The kernels of 1801.01401, section 3.3 and appendix B.
"""

import jax.numpy as jnp

from genjax.core.numerics import safe_norm


def _check(x, y):
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features: expected [N, F] and [M, F], got {x.shape} and {y.shape}")


def squared_distance(x, y):
    """|x_i - y_j|^2 [N, M], at least 0; exactly 0 on equal rows, with gradients that stay finite."""
    _check(x, y)
    return jnp.sum((x[:, None] - y[None]) ** 2, axis=-1)


def rq(alphas=(0.2, 0.5, 1.0, 2.0, 5.0), dot=0.0):
    """Mixture of rational quadratic kernels, sum_a (1 + |x - y|^2 / (2 a))^{-a}, plus dot times x.y (rq* for 1)."""
    if not alphas or min(alphas) <= 0:
        raise ValueError(f"alphas: expected numbers > 0, got {alphas}")

    def kernel(x, y):
        square = squared_distance(x, y)
        mixed = sum((1 + square / (2 * a)) ** -a for a in alphas)
        return mixed + dot * (x @ y.T) if dot else mixed

    return kernel


def rq_star(alphas=(0.2, 0.5, 1.0, 2.0, 5.0)):
    """rq plus the linear kernel, which keeps gradients where the sets are far apart."""
    return rq(alphas, dot=1.0)


def rbf(sigmas=(2.0, 5.0, 10.0, 20.0, 40.0, 80.0)):
    """Mixture of Gaussian kernels, sum_s exp(-|x - y|^2 / (2 s^2))."""
    if not sigmas or min(sigmas) <= 0:
        raise ValueError(f"sigmas: expected numbers > 0, got {sigmas}")

    def kernel(x, y):
        square = squared_distance(x, y)
        return sum(jnp.exp(-square / (2 * s * s)) for s in sigmas)

    return kernel


def linear():
    """x.y; the MMD is the distance of the means."""

    def kernel(x, y):
        _check(x, y)
        return x @ y.T

    return kernel


def distance():
    """|x| + |y| - |x - y|; the squared MMD is then the energy distance 2 E|x-y| - E|x-x'| - E|y-y'|."""

    def kernel(x, y):
        _check(x, y)
        gap = safe_norm(x[:, None] - y[None], axis=-1)
        return safe_norm(x, axis=-1)[:, None] + safe_norm(y, axis=-1)[None] - gap

    return kernel


KERNELS = {"rq": rq, "rq_star": rq_star, "rbf": rbf, "linear": linear, "distance": distance}


def off_diagonal_mean(matrix):
    """Mean over i != j of a square matrix [N, N]."""
    n = len(matrix)
    if n < 2:
        raise ValueError(f"mmd: expected at least 2 samples, got {n}")
    return (jnp.sum(matrix) - jnp.trace(matrix)) / (n * (n - 1))


def mmd2_unbiased(kernel, x, y):
    """Unbiased squared MMD of x [N, F] and y [M, F], a scalar that may be negative (1801.01401, equation 4)."""
    return off_diagonal_mean(kernel(x, x)) + off_diagonal_mean(kernel(y, y)) - 2 * jnp.mean(kernel(x, y))


def witness(kernel, at, x, y):
    """mean_i k(x_i, t) - mean_j k(y_j, t) at each t of `at` [T, F]: large where x is denser than y; [T]."""
    return jnp.mean(kernel(at, x), axis=1) - jnp.mean(kernel(at, y), axis=1)
