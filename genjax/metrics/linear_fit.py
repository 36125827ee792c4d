"""How much of one vector is a linear function of another: a decoder by ridge regression, judged on other rows."""

import numpy as np

from genjax.metrics.pairwise import as_pair


def linear_r2(x, y, test_x, test_y, ridge=1e-4):
    """R^2 on the test rows of the affine map from x to y that fits the others by least squares.

    1 - sum |y - f(x)|^2 / sum |y - mean y|^2, both over the test rows and all columns, in float64: 1 where y is an
    affine function of x, 0 where nothing but the mean is known, below 0 where the fit does not carry over.

    Args:
      x, test_x: what is read, [N, ...] and [M, ...].
      y, test_y: what is to be decoded, [N, ...] and [M, ...].
      ridge: penalty on the squared weights, relative to the N rows and to the mean variance of x's columns.

    Raises:
      ValueError: shapes that do not agree, a ridge that is not positive, test rows that are all the same.
    """
    x, test_x = as_pair(x, test_x, ("x", "test_x"))
    y, test_y = as_pair(y, test_y, ("y", "test_y"))
    if (len(x), len(test_x)) != (len(y), len(test_y)):
        raise ValueError(f"y: expected {len(x)} and {len(test_x)} rows as in x, got {len(y)} and {len(test_y)}")
    if not ridge > 0:
        raise ValueError(f"ridge: expected a number > 0, got {ridge}")
    mean, target = x.mean(axis=0), y.mean(axis=0)
    centered = x - mean
    gram = centered.T @ centered
    scale = np.trace(gram) / len(gram) or 1.0  # where x is constant any will do
    weights = np.linalg.solve(gram + ridge * scale * np.eye(len(gram)), centered.T @ (y - target))
    total = np.sum((test_y - test_y.mean(axis=0)) ** 2)
    if not total > 0:
        raise ValueError("test_y: expected rows that differ, got equal ones")
    return float(1 - np.sum(((test_x - mean) @ weights + target - test_y) ** 2) / total)
