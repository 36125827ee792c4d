"""Distances of point sets against translations and closed forms."""

import numpy as np
import pytest

from genjax.metrics import (
    energy_distance,
    permutation_test,
    rbf_mmd2,
    sliced_wasserstein2,
    wasserstein2,
    wasserstein_1d,
)
from genjax.metrics.distances import directions, median_bandwidth
from genjax.metrics.pairwise import squared_distances


def test_squared_distances_far_from_the_origin():
    # catches the cancellation of |x|^2 + |y|^2 - 2 x.y: without centring the error here is near 1e-2
    x, y = np.random.default_rng(0).standard_normal((2, 30, 3))
    exact = ((x[:, None] - y[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared_distances(x + 1e7, y + 1e7), exact, atol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_1d_translation(p):
    x = np.random.default_rng(1).standard_normal(100)
    assert wasserstein_1d(x, x[::-1] + 2.5, p) == pytest.approx(2.5, rel=1e-12)


def test_1d_sizes_differ():
    # a set against itself repeated is at distance 0; 2 against 3 points by hand
    x = np.random.default_rng(2).standard_normal(7)
    assert wasserstein_1d(x, np.repeat(x, 3)) == pytest.approx(0, abs=1e-12)
    # quantiles of {0, 1} and {0, 1, 2}: 0-0 (1/3), 0-1 (1/6), 1-1 (1/6), 1-2 (1/3)
    assert wasserstein_1d([0, 1], [0, 1, 2], 1) == pytest.approx(1 / 6 + 1 / 3)
    assert wasserstein_1d([0, 1], [0, 1, 2], 2) == pytest.approx(np.sqrt(0.5))


def test_w2_translation_and_permutation():
    rng = np.random.default_rng(3)
    x, shift = rng.standard_normal((60, 3)), np.array([1.0, -2.0, 0.5])
    assert wasserstein2(x, x[rng.permutation(60)] + shift) == pytest.approx(np.linalg.norm(shift), rel=1e-12)
    assert wasserstein2(x, x) == 0.0


def test_w2_equals_sorting_in_one_dimension():
    x, y = np.random.default_rng(4).standard_normal((2, 80))
    assert wasserstein2(x[:, None], y[:, None]) == pytest.approx(wasserstein_1d(x, y), rel=1e-12)


def test_w2_of_gaussians():
    # W2(N(0,1), N(m, s^2))^2 = m^2 + (s-1)^2, from quantile points that have no sampling noise
    from scipy.stats import norm

    z = norm.ppf((np.arange(2000) + 0.5) / 2000)
    assert wasserstein_1d(z, 1.5 + 2 * z) == pytest.approx(np.sqrt(1.5**2 + 1), rel=2e-3)


def test_w2_needs_equal_sizes():
    with pytest.raises(ValueError, match="equal size, got 3 and 4"):
        wasserstein2(np.zeros((3, 2)), np.zeros((4, 2)))


def test_directions_are_unit_and_fixed():
    u = directions(5, 12)
    assert u.shape == (12, 5)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1)
    np.testing.assert_allclose(u[:5] @ u[:5].T, np.eye(5), atol=1e-12)
    np.testing.assert_array_equal(u, directions(5, 12))


def test_sliced_w2_of_a_translation():
    # mean of (a.u)^2 over an orthonormal block is |a|^2 / D exactly
    x, a = np.random.default_rng(5).standard_normal((40, 4)), np.array([1.0, 2, -1, 0.5])
    assert sliced_wasserstein2(x, x[::-1] + a, num=64) == pytest.approx(np.linalg.norm(a) / 2, rel=1e-12)


def test_sliced_w2_is_below_w2():
    x, y = np.random.default_rng(6).standard_normal((2, 50, 3))
    assert 0 < sliced_wasserstein2(x, y) <= wasserstein2(x, y)


def test_energy_distance_of_gaussians_in_one_dimension():
    # D^2 = 2 E|X-Y| - E|X-X'| - E|Y-Y'| with E|N(m, v)| in closed form, on quantile points
    from scipy.stats import norm

    def mean_abs(m, v):
        s = np.sqrt(v)
        return s * np.sqrt(2 / np.pi) * np.exp(-(m**2) / (2 * v)) + m * (1 - 2 * norm.cdf(-m / s))

    z = norm.ppf((np.arange(2000) + 0.5) / 2000)
    square = 2 * mean_abs(1.0, 1 + 4) - mean_abs(0, 2) - mean_abs(0, 8)
    assert energy_distance(z, 1 + 2 * z) == pytest.approx(np.sqrt(square), rel=5e-3)
    assert energy_distance(z, z) == pytest.approx(0, abs=1e-6)


def test_energy_distance_of_two_points():
    assert energy_distance([[0.0, 0]], [[3.0, 4]]) == pytest.approx(np.sqrt(10))


def test_energy_distance_is_the_cdf_integral():
    # in one dimension D^2 = 2 int (F - G)^2
    x, y = np.array([0.0, 1.0, 4.0]), np.array([0.5, 2.0])
    points = np.sort(np.concatenate([x, y]))
    cdf = lambda s, t: (s[:, None] <= t[None]).mean(0)
    integral = np.sum((cdf(x, points[:-1]) - cdf(y, points[:-1])) ** 2 * np.diff(points))
    assert energy_distance(x, y) == pytest.approx(np.sqrt(2 * integral), rel=1e-12)


def test_rbf_mmd_expectation():
    # N(0,1) against N(m,1): E exp(-d^2/2h^2) = sqrt(h^2/(h^2+2)) exp(-m^2/(2(h^2+2)))
    h, m = 1.3, 1.0
    scale = np.sqrt(h * h / (h * h + 2))
    expected = 2 * scale * (1 - np.exp(-m * m / (2 * (h * h + 2))))
    rng = np.random.default_rng(7)
    draws = [rbf_mmd2(rng.standard_normal((50, 1)), m + rng.standard_normal((60, 1)), h) for _ in range(400)]
    assert np.mean(draws) == pytest.approx(expected, abs=4 * np.std(draws) / 20)


def test_rbf_mmd_same_law_and_chunks():
    rng = np.random.default_rng(8)
    draws = np.array([rbf_mmd2(*rng.standard_normal((2, 12, 2)), 1.0) for _ in range(1000)])
    assert abs(draws.mean()) < 4 * draws.std() / np.sqrt(1000)
    # more rows than one chunk: against the whole table at once
    x, y = rng.standard_normal((1500, 2)), rng.standard_normal((1100, 2))
    k = lambda a, b: np.exp(-squared_distances(a, b) / 2)
    xx, yy = (k(s, s) for s in (x, y))
    n, m = len(x), len(y)
    expected = (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1)) - 2 * k(x, y).mean()
    assert rbf_mmd2(x, y, 1.0) == pytest.approx(expected, abs=1e-12)


def test_bandwidths():
    x = np.array([[0.0], [1.0]])
    assert median_bandwidth(x, np.array([[3.0]])) == pytest.approx(2.0)  # distances 1, 3, 2
    y = np.array([[0.5], [4.0]])
    one, two = rbf_mmd2(x, y, 1.0), rbf_mmd2(x, y, 2.0)
    assert rbf_mmd2(x, y, [1.0, 2.0]) == pytest.approx((one + two) / 2)
    assert rbf_mmd2(x, y) == pytest.approx(rbf_mmd2(x, y, median_bandwidth(x, y)))
    with pytest.raises(ValueError, match="bandwidth"):
        rbf_mmd2(x, y, 0.0)
    with pytest.raises(ValueError, match="at least 2 rows"):
        rbf_mmd2(x, y[:1])


def test_permutation_test_level_and_power():
    rng = np.random.default_rng(9)
    gap = lambda a, b: abs(a.mean() - b.mean())
    p = [permutation_test(gap, *rng.standard_normal((2, 15, 1)), permutations=39, seed=i) for i in range(300)]
    assert 0.02 < np.mean(np.array(p) <= 0.1) < 0.18 and min(p) >= 1 / 40
    assert permutation_test(gap, np.zeros((20, 1)), np.ones((20, 1))) == pytest.approx(1 / 201, rel=0.5)


def test_not_finite_is_refused():
    with pytest.raises(ValueError, match="x: expected finite values, got 1"):
        energy_distance([[np.nan], [0.0]], [[0.0]])
