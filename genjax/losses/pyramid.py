"""Distances between an image and what was made of it, per sample: mean errors, and the Laplacian pyramid's.

RECONSTRUCTIONS: name -> constructor of `(made [B, ...], target [B, ...]) -> [B]`.
"""

import jax.numpy as jnp

from genjax.core.numerics import mean_except_batch

TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # the binomial kernel of Burt and Adelson


def _along(x, axis):
    """x [B, H, W, C] convolved with TAPS along one axis, mirrored at the edges (which are not repeated)."""
    pad = [(0, 0)] * 4
    pad[axis] = (2, 2)
    n, padded = x.shape[axis], jnp.pad(x, pad, mode="reflect")
    index = lambda i: tuple(slice(i, i + n) if a == axis else slice(None) for a in range(4))
    return sum(tap * padded[index(i)] for i, tap in enumerate(TAPS))


def blurred(x):
    """x [B, H, W, C], both sides at least 3, under the 5x5 Gaussian kernel."""
    return _along(_along(x, 1), 2)


def reduced(x):
    """Every other pixel of `blurred`: [B, H / 2, W / 2, C]."""
    return blurred(x)[:, ::2, ::2]


def expanded(x):
    """x [B, H, W, C] at twice the size: zeros between the pixels, then 4 `blurred`; linear images stay so inside."""
    b, h, w, c = x.shape
    wide = jnp.zeros((b, h, 2, w, 2, c), x.dtype).at[:, :, 0, :, 0].set(x)
    return 4 * blurred(wide.reshape(b, 2 * h, 2 * w, c))


def laplacian_pyramid(x, levels):
    """[L^0, ..., L^levels] of x [B, H, W, C]: L^j = G_j - expanded(G_{j+1}), G_0 = x, the last is G_levels itself.

    Raises:
      ValueError: no images, or sides that are not multiples of 2^levels with at least 4 pixels above the last level.
    """
    if x.ndim != 4 or levels < 1:
        raise ValueError(f"levels: expected at least 1 and images [B, H, W, C], got {levels} and shape {x.shape}")
    if any(side % 2**levels or side < 2 ** (levels + 1) for side in x.shape[1:3]):
        raise ValueError(f"levels: expected sides that are multiples of {2**levels}, from {2 ** (levels + 1)} on")
    found = []
    for _ in range(levels):
        small = reduced(x)
        found.append(x - expanded(small))
        x = small
    return [*found, x]


def squared_error():
    """Mean squared error of a sample."""
    return lambda made, target: mean_except_batch((made - target) ** 2)


def absolute_error():
    """Mean absolute error of a sample."""
    return lambda made, target: mean_except_batch(jnp.abs(made - target))


def laplacian(levels=3, squares=0.0):
    """Lap1 of GLO (1707.05776, section 2): sum_j 2^{2j} |L^j(x) - L^j(x')|_1, over the number of values of x.

    A level has 4^{-j} of the finest one's values, so this is the sum of the levels' mean absolute differences.

    Args:
      levels: differences of neighbouring levels; the low-pass rest is one more.
      squares: weight of the mean squared error beside it.
    """
    if levels < 1 or squares < 0:
        raise ValueError(f"levels: expected levels >= 1 and squares >= 0, got {levels} and {squares}")

    def loss(made, target):
        # the pyramid is linear, so that of the difference is the difference of the two
        gap = made - target
        found = sum(mean_except_batch(jnp.abs(level)) for level in laplacian_pyramid(gap, levels))
        return found + squares * mean_except_batch(gap**2) if squares else found

    return loss


RECONSTRUCTIONS = {"l2": squared_error, "l1": absolute_error, "laplacian": laplacian}
