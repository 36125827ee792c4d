"""A mixture of Gaussians on an interval of the line, with quantiles, and generators that are quantile maps.

In one dimension the Wasserstein distance of two laws is the mean distance of their quantiles,
W1 = int_0^1 |F^-1(u) - G^-1(u)| du, so a generator that is a non-decreasing map of u ~ U(0, 1) has an exact risk.
"""

import numpy as np
from scipy.stats import norm


class TruncatedMixture:
    """sum_k w_k N(m_k, s_k^2) given that the draw lies in [low, high]; float64, on the host.

    Args:
      means, stds, weights: [K].
      low, high: of the interval.
    """

    def __init__(self, means, stds, weights, low=0.0, high=1.0):
        self.means, self.stds = np.asarray(means, np.float64), np.asarray(stds, np.float64)
        self.weights = np.asarray(weights, np.float64) / np.sum(weights)
        if not low < high:
            raise ValueError(f"low: expected low < high, got {low} and {high}")
        self.low, self.high = float(low), float(high)
        self._grid = np.linspace(self.low, self.high, 100_001)
        self._levels = self.cdf(self._grid)

    def _raw(self, x):
        z = (np.asarray(x, np.float64)[..., None] - self.means) / self.stds
        return norm.cdf(z) @ self.weights

    def cdf(self, x):
        """P(X <= x), like x."""
        inside = self._raw(np.clip(x, self.low, self.high)) - self._raw(self.low)
        return inside / (self._raw(self.high) - self._raw(self.low))

    def quantile(self, u):
        """F^-1(u), like u in [0, 1]; from a table of 100,001 points, good to the square of their distance."""
        return np.interp(u, self._levels, self._grid)

    def sample(self, rng, n):
        """n draws with a NumPy generator."""
        return self.quantile(rng.random(n))


def quantile_map(knots, u, low=0.0, high=1.0):
    """The piecewise-linear non-decreasing map of u in [0, 1] through `knots` [..., K] at u = 0, 1 / (K - 1), ..., 1.

    Knots are made monotone by a running maximum and clipped to [low, high]; [..., *u.shape] in that interval.
    """
    knots = np.clip(np.maximum.accumulate(np.asarray(knots, np.float64), axis=-1), low, high)
    flat = knots.reshape(-1, knots.shape[-1])
    found = np.stack([np.interp(u, np.linspace(0, 1, knots.shape[-1]), k) for k in flat])
    return found.reshape(*knots.shape[:-1], *np.shape(u))
