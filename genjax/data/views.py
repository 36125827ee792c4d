"""Parts and views of a data set: few examples of it, few of its labels, its examples with their numbers."""

import dataclasses

import numpy as np

from genjax.data.spec import Dataset


def _rows(dataset, rows):
    if dataset.arrays is None:
        raise ValueError(f"{dataset.name}: expected a set in memory, to take a part of it")
    return dataclasses.replace(dataset, arrays={name: array[rows] for name, array in dataset.arrays.items()})


def few(dataset, n, seed=0):
    """(n examples drawn without replacement, all the others), two Datasets.

    Args:
      dataset: in memory.
      n: 1 to less than its examples.
      seed: of the draw.
    """
    if not 1 <= n < len(dataset):
        raise ValueError(f"n: expected 1 to {len(dataset) - 1} of {dataset.name}'s examples, got {n}")
    order = np.random.default_rng(seed).permutation(len(dataset))
    return _rows(dataset, np.sort(order[:n])), _rows(dataset, np.sort(order[n:]))


def few_labels(dataset, per_class, seed=0):
    """(the examples that keep their label, all the others with label -1), two Datasets.

    Args:
      dataset: in memory, with labels.
      per_class: number of labelled examples of each class.
      seed: of the draw.

    Raises:
      ValueError: no labels, or a class with fewer examples.
    """
    if dataset.arrays is None or "label" not in dataset.arrays:
        raise ValueError(f"{dataset.name}: expected a set in memory with labels")
    label, rng = dataset.arrays["label"], np.random.default_rng(seed)
    chosen = []
    for k in range(dataset.spec.num_classes):
        of_class = np.flatnonzero(label == k)
        if not 1 <= per_class <= len(of_class):
            raise ValueError(f"per_class: expected 1 to {len(of_class)} (examples of class {k}), got {per_class}")
        chosen.append(rng.permutation(of_class)[:per_class])
    kept = np.zeros(len(label), bool)
    kept[np.concatenate(chosen)] = True
    rest = _rows(dataset, ~kept)
    rest.arrays["label"] = np.full_like(rest.arrays["label"], -1)
    return _rows(dataset, kept), rest


@dataclasses.dataclass(frozen=True)
class Numbered:
    """A source whose examples carry their "index"."""

    source: object

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        return {**self.source[i], "index": np.int32(i)}


def numbered(dataset):
    """The Dataset with the number of each example as the field "index", for methods that keep something of each."""
    spec = dataclasses.replace(dataset.spec, fields=(*dataset.spec.fields, "index"))
    if dataset.arrays is None:
        return dataclasses.replace(dataset, spec=spec, source=Numbered(dataset.source))
    index = np.arange(len(dataset), dtype=np.int32)
    return Dataset(dataset.name, spec, {**dataset.arrays, "index": index})


def mixed_pairs(x, label, n, seed=0):
    """n averages of two examples of different classes, [n, ...]: low quality, all classes alike.

    Args:
      x: [N, ...]; label: [N], at least two classes.
    """
    x, label = np.asarray(x), np.asarray(label)
    if len(np.unique(label)) < 2:
        raise ValueError("label: expected at least two classes, to mix examples of different ones")
    rng, pairs = np.random.default_rng(seed), np.zeros((0, 2), int)
    while len(pairs) < n:
        drawn = rng.integers(0, len(x), (2 * n, 2))
        pairs = np.concatenate([pairs, drawn[label[drawn[:, 0]] != label[drawn[:, 1]]]])
    first, second = pairs[:n].T
    return (x[first] + x[second]) / 2
