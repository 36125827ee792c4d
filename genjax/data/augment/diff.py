"""DiffAugment: colour, translation and cutout, the same law on real and fake (2006.10738)."""

import jax
import jax.numpy as jnp

from genjax.core.keys import per_sample
from genjax.core.numerics import bcast
from genjax.data.augment.base import check_probability
from genjax.data.augment.warp import shift


def _whole(u, low, high):
    """One of low ... high for each number u in [0, 1)."""
    return low + jnp.minimum(jnp.floor(u * (high - low + 1)).astype(jnp.int32), high - low)


def _outside(n, size, center):
    """[B, n]: whether a pixel lies outside the window of `size` pixels around `center` [B]."""
    low = center - size // 2
    at = jnp.arange(n)[None]
    return (at < low[:, None]) | (at >= (low + size)[:, None])


def diff_augment(keys, x, p=1.0, *, brightness=0.5, saturation=1.0, contrast=0.5, translation=0.125, cutout=0.5):
    """x through brightness, saturation, contrast, translation and cutout (2006.10738, section 3.2).

    Args:
      keys: one key or keys [B].
      x: [B, H, W, C] in [-1, 1].
      p: probability that a sample is augmented at all, may be traced.
      brightness: b ~ U(-brightness, brightness) is added.
      saturation: the distance to the mean over channels is scaled by 1 + U(-saturation, saturation).
      contrast: the distance to the image's mean is scaled by 1 + U(-contrast, contrast).
      translation: largest move, as a share of each side; zeros come in.
      cutout: side of the square set to zero, as a share of each side.
      A number at 0 leaves its transform out.

    Returns:
      [B, H, W, C].

    Raises:
      ValueError: p or a share outside [0, 1].
    """
    for name, value in (("p", p), ("translation", translation), ("cutout", cutout)):
        check_probability(name, value)
    batch, h, w, _ = x.shape
    u = jax.vmap(lambda key: jax.random.uniform(key, (8,)))(per_sample(keys, batch)).T  # one row a draw
    between = lambda i, reach: bcast((2 * u[i] - 1) * reach, x).astype(x.dtype)
    y = x
    if brightness:
        y = y + between(0, brightness)
    if saturation:
        mean = jnp.mean(y, axis=-1, keepdims=True)
        y = mean + (y - mean) * (1 + between(1, saturation))
    if contrast:
        mean = jnp.mean(y, axis=(1, 2, 3), keepdims=True)
        y = mean + (y - mean) * (1 + between(2, contrast))
    if translation:
        reach = [int(n * translation + 0.5) for n in (h, w)]
        y = shift(y, _whole(u[3], -reach[0], reach[0]), _whole(u[4], -reach[1], reach[1]))
    if cutout:
        size = [int(n * cutout + 0.5) for n in (h, w)]
        rows = _outside(h, size[0], _whole(u[5], 0, h - size[0] % 2))
        columns = _outside(w, size[1], _whole(u[6], 0, w - size[1] % 2))
        y = jnp.where((rows[:, :, None] | columns[:, None, :])[..., None], y, 0)
    if isinstance(p, (int, float)) and p == 1:
        return y
    return jnp.where(bcast(u[7] < p, x), y, x)
