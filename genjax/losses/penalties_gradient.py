"""Penalties on the critic's gradient with respect to its input; what a penalty is.

A critic's penalty is `(keys, d_fn, x) -> [B]` or a scalar, a generator's `(keys, g_fn, z) -> [B]`.

  keys   one key or keys [B], one a sample
  d_fn   x [B, ...] -> Critique, the condition closed over, called with a whole batch; `d_fn(x, cond)` asks for
         another condition. Its logits are the number that says "real" (`AdversarialLoss.logit`). Every call
         starts from the same mutable state, which is thrown away. `d_fn.params` are the critic's parameters.
  x      dict: "real" and "fake" [B, ...]; "fake_cond" where the generated samples' condition is another;
         "z" and "generate" (z -> x, a constant of the critic's game); and the points that a tempered game adds
  g_fn   z -> x, with `g_fn.params`

A penalty with a memory takes and returns it: `(keys, d_fn, x, state) -> (value, state)`, see `Memory`. All are
used through `Penalty`, which weights and times them.
Gradients with respect to x are one vector-Jacobian product of the summed logits, so that samples which a
batch couples (batch norm, minibatch deviation) are counted as the papers' codes count them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax.core import keys as random
from genjax.core.collectives import pmean
from genjax.core.numerics import bcast, mean_except_batch, safe_norm, sum_except_batch
from genjax.losses.adversarial_features import make_kernel, reader
from genjax.losses.mmd import witness as witness_of


class Memory(NamedTuple):
    """A penalty with a state."""

    fn: Callable  # (keys, player, x, state) -> (value, state)
    init: Callable  # params -> state


class Penalty(NamedTuple):
    """A penalty in a game: weight * fn, on every `every`-th update of its player, then `every` times as strong."""

    fn: Callable | Memory
    weight: float = 1.0
    every: int = 1


def on_fakes(d_fn, x):
    """d_fn at the generated samples, under their condition."""
    return d_fn(x["fake"], x["fake_cond"]) if "fake_cond" in x else d_fn(x["fake"])


def logit_gradient(call, x):
    """Gradient of the summed logits of `call(x)` with respect to x [B, ...]."""
    return jax.grad(lambda y: jnp.sum(call(y).logits))(x)


def gradient_norm(call, x):
    """|grad_x D(x)| of each sample, [B], with gradient 0 where it is 0."""
    gradient = logit_gradient(call, x)
    return safe_norm(gradient.reshape(len(gradient), -1), axis=-1)


def interpolate(keys, x):
    """u x_real + (1 - u) x_fake with u ~ U(0, 1), one a sample."""
    u = bcast(random.uniform(keys, (len(x["real"]),)), x["real"])
    return u * x["real"] + (1 - u) * x["fake"]


def _beyond(norm, target, one_sided):
    gap = jax.nn.relu(norm - target) if one_sided else norm - target
    return gap**2


def gradient_penalty(target=1.0, one_sided=False):
    """(|grad D(x^)| - target)^2 between reals and fakes (WGAN-GP, 1704.00028, equation 3).

    Args:
      target: norm that is wanted; 0 gives the zero-centred penalty between the two (1902.03984).
      one_sided: only norms above the target count (1709.08894, WGAN-LP).
    """

    def fn(keys, d_fn, x):
        return _beyond(gradient_norm(d_fn, interpolate(keys, x)), target, one_sided)

    return fn


def zero_centred():
    """|grad D(x^)|^2 between reals and fakes (1902.03984, equation 8)."""
    return gradient_penalty(0.0)


def dragan(scale=0.5, target=1.0, axis_name=None):
    """(|grad D(x + delta)| - target)^2 around reals (1705.07215, equation 4; the noise of its code).

    delta = a scale std(x) u, u ~ U(0, 1) an entry, a ~ U(0, 1) a sample, std over the whole batch.
    """

    def fn(keys, d_fn, x):
        real = x["real"]
        mean = pmean(jnp.mean(real), axis_name)
        std = jnp.sqrt(pmean(jnp.mean((real - mean) ** 2), axis_name))
        u, a = random.uniform(random.fold(keys, 0), real.shape), random.uniform(random.fold(keys, 1), (len(real),))
        return _beyond(gradient_norm(d_fn, real + bcast(a, real) * scale * std * u), target, False)

    return fn


def max_gp(axis_name=None):
    """(max_batch |grad D(x^)|)^2 between reals and fakes (1910.00105's code; 1902.05687, equation 22), a scalar."""

    def fn(keys, d_fn, x):
        norm = jnp.max(gradient_norm(d_fn, interpolate(keys, x)))
        if axis_name is None:
            return norm**2
        every = jax.lax.all_gather(norm, axis_name)
        return jnp.max(every) ** 2

    return fn


def r1():
    """1/2 |grad D(x)|^2 at reals (1801.04406, equation 9): its weight is the papers' gamma."""
    return lambda keys, d_fn, x: 0.5 * sum_except_batch(logit_gradient(d_fn, x["real"]) ** 2)


def r2():
    """1/2 |grad D(G(z))|^2 at generated samples (1801.04406, equation 10), which are constants."""

    def fn(keys, d_fn, x):
        at = lambda y: on_fakes(d_fn, {**x, "fake": y})
        return 0.5 * sum_except_batch(logit_gradient(at, x["fake"]) ** 2)

    return fn


def r1_r2():
    """R1 + R2, of one gamma (2501.05441, equation 3)."""
    first, second = r1(), r2()
    return lambda keys, d_fn, x: first(keys, d_fn, x) + second(keys, d_fn, x)


def witness(kernel="rq_star", of="features", target=1.0):
    """(|grad f(x^)| - target)^2 of the witness f(t) = E k(h(x), h(t)) - E k(h(G(z)), h(t)) (1801.01401, section 4.2).

    Args:
      kernel: as in `mmd`; of: which output of the critic is h.
    """
    k, read = make_kernel(kernel), reader(of)

    def fn(keys, d_fn, x):
        real, fake = read(d_fn(x["real"])), read(on_fakes(d_fn, x))
        value = lambda y: jnp.sum(witness_of(k, read(d_fn(y)), real, fake))
        gradient = jax.grad(value)(interpolate(keys, x))
        return (safe_norm(gradient.reshape(len(gradient), -1), axis=-1) - target) ** 2

    return fn


def coherency():
    """PTGAN's directional derivative (grad_x D(q~, tau~) . (q_1 - q_2))^2 (2411.11786, algorithm 3).

    Of the points "between" and "direction" of a tempered game (`algorithms.games.tempering`), under the
    condition "between_cond"; the temperature is held fixed.
    """

    def fn(keys, d_fn, x):
        if "between" not in x:
            raise ValueError("coherency: expected a tempered game (prepare: tempering), got one without")
        logit = lambda y: d_fn(y, x["between_cond"]).logits
        slope = jax.jvp(logit, (x["between"],), (x["direction"],))[1]
        return mean_except_batch(slope) ** 2

    return fn
