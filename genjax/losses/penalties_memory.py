"""Penalties that remember: moving averages of logits, of weights and of the generator's path length.

Each is a `Memory`: `fn(keys, player, x, state) -> (value, state)` and `init(params) -> state`.
"""

import jax
import jax.numpy as jnp

from genjax.core import keys as random
from genjax.core.collectives import pmean
from genjax.core.numerics import mean_except_batch, safe_norm
from genjax.losses.penalties_gradient import Memory, on_fakes


def lecam(decay=0.99, axis_name=None):
    """LeCam regularization (D(x) - a_F)^2 + (D(G(z)) - a_R)^2 (2104.03310, equation 5).

    a_R and a_F are moving averages of the critic's logits of reals and of generated samples, updated before use
    and corrected for their start at zero.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected a number in [0, 1), got {decay}")

    def fn(keys, d_fn, x, state):
        real, fake = d_fn(x["real"]).logits, on_fakes(d_fn, x).logits
        seen = jax.lax.stop_gradient(pmean(jnp.stack([jnp.mean(real), jnp.mean(fake)]), axis_name))
        new = {"mean": decay * state["mean"] + (1 - decay) * seen, "weight": decay * state["weight"] + (1 - decay)}
        a_real, a_fake = new["mean"] / new["weight"]
        return mean_except_batch((real - a_fake) ** 2) + mean_except_batch((fake - a_real) ** 2), new

    return Memory(fn, lambda params: {"mean": jnp.zeros(2), "weight": jnp.zeros(())})


def historical_averaging():
    """|theta - mean of theta over the updates so far, this one's included|^2 (1606.03498, section 3.3)."""

    def fn(keys, player, x, state):
        count = state["count"] + 1
        now = jax.lax.stop_gradient(player.params)
        mean = jax.tree.map(lambda old, p: old + (p - old) / count, state["mean"], now)
        gaps = jax.tree.map(lambda p, m: jnp.sum((p - m) ** 2), player.params, mean)
        return sum(jax.tree.leaves(gaps)), {"count": count, "mean": mean}

    return Memory(fn, lambda params: {"count": jnp.zeros(()), "mean": jax.tree.map(jnp.zeros_like, params)})


def path_length(of="latent", decay=0.01, axis_name=None):
    """Path length regularization of the generator, (|J^T y| - a)^2 with y ~ N(0, 1 / (H W)) (1912.04958, section 3.2).

    J is the Jacobian with respect to the latent or the styles; a is the moving average of |J^T y|, updated before
    use.

    Args:
      of: "latent", or "style" for generators in two halves (`g_fn.styles(z)`, `g_fn.synthesize(ws)`).
      decay: share of the batch's mean in a's update.
    """
    if of not in ("latent", "style"):
        raise ValueError(f"of: expected 'latent' or 'style', got {of!r}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay: expected a share in (0, 1], got {decay}")

    def fn(keys, g_fn, z, state):
        at, make = (g_fn.styles(z), g_fn.synthesize) if of == "style" else (z, g_fn)
        x, pull = jax.vjp(make, at)
        pixels = x.shape[1] * x.shape[2] if x.ndim == 4 else 1
        y = random.normal_like(keys, x) / jnp.sqrt(1.0 * pixels)
        (gradient,) = pull(y)
        if gradient.ndim == 3:  # styles [B, layers, D]: summed over D, averaged over layers
            length = jnp.sqrt(jnp.mean(jnp.sum(gradient**2, axis=2), axis=1) + 1e-12)
        else:
            length = safe_norm(gradient.reshape(len(gradient), -1), axis=-1)
        mean = jax.lax.stop_gradient(pmean(jnp.mean(length), axis_name))
        new = state + decay * (mean - state)
        return (length - new) ** 2, new

    return Memory(fn, lambda params: jnp.zeros(()))
