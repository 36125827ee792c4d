"""Hamiltonian moves, and Markov chains at the noise levels of a run (annealed MCMC, 2302.11552).

One move: v' = g v + sqrt(1 - g^2) M z, then L leapfrog steps of size h on H = -log p(x) + |v|^2 / (2 M^2). UHMC takes
the end as it is; HMC accepts it with probability min(1, exp(H(x, v') - H(end))) in each sample, else x stays and v
is turned back, so p is exact.
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import draw, fold, normal_like, per_sample
from genjax.core.numerics import bcast, sum_except_batch
from genjax.core.types import SolverState
from genjax.solvers.base import from_step
from genjax.solvers.langevin import mala
from genjax.solvers.levels import choose, positive_or


def _leapfrog(score, x, v, step, mass, count):
    """(x, v) after `count` leapfrog steps."""

    def body(carry, _):
        x, v, g = carry
        v = v + 0.5 * step * g
        x = x + step * v / mass**2
        g = score(x)
        return (x, v + 0.5 * step * g, g), None

    (x, v, _), _ = jax.lax.scan(body, (x, v, score(x)), None, length=count)
    return x, v


def _check(leapfrog, damping):
    if leapfrog < 1:
        raise ValueError(f"leapfrog: expected at least 1 step, got {leapfrog!r}")
    if not 0 <= damping < 1:
        raise ValueError(f"damping: expected a number in [0, 1), got {damping!r}")


def uhmc(keys, score, x, step, steps, leapfrog=3, damping=0.0, mass=1.0):
    """Unadjusted Hamiltonian moves; the law is off by O(step^2).

    Args:
      keys: one key or [B].
      score: x -> grad log p(x), [B, ...].
      x: [B, ...].
      step: size of a leapfrog step, scalar or [B].
      steps: moves, each of `leapfrog` steps.
      damping: g in [0, 1), the share of the momentum that a move keeps.
      mass: M, the standard deviation of the momentum; scalar or [B].

    Returns:
      x, [B, ...].
    """
    _check(leapfrog, damping)
    keys, h, m = per_sample(keys, x.shape[0]), bcast(step, x), bcast(mass, x)

    def body(carry, i):
        x, v = carry
        v = damping * v + jnp.sqrt(1 - damping**2) * m * normal_like(fold(keys, i), x)
        new, v = _leapfrog(score, x, v, h, m, leapfrog)
        return (new.astype(x.dtype), v.astype(x.dtype)), None

    start = (m * normal_like(fold(keys, steps), x)).astype(x.dtype)
    return jax.lax.scan(body, (x, start), jnp.arange(steps))[0][0]


def hmc(keys, log_prob, x, step, steps, leapfrog=3, damping=0.0, mass=1.0):
    """Hamiltonian Monte Carlo; leaves p exactly invariant.

    Args:
      log_prob: x -> log p(x) up to a constant, [B].
      others: as in `uhmc`.

    Returns:
      (x, acceptance rate [B]).
    """
    _check(leapfrog, damping)
    keys, h, m = per_sample(keys, x.shape[0]), bcast(step, x), bcast(mass, x)
    score = jax.grad(lambda x: jnp.sum(log_prob(x)))
    energy = lambda log_p, v: log_p - sum_except_batch(v * v / (2 * m**2))

    def body(carry, i):
        x, v, log_p, accepted = carry
        here = fold(keys, i)
        v = damping * v + jnp.sqrt(1 - damping**2) * m * normal_like(fold(here, 0), x)
        new, ahead = _leapfrog(score, x, v, h, m, leapfrog)
        log_p_new = log_prob(new)
        u = draw(lambda key, _: jax.random.uniform(key, dtype=log_p.dtype), fold(here, 1), log_p.shape)
        accept = jnp.log(u) < energy(log_p_new, ahead) - energy(log_p, v)
        pick = lambda a, b: jnp.where(bcast(accept, a), a, b).astype(b.dtype)
        return (pick(new, x), pick(ahead, -v), pick(log_p_new, log_p), accepted + accept), None

    start = (m * normal_like(fold(keys, steps), x)).astype(x.dtype)
    carry = (x, start, log_prob(x), jnp.zeros(x.shape[0]))
    (x, _, _, accepted), _ = jax.lax.scan(body, carry, jnp.arange(steps))
    return x, accepted / steps


# Moves at a level: (keys, denoiser, process, x, t) -> (x, acceptance rate [B]); sizes in units of sigma_t, which
# bounds the width of the density at t from below.


def ula_moves(tau=0.05, steps=10):
    """`steps` unadjusted Langevin moves of size tau sigma^2, with the denoiser's score."""

    def move(keys, denoiser, process, x, t):
        sigma = process.sigma(t)
        size = bcast(jnp.sqrt(2 * tau) * sigma, x)

        def body(x, i):
            eps = denoiser(x, t, key=fold(fold(keys, i), 0)).eps
            new = x - bcast(tau * sigma, x) * eps + size * normal_like(fold(fold(keys, i), 1), x)
            return new.astype(x.dtype), None

        return jax.lax.scan(body, x, jnp.arange(steps))[0], jnp.ones(x.shape[0])

    return move


