"""How many samples look real, and how much of the real data they cover, by nearest neighbours in features.

A set's manifold is the union of balls around its points, each reaching to the point's k-th
nearest neighbour within the set.
"""

from typing import NamedTuple

import numpy as np

from genjax.metrics.pairwise import as_pair, map_rows


class PrecisionRecall(NamedTuple):
    precision: float  # share of fakes inside the real manifold
    recall: float  # share of reals inside the fake manifold


class DensityCoverage(NamedTuple):
    density: float  # real balls that a fake lies in, over k: 1 for equal laws, may exceed 1
    coverage: float  # share of real balls that hold a fake


def knn_radii(x, k, chunk=1024):
    """Squared distance of each row of x [N, D] to its k-th nearest other row, [N]."""
    if not 1 <= k < len(x):
        raise ValueError(f"k: expected 1 <= k < {len(x)} (the rows), got {k}")

    def kth(square, rows):
        square[np.arange(len(square)), np.arange(rows.start, rows.stop)] = -1.0  # itself comes first, exactly
        return np.partition(square, k, axis=1)[:, k]

    return map_rows(kth, x, x, chunk)


def precision_recall(real, fake, k=3):
    """Improved precision and recall (1904.06991, section 3).

    Args:
      real, fake: features [N, ...] and [M, ...], more than k rows each.
      k: neighbour that sets the radius of a ball.
    """
    real, fake = as_pair(real, fake, ("real", "fake"))

    def inside(points, centers):
        radii = knn_radii(centers, k)
        return float(np.mean(map_rows(lambda square, _: (square <= radii[None]).any(axis=1), points, centers)))

    return PrecisionRecall(precision=inside(fake, real), recall=inside(real, fake))


def density_coverage(real, fake, k=5):
    """Density and coverage (2002.09797, section 3): precision and recall less moved by outliers.

    Args:
      real, fake: features [N, ...] and [M, ...]; more than k rows of reals.
      k: neighbour that sets the radius of a real ball.
    """
    real, fake = as_pair(real, fake, ("real", "fake"))
    radii = knn_radii(real, k)
    hits = map_rows(lambda square, _: (square <= radii[None]).sum(axis=1), fake, real)
    nearest = map_rows(lambda square, _: square.min(axis=1), real, fake)
    return DensityCoverage(density=float(np.mean(hits) / k), coverage=float(np.mean(nearest <= radii)))
