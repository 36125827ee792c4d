"""Labels that the data give themselves (self-guidance, 2210.06462): clusters of features as classes for guidance."""

from typing import NamedTuple

import numpy as np

from genjax.metrics.pairwise import squared_distances


class SelfLabels(NamedTuple):
    """Clusters of a data set."""

    ids: np.ndarray  # [N] int32
    centroids: np.ndarray  # [K, D], of unit length
    frequencies: np.ndarray  # [K], sum 1: what to draw conditions from


def _unit(features):
    features = np.asarray(features, np.float64).reshape(len(features), -1)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def assign(features, centroids):
    """The cluster of each row, by cosine: int32 [N]."""
    return squared_distances(_unit(features), centroids).argmin(axis=1).astype(np.int32)


def self_label(features, count, seed=0, iterations=100):
    """k-means of features on the unit sphere: `SelfLabels`.

    Started by k-means++; an empty cluster takes the point that is farthest from its own.

    Args:
      features: [N, ...] of a self-supervised encoder.
      count: K, at most N.
      seed: of the start.
      iterations: at most; stops when nothing moves.

    Raises:
      ValueError: K out of range.
    """
    x = _unit(features)
    if not 1 <= count <= len(x):
        raise ValueError(f"count: expected from 1 to {len(x)} clusters (the rows), got {count}")
    rng = np.random.default_rng(seed)
    centers = x[rng.integers(len(x))][None]
    for _ in range(count - 1):
        near = squared_distances(x, centers).min(axis=1)
        share = near / near.sum() if near.sum() > 0 else np.full(len(x), 1 / len(x))
        centers = np.concatenate([centers, x[rng.choice(len(x), p=share)][None]])
    ids = None
    for _ in range(iterations):
        square = squared_distances(x, centers)
        new = square.argmin(axis=1)
        for empty in np.setdiff1d(np.arange(count), new):
            lonely = square[np.arange(len(x)), new].argmax()
            square[lonely], new[lonely] = 0.0, empty
        if ids is not None and np.array_equal(new, ids):
            break
        ids = new
        centers = _unit(np.stack([x[ids == k].mean(axis=0) for k in range(count)]))
    frequencies = np.bincount(ids, minlength=count) / len(ids)
    return SelfLabels(ids.astype(np.int32), centers, frequencies)


def draw_labels(rng, frequencies, n):
    """n clusters by their frequencies: int32 [n]; uniform draws would change the data's proportions."""
    return rng.choice(len(frequencies), n, p=frequencies).astype(np.int32)


def purity(ids, labels):
    """Share of rows whose class is the most frequent one of their cluster, in [0, 1]."""
    ids, labels = np.asarray(ids), np.asarray(labels)
    return float(sum(np.bincount(labels[ids == k]).max() for k in np.unique(ids)) / len(ids))
