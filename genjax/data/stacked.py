"""A thousand modes: three digits in three channels (as in 1611.02163 and 1712.04086, with scikit-learn's digits)."""

import numpy as np

from genjax.data.digits import digits
from genjax.data.spec import in_memory


def stacked_digits(split="train", num=25_600, flat=False, size=8, seed=0):
    """`num` images [size, size, 3] whose channels are digits drawn at random and apart from each other, in [-1, 1].

    The label is the number that the three digits write, red first: 0 ... 999.

    Args:
      split: "train", "test" or "all", of the digits that are drawn from.
      num: number of images.
      flat: vectors of 3 size^2 numbers instead of images.
      size: as of `digits`.
      seed: of the draw.
    """
    if num < 1:
        raise ValueError(f"num: expected at least 1, got {num}")
    source = digits(split, size=size)
    rng = np.random.default_rng([seed, {"train": 0, "test": 1, "all": 2}[split]])
    rows = rng.integers(0, len(source.arrays["x"]), (num, 3))
    x = np.moveaxis(source.arrays["x"][rows][..., 0], 1, -1)
    label = source.arrays["label"][rows] @ np.array([100, 10, 1])
    x = np.ascontiguousarray(x.reshape(num, -1) if flat else x)
    name = "stacked_digits"
    levels = 17 if size == 8 else 0
    return in_memory(name, {"x": x, "label": label.astype(np.int32)}, 1000, levels=levels)


def digits_of(label):
    """The three digits [..., 3] that a label 0 ... 999 writes."""
    label = np.asarray(label)
    return np.stack([label // 100, label // 10 % 10, label % 10], axis=-1)


def unstacked(x):
    """Stacked images [N, H, W, 3], or vectors of them, as single digits [3 N, H, W, 1], channel by channel in turn."""
    x = np.asarray(x)
    if x.ndim == 2:
        side = round((x.shape[1] / 3) ** 0.5)
        x = x.reshape(len(x), side, side, 3)
    if x.ndim != 4 or x.shape[-1] != 3 or x.shape[1] != x.shape[2]:
        raise ValueError(f"x: expected [N, H, H, 3] or [N, 3 H H], got {x.shape}")
    return np.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3], 1)
