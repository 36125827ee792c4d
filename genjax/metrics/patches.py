"""Sliced Wasserstein distance between the patches of two sets of images (1710.10196, section 5).

The paper takes it level by level of a Laplacian pyramid (`losses.pyramid`), so that each level's figure speaks of
the structure at one scale.
"""

import numpy as np


def _descriptors(x, size, per_image, seed):
    """Patches [N * per_image, C * size^2] of images [N, H, W, C] at random places, each channel normalized."""
    n, h, w, _ = x.shape
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, h - size + 1, (n, per_image))
    columns = rng.integers(0, w - size + 1, (n, per_image))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    patches = windows[np.arange(n)[:, None], rows, columns].astype(np.float64)  # [N, P, C, size, size]
    mean = patches.mean(axis=(0, 1, 3, 4), keepdims=True)
    std = patches.std(axis=(0, 1, 3, 4), keepdims=True)
    return ((patches - mean) / np.where(std > 0, std, 1)).reshape(n * per_image, -1)


def patch_swd(x, y, size=7, per_image=128, directions=512, seed=0):
    """Sliced Wasserstein-1 distance between normalized patches: mean |difference of sorted projections|.

    Each set is normalized by its own mean and standard deviation, channel by channel, so an affine change of the
    values costs nothing. The paper reports 1,000 times this number.

    Args:
      x, y: images [N, H, W, C], as many of one as of the other; one level of their pyramids.
      size: of the patches.
      per_image: patches an image, at places drawn at random, the same for image i of both sets.
      directions: of the projections, unit vectors.
      seed: of places and directions.

    Raises:
      ValueError: sets of different shapes, or images smaller than a patch.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 4 or x.shape != y.shape:
        raise ValueError(f"x: expected two sets [N, H, W, C] of one shape, got {x.shape} and {y.shape}")
    if min(x.shape[1:3]) < size or size < 1 or per_image < 1:
        raise ValueError(f"size: expected patches of 1 to {min(x.shape[1:3])}, at least one, got {size}, {per_image}")
    a, b = (_descriptors(v, size, per_image, seed) for v in (x, y))
    rng = np.random.default_rng([seed, 1])
    total = 0.0
    for start in range(0, directions, 64):  # some at a time: the projections of all would fill the memory
        u = rng.normal(size=(a.shape[1], min(64, directions - start)))
        u /= np.linalg.norm(u, axis=0)
        total += np.abs(np.sort(a @ u, axis=0) - np.sort(b @ u, axis=0)).mean(axis=0).sum()
    return float(total / directions)
