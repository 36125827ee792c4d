"""Noise levels, and the move that all solvers share.

A level is what a solver needs to know of a time: alpha, sigma and half the log-SNR,
l = log(alpha / sigma). With (x0, eps) predicted at t, the state at any other level is to first order

  x_s = alpha_s x0 + sigma_s eps,                                                     (1)

the deterministic DDIM move (2010.02502, eq. 12). Every solver here is (1) plus corrections made of
differences of predictions. Nothing is divided by alpha or sigma, so (1) is exact to rounding at
alpha_t = 0 (pure noise) and at sigma_s = 0 (the data).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genjax.core.numerics import bcast


class Level(NamedTuple):
    """Coefficients at a time; each a scalar or [B]."""

    alpha: Any
    sigma: Any
    half: Any  # log(alpha / sigma); +inf where sigma = 0


def level(process, t):
    """The Level of time t, a scalar or [B]."""
    return Level(process.alpha(t), process.sigma(t), process.log_snr(t) / 2)


def level_at(process, half):
    """(t, Level) where half the log-SNR is `half`."""
    t = process.time(2 * half)
    return t, level(process, t)


def ratio(process, t):
    """sigma / alpha at t; 0 at t = 0."""
    return jnp.exp(-process.log_snr(t) / 2)


def move(pred, to, eps_scale=1.0):
    """alpha x0 + eps_scale sigma eps at the Level `to`: equation (1)."""
    return bcast(to.alpha, pred.x0) * pred.x0 + bcast(to.sigma * eps_scale, pred.eps) * pred.eps


def positive_or(s, t):
    """s where s > 0, else t: a level at which everything is finite, to be discarded afterwards."""
    return jnp.where(s > 0, s, t)


def skip_at_zero(s, step, otherwise):
    """`step()` where s > 0, `otherwise()` at s = 0.

    For a scalar s only one branch runs; for s [B] both run and the result is chosen per sample.
    `step` must be finite at s = 0 too (see `positive_or`), or its gradient is not.
    """
    return choose(jnp.asarray(s) > 0, step, otherwise)


def choose(condition, step, otherwise):
    """`step()` where the condition (scalar or [B]) holds, else `otherwise()`."""
    if jnp.ndim(condition) == 0:
        return jax.lax.cond(condition, step, otherwise)
    return jax.tree.map(lambda a, b: jnp.where(bcast(condition, a), a, b), step(), otherwise())


def ancestral_levels(at, to, eta):
    """The split of a stochastic step: (Level to go down to, std of the noise that leads back up to `to`).

    std = eta times that of q(x_s | x_t, x0), and the lower level keeps alpha_s while its sigma^2 is
    sigma_s^2 - std^2 (2010.02502, eq. 16; "ancestral" in k-diffusion). A step up (s > t) is noiseless.
    """
    gap = jnp.minimum(2 * (at.half - to.half), 0.0)  # log SNR_t / SNR_s; -inf at s = 0
    down = (1 - eta**2) + eta**2 * jnp.exp(gap)  # (sigma_down / sigma_s)^2
    std = eta * to.sigma * jnp.sqrt(-jnp.expm1(gap))
    safe = jnp.where(down > 0, down, 1.0)
    half = jnp.where(down > 0, to.half - jnp.log(safe) / 2, jnp.inf)
    return Level(to.alpha, to.sigma * jnp.where(down > 0, jnp.sqrt(safe), 0.0), half), std
