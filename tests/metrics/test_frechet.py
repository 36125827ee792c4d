"""Frechet distance against closed forms of Gaussians."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from genjax.metrics import frechet_distance, gaussian_frechet, gaussian_stats, merge_stats


def _rotation(dim, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def test_commuting_covariances():
    # closed form for diagonal covariances: |dm|^2 + sum (s1 - s2)^2; catches a lost factor or root
    s1, s2 = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5])
    q, m = _rotation(3, 0), np.array([0.3, -1.0, 2.0])
    got = gaussian_frechet(m, q * s1**2 @ q.T, np.zeros(3), q * s2**2 @ q.T)
    assert got == pytest.approx(np.sum(m**2) + np.sum((s1 - s2) ** 2), rel=1e-12)


def test_non_commuting_covariances():
    # against the general matrix root of the product; catches the use of C1^{1/2} C2^{1/2}
    rng = np.random.default_rng(1)
    a, b = (f @ f.T + 0.1 * np.eye(4) for f in rng.standard_normal((2, 4, 4)))
    expected = np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert gaussian_frechet(np.zeros(4), a, np.zeros(4), b) == pytest.approx(expected, rel=1e-9)
    wrong = np.trace(a + b - 2 * (sqrtm(a) @ sqrtm(b)).real)
    assert abs(wrong - expected) > 1e-2  # the case can tell the two apart


def test_two_by_two_closed_form():
    # tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for a 2x2 M: independent of any eigensolver
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    cross = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    got = gaussian_frechet([0, 0], a, [1, 0], b)
    assert got == pytest.approx(1 + np.trace(a) + np.trace(b) - 2 * cross, rel=1e-12)


def test_singular_covariances_need_no_jitter():
    # rank-one covariances along different axes: the cross term is |<u, v>|; catches NaN from negative rounding
    u, v = np.array([1.0, 0, 0]), np.array([0.6, 0.8, 0])
    got = gaussian_frechet(np.zeros(3), np.outer(u, u), np.zeros(3), np.outer(v, v))
    assert got == pytest.approx(2 - 2 * 0.6, rel=1e-7)


def test_symmetric_and_zero_on_itself():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((50, 6)), rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_invariant_to_rotation_and_translation():
    rng = np.random.default_rng(3)
    a, b, q = rng.standard_normal((60, 4)), 2 * rng.standard_normal((70, 4)) + 1, _rotation(4, 3)
    assert frechet_distance(a @ q + 5, b @ q + 5) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_merged_stats_are_those_of_the_union():
    # catches the missing term between the means
    x = np.random.default_rng(4).standard_normal((90, 5)) * np.arange(1, 6) + 100
    merged = merge_stats(gaussian_stats(x[:20]), gaussian_stats(x[20:] + 3))
    whole = gaussian_stats(np.concatenate([x[:20], x[20:] + 3]))
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.cov, whole.cov, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.cov, np.cov(np.concatenate([x[:20], x[20:] + 3]).T), rtol=1e-9)


def test_bias_falls_as_one_over_n():
    # equal laws: E d^2 ~ c / N, so a hundred times the samples must give far less
    rng = np.random.default_rng(5)
    small = np.mean([frechet_distance(*rng.standard_normal((2, 50, 4))) for _ in range(20)])
    large = np.mean([frechet_distance(*rng.standard_normal((2, 5000, 4))) for _ in range(20)])
    assert 50 < small / large < 200


@pytest.mark.parametrize(
    "features, match",
    [
        (np.zeros((1, 3)), "at least 2 rows"),
        (np.full((4, 2), np.nan), "finite"),
        (np.zeros((0, 3)), "at least one row"),
    ],
)
def test_bad_features(features, match):
    with pytest.raises(ValueError, match=match):
        gaussian_stats(features)


def test_bad_shapes():
    with pytest.raises(ValueError, match="covariances"):
        gaussian_frechet(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))