def mala_moves(log_density, tau=0.05, steps=10):
    """`steps` adjusted Langevin moves of size tau sigma^2 on exp(log_density(x, t))."""

    def move(keys, denoiser, process, x, t):
        return mala(keys, lambda x: log_density(x, t), x, tau * process.sigma(t) ** 2, steps)

    return move


def uhmc_moves(step=0.2, steps=10, leapfrog=3, damping=0.5):
    """`steps` unadjusted Hamiltonian moves with steps of step x sigma, with the denoiser's score."""

    def move(keys, denoiser, process, x, t):
        score = lambda x: process.score(x, denoiser(x, t, key=fold(keys, 0)), t)
        moved = uhmc(fold(keys, 1), score, x, step * process.sigma(t), steps, leapfrog, damping)
        return moved, jnp.ones(x.shape[0])

    return move


def hmc_moves(log_density, step=0.2, steps=10, leapfrog=3, damping=0.5):
    """`steps` Hamiltonian Monte Carlo moves with steps of step x sigma on exp(log_density(x, t))."""

    def move(keys, denoiser, process, x, t):
        return hmc(keys, lambda x: log_density(x, t), x, step * process.sigma(t), steps, leapfrog, damping)

    return move


MOVES = {"ula": ula_moves, "mala": mala_moves, "uhmc": uhmc_moves, "hmc": hmc_moves}


def with_moves(predictor, moves):
    """After each step of the predictor, Markov moves at its level; none at s = 0 (2302.11552, algorithm 1).

    Memory is (the predictor's, sum of acceptance rates [B], levels so far): their ratio is the mean rate.

    Args:
      predictor: any Solver; its denoiser is the composed one.
      moves: (keys, denoiser, process, x, t) -> (x, rate [B]), of `MOVES`.
    """

    def init(x, t):
        return SolverState(x, (predictor.init(x, t).memory, jnp.zeros(x.shape[0]), jnp.zeros((), jnp.int32)))

    def step(keys, denoiser, process, state, t, s):
        inner, total, levels = state.memory
        end, info = predictor.step(fold(keys, 0), denoiser, process, SolverState(state.x, inner), t, s)
        level = positive_or(s, t)
        inside = jnp.asarray(s) > 0

        def correct():
            x, rate = moves(fold(keys, 1), denoiser, process, end.x, level)
            return x.astype(end.x.dtype), rate.astype(total.dtype)

        x, rate = choose(inside, correct, lambda: (end.x, jnp.zeros_like(total)))
        return x, (end.memory, total + rate, levels + jnp.any(inside)), info

    return from_step(step, init, predictor.evals, predictor.evals_last)


def acceptance(memory):
    """Mean acceptance rate of each sample, [B], from the memory of a `with_moves` run."""
    _, total, levels = memory
    return total / jnp.maximum(levels, 1)
