"""Kernel distance KID: the unbiased squared MMD of features under a polynomial kernel (1801.01401, section 4).

  k(x, y) = (x.y / D + 1)^3,
  MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j).

Unbiased at every sample size, unlike the Frechet distance.
"""

import numpy as np

from genjax.metrics.pairwise import as_pair, chunks


def polynomial_kernel(x, y, degree=3, gamma=None, coef=1.0):
    """(gamma x.y + coef)^degree as [N, M]; gamma is 1 / D where None."""
    gamma = 1.0 / x.shape[1] if gamma is None else gamma
    return (gamma * (x @ y.T) + coef) ** degree


def _kernel_sum(x, y, chunk=2048, **kernel):
    return sum(float(polynomial_kernel(x[rows], y, **kernel).sum()) for rows in chunks(len(x), chunk))


def _diagonal_sum(x, degree=3, gamma=None, coef=1.0):
    gamma = 1.0 / x.shape[1] if gamma is None else gamma
    return float(np.sum((gamma * np.sum(x * x, axis=1) + coef) ** degree))


def polynomial_mmd2(x, y, **kernel):
    """Unbiased squared MMD of x [N, ...] and y [M, ...]; it can be negative.

    Args:
      x, y: features, at least two rows each.
      **kernel: degree, gamma, coef of `polynomial_kernel`.
    """
    x, y = as_pair(x, y)
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"kid: expected at least 2 rows in each set, got {n} and {m}")
    within_x = (_kernel_sum(x, x, **kernel) - _diagonal_sum(x, **kernel)) / (n * (n - 1))
    within_y = (_kernel_sum(y, y, **kernel) - _diagonal_sum(y, **kernel)) / (m * (m - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y, **kernel) / (n * m)


def kid(x, y, subsets=100, subset_size=1000, seed=0, **kernel):
    """KID over random subsets.

    Args:
      x, y: features [N, ...] and [M, ...].
      subsets: number of pairs of subsets, drawn without replacement within a subset.
      subset_size: rows of each; at most min(N, M), which is used where it is larger.
      seed: of the subsets.

    Returns:
      (mean, standard deviation over the subsets), floats.
    """
    x, y = as_pair(x, y)
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"kid: expected subsets >= 1 and subset_size >= 2, got {subsets} and {subset_size}")
    size = min(subset_size, len(x), len(y))
    rng = np.random.default_rng(seed)
    values = [
        polynomial_mmd2(x[rng.permutation(len(x))[:size]], y[rng.permutation(len(y))[:size]], **kernel)
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))
