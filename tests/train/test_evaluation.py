"""Metrics by name on models whose quality is known: a copy of the data, noise, and an exact denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import data
from genjax.core.numerics import bcast
from genjax.core.types import Algorithm, Prediction
from genjax.data.spec import in_memory
from genjax.processes import gaussian
from genjax.train import evaluation, generation, pictures


@pytest.fixture(scope="module")
def digits():
    return data.load("digits_vector", "train"), data.load("digits_vector", "test")


def subject(sets, sample, **options):
    return evaluation.Subject(Algorithm(None, None, sample), None, None, (), *sets, num=300, **options)


@pytest.fixture(scope="module")
def judged(digits, tmp_path_factory):
    """Figures of a sampler that copies real digits of the class asked for, and of one that draws noise."""
    train = digits[0].arrays
    rows = jnp.asarray(np.stack([np.flatnonzero(train["label"] == c)[:100] for c in range(10)]))
    x = jnp.asarray(train["x"])

    def copy(keys, state, n, cond):
        pick = jax.vmap(lambda k: jax.random.randint(k, (), 0, 100))(keys)
        return x[rows[cond["label"], pick]]

    def noise(keys, state, n, cond):
        return jax.vmap(lambda k: jax.random.uniform(k, (64,), minval=-1.0))(keys)

    names = ("fd", "kid", "is", "precision_recall", "density_coverage", "accuracy", "sliced_w2", "energy", "mmd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        return [evaluation.evaluate(subject(digits, s, conditional=True), names) for s in (copy, noise)]


def test_a_copy_of_the_data_is_good_and_noise_is_bad(judged):
    """Would catch arguments in the wrong order, samples against themselves, labels that do not reach the judge."""
    copy, noise = judged
    assert copy.keys() == noise.keys()
    assert "fd[digits_vector-mlp-v1]" in copy and "accuracy[digits_vector-judge-v1]" in copy
    value = lambda figures, start: next(v for k, v in figures.items() if k.startswith(start))
    for lower in ("fd", "kid", "sliced_w2", "energy", "mmd2"):
        assert value(copy, lower) < 0.2 * value(noise, lower), lower
    for higher in ("is", "precision", "recall", "density", "coverage", "accuracy"):
        assert value(copy, higher) > value(noise, higher), higher
    assert value(copy, "precision") > 0.99 and value(copy, "accuracy") > 0.9 and value(noise, "accuracy") < 0.4


def test_bits_of_an_exact_model_of_discrete_data():
    """Independent uniform levels have log2(17) bits: the bound is no less, and little more."""
    levels = np.linspace(-1, 1, 17).astype(np.float32)
    x = levels[np.random.default_rng(0).integers(0, 17, (400, 4))]
    sets = (in_memory("levels", {"x": x}, levels=17),) * 2
    process = gaussian.edm()

    def denoiser(x, t, cond=None, key=None):
        sigma = jnp.broadcast_to(bcast(process.sigma(t), x), x.shape)
        w = jax.nn.softmax(-0.5 * ((x[..., None] - levels.reshape(1, 1, -1)) / sigma[..., None]) ** 2, axis=-1)
        x0 = jnp.sum(w * levels.reshape(1, 1, -1), axis=-1)
        return Prediction(x0=x0, eps=(x - x0) / sigma)

    s = evaluation.Subject(None, lambda state: denoiser, process, (), *sets, num=2, draws=128)
    (name, bits), *_ = evaluation.evaluate(s, ["bits_per_dim"]).items()
    assert name == "bits_per_dim[bound, test]"
    assert np.log2(17) - 0.02 < bits < np.log2(17) + 0.15


def test_what_a_metric_needs_is_said(digits):
    s = subject(digits, lambda keys, state, n, cond: jnp.zeros((n, 64)))
    with pytest.raises(ValueError, match="'accuracy' needs a model conditioned on labels"):
        evaluation.evaluate(s, ["accuracy"])
    with pytest.raises(ValueError, match=r"eval\.metrics: unknown name 'fid'; did you mean 'fd'\?"):
        evaluation.evaluate(s, ["energy", "fid"])
    for name in evaluation.default_metrics(digits[0].spec, True):
        assert name in evaluation.METRICS


def test_a_sample_depends_on_its_index_alone():
    """Would catch keys that follow the chunk, the filling of the last chunk reaching the result, and a sampler that is
    traced again each time samples are drawn along a training.
    """
    traces = []

    def sample(keys, state, n, cond):
        traces.append(n)
        return jax.vmap(jax.random.normal)(keys) + cond["shift"]

    algorithm = Algorithm(None, None, sample)
    cond = {"shift": np.arange(10.0, dtype=np.float32)}
    key = jax.random.key(0)
    whole = generation.draw(algorithm, key, (), 10, cond, chunk=10)
    np.testing.assert_array_equal(generation.draw(algorithm, key, (), 10, cond, chunk=4), whole)
    part = generation.draw(algorithm, key, (), 3, {"shift": cond["shift"][:3]}, chunk=8)
    np.testing.assert_array_equal(part, whole[:3])
    np.testing.assert_array_equal(generation.draw(algorithm, key, (), 10, cond, chunk=10), whole)
    assert traces == [10, 4, 3]
    assert generation.class_labels(5, 3).tolist() == [0, 1, 2, 0, 1]


def test_pictures(tmp_path):
    """Values, places and sizes of the grid; a write that fails leaves nothing."""
    x = np.stack([np.full((8, 8, 1), v, np.float32) for v in (-1.0, 0.0, 1.0, 3.0)])
    picture = pictures.grid(x, columns=2)
    size = 32 + 2
    assert picture.shape == (2 * size + 2, 2 * size + 2, 3)
    centres = [picture[2 + 16 + r * size, 2 + 16 + c * size, 0] for r in (0, 1) for c in (0, 1)]
    assert centres == [0, 128, 255, 255]
    named = pictures.grid(x, columns=2, names=["a", "bcd"])
    np.testing.assert_array_equal(named[:, -picture.shape[1] :], picture)
    assert named.shape[1] > picture.shape[1] and (named[:, : -picture.shape[1]] < 128).any()
    np.testing.assert_array_equal(pictures.grid(x.reshape(4, 64), columns=2), picture)
    pictures.save(tmp_path / "a.png", picture)
    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)
    toy = data.load("moons", n=50)
    assert pictures.picture_of(toy.arrays["x"], toy.spec, toy.arrays.get("label")).std() > 0
    with pytest.raises(ValueError, match=r"shape \(4, 4, 5\) have no picture; expected an \.npz file"):
        pictures.check_picture(data.DataSpec((4, 4, 5)))
