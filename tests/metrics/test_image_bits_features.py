"""PSNR, SSIM, bits per dimension, extractors and the cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import metrics
from genjax.metrics.features import Extractor


def test_psnr_known():
    a = jnp.zeros((2, 4, 4, 1))
    np.testing.assert_allclose(metrics.psnr(a, a + 0.2), 20.0, rtol=1e-5)  # MSE 0.04, range 2
    np.testing.assert_allclose(metrics.psnr(a, a + 0.1, low=0.0, high=1.0), 20.0, rtol=1e-5)
    assert np.isposinf(metrics.psnr(a, a)).all()


def _direct_ssim(a, b, low, high, size, sigma):
    """SSIM of one channel pixel by pixel from windows cut out whole: weighted means and variances as sums."""
    offset = np.arange(size) - (size - 1) / 2
    w = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * sigma**2))
    w /= w.sum()
    c1, c2 = (0.01 * (high - low)) ** 2, (0.03 * (high - low)) ** 2
    values = []
    for i in range(a.shape[0] - size + 1):
        for j in range(a.shape[1] - size + 1):
            p, q = a[i : i + size, j : j + size] - low, b[i : i + size, j : j + size] - low
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq, cov = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum(), (w * (p - mp) * (q - mq)).sum()
            top = (2 * mp * mq + c1) * (2 * cov + c2)
            values.append(top / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


@pytest.mark.parametrize("window, low, high", [(11, -1.0, 1.0), (7, 0.0, 1.0)])
def test_ssim_against_a_direct_computation(x64, window, low, high):
    rng = np.random.default_rng(0)
    a, b = low + (high - low) * rng.random((2, 2, 14, 12, 3))
    b = 0.7 * a + 0.3 * b
    expected = [
        np.mean([_direct_ssim(p[..., c], q[..., c], low, high, window, 1.5) for c in range(3)]) for p, q in zip(a, b)
    ]
    got = metrics.ssim(jnp.asarray(a), jnp.asarray(b), low, high, window=window)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_ssim_identical_and_constant():
    a = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (3, 16, 16, 3)), jnp.float32)
    np.testing.assert_allclose(metrics.ssim(a, a), 1.0, rtol=1e-5)
    # constants: only the luminance term is left, (2 m n + c1) / (m^2 + n^2 + c1) with levels from black
    m, n, c1 = 1.5, 0.5, 0.02**2
    got = metrics.ssim(jnp.full((1, 11, 11, 1), m - 1), jnp.full((1, 11, 11, 1), n - 1))
    np.testing.assert_allclose(got, (2 * m * n + c1) / (m * m + n * n + c1), rtol=1e-4)


def test_ssim_is_differentiable_and_prefers_the_true_image():
    rng = np.random.default_rng(2)
    a = jnp.asarray(rng.uniform(-1, 1, (1, 12, 12, 1)), jnp.float32)
    b = a + 0.3 * jnp.asarray(rng.standard_normal(a.shape), jnp.float32)
    grad = jax.jit(jax.grad(lambda u: metrics.ssim(a, u).sum()))(b)
    assert np.isfinite(grad).all()
    assert metrics.ssim(a, b + 0.01 * grad / jnp.abs(grad).max()).sum() > metrics.ssim(a, b).sum()


def test_image_bad_input():
    with pytest.raises(ValueError, match="window: expected at most the image size"):
        metrics.ssim(jnp.zeros((1, 8, 8, 1)), jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(ValueError, match="one shape"):
        metrics.psnr(jnp.zeros((1, 8, 8, 1)), jnp.zeros((1, 8, 8, 3)))


def test_bits():
    # a uniform density over [-1 - w/2, 1 + w/2]^D is log2(levels) bits a dimension
    shape, levels = (8, 8, 1), 17
    width = metrics.level_width(levels)
    assert width == pytest.approx(1 / 8)
    nll = 64 * np.log(2 + width)
    assert metrics.discrete_bits_per_dim(nll, shape, levels) == pytest.approx(np.log2(17))
    assert metrics.bits_per_dim(64 * np.log(2), shape) == pytest.approx(1.0)
    assert metrics.nats_from_bits(metrics.bits_per_dim(3.7, shape), shape) == pytest.approx(3.7)
    with pytest.raises(ValueError, match="levels"):
        metrics.level_width(0)
    with pytest.raises(ValueError, match="shape"):
        metrics.bits_per_dim(1.0, (0, 3))


def test_extractor_chunks_give_what_one_call_gives():
    shapes = []

    def apply(x):
        shapes.append(x.shape)
        return x.reshape(len(x), -1) * 2, x.sum((1, 2, 3))[:, None]

    extractor = Extractor("double", apply)
    x = np.arange(7 * 4.0).reshape(7, 2, 2, 1)
    features, logits = extractor(x, chunk=3)
    np.testing.assert_array_equal(features, 2 * x.reshape(7, 4))
    np.testing.assert_array_equal(logits[:, 0], x.sum((1, 2, 3)))
    assert set(shapes) == {(3, 2, 2, 1)}  # one shape, one compiled program
    assert extractor.metric_name("fd") == "fd[double]"
    features, logits = metrics.raw_pixels()(x)
    assert features.shape == (7, 4) and logits is None
    with pytest.raises(ValueError, match="at least one"):
        extractor(x[:0])


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path / "a"))
    assert metrics.cache_dir() == tmp_path / "a"
    monkeypatch.delenv("GENJAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert metrics.cache_dir() == tmp_path / "b" / "genjax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert metrics.cache_dir().parts[-2:] == (".cache", "genjax")


def test_content_hash_sees_values_shape_and_dtype():
    x = np.arange(6.0)
    variants = [x, x.reshape(2, 3), x.astype(np.float32), x + 1e-12]
    keys = {metrics.content_hash(v, "name", 3) for v in variants} | {metrics.content_hash(x, "name", 4)}
    assert len(keys) == 5
    assert metrics.content_hash(x[::-1][::-1], "name", 3) == metrics.content_hash(x, "name", 3)


def test_cached_computes_once_and_survives_a_bad_file(monkeypatch, tmp_path):
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path))
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(3)}

    for _ in range(2):
        np.testing.assert_array_equal(metrics.cached("kind", "key", compute)["a"], np.arange(3))
    assert len(calls) == 1
    (tmp_path / "kind-key.npz").write_bytes(b"PK\x03\x04 truncated")
    np.testing.assert_array_equal(metrics.cached("kind", "key", compute)["a"], np.arange(3))
    assert len(calls) == 2 and [f.name for f in tmp_path.iterdir()] == ["kind-key.npz"]


def test_cached_without_a_place_to_write(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path / "file" / "sub"))
    assert metrics.cached("kind", "key", lambda: {"a": np.ones(2)})["a"].sum() == 2


def test_an_error_of_compute_is_not_swallowed(monkeypatch, tmp_path):
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path))

    def compute():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        metrics.cached("kind", "key", compute)
    assert not list(tmp_path.iterdir())


def test_data_stats_are_kept_by_content(monkeypatch, tmp_path):
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path))
    x = np.random.default_rng(3).standard_normal((20, 3))
    stats = metrics.data_stats(metrics.raw_pixels(), x)
    again = metrics.data_stats(metrics.raw_pixels(), x)
    np.testing.assert_array_equal(stats.cov, again.cov)
    assert again.count == 20 and metrics.frechet_distance(stats, x) == pytest.approx(0, abs=1e-12)
    metrics.data_stats(metrics.raw_pixels(), x + 1)
    metrics.data_stats(Extractor("pixels", lambda v: (2 * v, None), key="other"), x)
    assert len(list(tmp_path.iterdir())) == 3


def test_feature_distance():
    """2 - 2 cos of the features: 0 whatever their length, 2 where they are orthogonal, 4 where they are opposite."""
    a = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    b = np.array([[7.0, 0.0], [0.0, 3.0], [-2.0, 0.0], [1.0, 0.0]])
    found = metrics.feature_distance(metrics.raw_pixels(), a, b)
    np.testing.assert_allclose(found, [0, 2, 4, 2 - np.sqrt(2)], atol=1e-12)
