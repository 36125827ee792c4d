"""Augmentation on the device, one key a sample."""

import jax
import jax.numpy as jnp

from genjax.core.keys import per_sample
from genjax.core.numerics import bcast


def horizontal_flip(keys, x, share=0.5):
    """x [B, H, W, C] with each image mirrored with probability `share`."""
    coin = jax.vmap(lambda key: jax.random.bernoulli(key, share))(per_sample(keys, len(x)))
    return jnp.where(bcast(coin, x), x[:, :, ::-1], x)
