"""Adaptive pseudo augmentation: some fakes are shown to the discriminator as reals (2111.06849)."""

import jax
import jax.numpy as jnp

from genjax.core.keys import per_sample
from genjax.core.numerics import bcast
from genjax.data.augment.base import Augment, controller


def pseudo_reals(keys, real, fake, p):
    """`real` [B, ...] with each sample replaced by `fake`, without its gradient, with probability p (eq. 2)."""
    if real.shape != fake.shape:
        raise ValueError(f"fake: expected the shape of real, {real.shape}, got {fake.shape}")
    coin = jax.vmap(lambda key: jax.random.bernoulli(key, p))(per_sample(keys, len(real)))
    return jnp.where(bcast(coin, real), jax.lax.stop_gradient(fake), real)


def apa(target=0.6, kimg=500.0, interval=4, p=0.0, *, p_max=1.0, axis_name=None):
    """The Augment that changes no image but shows fakes as reals with a probability under control.

    Arguments as `controller`; the heuristic is lambda_r = E[sign D(real)] (2111.06849, eq. 3).
    """
    init, update = controller(target, kimg, interval, p, p_max=p_max, axis_name=axis_name)
    return Augment(
        lambda keys, x, state: x,
        init,
        update,
        lambda keys, real, fake, state: pseudo_reals(keys, real, fake, state.p),
    )
