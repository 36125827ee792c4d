"""A folder of images, with one sub-folder a class or without."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from genjax.data.spec import Dataset, DataSpec, choose, from_uint8, held_out, in_memory

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MODES = {1: "L", 3: "RGB"}
MEMORY_LIMIT = 2 * 1024**3  # bytes of float32 up to which images are read at once


def resize_crop(image, size):
    """A PIL image scaled so that its short side is `size`, then cut to its central square.

    Halving by box filters first and one bicubic step at the end keeps fine patterns from aliasing
    (the usual preparation of ImageNet for diffusion models, 2105.05233).
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def read_image(path, size=None, channels=3):
    """An image file as uint8 [H, W, channels].

    Raises:
      ValueError: a file that cannot be read, named.
    """
    try:
        with Image.open(path) as image:
            image = image.convert(MODES[channels])
            image = image if size is None else resize_crop(image, size)
            return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"image file cannot be read: {path} ({_reason(error)})") from error


def _reason(error):
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error).splitlines()[0]


def list_images(root):
    """(paths, labels [N] or None, class names) of a folder; one class a sub-folder with images, sorted by name."""
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"folder: expected a directory, got {root}")
    images = lambda folder: sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    flat = images(root)
    classes = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and images(folder)]
    if flat and classes:
        raise ValueError(f"folder: {root} has images beside class folders ({flat[0].name} and {classes[0].name}/)")
    if not flat and not classes:
        raise ValueError(f"folder: no images ({', '.join(SUFFIXES)}) in {root}")
    if flat:
        return flat, None, ()
    found = [(path, label) for label, folder in enumerate(classes) for path in images(folder)]
    return [p for p, _ in found], np.array([i for _, i in found], np.int32), tuple(c.name for c in classes)


class ImageFiles:
    """Image files read one by one, by index."""

    def __init__(self, paths, labels, size, channels, shape):
        self.paths, self.labels, self.size, self.channels, self.shape = paths, labels, size, channels, shape

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        image = read_image(self.paths[i], self.size, self.channels)
        if image.shape != self.shape:
            expected = "x".join(map(str, self.shape[:2]))
            got = "x".join(map(str, image.shape[:2]))
            raise ValueError(f"images of mixed size: {self.paths[i]} is {got}, {self.paths[0]} {expected}; give `size`")
        example = {"x": from_uint8(image)}
        return example if self.labels is None else example | {"label": self.labels[i]}


def folder(path, split="train", *, size=None, channels=3, test_fraction=0.1, seed=0, memory_limit=MEMORY_LIMIT):
    """A folder of images as a Dataset, in [-1, 1].

    Args:
      path: holds images, or one folder of images a class. With sub-folders "train" and "test" the one
        named by `split` is taken; otherwise a fixed share is held out as "test".
      split: "train", "test", or "all".
      size: width and height to which images are scaled and cropped; None takes them as they are,
        and all must agree.
      channels: 3 (RGB) or 1 (grey).
      test_fraction, seed: of the held-out share.
      memory_limit: bytes; larger sets are read from disk as they are used.

    Raises:
      ValueError: no such folder, no images, images beside class folders, a file that cannot be read,
        or images of mixed size: all found before anything is trained.
    """
    choose("split", split, ("train", "test", "all"))
    choose("channels", channels, MODES)
    root = Path(path)
    own = split != "all" and (root / split).is_dir() and not any(p.suffix.lower() in SUFFIXES for p in root.iterdir())
    paths, labels, names = list_images(root / split if own else root)
    if not own:
        rows = held_out(len(paths), split, test_fraction, seed)
        paths, labels = [paths[i] for i in rows], None if labels is None else labels[rows]
    shape = read_image(paths[0], size, channels).shape
    files = ImageFiles(paths, labels, size, channels, shape)
    spec = DataSpec(shape, len(names), (-1.0, 1.0), 256, ("x",) if labels is None else ("x", "label"), names)
    for file in paths:
        verify_image(file)
    if 4 * len(paths) * int(np.prod(shape)) > memory_limit:
        if size is None:
            for i, file in enumerate(paths):
                with Image.open(file) as image:
                    if (image.height, image.width) != shape[:2]:
                        files[i]  # raises, naming both files
        return Dataset(root.name, spec, source=files)
    arrays = {"x": np.stack([files[i]["x"] for i in range(len(files))])}
    if labels is not None:
        arrays["label"] = labels
    return in_memory(root.name, arrays, len(names), levels=256, class_names=names)


def verify_image(path):
    """Raises ValueError, naming the file, where its structure is broken; decodes no pixels of it."""
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"image file cannot be read: {path} ({_reason(error)})") from error
