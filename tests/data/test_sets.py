"""Data sets: densities of toys, digits, shapes, and every bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data import DATASETS, Dataset, DataSpec, check, horizontal_flip, in_memory, load, option_names
from genjax.data.toys import MIXTURES, OTHERS, log_density, oracle
from genjax.metrics import level_width
from genjax.worlds import shapes as world
from genjax.worlds import shapes_views

TOYS = ("ring", "grid", "swiss_roll", "moons", "checkerboard", "pinwheel")


def _grid(low, high, cells):
    at = low + (high - low) * (np.arange(cells) + 0.5) / cells
    return np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


@pytest.mark.parametrize("name", TOYS)
def test_densities_integrate_to_one_and_fit_the_samples(name):
    # a lost normalizer, Jacobian or weight shows in the integral; a density of another law in the histogram
    cells, half = 384, 3.2
    density = jax.jit(log_density(name))
    points = _grid(-half, half, cells)
    p = np.exp(np.concatenate([density(jnp.asarray(part)) for part in np.split(points, 16)]).astype(np.float64))
    mass = (p * (2 * half / cells) ** 2).reshape(cells, cells)
    assert mass.sum() == pytest.approx(1, abs=2e-3)
    x = load(name, n=50_000).arrays["x"]
    bins = 16
    expected = mass.reshape(bins, cells // bins, bins, cells // bins).sum((1, 3))
    counts = np.histogram2d(*x.T, bins=np.linspace(-half, half, bins + 1))[0]
    # chi-square over cells with enough expected points, against its mean and 6 deviations
    seen = expected > 5e-4
    n = len(x)
    chi2 = ((counts - n * expected)[seen] ** 2 / (n * expected[seen])).sum()
    assert chi2 < seen.sum() + 6 * np.sqrt(2 * seen.sum())
    assert counts[expected < 1e-9].sum() == 0


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_of_unit_size(name):
    x = load(name, n=5000).arrays["x"]
    assert 0.7 < x.std() < 1.4 and np.abs(x.mean(axis=0)).max() < 0.3


def test_mixture_density_by_the_entropy():
    # E log p of the samples must be that of fresh ones drawn by the oracle itself, in 8 dimensions
    law = oracle("mixture")
    x = load("mixture", n=20_000).arrays["x"]
    own = law.sample(jax.random.key(0), 20_000)
    own = own[0] if isinstance(own, tuple) else own
    a, b = (np.asarray(law.log_prob(jnp.asarray(s))) for s in (x, own))
    assert abs(a.mean() - b.mean()) < 5 * np.sqrt((a.var() + b.var()) / 20_000)


def test_labels_of_toys_are_their_components():
    ring = load("ring", n=2000)
    means = np.asarray(oracle("ring").means)
    assert np.linalg.norm(ring.arrays["x"] - means[ring.arrays["label"]], axis=1).max() < 0.6
    moons = load("moons", n=2000).arrays
    # the lower moon opens upwards: means of the two differ in height, and both occur
    assert moons["x"][moons["label"] == 0, 1].mean() > moons["x"][moons["label"] == 1, 1].mean() + 0.3
    board = load("checkerboard", n=5000).arrays
    for label in range(8):
        square = board["x"][board["label"] == label]
        assert np.ptp(square, axis=0).max() <= 1.0 and len(square) > 400
    assert load("swiss_roll", n=10).spec.num_classes == 0


def test_toys_are_reproducible_and_splits_differ():
    a, b = load("moons", n=50), load("moons", n=50)
    np.testing.assert_array_equal(a.arrays["x"], b.arrays["x"])
    assert not np.array_equal(a.arrays["x"], load("moons", "test", n=50).arrays["x"])
    assert not np.array_equal(a.arrays["x"], load("moons", n=50, seed=1).arrays["x"])
    assert load("ring", n=10, modes=3).spec.num_classes == 3


def test_digits_are_the_real_ones():
    from sklearn.datasets import load_digits

    raw = load_digits()
    every = load("digits", "all")
    np.testing.assert_array_equal((every.arrays["x"][..., 0] + 1) * 8, raw.images)
    train, test = load("digits"), load("digits", "test")
    assert len(train) + len(test) == len(every) == 1797
    rows = lambda d: {x.tobytes() + bytes([y]) for x, y in zip(d.arrays["x"], d.arrays["label"])}
    assert rows(train) | rows(test) == rows(every)
    assert len(rows(train) & rows(test)) <= 2  # disjoint but for digits that the data holds twice
    spec = train.spec
    assert (spec.shape, spec.num_classes, spec.range, spec.levels) == ((8, 8, 1), 10, (-1.0, 1.0), 17)
    level = (train.arrays["x"] + 1) / level_width(17)
    np.testing.assert_array_equal(level, np.round(level))
    assert train.arrays["x"].dtype == np.float32 and train.arrays["label"].dtype == np.int32


def test_digit_vectors_and_sizes():
    image, vector = load("digits", "test"), load("digits_vector", "test")
    np.testing.assert_array_equal(image.arrays["x"].reshape(-1, 64), vector.arrays["x"])
    large = load("digits", "test", size=16)
    assert large.spec.shape == (16, 16, 1) and large.spec.levels == 0
    # bilinear weights sum to one: a mean over each 2x2 block of a linear ramp is the ramp
    inner = large.arrays["x"].reshape(-1, 8, 2, 8, 2).mean((2, 4))
    x = image.arrays["x"][..., 0]
    kernel = np.array([1, 6, 1]) / 8
    smooth = sum(kernel[i] * kernel[j] * x[:, i : i + 6, j : j + 6] for i in range(3) for j in range(3))
    np.testing.assert_allclose(inner[:, 1:-1, 1:-1], smooth, atol=1e-5)


@pytest.mark.parametrize("name, columns, classes", [("iris", 4, 3), ("wine", 13, 3), ("breast_cancer", 30, 2)])
def test_tables(name, columns, classes):
    train, test = load(name), load(name, "test")
    assert train.spec.shape == (columns,) and train.spec.num_classes == classes
    np.testing.assert_allclose(train.arrays["x"].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.arrays["x"].std(axis=0), 1, atol=1e-4)
    assert 0 < np.abs(test.arrays["x"].mean(axis=0)).max() < 1  # by the training rows, not its own


@pytest.fixture(scope="module")
def rendered():
    return load("shapes", n=1100, fields=("factors", "mask", "segmentation", "box", "depth", "tokens"), pair="edges")


def test_shapes_fields_belong_together(rendered):
    a = rendered.arrays
    assert rendered.spec.shape == (16, 16, 3) and len(rendered) == 1100  # more than one chunk, the last one cut
    factors = world.Factors(**{f: jnp.asarray(a[f"factor_{f}"][-50:]) for f in world.Factors._fields})
    np.testing.assert_allclose(a["x"][-50:], world.render(factors, 16), atol=1e-5)
    np.testing.assert_allclose(a["y"][-50:], shapes_views.edges(factors, 16), atol=1e-5)
    np.testing.assert_array_equal(a["label"], a["factor_shape"][:, 0])
    np.testing.assert_array_equal(a["tokens"][-50:], shapes_views.captions(factors))
    assert a["mask"].shape == (1100, 16, 16, 1) and a["box"].shape == (1100, 1, 4)
    inside = a["mask"][..., 0] > 0.5
    np.testing.assert_array_equal(a["segmentation"] > 0, inside)
    np.testing.assert_array_equal(a["depth"][..., 0] < 1, inside)


def test_shapes_scenes_depend_on_the_index_alone(rendered):
    few = load("shapes", n=20)
    np.testing.assert_allclose(few.arrays["x"], rendered.arrays["x"][:20], atol=1e-6)
    assert not np.allclose(load("shapes", "test", n=20).arrays["x"], few.arrays["x"])
    assert not np.allclose(load("shapes", n=20, seed=1).arrays["x"], few.arrays["x"])


def test_shapes_paired_and_unpaired():
    options = {"n": 30, "pair": "recolored", "shapes": ("disk",), "size_range": (0.2, 0.2)}
    paired, unpaired = load("shapes", **options).arrays, load("shapes", **options, paired=False).arrays
    np.testing.assert_array_equal(paired["x"], unpaired["x"])
    place = lambda x: np.abs(x - x[:, :1, :1]).sum(-1) > 0.5
    assert (place(paired["x"]) == place(paired["y"])).mean() > 0.99
    assert (place(unpaired["x"]) == place(unpaired["y"])).mean() < 0.99
    assert set(paired["label"]) == {0}


@pytest.mark.parametrize("label, classes", [("color", 6), ("shape_color", 24)])
def test_shapes_labels(label, classes):
    data = load("shapes", n=20, label=label, fields="factors", objects=[1, 2], size=32)
    assert data.spec.num_classes == classes == len(data.spec.class_names)
    name = data.spec.class_names[data.arrays["label"][3]]
    assert world.COLORS[data.arrays["factor_color"][3, 0]] in name


def test_flip():
    x = jax.random.normal(jax.random.key(0), (64, 4, 5, 1))
    y = horizontal_flip(jax.random.key(1), x)
    same, mirrored = (np.asarray((y == z).all((1, 2, 3))) for z in (x, x[:, :, ::-1]))
    assert (same ^ mirrored).all() and 15 < mirrored.sum() < 49
    np.testing.assert_array_equal(horizontal_flip(jax.random.key(1), x[:8]), y[:8])  # a sample's own key


def test_every_name_has_a_set_or_says_what_it_needs():
    small = {"n": 20}
    for name in DATASETS:
        known, needed = option_names(name)
        if needed:
            with pytest.raises(ValueError, match=f"{name}: expected option {needed[0]!r}"):
                load(name)
        else:
            data = load(name, "test", **(small if "n" in known else {}))
            check(data)
            assert set(data.arrays) == set(data.spec.fields) and data.spec.shape == data.arrays["x"].shape[1:]
    assert set(MIXTURES) | set(OTHERS) <= set(DATASETS)


@pytest.mark.parametrize(
    "arguments, match",
    [
        (("digitss",), "data: expected one of .*, got 'digitss', did you mean 'digits'"),
        (("digits", "tset"), "split: expected one of .*did you mean 'test'"),
        (("ring", "train", {"stdd": 1}), "ring option: .*did you mean 'std'"),
        (("ring", "train", {"std": 0.0}), "std: expected a number > 0"),
        (("ring", "train", {"n": 0}), "n: expected at least 1"),
        (("checkerboard", "train", {"cells": 3}), "cells: expected an even number"),
        (("digits", "train", {"size": 4}), "size: expected 8"),
        (("shapes", "train", {"fields": ("masks",)}), "fields: .*did you mean 'mask'"),
        (("shapes", "train", {"domain": "edge"}), "domain: .*did you mean 'edges'"),
        (("shapes", "train", {"colors": ("pink",)}), "colors: expected some of"),
        (("shapes", "train", {"size": 2}), "size >= 8"),
        (("tfds",), "expected option 'dataset'"),
    ],
)
def test_bad_names_and_options(arguments, match):
    name, split, options = arguments + ("train", {})[len(arguments) - 1 :]
    with pytest.raises(ValueError, match=match):
        load(name, split, **options)


@pytest.mark.parametrize(
    "arrays, options, match",
    [
        ({"y": np.zeros(3)}, {}, "set: expected a field 'x'"),
        ({"x": np.zeros((0, 2))}, {}, "at least one example"),
        ({"x": np.array([[0.0], [np.nan]])}, {}, "x: expected finite values, got nan in example 1 .1 such"),
        ({"x": np.array([[0.0], [1.5], [9]])}, {}, r"x: expected values in \[-1, 1\], got 1.5 in example 1 .2 such"),
        ({"x": np.array([[np.inf]])}, {"range": None}, "x: expected finite values, got inf"),
        ({"x": np.zeros((3, 1)), "label": np.array([0, 2, 3])}, {"num_classes": 3}, "0 ... 2, got 3 in example 2"),
        ({"x": np.zeros((2, 1)), "label": np.array([0, -1])}, {"num_classes": 3}, "got -1 in example 1"),
        ({"x": np.zeros((2, 1)), "label": np.array([0.0, 1])}, {"num_classes": 3}, "label: expected integers"),
        ({"x": np.zeros((2, 1)), "label": np.zeros((2, 1), int)}, {"num_classes": 3}, r"label: expected shape \[N\]"),
        ({"x": np.zeros((2, 1)), "label": np.zeros(3, int)}, {"num_classes": 3}, "label: expected 2 examples"),
        ({"x": np.zeros((2, 1)), "mask": np.array([0.0, np.nan])}, {}, "mask: expected finite"),
    ],
)
def test_checks(arrays, options, match):
    with pytest.raises(ValueError, match=match) as info:
        in_memory("set", arrays, **options)
    assert "\n" not in str(info.value)


def test_a_dataset_has_arrays_or_a_source():
    with pytest.raises(ValueError, match="either arrays or a source"):
        check(Dataset("set", DataSpec((1,))))
