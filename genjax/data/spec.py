"""What a data set is: named arrays, or a source read by index, and the facts that models need of it."""

import difflib
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DataSpec:
    """Facts of a data set.

    Attributes:
      shape: of one example's "x".
      num_classes: classes of "label", 0 where there are none.
      range: (low, high) that every value of "x" lies in, None where unbounded.
      levels: grey levels that span the range (for exact bits per dimension), 0 for continuous data.
      fields: names of the fields, "x" first.
      class_names: one name a class, or empty.
    """

    shape: tuple
    num_classes: int = 0
    range: tuple | None = (-1.0, 1.0)
    levels: int = 0
    fields: tuple = ("x",)
    class_names: tuple = ()


@dataclass(frozen=True)
class Dataset:
    """A data set in memory (`arrays`) or read by index (`source`); exactly one of the two is given.

    Attributes:
      name: for messages and names of metrics.
      spec: a DataSpec.
      arrays: field -> array with equal leading axes; "x" is float32, within spec.range.
      source: anything with `len()` and `[i]` -> dict of one example, in the same form; for sets
        too big for memory. Reading must be safe from several threads.
    """

    name: str
    spec: DataSpec
    arrays: dict | None = field(default=None, repr=False)
    source: Any = field(default=None, repr=False)

    def __len__(self):
        return len(self.source) if self.arrays is None else len(self.arrays["x"])

    def take(self, indices):
        """The examples at `indices` [B] as a dict of arrays [B, ...]."""
        if self.arrays is not None:
            return {name: array[np.asarray(indices)] for name, array in self.arrays.items()}
        examples = [self.source[int(i)] for i in indices]
        return {name: np.stack([e[name] for e in examples]) for name in self.spec.fields}


def in_memory(name, arrays, num_classes=0, range=(-1.0, 1.0), levels=0, class_names=()):
    """A checked Dataset of arrays.

    Args:
      name: of the set.
      arrays: field -> array with equal leading axes, "x" among them; "x" becomes float32, "label" int32.
      num_classes, range, levels, class_names: as in DataSpec.

    Raises:
      ValueError: as `check` does.
    """
    if "x" not in arrays:
        raise ValueError(f"{name}: expected a field 'x', got {sorted(arrays)}")
    arrays = {key: np.asarray(array) for key, array in arrays.items()}
    arrays["x"] = arrays["x"].astype(np.float32, copy=False)
    fields = ("x", *(key for key in arrays if key != "x"))
    spec = DataSpec(arrays["x"].shape[1:], num_classes, range, levels, fields, tuple(class_names))
    dataset = Dataset(name, spec, arrays)
    check(dataset)
    if "label" in arrays:
        arrays["label"] = arrays["label"].astype(np.int32, copy=False)
    return dataset


def check(dataset):
    """Checks every array of a Dataset in memory.

    Raises:
      ValueError: no examples, leading axes that differ, NaN or infinite values, values out of
        range, labels that are not whole numbers or out of range. The message names the field, the
        first bad example and what was expected.
    """
    if (dataset.arrays is None) == (dataset.source is None):
        raise ValueError(f"{dataset.name}: expected either arrays or a source")
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name}: expected at least one example, got none")
    if dataset.arrays is None:
        return
    for key, array in dataset.arrays.items():
        if len(array) != len(dataset):
            raise ValueError(f"{dataset.name}: {key}: expected {len(dataset)} examples as in 'x', got {len(array)}")
    check_examples(dataset.arrays, dataset.spec, dataset.name)


def check_examples(arrays, spec, name, first=0):
    """Checks a batch of examples against a DataSpec; `first` is the number of the first one, for messages."""
    x = arrays["x"]
    if x.shape[1:] != tuple(spec.shape):
        raise ValueError(f"{name}: x: expected examples of shape {tuple(spec.shape)}, got {x.shape[1:]}")
    for key, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating):
            _refuse(~np.isfinite(array), array, f"{name}: {key}: expected finite values", first)
    if spec.range is not None:
        low, high = spec.range
        slack = 1e-5 * (high - low)  # rounding of a rescaling in float32
        _refuse((x < low - slack) | (x > high + slack), x, f"{name}: x: expected values in [{low:g}, {high:g}]", first)
    if spec.num_classes and "label" in arrays:
        label = arrays["label"]
        if not np.issubdtype(label.dtype, np.integer):
            raise ValueError(f"{name}: label: expected integers, got {label.dtype}")
        if label.ndim != 1:
            raise ValueError(f"{name}: label: expected shape [N], got {label.shape}")
        expected = f"{name}: label: expected labels in 0 ... {spec.num_classes - 1}"
        _refuse((label < 0) | (label >= spec.num_classes), label, expected, first)


def _refuse(bad, array, expected, first):
    if bad.any():
        where = np.argwhere(bad)[0]
        value = array[tuple(where)]
        raise ValueError(f"{expected}, got {value:g} in example {first + int(where[0])} ({int(bad.sum())} such values)")


def from_uint8(x):
    """Pixels 0 ... 255 as float32 in [-1, 1]."""
    return np.asarray(x).astype(np.float32) / np.float32(127.5) - 1


def choose(kind, name, names):
    """Raises ValueError, naming the nearest right one, unless `name` is among `names`."""
    if name not in names:
        near = difflib.get_close_matches(str(name), [str(n) for n in names], 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{kind}: expected one of {sorted(names)}, got {name!r}{hint}")


def held_out(n, split, fraction, seed=0):
    """Indices of a split of n examples: a fixed `fraction` is "test", the rest "train", "all" both.

    The division depends on n, fraction and seed alone; both parts keep the original order.
    """
    choose("split", split, ("train", "test", "all"))
    if not 0 < fraction < 1:
        raise ValueError(f"test_fraction: expected a number between 0 and 1, got {fraction}")
    test = round(n * fraction)
    if split == "all":
        return np.arange(n)
    if not 0 < test < n:
        raise ValueError(f"test_fraction: {fraction} of {n} examples leaves one split empty; use split='all'")
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[:test] if split == "test" else order[test:])
