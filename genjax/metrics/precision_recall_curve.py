"""Precision and recall of distributions as a curve, from histograms over clusters (PRD, 1806.00035)."""

from typing import NamedTuple

import numpy as np

from genjax.metrics.pairwise import as_pair, map_rows


class PRCurve(NamedTuple):
    """Precision against recall, both [angles], and the two summary numbers."""

    precision: np.ndarray
    recall: np.ndarray
    f_recall: float  # best F_8: weighs recall
    f_precision: float  # best F_{1/8}: weighs precision


def prd_of_histograms(real, fake, angles=1001, beta=8.0):
    """The PRCurve of two histograms over the same states: alpha = sum min(l p, q), beta = sum min(p, q / l).

    Args:
      real, fake: p and q [K], counts or probabilities.
      angles: slopes l = tan(angle) on a grid in (0, pi / 2).
      beta: of the summary.
    """
    p, q = (np.asarray(h, np.float64) / np.sum(h) for h in (real, fake))
    if p.shape != q.shape or p.ndim != 1:
        raise ValueError(f"prd: expected two histograms of one shape [K], got {p.shape} and {q.shape}")
    slope = np.tan(np.linspace(1e-6, np.pi / 2 - 1e-6, angles))
    precision = np.minimum(slope[:, None] * p[None], q[None]).sum(axis=1)
    recall = precision / slope
    precision, recall = np.clip(precision, 0, 1), np.clip(recall, 0, 1)

    def best(b):
        weight = b * b
        top, bottom = (1 + weight) * precision * recall, weight * precision + recall
        return float(np.max(top / np.maximum(bottom, 1e-12)))

    return PRCurve(precision, recall, best(beta), best(1 / beta))


def _nearest(x, centers):
    return map_rows(lambda square, _: square.argmin(axis=1)[:, None], x, centers)[:, 0].astype(np.int64)


def _clusters(x, k, seed, steps=20):
    """Centers of k-means [k, D], from distinct rows (k-means++ weights)."""
    rng = np.random.default_rng(seed)
    centers = x[rng.integers(len(x))][None]
    for _ in range(k - 1):
        square = map_rows(lambda s, _: s.min(axis=1)[:, None], x, centers)[:, 0]
        weight = square / square.sum() if square.sum() > 0 else np.full(len(x), 1 / len(x))
        centers = np.concatenate([centers, x[rng.choice(len(x), p=weight)][None]])
    for _ in range(steps):
        index = _nearest(x, centers)
        for i in np.unique(index):
            centers[i] = x[index == i].mean(axis=0)
    return centers


def prd(real, fake, clusters=20, repeats=10, angles=1001, seed=0):
    """The PRCurve of features real, fake [N, D], averaged over k-means clusterings of their union.

    Args:
      real, fake: features; as many rows of each are used.
      clusters, repeats: states of a histogram, and how many clusterings.
    """
    real, fake = as_pair(real, fake, ("real", "fake"))
    n = min(len(real), len(fake))
    if clusters < 2 or clusters > 2 * n or repeats < 1:
        raise ValueError(f"clusters: expected 2 to {2 * n} clusters and repeats >= 1, got {clusters} and {repeats}")
    curves = []
    for i in range(repeats):
        rng = np.random.default_rng([seed, i])
        both = np.concatenate([real[rng.permutation(len(real))[:n]], fake[rng.permutation(len(fake))[:n]]])
        index = _nearest(both, _clusters(both, clusters, [seed, i]))
        count = lambda rows: np.bincount(rows, minlength=clusters)
        curves.append(prd_of_histograms(count(index[:n]), count(index[n:]), angles))
    mean = lambda name: np.mean([getattr(c, name) for c in curves], axis=0)
    return PRCurve(mean("precision"), mean("recall"), float(mean("f_recall")), float(mean("f_precision")))
