"""Budgets of trials, agreement of rankings, and what a linear layer knows."""

import itertools

import numpy as np
import pytest

from genjax.metrics.probe import linear_probe
from genjax.metrics.ranking import expected_best, failures_as_worst, kendall


def test_expected_best_is_the_mean_over_all_choices():
    """Every subset counted. Catches draws with replacement, and a curve off by one."""
    values = np.array([3.0, 1.0, 7.0, 1.5, 2.0])
    by_hand = [np.mean([min(c) for c in itertools.combinations(values, b)]) for b in range(1, 6)]
    np.testing.assert_allclose(expected_best(values), by_hand)
    np.testing.assert_allclose(expected_best([2.0]), [2.0])
    np.testing.assert_array_equal(failures_as_worst([1.0, np.nan, np.inf, 9.0], 5.0), [1.0, 9.0, 9.0, 9.0])
    assert failures_as_worst(np.nan, 5.0) == 5.0
    with pytest.raises(ValueError, match="finite scores"):
        expected_best([1.0, np.nan])


def test_kendall():
    """Against the library, with ties; a swap of neighbours in four takes 2 of 6 pairs."""
    from scipy.stats import kendalltau

    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 2 / 6)
    assert kendall([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)
    assert kendall([1, 2, 3], [1, 1, 1]) == 0
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 20), rng.integers(0, 6, 20)
    assert kendall(x, y) == pytest.approx(kendalltau(x, y).statistic)
    with pytest.raises(ValueError, match="kendall: expected"):
        kendall([1, 2], [1, np.inf])


def test_linear_probe():
    """Separable classes are found, classes inside each other are not; a far feature and a constant one do no harm."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 600)
    centers = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    x = centers[label] + 0.3 * rng.normal(size=(600, 2))
    x = np.concatenate([1e3 + x, np.ones((600, 1))], axis=1)
    assert linear_probe(x[:300], label[:300], x[300:], label[300:]) == 1.0
    radius = np.where(label == 0, 1.0, 3.0)
    angle = rng.uniform(0, 2 * np.pi, 600)
    rings = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    within = linear_probe(rings[:300], (label > 0)[:300].astype(int), rings[300:], (label > 0)[300:].astype(int))
    assert within == pytest.approx(np.mean(label[300:] > 0), abs=0.05)  # the larger class, always
    with pytest.raises(ValueError, match="labels: expected 300 and 300 labels"):
        linear_probe(x[:300], label[:299], x[300:], label[300:])
