"""Parts of data sets: disjoint, complete, with the labels that are promised."""

import numpy as np
import pytest

from genjax.data.spec import Dataset, DataSpec, in_memory
from genjax.data.views import few, few_labels, mixed_pairs, numbered


@pytest.fixture(scope="module")
def dataset():
    label = np.arange(30) % 3
    return in_memory("thirty", {"x": np.arange(30.0)[:, None] / 30, "label": label}, 3)


def test_few_and_the_rest_are_the_whole(dataset):
    some, rest = few(dataset, 7, seed=1)
    assert len(some) == 7 and len(rest) == 23
    both = np.concatenate([some.arrays["x"], rest.arrays["x"]])[:, 0]
    np.testing.assert_array_equal(np.sort(both), dataset.arrays["x"][:, 0])
    np.testing.assert_array_equal(some.arrays["label"], np.round(30 * some.arrays["x"][:, 0]) % 3)
    assert not np.array_equal(some.arrays["x"], few(dataset, 7, seed=2)[0].arrays["x"])
    with pytest.raises(ValueError, match="n: expected 1 to 29 of thirty's examples, got 30"):
        few(dataset, 30)


def test_few_labels_are_even_and_the_rest_has_none(dataset):
    """Catches a label that stays readable, and one set's labels changed in another."""
    known, rest = few_labels(dataset, 2, seed=0)
    np.testing.assert_array_equal(np.bincount(known.arrays["label"]), [2, 2, 2])
    assert len(rest) == 24 and (rest.arrays["label"] == -1).all()
    assert (dataset.arrays["label"] >= 0).all()
    assert not np.intersect1d(known.arrays["x"], rest.arrays["x"]).size
    with pytest.raises(ValueError, match=r"per_class: expected 1 to 10 \(examples of class 0\), got 11"):
        few_labels(dataset, 11)


def test_numbers_follow_their_examples(dataset):
    """In memory and read by index alike."""
    spec = DataSpec((1,), 3, fields=("x", "label"))
    source = [{"x": x, "label": y} for x, y in zip(dataset.arrays["x"], dataset.arrays["label"])]
    for made in (numbered(dataset), numbered(Dataset("read", spec, source=source))):
        assert made.spec.fields == ("x", "label", "index")
        taken = made.take(np.array([5, 2, 29]))
        np.testing.assert_array_equal(taken["index"], [5, 2, 29])
        np.testing.assert_allclose(taken["x"][:, 0], np.array([5, 2, 29]) / 30, rtol=1e-6)


def test_mixed_pairs_are_of_two_classes():
    """With values 4^class, an average tells its two classes apart: none may be a class's own value."""
    label = np.repeat(np.arange(3), 5)
    x = 4.0 ** label[:, None]
    mixed = mixed_pairs(x, label, 40, seed=0)
    assert mixed.shape == (40, 1)
    np.testing.assert_array_equal(np.unique(mixed), [(1 + 4) / 2, (1 + 16) / 2, (4 + 16) / 2])
    with pytest.raises(ValueError, match="label: expected at least two classes"):
        mixed_pairs(x[:3], label[:3], 2)
