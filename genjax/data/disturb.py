"""Disturbances of images by degrees, for studies of metrics (1706.08500, appendix A1); NumPy, seeded.

DISTURBANCES: name -> function (rng, images [N, H, W, C], level) -> images, level 0 leaving them as they are.
"""

import numpy as np


def gaussian_noise(rng, x, level):
    """x + level eps, without clipping."""
    return x + level * rng.standard_normal(x.shape).astype(x.dtype)


def blur(rng, x, level):
    """Gaussian blur of standard deviation `level` pixels, edges repeated."""
    from scipy.ndimage import gaussian_filter1d

    if level == 0:
        return x
    for axis in (1, 2):
        x = gaussian_filter1d(x, level, axis=axis, mode="nearest")
    return x


def dark_square(rng, x, level):
    """A square of `level` pixels at a random place of each image set to its darkest value allowed, -1."""
    size, (n, h, w) = int(level), x.shape[:3]
    if not 0 <= size <= min(h, w):
        raise ValueError(f"level: expected a side of 0 to {min(h, w)} pixels, got {level}")
    top, left = rng.integers(0, h - size + 1, n), rng.integers(0, w - size + 1, n)
    inside = lambda start, count: (
        (np.arange(count)[None] >= start[:, None]) & (np.arange(count)[None] < start[:, None] + size)
    )
    hidden = inside(top, h)[:, :, None] & inside(left, w)[:, None]
    return np.where(hidden[..., None], x.dtype.type(-1), x)


def swirl(rng, x, level):
    """Turns each point about the centre by level exp(-r / R) radians, R half the width; bilinear, edges repeated."""
    from scipy.ndimage import map_coordinates

    h, w = x.shape[1:3]
    row, column = np.meshgrid(np.arange(h) - (h - 1) / 2, np.arange(w) - (w - 1) / 2, indexing="ij")
    angle = level * np.exp(-np.hypot(row, column) / (w / 2))
    c, s = np.cos(angle), np.sin(angle)
    at = [c * row - s * column + (h - 1) / 2, s * row + c * column + (w - 1) / 2]
    pull = lambda image: map_coordinates(image, at, order=1, mode="nearest")
    flat = np.moveaxis(x, -1, 1).reshape(-1, h, w)
    return np.moveaxis(np.stack([pull(image) for image in flat]).reshape(len(x), -1, h, w), 1, -1)


def salt_and_pepper(rng, x, level):
    """A share `level` of the pixels set to -1 or 1, evenly."""
    coin, side = rng.random(x.shape[:3]), rng.random(x.shape[:3]) < 0.5
    return np.where((coin < level)[..., None], np.where(side, 1, -1).astype(x.dtype)[..., None], x)


def shuffled_pixels(rng, x, level):
    """A share `level` of the images replaced by themselves with their pixels in random order: a foreign class."""
    n, h, w = x.shape[:3]
    order = np.argsort(rng.random((n, h * w)), axis=1)
    mixed = np.take_along_axis(x.reshape(n, h * w, -1), order[..., None], axis=1).reshape(x.shape)
    replaced = np.argsort(rng.random(n)) < round(level * n)
    return np.where(replaced[:, None, None, None], mixed, x)


DISTURBANCES = {
    "gaussian_noise": gaussian_noise,
    "blur": blur,
    "dark_square": dark_square,
    "swirl": swirl,
    "salt_and_pepper": salt_and_pepper,
    "shuffled_pixels": shuffled_pixels,
}
