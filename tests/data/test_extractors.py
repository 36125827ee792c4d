"""Feature extractor and judge of the digits: good, independent, cached, deterministic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data import class_accuracy, extractor, extractors, judge, load, train_classifier
from genjax.metrics import data_stats, frechet_distance


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def digits():
    return load("digits"), load("digits", "test")


@pytest.fixture(scope="module")
def features(cache, digits):
    return extractor(*digits)


def test_extractor_of_digits(digits, features):
    test = digits[1]
    assert features.accuracy >= 0.97
    assert features.metric_name("fd") == "fd[digits-cnn-v1]"
    h, logits = features(test.arrays["x"])
    assert h.shape == (359, 64) and logits.shape == (359, 10)
    assert class_accuracy(features, test.arrays["x"], test.arrays["label"]) == pytest.approx(features.accuracy)
    # flattened digits are the same digits
    np.testing.assert_allclose(features(test.arrays["x"].reshape(-1, 64))[0], h, atol=1e-4)
    with pytest.raises(ValueError, match="digits extractor: expected examples of shape"):
        features(np.zeros((2, 16, 16, 1)))


def test_frechet_distance_orders_what_is_plainly_worse(digits, features):
    # held-out digits lie nearest, then blurred ones, then noise: the scale of every figure that uses it
    train, test = digits
    stats = data_stats(features, train.arrays["x"])
    x = test.arrays["x"]
    blurred = (x + np.roll(x, 1, axis=1) + np.roll(x, 1, axis=2)) / 3
    noise = np.random.default_rng(0).uniform(-1, 1, x.shape).astype(np.float32)
    real, soft, none = (frechet_distance(stats, features(s)[0]) for s in (x, blurred, noise))
    assert 0 < 3 * real < soft < none
    swapped = frechet_distance(stats, features(train.arrays["x"])[0])
    assert swapped == pytest.approx(0, abs=1e-3)


def test_judge_is_good_and_independent(cache, digits, features, monkeypatch):
    other = judge(*digits)
    assert other.accuracy >= 0.97 and other.name == "digits-judge-v1" and other.key != features.key
    # found in the cache: training again would fail
    monkeypatch.setattr(extractors, "_train", None)
    again = judge(*digits)
    x = digits[1].arrays["x"][:20]
    np.testing.assert_array_equal(again(x)[1], other(x)[1])
    assert again.accuracy == other.accuracy
    assert np.abs(features(x)[1] - other(x)[1]).max() > 0.1


def test_halves_are_disjoint(cache, monkeypatch):
    data = load("iris")
    seen = []
    monkeypatch.setattr(extractors, "cached", lambda kind, key, compute: seen.append(compute()) or seen[-1])
    train = lambda module, arrays, key, steps: (seen.append(arrays), module.init(key, arrays["x"][:1]))[1]
    monkeypatch.setattr(extractors, "_train", train)
    for half in (0, 1, None):
        train_classifier(data, load("iris", "test"), "mlp", half=half)
    sets = [{x.tobytes() for x in s["x"]} for s in seen if "x" in s]
    every = {x.tobytes() for x in data.arrays["x"]}
    assert not sets[0] & sets[1] and sets[0] | sets[1] == sets[2] == every


def test_training_is_deterministic_and_keyed(monkeypatch, tmp_path):
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path))
    train, test = load("iris"), load("iris", "test")
    first = train_classifier(train, test, "mlp", steps=200)
    assert first.accuracy > 0.7 and first.name == "iris-mlp-v1"  # chance is 0.33
    for file in tmp_path.iterdir():
        file.unlink()
    second = train_classifier(train, test, "mlp", steps=200)
    np.testing.assert_array_equal(first(test.arrays["x"])[0], second(test.arrays["x"])[0])
    assert first.key == second.key != train_classifier(train, test, "mlp", steps=200, seed=1).key


def test_networks_take_the_sizes_that_data_have():
    # shape only, nothing is run: 8 to 32 pixels, one channel and three, an odd size
    for name in ("cnn", "large_kernel"):
        for size, channels in ((8, 1), (9, 1), (16, 3), (32, 3)):
            module = extractors.CLASSIFIERS[name](5)
            x = jnp.zeros((2, size, size, channels))
            out = jax.eval_shape(lambda x, module=module: module.init_with_output(jax.random.key(0), x)[0], x)
            assert out[0].shape == (2, 64) and out[1].shape == (2, 5)


def test_patch_convolution_is_a_convolution():
    layer = extractors.PatchConv(4, kernel=5)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    out, variables = layer.init_with_output(jax.random.key(1), x)
    kernel = variables["params"]["Dense_0"]["kernel"].reshape(5, 5, 3, 4)
    native = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(out, native, atol=1e-5)


def test_shifts_move_whole_images():
    x = jnp.zeros((40, 8, 8, 1)).at[:, 4, 4].set(1.0)
    moved = extractors._shift(jax.random.key(0), x, 1)
    at = np.argwhere(np.asarray(moved)[..., 0] == 1)
    assert len(at) == 40 and set(map(tuple, at[:, 1:])) <= {(i, j) for i in (3, 4, 5) for j in (3, 4, 5)}
    assert len(set(map(tuple, at[:, 1:]))) > 5


@pytest.mark.parametrize(
    "change, match",
    [({"architecture": "resnet"}, "architecture: expected one of"), ({"half": 2}, "half: expected 0, 1 or None")],
)
def test_bad_options(change, match):
    with pytest.raises(ValueError, match=match):
        train_classifier(load("iris"), load("iris", "test"), **({"architecture": "mlp"} | change))


def test_sets_without_labels():
    roll = load("swiss_roll", n=10)
    with pytest.raises(ValueError, match="swiss_roll: expected labels"):
        extractor(roll, roll)
