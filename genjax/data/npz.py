"""Arrays of an `.npz` file."""

from pathlib import Path

import numpy as np

from genjax.data.spec import from_uint8, held_out, in_memory


def npz(path, split="train", *, x="x", label="label", num_classes=None, range=(-1.0, 1.0), test_fraction=0.1, seed=0):
    """An `.npz` file as a Dataset.

    Args:
      path: of the file.
      split: "train", "test" or "all" of its rows; or the field prefix: where the file has fields
        "<split>_<x>" those are taken whole.
      x: field of the data: uint8 pixels (scaled to [-1, 1]) or floats. Images are [N, H, W, C];
        [N, H, W] gets a channel; [N, D] are vectors.
      label: field of the classes; left out where the file has none of that name. None for no classes.
      num_classes: how many; 1 + the largest label where None.
      range: (low, high) that floats must lie in, None where unbounded.
      test_fraction, seed: of the held-out share.

    Raises:
      ValueError: a file that cannot be read, a missing field, labels, pixels or shapes that do not fit.
    """
    name = Path(path).stem
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            prefix = f"{split}_" if f"{split}_{x}" in file.files else ""
            if prefix + x not in file.files:
                raise KeyError(f"no field {x!r}, expected one of {sorted(file.files)}")
            data = file[prefix + x]
            labels = file[prefix + label] if label is not None and prefix + label in file.files else None
            if labels is None and label not in (None, "label"):
                raise KeyError(f"no field {label!r}, expected one of {sorted(file.files)}")
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]}") from None
    except Exception as error:  # zipfile, numpy and the system each raise their own
        raise ValueError(f"{path}: cannot be read as .npz ({type(error).__name__}: {error})") from error
    if data.ndim not in (2, 3, 4):
        raise ValueError(f"{path}: {x}: expected [N, H, W, C], [N, H, W] or [N, D], got shape {data.shape}")
    if labels is not None and labels.shape != data.shape[:1]:
        raise ValueError(f"{path}: {label}: expected shape {data.shape[:1]}, got {labels.shape}")
    data = data[..., None] if data.ndim == 3 else data
    pixels = data.dtype == np.uint8
    if not pixels and not np.issubdtype(data.dtype, np.floating):
        raise ValueError(f"{path}: {x}: expected uint8 or floats, got {data.dtype}")
    rows = held_out(len(data), "all" if prefix else split, test_fraction, seed) if len(data) else np.arange(0)
    arrays = {"x": from_uint8(data[rows]) if pixels else data[rows]}
    if labels is not None:
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"{path}: {label}: expected integers, got {labels.dtype}")
        num_classes = num_classes or (int(labels.max()) + 1 if len(labels) else 1)
        arrays["label"] = labels[rows]
    return in_memory(name, arrays, num_classes or 0, (-1.0, 1.0) if pixels else range, 256 if pixels else 0)
