"""Toys with known modes, and histograms: which modes are hit, how evenly, how far two histograms are apart."""

from typing import NamedTuple

import numpy as np

from genjax.metrics.pairwise import as_pair, map_rows


class ModeReport(NamedTuple):
    """How well samples cover the modes of a known law."""

    covered: int  # modes with at least one sample close by
    high_quality: float  # share of samples close to any mode
    kl: float  # KL of the histogram of close samples from `weights`, in nats


def nearest_mode(x, modes):
    """Index of the nearest mode and the distance to it, both [N], for x [N, D] and modes [K, D]."""
    x, modes = as_pair(x, modes, ("x", "modes"))
    found = map_rows(lambda square, _: np.stack([square.argmin(1), np.sqrt(square.min(1))], axis=1), x, modes)
    return found[:, 0].astype(np.int64), found[:, 1]


def mode_report(x, modes, std, within=3.0, weights=None):
    """Coverage of known modes (counted as in 1705.07761).

    Args:
      x: samples [N, D].
      modes: [K, D].
      std: standard deviation of a mode; a sample within `within` times it is close (high quality).
      weights: [K] shares expected of the modes, uniform where None.

    Returns:
      ModeReport. Its kl is infinite where no sample is close, log K where all are at one of K equal modes.
    """
    index, distance = nearest_mode(x, modes)
    close = index[distance <= within * std]
    count = np.bincount(close, minlength=len(modes))
    return ModeReport(int((count > 0).sum()), len(close) / len(index), histogram_kl(count, weights))


def histogram_kl(counts, weights=None):
    """KL(counts / sum || weights) in nats; `weights` uniform where None; infinite where all counts are 0."""
    counts = np.asarray(counts, np.float64)
    q = np.full(counts.shape, 1 / counts.size) if weights is None else np.asarray(weights, np.float64)
    if counts.sum() == 0:
        return float("inf")
    p, q = counts / counts.sum(), q / q.sum()
    seen = p > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(p[seen] * (np.log(p[seen]) - np.log(q[seen]))))


def total_variation(p, q):
    """Total variation 1/2 sum |p - q| of two histograms (counts or probabilities) of one shape, in [0, 1]."""
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if p.shape != q.shape:
        raise ValueError(f"total_variation: expected histograms of one shape, got {p.shape} and {q.shape}")
    if min(p.min(), q.min()) < 0 or min(p.sum(), q.sum()) <= 0:
        raise ValueError("total_variation: expected histograms >= 0 with a positive sum")
    return float(0.5 * np.abs(p / p.sum() - q / q.sum()).sum())


def histogram_tv(x, y, bins=32, bounds=None):
    """Total variation of the histograms of two point sets x [N, D], y [M, D] on a grid.

    Args:
      bins: cells along each axis.
      bounds: (low, high) of every axis; None takes the range of both sets. Points outside are
        clipped to the border cells, so that no mass is lost.
    """
    x, y = as_pair(x, y)
    low, high = (min(x.min(), y.min()), max(x.max(), y.max())) if bounds is None else bounds
    edges = [np.linspace(low, high, bins + 1)] * x.shape[1]
    return total_variation(*(np.histogramdd(np.clip(s, low, high), edges)[0] for s in (x, y)))
