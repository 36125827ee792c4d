"""KID, Inception Score, precision/recall, density/coverage and mode reports on constructed sets."""

import numpy as np
import pytest

from genjax.metrics import (
    density_coverage,
    histogram_kl,
    histogram_tv,
    inception_score,
    kid,
    mode_report,
    polynomial_mmd2,
    precision_recall,
    total_variation,
)
from genjax.metrics.precision_recall import knn_radii


def test_kid_by_hand():
    # the double sums written out; catches a diagonal left in
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    k = lambda a, b: (a @ b / 3 + 1) ** 3
    xx = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert polynomial_mmd2(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-10)


def test_kid_is_unbiased():
    # same law: the mean over many small draws is 0 within its standard error, where the biased form
    # (diagonal kept) would be off by E k(x,x) (2/n) = 30 standard errors
    rng = np.random.default_rng(1)
    values = np.array([polynomial_mmd2(*rng.standard_normal((2, 10, 2))) for _ in range(3000)])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 4 * error
    assert (values < 0).mean() > 0.3


def test_kid_expectation_of_a_shift():
    # one dimension, X = N(0,1), Y = N(m,1): E(xy+1)^3 in closed form from moments
    m, n = 1.0, 400
    second, third = lambda a: 1 + a * a, lambda a: 3 * a + a**3
    kernel = lambda a, b: third(a) * third(b) + 3 * second(a) * second(b) + 3 * a * b + 1
    expected = kernel(0, 0) + kernel(m, m) - 2 * kernel(0, m)
    rng = np.random.default_rng(2)
    draws = [polynomial_mmd2(rng.standard_normal((n, 1)), m + rng.standard_normal((n, 1))) for _ in range(200)]
    assert np.mean(draws) == pytest.approx(expected, abs=4 * np.std(draws) / np.sqrt(200))


def test_kid_subsets():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((300, 4)), rng.standard_normal((200, 4)) + 1
    mean, std = kid(x, y, subsets=50, subset_size=100)
    assert std > 0 and mean == pytest.approx(polynomial_mmd2(x, y), abs=0.3 * mean)
    assert kid(x, y, subsets=5, subset_size=100) == kid(x, y, subsets=5, subset_size=100)
    full, none = kid(x[:50], y[:50], subsets=3, subset_size=1000)
    assert full == pytest.approx(polynomial_mmd2(x[:50], y[:50]), rel=1e-9) and none == pytest.approx(0, abs=1e-9)


