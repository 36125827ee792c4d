"""Samples and loss curves as pictures."""

import math
from pathlib import Path

import numpy as np

from genjax.train.workdir import atomic_path


def is_image(spec):
    """Whether samples can be shown as images: of shape [H, W, 1 or 3], or [n * n], with values in a range."""
    shape, n = spec.shape, math.isqrt(spec.shape[0])
    return spec.range is not None and (
        (len(shape) == 3 and shape[-1] in (1, 3)) or (len(shape) == 1 and n > 3 and n * n == shape[0])
    )


def check_picture(spec):
    """Raises ValueError for samples that are neither images nor points."""
    if not is_image(spec) and not (len(spec.shape) == 1 and spec.shape[0] >= 2):
        raise ValueError(f"--out: samples of shape {spec.shape} have no picture; expected an .npz file")


def to_bytes(x, low=-1.0, high=1.0):
    """Images [n, H, W, C] (or [n, H * H]) with values in [low, high] as uint8 [n, H, W, 3], clipped."""
    x = np.asarray(x, np.float32)
    if x.ndim == 2:
        side = math.isqrt(x.shape[1])
        x = x.reshape(len(x), side, side, 1)
    x = np.clip((x - low) / (high - low), 0, 1)
    return np.broadcast_to(np.round(255 * x), (*x.shape[:3], 3)).astype(np.uint8)


def grid(x, low=-1.0, high=1.0, columns=None, names=None):
    """Images as one picture [H, W, 3] of uint8, with a white gap between them.

    Args:
      x: [n, H, W, C] or [n, H * H], values in [low, high].
      columns: images a row; the square root of n where None.
      names: one text a row, written at its left.
    """
    images = to_bytes(x, low, high)
    zoom = max(1, 32 // images.shape[1])  # small images are shown larger
    images = images.repeat(zoom, 1).repeat(zoom, 2)
    n, h, w, _ = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows, gap = math.ceil(n / columns), 2
    margin = 0 if names is None else 8 * max(len(str(name)) for name in names) + 8
    picture = np.full((rows * (h + gap) + gap, margin + columns * (w + gap) + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (h + gap), margin + gap + (i % columns) * (w + gap)
        picture[top : top + h, left : left + w] = image
    if names is not None:
        from PIL import Image, ImageDraw

        canvas = Image.fromarray(picture)
        for row, name in enumerate(names):
            ImageDraw.Draw(canvas).text((4, gap + row * (h + gap) + h // 2 - 5), str(name), fill=(0, 0, 0))
        picture = np.asarray(canvas)
    return picture


def columns_of(columns, names, width=64):
    """Images side by side, a row an example, with a title above each column.

    Args:
      columns: title -> (images [n, H, W, C], low, high).
      names: n texts, written at the left; the first 24 letters of each.
      width: least width of an image in the picture, in pixels.

    Returns:
      Picture [H, W, 3] of uint8.
    """
    from PIL import Image, ImageDraw

    images = np.stack([to_bytes(*column) for column in columns.values()], axis=1)
    images = images.reshape(-1, *images.shape[2:])
    zoom = -(-width // images.shape[2])
    images = images.repeat(zoom, 1).repeat(zoom, 2)
    body = grid(images, 0, 255, len(columns), [str(name)[:24] for name in names])
    side, gap = images.shape[2], 2
    canvas = Image.fromarray(np.concatenate([np.full((16, *body.shape[1:]), 255, np.uint8), body]))
    left = body.shape[1] - len(columns) * (side + gap)
    for i, title in enumerate(columns):
        ImageDraw.Draw(canvas).text((left + i * (side + gap), 3), title, fill=(0, 0, 0))
    return np.asarray(canvas)


def figure(size=(6, 4)):
    """A Matplotlib figure and its axes, without a window and without global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots()


def points(x, labels=None):
    """A scatter plot of the first two coordinates of x [n, D] as a picture [H, W, 3] of uint8."""
    made, axes = figure((5, 5))
    axes.scatter(x[:, 0], x[:, 1], s=2, c=labels, cmap=None if labels is None else "tab10")
    axes.set_aspect("equal")
    made.canvas.draw()
    return np.asarray(made.canvas.buffer_rgba())[..., :3].copy()


def picture_of(x, spec, labels=None, columns=None, names=None):
    """Samples [n, *spec.shape] as a picture [H, W, 3] of uint8.

    Raises:
      ValueError: samples that are neither images nor points.
    """
    check_picture(spec)
    if is_image(spec):
        return grid(x, *spec.range, columns=columns, names=names)
    return points(np.asarray(x), labels)


def save(path, picture):
    """Writes a picture [H, W, 3] of uint8 as PNG, whole or not at all."""
    from PIL import Image

    with atomic_path(Path(path)) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def loss_curve(records, path, name="loss"):
    """Draws metric `name` of the records of metrics.jsonl against the step, as PNG."""
    steps, values = zip(*((r["step"], r[name]) for r in records if name in r))
    made, axes = figure()
    axes.plot(steps, values)
    axes.set_xlabel("step")
    axes.set_ylabel(name)
    if min(values) > 0:
        axes.set_yscale("log")
    with atomic_path(Path(path)) as temporary:
        made.savefig(temporary, format="png", dpi=120)
