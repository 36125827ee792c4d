"""Langevin dynamics: on a fixed density, as a corrector, and annealed over noise levels.

ULA:  x <- x + tau grad log p(x) + sqrt(2 tau) z.  MALA accepts or rejects that move so that p is exact.
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import draw, fold, normal_like, per_sample
from genjax.core.numerics import bcast, sum_except_batch
from genjax.solvers.base import from_step, info_of
from genjax.solvers.levels import choose, level, move, positive_or


def ula(keys, score, x, tau, steps):
    """Unadjusted Langevin: `steps` moves of size tau; its law is off by O(tau).

    Args:
      keys: one key or [B].
      score: x -> grad log p(x), [B, ...].
      x: [B, ...].
      tau: step size, scalar or [B].

    Returns:
      x, [B, ...].
    """
    keys = per_sample(keys, x.shape[0])
    tau = bcast(tau, x)

    def body(x, i):
        z = normal_like(fold(keys, i), x)
        return (x + tau * score(x) + jnp.sqrt(2 * tau) * z).astype(x.dtype), None

    return jax.lax.scan(body, x, jnp.arange(steps))[0]


def mala(keys, log_prob, x, tau, steps):
    """Metropolis-adjusted Langevin: leaves p exactly invariant.

    Args:
      keys: one key or [B].
      log_prob: x -> log p(x) up to a constant, [B].
      x: [B, ...].
      tau: step size, scalar or [B].

    Returns:
      (x, acceptance rate [B]).
    """
    keys = per_sample(keys, x.shape[0])
    step = bcast(tau, x)

    def value_and_score(x):
        log_p, pullback = jax.vjp(log_prob, x)
        return log_p, pullback(jnp.ones_like(log_p))[0]

    def log_move(new, old, score):
        return -sum_except_batch((new - old - step * score) ** 2 / (4 * step))

    def body(carry, i):
        x, log_p, score, accepted = carry
        z = normal_like(fold(fold(keys, i), 0), x)
        new = x + step * score + jnp.sqrt(2 * step) * z
        log_p_new, score_new = value_and_score(new)
        log_ratio = log_p_new - log_p + log_move(x, new, score_new) - log_move(new, x, score)
        u = draw(lambda key, _: jax.random.uniform(key, dtype=x.dtype), fold(fold(keys, i), 1), log_p.shape)
        accept = jnp.log(u) < log_ratio
        old = (x, log_p, score)
        kept = jax.tree.map(lambda a, b: jnp.where(bcast(accept, a), a, b), (new, log_p_new, score_new), old)
        return (*kept, accepted + accept), None

    start = (x, *value_and_score(x), jnp.zeros(x.shape[0]))
    (x, _, _, accepted), _ = jax.lax.scan(body, start, jnp.arange(steps))
    return x, accepted / steps


def langevin_at(keys, denoiser, process, x, t, tau, steps):
    """`steps` ULA moves on the law of x_t, of size tau sigma_t^2 (t > 0, scalar or [B]).

    `tau` is a fraction of the noise's variance, as sigma^2 bounds the curvature of log p_t.
    """
    keys = per_sample(keys, x.shape[0])
    sigma = process.sigma(t)
    noise = bcast(jnp.sqrt(2 * tau) * sigma, x)

    def body(x, i):
        eps = denoiser(x, t, key=fold(fold(keys, i), 0)).eps
        z = normal_like(fold(fold(keys, i), 1), x)
        return (x - bcast(tau * sigma, x) * eps + noise * z).astype(x.dtype), None

    return jax.lax.scan(body, x, jnp.arange(steps))[0]


def annealed_langevin(tau=0.1, steps=5):
    """Annealed Langevin (1907.05600, algorithm 1): `steps` moves at level t, then x / alpha is handed to s.

    On the way to s = 0 the result is denoised. Every level needs x to equilibrate, so neighbours
    should be close; x grows at most twofold in a step, as x / alpha means nothing at alpha = 0.

    Args:
      tau: step size in units of sigma_t^2 (there epsilon / (2 sigma_L^2)).
      steps: moves a level.
    """

    def step(keys, denoiser, process, state, t, s):
        x = langevin_at(fold(keys, 1), denoiser, process, state.x, t, tau, steps)

        def denoise():
            return move(denoiser(x, t, key=fold(keys, 0)), level(process, s)).astype(x.dtype)

        growth = jnp.minimum(process.alpha(s) / process.alpha(t), 2.0)
        hand_over = lambda: (x * bcast(growth, x)).astype(x.dtype)
        return choose(jnp.asarray(s) > 0, hand_over, denoise), state.memory, info_of(None)

    return from_step(step, evals=steps, evals_last=steps + 1)


def predictor_corrector(predictor, snr=0.16, steps=1):
    """Predictor-corrector sampling (2011.13456, algorithm 1): after each step, Langevin moves at its level.

    The step size is 2 (snr |z| / |score|)^2 with the norms replaced by their expectations where data are
    pinned to a point, |z| / |score| = sigma: the published batch mean would tie samples together, a
    norm per sample would bias the law.

    Args:
      predictor: any Solver.
      snr: signal-to-noise ratio of a move.
      steps: moves a level; none at s = 0.
    """

    def step(keys, denoiser, process, state, t, s):
        state, info = predictor.step(fold(keys, 0), denoiser, process, state, t, s)
        s_safe = positive_or(s, t)

        def correct():
            return langevin_at(fold(keys, 1), denoiser, process, state.x, s_safe, 2 * snr**2, steps)

        return choose(jnp.asarray(s) > 0, correct, lambda: state.x), state.memory, info

    return from_step(step, predictor.init, predictor.evals + steps, predictor.evals_last)
