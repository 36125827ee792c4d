"""The linear decoder's R^2 against closed forms."""

import numpy as np
import pytest

from genjax.metrics.linear_fit import linear_r2

X = np.random.default_rng(0).normal(size=(400, 3)) + 5
MAP = np.array([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]])


def test_affine_maps_are_found_and_need_not_carry_over():
    """Catches a lost offset, means of the wrong set, and a figure of the training rows: the test rows have others."""
    y = X @ MAP - 7
    test = 3 * X[:50] + 100
    assert linear_r2(X, y, test, test @ MAP - 7, ridge=1e-12) == pytest.approx(1, abs=1e-9)
    # where the sign is turned the error is 2 y and the ratio 4
    x = X[:, :1] - X[:, :1].mean()
    assert linear_r2(x, x, x, -x, ridge=1e-12) == pytest.approx(1 - 4)


def test_ridge_shrinks_by_its_share():
    """One column of x: the weight is that of least squares over 1 + ridge, whatever the scale and number of rows."""
    x = X[:, :1] - X[:, :1].mean()
    for scale, rows in ((1.0, 400), (1e3, 400), (1.0, 100)):
        part = x[:rows] - x[:rows].mean()
        got = linear_r2(scale * part, part, scale * part, part, ridge=0.25)
        assert got == pytest.approx(1 - (1 - 1 / 1.25) ** 2)


def test_what_is_noise_is_not_decoded():
    """y of variance 4, of which x explains 3; a constant x knows the mean alone."""
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, 40_000, 1))
    y = 3**0.5 * x + noise
    halves = slice(0, 20_000), slice(20_000, None)
    split = lambda a, b: linear_r2(a[halves[0]], b[halves[0]], a[halves[1]], b[halves[1]])
    assert split(x, y) == pytest.approx(0.75, abs=0.01)
    assert split(noise, x) == pytest.approx(0, abs=1e-3)
    first, rest = y[halves[0]], y[halves[1]]
    known = 1 - np.sum((rest - first.mean()) ** 2) / np.sum((rest - rest.mean()) ** 2)
    assert split(np.ones_like(x), y) == pytest.approx(known) and known < 0


def test_images_are_rows():
    """[N, H, W, C] on both sides, as columns in one order."""
    x = np.random.default_rng(2).normal(size=(60, 2, 2, 3))
    y = x[:, ::-1, :, :2]
    assert linear_r2(x[:40], y[:40], x[40:], y[40:], ridge=1e-12) == pytest.approx(1, abs=1e-9)


def test_bad_input():
    y = X[:, :2]
    for given, message in (
        ((X, y, X[:, :2], y), "test_x: expected 3 values a row as in x, got 2"),
        ((X, y, X, X), "test_y: expected 2 values a row as in y, got 3"),
        ((X, y[:9], X[:9], y[:9]), "y: expected 400 and 9 rows as in x, got 9 and 9"),
        ((X, y, X[:9], y), "y: expected 400 and 9 rows as in x, got 400 and 400"),
        ((X, np.where(y > 5, np.nan, y), X, y), "y: expected finite values"),
        ((X, y, X, np.ones_like(y)), "test_y: expected rows that differ"),
        ((X, y, X, y, 0.0), "ridge: expected a number > 0, got 0.0"),
        ((X, y, X, y, float("nan")), "ridge: expected a number > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_r2(*given)
