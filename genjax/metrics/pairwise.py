"""Distances between every row of one set and every row of another, in chunks, in float64."""

import numpy as np


def as_vectors(x, name="x"):
    """x [N, ...] as float64 [N, D].

    Raises:
      ValueError: fewer than one row, or a value that is not finite.
    """
    x = np.asarray(x, np.float64)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{name}: expected at least one row, got shape {x.shape}")
    x = x.reshape(len(x), -1)
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: expected finite values, got {int((~np.isfinite(x)).sum())} that are not")
    return x


def as_pair(x, y, names=("x", "y")):
    """Two sets as float64 [N, D] and [M, D]; raises ValueError where D differs."""
    x, y = as_vectors(x, names[0]), as_vectors(y, names[1])
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{names[1]}: expected {x.shape[1]} values a row as in {names[0]}, got {y.shape[1]}")
    return x, y


def chunks(n, size):
    """Slices of at most `size` that cover range(n)."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def squared_distances(x, y):
    """|x_i - y_j|^2 as [N, M], never negative; for x [N, D], y [M, D] in float64."""
    # Centring first keeps the digits that |x|^2 + |y|^2 - 2 x.y would cancel far from the origin.
    center = y.mean(axis=0)
    x, y = x - center, y - center
    square = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1)[None] - 2 * (x @ y.T)
    return np.maximum(square, 0)


def map_rows(fn, x, y, chunk=1024):
    """`fn(squared distances of a chunk of x to all y, slice)` for each chunk, concatenated."""
    return np.concatenate([fn(squared_distances(x[rows], y), rows) for rows in chunks(len(x), chunk)])
