"""Comparing methods that were tuned: agreement of rankings, and what a budget of trials is expected to reach."""

import numpy as np


def kendall(x, y):
    """Kendall's tau-b of x [N] and y [N], in [-1, 1]: pairs in the same order less those in the other."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"kendall: expected two curves of at least 2 finite numbers, got shapes {x.shape}, {y.shape}")
    a, b = (np.sign(v[:, None] - v[None]) for v in (x, y))
    size = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.sum(a * b) / size) if size > 0 else 0.0


def failures_as_worst(values, worst):
    """`values` [N] with what is not finite, a run that diverged, as bad as `worst` and as the worst of the others."""
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    return np.where(finite, values, np.max(np.append(values[finite], worst)))


def expected_best(values):
    """Expected minimum of b trials drawn without replacement out of `values` [N], b = 1 ... N: the budget curve, [N].

    In closed form, sum_i x_(i) C(N - i, b - 1) / C(N, b) over the sorted values (1711.10337, section 5.1, where it
    is estimated by resampling). It falls, from the mean to the minimum.

    Args:
      values: [N] scores, smaller is better, all finite (see `failures_as_worst`).
    """
    from scipy.special import gammaln

    values = np.sort(np.asarray(values, np.float64))
    n = len(values)
    if values.ndim != 1 or n < 1 or not np.isfinite(values).all():
        raise ValueError(f"expected_best: expected finite scores [N], got shape {values.shape}")
    log_choose = lambda a, b: gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)
    curve = []
    for b in range(1, n + 1):
        i = np.arange(1, n - b + 2)  # the smallest of b trials is one of the first n - b + 1
        curve.append(np.sum(values[i - 1] * np.exp(log_choose(n - i, b - 1) - log_choose(n, b))))
    return np.array(curve)