def test_kid_bad_input():
    with pytest.raises(ValueError, match="at least 2 rows"):
        polynomial_mmd2(np.zeros((1, 2)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="y: expected 2 values a row"):
        polynomial_mmd2(np.zeros((3, 2)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="subset_size"):
        kid(np.zeros((3, 2)), np.zeros((5, 2)), subset_size=1)


def test_inception_score_of_certain_and_even_classes_is_k():
    logits = np.where(np.eye(7)[np.arange(70) % 7] > 0, 0.0, -np.inf)
    assert inception_score(logits)[0] == pytest.approx(7, rel=1e-12)
    assert inception_score(1e3 * np.eye(7)[np.arange(70) % 7], splits=10) == pytest.approx((7, 0), abs=1e-9)


def test_inception_score_is_one_without_information():
    assert inception_score(np.zeros((20, 5)))[0] == pytest.approx(1, rel=1e-12)
    assert inception_score(np.tile([100.0, 0, 0], (20, 1)))[0] == pytest.approx(1, rel=1e-12)  # one class only


def test_inception_score_two_points():
    # p = (a, 1-a) and (1-a, a): KL to the uniform marginal by hand
    a = 0.8
    score, _ = inception_score(np.log([[a, 1 - a], [1 - a, a]]))
    assert score == pytest.approx(np.exp(a * np.log(2 * a) + (1 - a) * np.log(2 * (1 - a))), rel=1e-12)
    with pytest.raises(ValueError, match="inception_score"):
        inception_score(np.zeros((3, 4)), splits=4)


def test_knn_radii_on_a_line():
    # points 0, 1, 3, 7: distances to the 2nd neighbour are 3, 2, 3, 6; catches counting a point as its own neighbour
    radii = knn_radii(np.array([[0.0], [1], [3], [7]]), 2)
    np.testing.assert_allclose(np.sqrt(radii), [3, 2, 3, 6])
    np.testing.assert_allclose(np.sqrt(knn_radii(np.array([[0.0], [1], [3], [7]]), 2, chunk=3)), [3, 2, 3, 6])


def test_duplicates_do_not_hide_the_point_itself():
    np.testing.assert_allclose(knn_radii(np.array([[0.0], [0], [5]]), 1), [0, 0, 25])


def test_precision_recall_constructed():
    # reals on two clusters, fakes on one of them and on a third place
    rng = np.random.default_rng(4)
    cloud = lambda center, n: center + 0.1 * rng.standard_normal((n, 2))
    real = np.concatenate([cloud([0, 0], 100), cloud([10, 0], 100)])
    fake = np.concatenate([real[:50] + 1e-6, cloud([0, 50], 150)])
    found = precision_recall(real, fake)
    assert found.precision == pytest.approx(50 / 200)
    # the fake cloud covers most of the first real cluster and none of the second
    assert 0.4 < found.recall <= 0.5
    assert precision_recall(real, real) == (1.0, 1.0)


def test_density_coverage_constructed():
    # reals on a line at 0..9, k = 1: radius 1 each; a fake at 4.2 lies in the balls of 4 and 5
    real = np.arange(10.0)[:, None]
    found = density_coverage(real, np.array([[4.2], [100.0]]), k=1)
    assert found.density == pytest.approx(2 / 2)
    assert found.coverage == pytest.approx(2 / 10)


def test_density_and_coverage_of_equal_laws():
    # 2002.09797, section 3: E density = 1 and E coverage = 1 - (N-1)...(N-k) / ((M+N-1)...(M+N-k))
    rng = np.random.default_rng(5)
    found = [density_coverage(*rng.standard_normal((2, 200, 3)), k=5) for _ in range(30)]
    n, k = 200, 5
    expected = 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])
    assert np.mean([f.coverage for f in found]) == pytest.approx(expected, abs=0.01)
    assert np.mean([f.density for f in found]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("k", [0, 5])
def test_bad_neighbours(k):
    with pytest.raises(ValueError, match="k: expected"):
        precision_recall(np.zeros((5, 2)), np.zeros((5, 2)), k=k)


def test_mode_report():
    modes = np.array([[0.0, 0], [4, 0], [0, 4], [4, 4]])
    x = np.concatenate([modes[[0, 0, 0, 1]], [[2, 2]], modes[[1]] + [0, 0.31]])
    report = mode_report(x, modes, std=0.1)  # the last lies 3.1 deviations away
    assert report.covered == 2 and report.high_quality == pytest.approx(4 / 6)
    assert report.kl == pytest.approx(0.75 * np.log(3) + 0.25 * np.log(1))
    assert mode_report(x[:1], modes, 0.1).kl == pytest.approx(np.log(4))
    assert mode_report(x[4:5], modes, 0.1).kl == np.inf


def test_histograms():
    assert histogram_kl([1, 1, 2], [0.25, 0.25, 0.5]) == pytest.approx(0, abs=1e-12)
    assert histogram_kl([1, 1], [1.0, 0.0]) == np.inf
    assert total_variation([2, 0], [0, 7]) == 1.0
    assert total_variation([3, 1], [1, 1]) == pytest.approx(0.25)
    x = np.random.default_rng(6).random((1000, 2))
    assert histogram_tv(x, x + [1, 0], bins=8, bounds=(0, 2)) == pytest.approx(1)
    # half of the mass moved: uniform on [0,1] against uniform on [0.5,1.5] overlaps by half
    grid = (np.arange(1000)[:, None] + 0.5) / 1000
    assert histogram_tv(grid, grid + 0.5, bins=30, bounds=(0, 1.5)) == pytest.approx(0.5, abs=1e-9)
    with pytest.raises(ValueError, match="one shape"):
        total_variation([1], [1, 2])
    with pytest.raises(ValueError, match="positive sum"):
        total_variation([0, 0], [1, 2])
