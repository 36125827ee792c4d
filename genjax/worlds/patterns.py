"""Structured disturbances of small images: full rows and columns, and rings; each of one amplitude."""

import jax
import jax.numpy as jnp


def _amplitudes(key, count, low, high):
    """`count` numbers with sizes in [low, high] and random signs."""
    size, sign = jax.random.split(key)
    signs = 2 * jax.random.bernoulli(sign, shape=(count,)).astype(jnp.float32) - 1
    return signs * jax.random.uniform(size, (count,), minval=low, maxval=high)


def lines(key, indices, pixels, low=0.6, high=1.2):
    """[N, H, W, 1]: one or two full rows or columns, 0 elsewhere; picture i depends on key and indices[i] alone.

    Two lines have amplitudes of their own; where they meet, they add.

    Args:
      low, high: range of |amplitude|.
    """

    def one(index):
        keys = jax.random.split(jax.random.fold_in(key, index), 4)
        place = jax.random.randint(keys[0], (2,), 0, pixels)
        upright = jax.random.bernoulli(keys[1], shape=(2,))
        size = _amplitudes(keys[2], 2, low, high) * jnp.array([1.0, jax.random.bernoulli(keys[3])])
        hit = (jnp.arange(pixels)[None] == place[:, None]).astype(jnp.float32)  # [2, pixels]
        row, column = hit[:, :, None], hit[:, None, :]
        each = jnp.where(upright[:, None, None], jnp.broadcast_to(column, (2, pixels, pixels)), row)
        return jnp.sum(size[:, None, None] * each, axis=0)[..., None]

    return jax.vmap(one)(jnp.asarray(indices))


def rings(key, indices, pixels, low=0.6, high=1.2):
    """[N, H, W, 1]: one ring of radius 1 to pixels / 2 around a random center; arguments as for `lines`."""

    def one(index):
        keys = jax.random.split(jax.random.fold_in(key, index), 3)
        center = jax.random.uniform(keys[0], (2,), minval=0.25 * pixels, maxval=0.75 * pixels)
        radius = jax.random.uniform(keys[1], minval=1.0, maxval=pixels / 2)
        at = jnp.arange(pixels) + 0.5
        distance = jnp.hypot(at[:, None] - center[0], at[None] - center[1])
        return (_amplitudes(keys[2], 1, low, high)[0] * jnp.clip(1 - jnp.abs(distance - radius), 0, 1))[..., None]

    return jax.vmap(one)(jnp.asarray(indices))
