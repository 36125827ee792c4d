"""Classifier-free guidance whose step is changed before it is taken: projected (APG), or with a scaled weak model.

APG (2410.02416): of d = x0_cond - x0_null, shortened to a radius, the part along x0_cond is scaled by eta (it
mainly saturates); an average over the steps with negative momentum damps what repeats. CFG-Zero* (2503.18886): the
weak velocity is first scaled to fit the strong one, v = s v_null + w (v_cond - s v_null), s = <v_cond, v_null> /
|v_null|^2, and the first steps are left out.
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold
from genjax.core.numerics import bcast, safe_div, safe_norm
from genjax.core.prediction import predict, with_x0
from genjax.core.types import SolverState
from genjax.guidance.compose import null_cond
from genjax.guidance.free import cfg
from genjax.solvers.base import from_step
from genjax.solvers.levels import choose


def _inner(a, b):
    """<a, b> of each sample, of a's rank."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)


def projected_step(difference, strong_x0, eta=0.0, radius=None):
    """APG's step: `difference` shortened to `radius`, its part along `strong_x0` scaled by eta (there eq. 5-9).

    Args:
      difference, strong_x0: [B, ...].
      eta: 1 keeps the parallel part.
      radius: largest Euclidean norm of a sample, None for none.
    """
    if radius is not None:
        norm = bcast(safe_norm(difference.reshape(difference.shape[0], -1), axis=1), difference)
        difference = difference * jnp.minimum(1.0, safe_div(radius, norm) + (norm == 0))
    parallel = safe_div(_inner(difference, strong_x0), _inner(strong_x0, strong_x0)) * strong_x0
    return difference + (eta - 1) * parallel


def projected(eta=0.0, radius=None):
    """`combine` of APG without momentum, on x0; eps is refitted."""

    def combine(strong, weak, scale, x, process, t):
        step = projected_step(strong.x0 - weak.x0, strong.x0, eta, radius)
        x0 = strong.x0 + bcast(jnp.asarray(scale) - 1, x) * step
        return with_x0(strong, x0.astype(x.dtype), x, process, t)

    return combine


def apg(scale, eta=0.0, radius=None, interval=None):
    """Adaptive projected guidance (2410.02416) in its stateless form; `apg_momentum` is the full one."""
    return cfg(scale, interval, combine=projected(eta, radius))


def apg_momentum(solver, cond, scale, eta=0.0, radius=None, momentum=-0.5, null=null_cond):
    """APG with momentum (2410.02416, algorithm 1) around a solver: d <- d + momentum d_before, kept in its memory.

    Further evaluations within a step use the average of the steps before, and leave it.

    Args:
      cond: the condition of the samples (the denoiser of the run need not be bound to it).
      scale, eta, radius, null: as in `apg` and `cfg`.
      momentum: beta, in (-1, 1); 0 is `apg`.
    """
    if not -1 < momentum < 1:
        raise ValueError(f"momentum: expected a number in (-1, 1), got {momentum!r}")

    def init(x, t):
        return SolverState(x, (solver.init(x, t).memory, jnp.zeros_like(x)))

    def step(keys, denoiser, process, state, t, s):
        inner, before = state.memory

        def guided(x, t, _=None, key=None):
            strong, weak = denoiser(x, t, cond, key), denoiser(x, t, null(cond), key)
            average = strong.x0 - weak.x0 + momentum * before
            moved = projected_step(average, strong.x0, eta, radius)
            pred = with_x0(strong, (strong.x0 + bcast(scale - 1, x) * moved).astype(x.dtype), x, process, t)
            return pred, average

        first, average = guided(state.x, t, key=fold(fold(keys, 0), 0))

        def remembered(x, t, _=None, key=None):
            return first if x is state.x else guided(x, t, key=key)[0]

        end, info = solver.step(fold(keys, 0), remembered, process, SolverState(state.x, inner), t, s)
        return end.x, (end.memory, average), info

    return from_step(step, init, 2 * solver.evals, 2 * solver.evals_last)


def optimized_scale(strong, weak, scale, x, process, t):
    """`combine` of CFG-Zero* (2503.18886, eq. 6-8), on the velocity of the process."""
    v, u = process.velocity(x, strong, t), process.velocity(x, weak, t)
    u = safe_div(_inner(v, u), _inner(u, u)) * u
    guided = u + bcast(scale, x) * (v - u)
    pair = predict("velocity", guided, x, process, t)
    return strong._replace(x0=pair.x0.astype(x.dtype), eps=pair.eps.astype(x.dtype))


def cfg_zero(scale, zero_from=None, interval=None):
    """CFG-Zero* (2503.18886): `optimized_scale`, and no motion at all where t >= zero_from.

    Args:
      scale: scalar or [B]; 1 is the conditional model.
      zero_from: time from which the velocity is zero (without an evaluation, where t is a scalar); None for never.
        The published choice leaves out the first 4 % of the steps.
      interval: as in `cfg`.
    """
    inner = cfg(scale, interval, combine=optimized_scale)

    def guidance(denoiser, process):
        moving = inner(denoiser, process)

        def guided(x, t, cond=None, key=None):
            if zero_from is None:
                return moving(x, t, cond, key)

            def still():
                shape = jax.eval_shape(lambda: moving(x, t, cond, key))
                pair = predict("velocity", jnp.zeros_like(x), x, process, t)
                blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shape)
                return blank._replace(x0=pair.x0.astype(shape.x0.dtype), eps=pair.eps.astype(shape.eps.dtype))

            return choose(jnp.asarray(t) >= zero_from, still, lambda: moving(x, t, cond, key))

        return guided

    return guidance
