"""Real data that ships with scikit-learn: 8 x 8 handwritten digits and three small tables."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from genjax.data.spec import choose, held_out, in_memory

TEST_FRACTION = 0.2


def _digits():
    """(images [1797, 8, 8] of 0 ... 16, labels [1797]) from scikit-learn's file.

    To import the library for it takes a fifth of a warm start's processor time.
    """
    folder = importlib.util.find_spec("sklearn").submodule_search_locations[0]
    with gzip.open(Path(folder) / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        rows = np.loadtxt(file, delimiter=",")
    return rows[:, :64].reshape(-1, 8, 8), rows[:, 64].astype(int)


def digits(split="train", flat=False, size=8, seed=0):
    """The 1,797 handwritten digits, 17 grey levels, in [-1, 1].

    Args:
      split: "train" (1,438), "test" (359), or "all".
      flat: 64-vectors instead of images [8, 8, 1].
      size: 8, or a larger width to which the images are resized bilinearly (then the grey levels are
        no longer discrete and spec.levels is 0).
      seed: of the split, fixed by default.
    """
    if size < 8 or (flat and size != 8):
        raise ValueError(f"size: expected 8{'' if flat else ' or more'}, got {size}")
    images, labels = _digits()
    rows = held_out(len(images), split, TEST_FRACTION, seed)
    x = images[rows].astype(np.float32)[..., None] / 8 - 1
    if size != 8:
        # bilinear, edges repeated, pixel centres aligned: a fixed matrix along each axis
        at = np.clip((np.arange(size) + 0.5) * 8 / size - 0.5, 0, 7)
        weight = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(8)[None])).astype(np.float32)
        x = np.einsum("ih,jw,nhwc->nijc", weight, weight, x)
    x = x.reshape(len(x), -1) if flat else x
    name = "digits_vector" if flat else "digits"
    names = tuple(str(i) for i in range(10))
    return in_memory(name, {"x": x, "label": labels[rows]}, 10, levels=17 if size == 8 else 0, class_names=names)


def digits_vector(split="train", seed=0):
    """The digits as 64-vectors in [-1, 1]."""
    return digits(split, flat=True, seed=seed)


def table(name, split="train", seed=0):
    """A table of scikit-learn with real-valued columns, standardized by the training rows.

    Args:
      name: "iris" (4 columns, 3 classes), "wine" (13, 3) or "breast_cancer" (30, 2).
      split: "train", "test" or "all".
      seed: of the split.
    """
    from sklearn import datasets

    loaders = {"iris": datasets.load_iris, "wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer}
    choose("table", name, loaders)
    raw = loaders[name]()
    train = raw.data[held_out(len(raw.data), "train", TEST_FRACTION, seed)]
    rows = held_out(len(raw.data), split, TEST_FRACTION, seed)
    x = (raw.data[rows] - train.mean(axis=0)) / train.std(axis=0)
    names = tuple(str(n) for n in raw.target_names)
    return in_memory(name, {"x": x, "label": raw.target[rows]}, len(names), range=None, class_names=names)
