"""How many of the modes of a set with very many of them samples reach, by a classifier's word."""

from typing import NamedTuple

import numpy as np

from genjax.metrics.modes import histogram_kl


class ModeCount(NamedTuple):
    """Which modes samples fall into."""

    modes: int  # modes with at least one sample
    kl: float  # KL of their histogram from the expected one, in nats
    histogram: np.ndarray  # [K] samples of each


def mode_count(labels, num_modes, weights=None):
    """Modes and KL of the labels [N] that a classifier gives samples (1611.02163, section 3.3.2).

    Args:
      labels: whole numbers in 0 ... num_modes - 1.
      num_modes: K.
      weights: [K] expected shares, even where None; a real set of N samples has a KL of its own, say it beside.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.min() < 0 or labels.max() >= num_modes:
        raise ValueError(f"labels: expected numbers in 0 ... {num_modes - 1}, got shape {labels.shape}")
    histogram = np.bincount(labels, minlength=num_modes)
    return ModeCount(int((histogram > 0).sum()), histogram_kl(histogram, weights), histogram)


def stacked_labels(digits):
    """Labels 0 ... 999 of stacks from the labels [3 N] of their digits, channel by channel in turn."""
    digits = np.asarray(digits).reshape(-1, 3)
    return digits @ np.array([100, 10, 1])


def class_entropy(labels, num_classes):
    """Entropy in nats of the histogram of labels [N]; log num_classes at the most."""
    share = np.bincount(np.asarray(labels), minlength=num_classes) / len(labels)
    return max(0.0, float(-np.sum(share[share > 0] * np.log(share[share > 0]))))
