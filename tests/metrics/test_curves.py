"""Moving averages and correlations."""

import numpy as np
import pytest

from genjax.metrics.curves import moving_average, pearson, spearman


def test_moving_average():
    np.testing.assert_allclose(moving_average([1, 2, 6, 1], 3), [3, 3])
    np.testing.assert_allclose(moving_average([1, 2], 1), [1, 2])


def test_correlations():
    """A monotone map keeps ranks, not lines; ties share their rank. Catches a correlation of the wrong kind."""
    x = np.arange(1.0, 8)
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
    assert pearson(x, np.exp(x)) < 0.85
    assert pearson(x, 3 - 2 * x) == pytest.approx(-1)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)  # 3 / sqrt(10), by hand
    assert pearson(x, np.ones(7)) == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: moving_average([1, 2], 3), "window: expected 1 to 2, got 3"),
        (lambda: pearson([1, 2], [1, 2, 3]), "y: expected 2 numbers"),
        (lambda: spearman([1, np.nan], [1, 2]), "x: expected at least 2 finite"),
    ],
)
def test_bad_curves(call, message):
    with pytest.raises(ValueError, match=message):
        call()
