"""How well two curves of a training agree: moving averages and correlations, float64."""

import numpy as np


def _curve(values, name):
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"{name}: expected at least 2 finite numbers [N], got shape {values.shape}")
    return values


def moving_average(values, window):
    """Means of `window` neighbours, [N - window + 1]: no padding at the ends."""
    values = _curve(values, "values")
    if not 1 <= window <= len(values):
        raise ValueError(f"window: expected 1 to {len(values)}, got {window}")
    return np.convolve(values, np.full(window, 1 / window), mode="valid")


def pearson(x, y):
    """Linear correlation of x [N] and y [N], in [-1, 1]; 0 where one of them is constant."""
    x, y = _curve(x, "x"), _curve(y, "y")
    if len(x) != len(y):
        raise ValueError(f"y: expected {len(x)} numbers as in x, got {len(y)}")
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.clip(np.sum(x * y) / size, -1, 1)) if size > 0 else 0.0


def spearman(x, y):
    """Correlation of the ranks of x [N] and y [N], equal values sharing the mean of their ranks."""
    from scipy.stats import rankdata

    return pearson(rankdata(_curve(x, "x")), rankdata(_curve(y, "y")))
