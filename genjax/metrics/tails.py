"""Tails of samples: the Hill estimate of their index, and the comparison with a bound on them."""

import numpy as np
from scipy.stats import binom, norm


def hill(x, k):
    """Hill's estimate of the tail index a of |x|, where P(|x| > t) ~ t^-a, from the k largest of x [N].

    1 / mean(log(|x|_(i) / |x|_(k + 1))). Light tails give numbers that grow as k / N falls.

    Raises:
      ValueError: k below 1 or not below N, or fewer than k + 1 numbers other than 0.
    """
    x = np.abs(np.ravel(np.asarray(x, np.float64)))
    if not 1 <= k < len(x):
        raise ValueError(f"k: expected a whole number in [1, {len(x) - 1}], got {k}")
    top = np.sort(x)[-k - 1 :]
    if not top[0] > 0:
        raise ValueError(f"x: expected at least {k + 1} numbers other than 0")
    return float(1 / np.mean(np.log(top[1:] / top[0])))


def tail_excess(x, bound, center="mean", points=60):
    """How clearly samples contradict a bound on P(|x - centre| >= t), in standard deviations of a normal law.

    At each of `points` values of t between the median of |x - centre| and its maximum, the count of samples beyond t
    is compared with the binomial law at the bound: the returned number is the largest z such that a count as high
    has probability norm.sf(z) or less. Above 3 is a violation (the single test's level is 0.00135).

    Args:
      x: [N].
      bound: t [M] -> bound on the probability [M].
      center: "mean" or "median".
    """
    x = np.ravel(np.asarray(x, np.float64))
    if center not in ("mean", "median"):
        raise ValueError(f"center: expected 'mean' or 'median', got {center!r}")
    away = np.sort(np.abs(x - (x.mean() if center == "mean" else np.median(x))))
    if not away[-1] > 0:
        return -np.inf
    low = max(np.median(away), 1e-9 * away[-1])
    t = np.geomspace(low, away[-1], points)
    t[-1] = away[-1]
    count = len(away) - np.searchsorted(away, t, side="left")
    with np.errstate(divide="ignore"):
        log_tail = binom.logsf(count - 1, len(away), np.clip(bound(t), 0, 1))
    return float(np.max(norm.isf(np.exp(np.maximum(log_tail, -700)))))
