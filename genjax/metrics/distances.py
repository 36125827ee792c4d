"""Distances between two sets of points, exact or with fixed directions, in float64.

Points are [N, ...] and flattened to [N, D]. Wasserstein distances are returned as W, not W^2.
"""

import numpy as np

from genjax.metrics.pairwise import as_pair, chunks, map_rows, squared_distances


def wasserstein_1d(x, y, p=2):
    """W_p of two sets of numbers x [N], y [M], from their sorted values (sizes may differ)."""
    x, y = as_pair(np.ravel(x), np.ravel(y))
    x, y = np.sort(x[:, 0]), np.sort(y[:, 0])
    if len(x) == len(y):
        return float(np.mean(np.abs(x - y) ** p) ** (1 / p))
    # The quantile functions are steps; between two neighbouring steps both are constant. Whole
    # numbers keep the edges exact: i / N and j / M as i M and j N.
    edges = np.union1d(np.arange(len(x) + 1) * len(y), np.arange(len(y) + 1) * len(x))
    left = edges[:-1]
    gap = np.abs(x[left // len(y)] - y[left // len(x)])
    return float((np.sum(np.diff(edges) * gap**p) / (len(x) * len(y))) ** (1 / p))


def wasserstein2(x, y):
    """Exact W2 of two sets of equal size, by optimal assignment; O(N^3), for N up to some thousands.

    Raises:
      ValueError: sets of different size.
    """
    from scipy.optimize import linear_sum_assignment

    x, y = as_pair(x, y)
    if len(x) != len(y):
        raise ValueError(f"wasserstein2: expected sets of equal size, got {len(x)} and {len(y)}")
    row, column = linear_sum_assignment(squared_distances(x, y))
    # summed from the points, not from the cost table, so that equal sets give exactly 0
    return float(np.sqrt(np.mean(np.sum((x[row] - y[column]) ** 2, axis=1))))


def wasserstein1(x, y):
    """Exact W1 (Euclidean cost) of two sets of equal size, by optimal assignment; as `wasserstein2`.

    For sets drawn from two laws its mean is an upper bound of their W1, and falls with the size of the sets.
    """
    from scipy.optimize import linear_sum_assignment

    x, y = as_pair(x, y)
    if len(x) != len(y):
        raise ValueError(f"wasserstein1: expected sets of equal size, got {len(x)} and {len(y)}")
    row, column = linear_sum_assignment(np.sqrt(squared_distances(x, y)))
    return float(np.mean(np.linalg.norm(x[row] - y[column], axis=1)))


def directions(dim, num, seed=0):
    """`num` unit vectors [num, dim] of a fixed seed, in orthogonal blocks (less variance than independent ones)."""
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(-(-num // dim)):
        q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
        blocks.append((q * np.sign(np.diag(r))).T)
    return np.concatenate(blocks)[:num]


def sliced_wasserstein2(x, y, num=256, seed=0):
    """Sliced W2: root of the mean squared 1-D W2 over `num` fixed directions.

    For a translation by a it tends to |a| / sqrt(D), and equals it where D divides `num`.
    """
    x, y = as_pair(x, y)
    squares = [wasserstein_1d(x @ u, y @ u) ** 2 for u in directions(x.shape[1], num, seed)]
    return float(np.sqrt(np.mean(squares)))


def median_bandwidth(x, y, limit=2000, seed=0):
    """Median distance between different points of the union of x and y (at most `limit` of them)."""
    both = np.concatenate(as_pair(x, y))
    if len(both) > limit:
        both = both[np.random.default_rng(seed).permutation(len(both))[:limit]]
    return float(np.sqrt(np.median(squared_distances(both, both)[np.triu_indices(len(both), 1)])))


def rbf_mmd2(x, y, bandwidth=None):
    """Unbiased squared MMD under exp(-|x - y|^2 / (2 h^2)); it can be negative.

    Args:
      x, y: points [N, ...] and [M, ...], at least two rows each.
      bandwidth: h, or several of them (their kernels are averaged); None takes the median distance.
    """
    x, y = as_pair(x, y)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"rbf_mmd2: expected at least 2 rows in each set, got {len(x)} and {len(y)}")
    widths = np.atleast_1d(median_bandwidth(x, y) if bandwidth is None else bandwidth).astype(np.float64)
    if not (widths > 0).all():
        raise ValueError(f"bandwidth: expected numbers > 0, got {widths.tolist()}")

    def mean(a, b, same):
        total = 0.0
        for rows in chunks(len(a), 1024):
            square = squared_distances(a[rows], b)
            kernel = np.mean([np.exp(-square / (2 * h * h)) for h in widths], axis=0)
            total += kernel.sum()
            if same:
                total -= np.trace(kernel[:, rows])
        return total / (len(a) * (len(b) - 1 if same else len(b)))

    return float(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False))


def energy_distance(x, y):
    """Energy distance sqrt(2 E|X - Y| - E|X - X'| - E|Y - Y'|) of the two empirical laws (V-statistic, >= 0)."""
    x, y = as_pair(x, y)

    def mean(a, b):
        return float(np.mean(map_rows(lambda square, _: np.sqrt(square).mean(axis=1), a, b)))

    return float(np.sqrt(max(2 * mean(x, y) - mean(x, x) - mean(y, y), 0.0)))


def permutation_test(statistic, x, y, permutations=200, seed=0):
    """p-value of `statistic(x, y)` (larger: more different) against relabelled unions, in (0, 1].

    Under equal laws it is uniform up to steps of 1 / (permutations + 1).
    """
    x, y = as_pair(x, y)
    both, n = np.concatenate([x, y]), len(x)
    observed = statistic(x, y)
    rng = np.random.default_rng(seed)
    orders = (rng.permutation(len(both)) for _ in range(permutations))
    larger = sum(statistic(both[order[:n]], both[order[n:]]) >= observed for order in orders)
    return (1 + larger) / (1 + permutations)
