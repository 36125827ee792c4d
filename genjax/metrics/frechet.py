"""Frechet distance between Gaussians fitted to features (1706.08500, eq. 6).

  d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^{1/2} C2 C1^{1/2})^{1/2})

The matrix inside the root is symmetric positive semi-definite, so two symmetric
eigendecompositions in float64 suffice, and covariances of less than full rank need no jitter.
"""

from typing import NamedTuple

import numpy as np

from genjax.metrics.pairwise import as_vectors


class Stats(NamedTuple):
    """Mean and covariance of `count` feature vectors, float64."""

    mean: np.ndarray  # [D]
    cov: np.ndarray  # [D, D], divided by count - 1
    count: int


def gaussian_stats(features):
    """The Stats of features [N, ...], N >= 2.

    Raises:
      ValueError: fewer than two rows, or values that are not finite.
    """
    features = as_vectors(features, "features")
    n = len(features)
    if n < 2:
        raise ValueError(f"features: expected at least 2 rows for a covariance, got {n}")
    mean = features.mean(axis=0)
    centred = features - mean
    return Stats(mean, centred.T @ centred / (n - 1), n)


def merge_stats(a, b):
    """The Stats of the union of two disjoint sets, from their Stats alone."""
    n = a.count + b.count
    gap = b.mean - a.mean
    between = np.outer(gap, gap) * (a.count * b.count / n)
    cov = ((a.count - 1) * a.cov + (b.count - 1) * b.cov + between) / (n - 1)
    return Stats(a.mean + gap * (b.count / n), cov, n)


def _symmetric_sqrt(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def gaussian_frechet(mean_a, cov_a, mean_b, cov_b):
    """Squared Frechet (2-Wasserstein) distance of N(mean_a, cov_a) and N(mean_b, cov_b), a float >= 0.

    Args:
      mean_a, mean_b: [D].
      cov_a, cov_b: [D, D], symmetric positive semi-definite, singular allowed.
    """
    mean_a, mean_b = np.asarray(mean_a, np.float64), np.asarray(mean_b, np.float64)
    cov_a, cov_b = np.asarray(cov_a, np.float64), np.asarray(cov_b, np.float64)
    if mean_a.shape != mean_b.shape or cov_a.shape != cov_b.shape or cov_a.shape != 2 * mean_a.shape:
        shapes = [m.shape for m in (mean_a, cov_a, mean_b, cov_b)]
        raise ValueError(f"frechet: expected two means [D] and two covariances [D, D], got shapes {shapes}")
    root = _symmetric_sqrt(cov_a)
    values = np.linalg.eigvalsh(root @ cov_b @ root)
    cross = np.sum(np.sqrt(np.maximum(values, 0)))
    distance = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    return float(max(distance, 0.0))


def frechet_distance(a, b):
    """Frechet distance of two feature sets.

    Args:
      a, b: features [N, ...], or the Stats of such (cached statistics of a data set).

    Returns:
      The squared distance as a float, as FID is quoted. It is biased upwards by about
      (1/N + 1/M) times a constant of the features: compare at equal counts only.
    """
    a, b = (s if isinstance(s, Stats) else gaussian_stats(s) for s in (a, b))
    return gaussian_frechet(a.mean, a.cov, b.mean, b.cov)
