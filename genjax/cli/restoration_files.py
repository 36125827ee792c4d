"""What `genjax restore` reads and writes: images and measurements in, a folder of pictures, arrays and figures out."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genjax.data.folder import list_images, read_image
from genjax.data.spec import from_uint8
from genjax.train import pictures
from genjax.train.workdir import write_json

ROWS = 24  # images in restored.png


class Images(NamedTuple):
    """Images, or measurements."""

    names: list
    x: Any  # [N, ...] float32
    label: Any = None  # [N] whole numbers or class names, None where they are not known


def read(option, path, shape, *, key="x", channels=None, resize=False, why="the prior's"):
    """Images of one shape from an image file, a folder of images, or an .npz.

    Args:
      option: for messages, "--input".
      path: of the file or the folder.
      shape: of one of them.
      key: name of the array in an .npz.
      channels: None where they are no images, so that only an .npz can hold them.
      resize: scale and crop images to the shape.
      why: whose shape it is, for messages.

    Raises:
      ValueError: no such file, one that cannot be read, or images of another size; each named.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{option}: no such file or folder: {path}")
    if path.suffix == ".npz":
        return read_arrays(option, path, shape, key, why)
    if channels is None:
        raise ValueError(f"{option}: expected a file .npz with the array {key!r}, as it is no image, got {path}")
    if resize and shape[0] != shape[1]:
        raise ValueError(f"--resize: expected a prior of square images, got one of {shape[0]}x{shape[1]}")
    label = None
    if path.is_dir():
        try:
            files, label, classes = list_images(path)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None
        label = None if label is None else [classes[i] for i in label]
        names = ["-".join(file.relative_to(path).with_suffix("").parts) for file in files]
    else:
        files, names = [path], [path.stem]
    if len(set(names)) < len(names):  # a.png beside a.jpg
        names = [f"{name}{file.suffix.replace('.', '-')}" for name, file in zip(names, files)]
    found = []
    for file in files:
        try:
            image = read_image(file, shape[0] if resize else None, channels)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None
        if image.shape[:2] != tuple(shape[:2]):
            expected, got = ("x".join(map(str, s[:2])) for s in (shape, image.shape))
            more = "; --resize scales and crops" if why == "the prior's" else ""
            raise ValueError(f"{option}: {file}: expected {expected} pixels, {why} size, got {got}{more}")
        found.append(from_uint8(image))
    return Images(names, np.stack(found), label)


def read_arrays(option, path, shape, key, why):
    """`Images` of the arrays `key` and, where there is one, "label" of an .npz; bytes are scaled to [-1, 1]."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in (key, "label")}
    except Exception as error:  # a truncated or foreign file: zipfile, numpy and the system each raise their own
        raise ValueError(f"{option}: {path} cannot be read ({str(error).splitlines()[0]})") from None
    if key not in arrays:
        raise ValueError(f"{option}: {path}: expected an array {key!r}, got none")
    x = arrays[key]
    if x.dtype == np.uint8:
        x = from_uint8(x)
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"{option}: {path}: {key}: expected real numbers or bytes, got {x.dtype}")
    if not len(x.shape) or not len(x) or x[0].size != np.prod(shape) or (x.ndim > 2 and x.shape[1:] != tuple(shape)):
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{option}: {path}: {key}: expected shape [N, {expected}], {why} shape, got {x.shape}")
    x = x.reshape(len(x), *shape).astype(np.float32)
    label = arrays.get("label")
    if label is not None and label.shape != (len(x),):
        raise ValueError(f"{option}: {path}: label: expected shape ({len(x)},), got {label.shape}")
    return Images([f"{i:04d}" for i in range(len(x))], x, None if label is None else label.tolist())


def check_clean(option, found):
    """`found`, where all values are those of images.

    Raises:
      ValueError: NaN, or values outside [-1, 1]; the image is named.
    """
    for name, x in zip(found.names, found.x):
        if not np.isfinite(x).all() or np.abs(x).max() > 1 + 1e-5:
            raise ValueError(f"{option}: {name}: expected values in [-1, 1] (or bytes), got {x.min():g} to {x.max():g}")
    return found


def numbered(labels, class_names, num_classes):
    """Class names or numbers as numbers [N].

    Raises:
      ValueError: a class that the prior does not know.
    """
    numbers = []
    for label in labels:
        text = str(label)
        number = class_names.index(text) if text in class_names else int(text) if text.isdecimal() else -1
        if not 0 <= number < num_classes:
            raise ValueError(f"--labels: expected classes 0 ... {num_classes - 1} or their names, got {text!r}")
        numbers.append(number)
    return np.asarray(numbers, np.int32)


def picture(names, seen, estimate, draws, spread, truth):
    """One row an image [H, W, 3] of uint8: what was measured, estimate, a draw, spread, and truth where it is known."""
    top = float(spread.max()) or 1.0
    columns = {
        "measured": (seen, -1.0, 1.0),
        "estimate": (estimate, -1.0, 1.0),
        "a draw": (draws[:, 0], -1.0, 1.0),
        f"std/{top:.2f}": (spread, 0.0, top),
    }
    if truth is not None:
        columns["truth"] = (truth, -1.0, 1.0)
    return pictures.columns_of({k: (x[:ROWS], low, high) for k, (x, low, high) in columns.items()}, names[:ROWS])


def write(out, names, arrays, figures, shown):
    """The folder `out`, whole or not at all.

    Args:
      names: of the images.
      arrays: name -> [N, ...], kept by image; "estimate" is written as a picture too.
      figures: of JSON values.
      shown: picture [H, W, 3] of all.

    Raises:
      OSError: no room, or something came into the folder meanwhile.
    """
    out = Path(out)
    part = out.with_name(f".{out.name}.{os.getpid()}")
    part.mkdir()
    try:
        pictures.save(part / "restored.png", shown)
        for i, name in enumerate(names):
            pictures.save(part / f"{name}.png", _image(arrays["estimate"][i]))
            np.savez_compressed(part / f"{name}.npz", **{key: value[i] for key, value in arrays.items()})
        write_json(part / "metrics.json", figures)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _image(x):
    """[H, W, C] in [-1, 1] as uint8, gray where C is 1."""
    image = pictures.to_bytes(x[None])[0]
    return image[..., 0] if x.shape[-1] == 1 else image
