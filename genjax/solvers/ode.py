"""Single-step solvers of the probability-flow ODE.

In the coordinates y = x / alpha and r = sigma / alpha the ODE of every Gaussian process is
dy/dr = eps(x, t) (2206.00364, eq. 1 with s = 1 / alpha taken out), so a Runge-Kutta step in (y, r)
serves all of them, and is the published sampler of that name under EDM's process, where y = x and
r = t.
"""

import jax
import jax.numpy as jnp

from genjax.core.numerics import bcast
from genjax.solvers.base import from_update, info_of


def ratio(process, t):
    """sigma / alpha at t; 0 at t = 0."""
    return jnp.exp(-process.log_snr(t) / 2)


def scaled(process, x, t):
    """y = x / alpha."""
    return x / bcast(process.alpha(t), x)


def unscaled(process, y, t):
    """x = alpha y."""
    return y * bcast(process.alpha(t), y)


def skip_at_zero(s, step, otherwise):
    """`step()` where s > 0, `otherwise()` at s = 0.

    For a scalar s only one branch runs; for s [B] both run and the result is chosen per sample.
    """
    if jnp.ndim(s) == 0:
        return jax.lax.cond(s > 0, step, otherwise)
    return jax.tree.map(lambda a, b: jnp.where(bcast(s > 0, a), a, b), step(), otherwise())


def euler():
    """Euler's method in (y, r): first order, the same move as `ddim(0)`."""

    def update(denoiser, process, state, t, s, keys):
        pred = denoiser(state.x, t, key=keys)
        dr = bcast(ratio(process, s) - ratio(process, t), state.x)
        y = scaled(process, state.x, t) + dr * pred.eps
        return unscaled(process, y, s), state.memory, info_of(pred)

    return from_update(update)


def heun():
    """Heun's method (EDM, 2206.00364, algorithm 1): second order, Euler on the step to s = 0."""

    def update(denoiser, process, state, t, s, keys):
        pred = denoiser(state.x, t, key=keys)
        y = scaled(process, state.x, t)
        dr = bcast(ratio(process, s) - ratio(process, t), y)
        y_euler = y + dr * pred.eps
        s_safe = jnp.where(s > 0, s, t)

        def correct():
            eps_s = denoiser(unscaled(process, y_euler, s_safe), s_safe, key=keys).eps
            return y + dr * (pred.eps + eps_s) / 2

        y = skip_at_zero(s, correct, lambda: y_euler)
        return unscaled(process, y, s), state.memory, info_of(pred)

    return from_update(update, evals=2, evals_last=1)
