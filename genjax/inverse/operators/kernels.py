"""Blur kernels as numpy arrays [h, w] that sum to 1."""

import numpy as np


def _odd(size, field):
    if size < 1 or size % 2 == 0:
        raise ValueError(f"{field}: expected an odd number >= 1, got {size}")
    return int(size)


def gaussian_kernel(std, size=None):
    """A Gaussian of standard deviation std > 0 pixels; size odd, None: six standard deviations."""
    if not std > 0:
        raise ValueError(f"std: expected > 0, got {std}")
    size = 2 * int(np.ceil(3 * std)) + 1 if size is None else _odd(size, "size")
    line = np.exp(-0.5 * ((np.arange(size) - size // 2) / std) ** 2)
    kernel = np.outer(line, line)
    return kernel / kernel.sum()


def motion_kernel(length, angle=0.0, bend=0.0, seed=0, size=None):
    """The trace of a moving camera.

    Args:
      length: of the path in pixels, >= 0; 0 is no blur.
      angle: direction in degrees, 0 along the width.
      bend: how much the direction wanders, in radians (standard deviation of its change from one end to the
        other); 0 is a straight line.
      seed: of the wandering.
      size: odd side of the kernel; None: the smallest that holds the path.
    """
    if length < 0 or bend < 0:
        raise ValueError(f"length, bend: expected >= 0, got {length} and {bend}")
    steps = max(64, 16 * int(np.ceil(length)))
    turns = np.cumsum(np.random.default_rng(seed).normal(size=steps)) * bend / np.sqrt(steps)
    direction = np.deg2rad(angle) + turns
    path = np.cumsum(np.stack([np.sin(direction), np.cos(direction)], axis=-1) * length / steps, axis=0)
    path -= path.mean(axis=0)
    reach = int(np.ceil(np.abs(path).max()))
    size = 2 * reach + 1 if size is None else _odd(size, "size")
    if size // 2 < reach:
        raise ValueError(f"size: expected at least {2 * reach + 1} for this path, got {size}")
    kernel = np.zeros((size + 1, size + 1))
    position = path + size // 2
    corner = np.floor(position).astype(int)
    rest = position - corner
    for i in (0, 1):  # each point is shared by its four neighbours
        for j in (0, 1):
            weight = np.abs(1 - i - rest[:, 0]) * np.abs(1 - j - rest[:, 1])
            np.add.at(kernel, (corner[:, 0] + i, corner[:, 1] + j), weight)
    kernel = kernel[:size, :size]
    return kernel / kernel.sum()
