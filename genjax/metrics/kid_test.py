"""Is one model's sample nearer to the data than another's? The three-sample test of relative similarity.

For X (data), Y and Z (samples of two models) the difference of unbiased squared MMDs under KID's kernel is
asymptotically normal with a variance that the same kernel matrices estimate (1511.04581, section 4; its use to
lower learning rates: 1801.01401, section 5).

The variances of row means alone count what belongs to a pair of samples once in each of its two rows: for KID's kernel
in 16 dimensions a standard deviation 1.4 times the true one, at any count. So one of the two is taken off again.
"""

from math import erfc, sqrt
from typing import NamedTuple

import numpy as np

from genjax.metrics.kid import polynomial_kernel
from genjax.metrics.pairwise import as_vectors


class Comparison(NamedTuple):
    """Of Y and Z with X."""

    difference: float  # MMD^2(X, Y) - MMD^2(X, Z): negative where Y is nearer
    std: float  # standard deviation of the difference
    p_value: float  # one-sided, small where Z is nearer to X than Y is (the null: Y is at least as near)


def _row_means(k):
    """Mean over j != i of each row of a square kernel matrix."""
    return (k.sum(axis=1) - np.diag(k)) / (len(k) - 1)


def _of_pairs(k):
    """Variance of what neither the row nor the column explains, of a kernel matrix [N, N] between two samples."""
    gap = k - k.mean(axis=1, keepdims=True) - k.mean(axis=0, keepdims=True) + k.mean()
    return np.sum(gap**2) / (len(k) - 1) ** 2


def _of_own_pairs(k):
    """The same of a symmetric kernel matrix [N, N] of one sample, its diagonal left out; N >= 4."""
    n, rows = len(k), _row_means(k)
    effect = (rows - rows.mean()) * (n - 1) / (n - 2)
    gap = k - rows.mean() - effect[:, None] - effect[None]
    return (np.sum(gap**2) - np.sum(np.diag(gap) ** 2)) / (n * (n - 3))


def three_sample_test(x, y, z, **kernel):
    """The Comparison of samples y and z with data x, by features [N, D] of equal counts.

    Args:
      x, y, z: features, equally many rows, at least 4.
      **kernel: degree, gamma, coef of KID's kernel.
    """
    x, y, z = (as_vectors(a, name) for a, name in ((x, "x"), (y, "y"), (z, "z")))
    n = len(x)
    if not x.shape == y.shape == z.shape or n < 4:
        raise ValueError(f"three_sample_test: expected three sets of one shape, got {x.shape}, {y.shape}, {z.shape}")
    k = lambda a, b: polynomial_kernel(a, b, **kernel)
    yy, zz, xy, xz = k(y, y), k(z, z), k(x, y), k(x, z)
    # the terms in X alone cancel: MMD^2(X, Y) - MMD^2(X, Z) = yy - 2 xy - zz + 2 xz
    difference = _row_means(yy).mean() - _row_means(zz).mean() - 2 * xy.mean() + 2 * xz.mean()
    # projections onto single samples (Hoeffding): what each row of X, of Y and of Z contributes
    of_x = 2 * (xz.mean(axis=1) - xy.mean(axis=1))
    of_y = 2 * (_row_means(yy) - xy.mean(axis=0))
    of_z = 2 * (xz.mean(axis=0) - _row_means(zz))
    rows = sum(part.var(ddof=1) / n for part in (of_x, of_y, of_z))
    pairs = 4 * (_of_pairs(xy) + _of_pairs(xz)) / n**2 + 2 * (_of_own_pairs(yy) + _of_own_pairs(zz)) / (n * (n - 1))
    std = float(np.sqrt(max(rows - pairs, rows / 2)))  # rows holds pairs twice: what is left is at least its half
    score = difference / std if std > 0 else 0.0
    return Comparison(float(difference), std, 0.5 * erfc(score / sqrt(2)))
