"""Step transforms, `Solver -> Solver`: what has state or acts on the step itself.

A transform that changes only the law of the step maps `propose`, so log-probabilities stay right
(`map_law`); one that acts on the drawn state drops it (`after_step`), since the law of what it
returns is no longer known.
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold, normal_like
from genjax.core.laws import Normal
from genjax.core.numerics import bcast
from genjax.core.types import SolverState
from genjax.solvers.base import from_proposal, from_step
from genjax.solvers.levels import ratio


def map_law(solver, change):
    """The solver whose step draws from `change(law, process, t, s) -> Transition`.

    Raises:
      ValueError: the solver has no `propose`.
    """
    if solver.propose is None:
        raise ValueError("solver: expected one with a `propose`, got one whose step has no known law")

    def propose(denoiser, process, state, t, s, keys=None):
        law, memory, info = solver.propose(denoiser, process, state, t, s, keys)
        return change(law, process, t, s), memory, info

    return from_proposal(propose, solver.init, solver.evals, solver.evals_last)


def after_step(solver, act):
    """The solver whose result x passes through `act(keys, process, x, t, s) -> x`; without `propose`."""

    def step(keys, denoiser, process, state, t, s):
        state, info = solver.step(fold(keys, 0), denoiser, process, state, t, s)
        return act(fold(keys, 1), process, state.x, t, s), state.memory, info

    return from_step(step, solver.init, solver.evals, solver.evals_last)


def project(solver, known, mask):
    """Inpainting by replacement: where `mask` is 1, x_s is the known data noised to level s (2011.13456, appendix I).

    Fresh noise each step; at s = 0 the known values themselves. A solver with a law keeps one.

    Args:
      known: [B, ...] clean values, read where mask is 1.
      mask: [B, ...] or broadcastable, 1 where known, 0 where to be filled in.
    """

    def law_of(process, s, like):
        return process.alpha(s), process.sigma(s), jnp.broadcast_to(jnp.asarray(mask) > 0, like.shape)

    def change(law, process, t, s):
        alpha, sigma, here = law_of(process, s, law.mean)
        mean = jnp.where(here, bcast(alpha, known) * known, law.mean)
        return Normal(mean, jnp.where(here, bcast(sigma, known), bcast(law.std, known)))

    def act(keys, process, x, t, s):
        alpha, sigma, here = law_of(process, s, x)
        noised = bcast(alpha, known) * known + bcast(sigma, known) * normal_like(keys, x)
        return jnp.where(here, noised, x)

    return after_step(solver, act) if solver.propose is None else map_law(solver, change)


def resample(solver, times):
    """Back and forth (RePaint, 2201.09865, algorithm 1): each step is made `times` times, noised back between.

    Used around `project`, so that filled-in and known parts agree. Each attempt starts from the solver's
    memory before the step.
    """
    if times < 1:
        raise ValueError(f"times: expected at least 1, got {times!r}")

    def step(keys, denoiser, process, state, t, s):
        def attempt(keys, x):
            return solver.step(fold(keys, 0), denoiser, process, SolverState(x, state.memory), t, s)

        def body(x, i):
            here = fold(keys, i)
            end, _ = attempt(here, x)
            return process.transition(end.x, s, t).sample(fold(here, 1)).astype(x.dtype), None

        x, _ = jax.lax.scan(body, state.x, jnp.arange(times - 1))
        end, info = attempt(fold(keys, times - 1), x)
        return end.x, end.memory, info

    return from_step(step, solver.init, solver.evals * times, solver.evals_last * times)


def churn(solver, gamma, low=0.0, high=jnp.inf, noise=1.0):
    """Raises the noise level before each step (EDM, 2206.00364, algorithm 2), then steps from there.

    With r = sigma / alpha: where low <= r_t <= high, r is raised to (1 + min(gamma, sqrt(2) - 1)) r_t, at most
    to that of t_max, and the missing noise is added.

    Args:
      solver: a Solver without history, usually `heun()`.
      gamma: S_churn / N.
      low, high: S_tmin and S_tmax, as sigma / alpha.
      noise: S_noise.
    """

    def step(keys, denoiser, process, state, t, s):
        r = ratio(process, t)
        raised = jnp.minimum(r * (1 + jnp.minimum(gamma, 2**0.5 - 1)), jnp.maximum(ratio(process, process.t_max), r))
        raised = jnp.where((r >= low) & (r <= high), raised, r)
        t_hat = jnp.where(raised > r, process.time(-2 * jnp.log(raised)), t)
        alpha, alpha_hat = process.alpha(t), process.alpha(t_hat)
        gap = jnp.maximum(ratio(process, t_hat) ** 2 - r**2, 0.0)
        added = alpha_hat * jnp.sqrt(jnp.where(gap > 0, gap, 1.0)) * jnp.where(gap > 0, noise, 0.0)
        x = bcast(alpha_hat / alpha, state.x) * state.x + bcast(added, state.x) * normal_like(fold(keys, 1), state.x)
        state = SolverState(x.astype(state.x.dtype), state.memory)
        end, info = solver.step(fold(keys, 0), denoiser, process, state, t_hat, s)
        return end.x, end.memory, info

    return from_step(step, solver.init, solver.evals, solver.evals_last)
