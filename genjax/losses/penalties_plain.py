"""Penalties without gradients of the input: consistency, reconstruction, magnitudes of logits and of weights.

The form is that of `losses.penalties_gradient`. Those of weights read `.params` of the player alone, so they
serve both players.
"""

import jax
import jax.numpy as jnp

from genjax.core import keys as random
from genjax.core.numerics import mean_except_batch, sum_except_batch
from genjax.losses.penalties_gradient import on_fakes


def drift():
    """D(x)^2 at reals: keeps the critic's scores near 0 (1710.10196, section A.1; its weight there is 1e-3)."""
    return lambda keys, d_fn, x: mean_except_batch(d_fn(x["real"]).logits ** 2)


def consistency(augment, real=1.0, fake=1.0):
    """bCR: real (D(x) - D(T x))^2 + fake (D(G(z)) - D(T G(z)))^2 (2002.04724, equation 5).

    Args:
      augment: T, (keys, x) -> x.
      real, fake: weights of the two; fake = 0 is consistency regularization (1910.12027).
    """

    def fn(keys, d_fn, x):
        gap = lambda call, y, i: mean_except_batch(
            (call(y).logits - call(augment(random.fold(keys, i), y)).logits) ** 2
        )
        total = real * gap(d_fn, x["real"], 0)
        at = lambda y: on_fakes(d_fn, {**x, "fake": y})
        return total + fake * gap(at, x["fake"], 1) if fake else total

    return fn


def latent_consistency(std=0.1):
    """zCR's critic side, (D(G(z)) - D(G(z + std eps)))^2 (2002.04724, equation 6)."""

    def fn(keys, d_fn, x):
        near = x["generate"](x["z"] + std * random.normal_like(keys, x["z"]))
        return mean_except_batch((on_fakes(d_fn, x).logits - on_fakes(d_fn, {**x, "fake": near}).logits) ** 2)

    return fn


def reconstruction(norm="l1"):
    """Distance of what the critic's decoders make of its maps of reals from what they were to make (2101.04775).

    Reads the dicts "reconstructions" and "targets" (name -> [B, ...]) in `extra`; targets are constants.
    """
    if norm not in ("l1", "l2"):
        raise ValueError(f"norm: expected 'l1' or 'l2', got {norm!r}")
    measure = jnp.abs if norm == "l1" else jnp.square

    def fn(keys, d_fn, x):
        extra = d_fn(x["real"]).extra or {}
        if "reconstructions" not in extra:
            raise ValueError("reconstruction: expected a discriminator with decoders, got one without")
        made, targets = extra["reconstructions"], jax.lax.stop_gradient(extra["targets"])
        return sum(mean_except_batch(measure(made[name] - targets[name])) for name in made)

    return fn


def latent_diversity(std=0.1):
    """zCR's generator side, -|G(z) - G(z + std eps)|^2 a pixel (2002.04724, equation 7)."""

    def fn(keys, g_fn, z):
        return -mean_except_batch((g_fn(z) - g_fn(z + std * random.normal_like(keys, z))) ** 2)

    return fn


def _kernels(params):
    return [p.reshape(-1, p.shape[-1]) for p in jax.tree.leaves(params) if p.ndim > 1]


def orthogonal(off_diagonal=True):
    """|W^T W (1 - I)|_F^2 of every kernel, columns its outputs (1809.11096, equation 3), a scalar.

    Args:
      off_diagonal: False for |W^T W - I|_F^2, which fixes the norms too (1609.07093).
    """

    def fn(keys, player, x):
        total = 0.0
        for w in _kernels(player.params):
            gram, eye = w.T @ w, jnp.eye(w.shape[1])
            total = total + jnp.sum((gram * (1 - eye) if off_diagonal else gram - eye) ** 2)
        return total

    return fn


def l2():
    """|theta|^2 of the kernels, a scalar."""
    return lambda keys, player, x: sum(jnp.sum(w**2) for w in _kernels(player.params))


def output_l2():
    """|D|^2 of all the critic's features, at reals and fakes: the activation penalty of MMD critics (1801.01401)."""

    def fn(keys, d_fn, x):
        size = lambda critique: sum_except_batch(critique.features**2)
        return size(d_fn(x["real"])) + size(on_fakes(d_fn, x))

    return fn


def clip_weights(c=0.01):
    """params -> params with every weight and bias in [-c, c], after each update of a critic (1701.07875)."""
    if not c > 0:
        raise ValueError(f"c: expected a number > 0, got {c}")
    return lambda params: jax.tree.map(lambda p: jnp.clip(p, -c, c), params)
