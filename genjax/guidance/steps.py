"""Guidance that acts on a step rather than on the prediction: `Solver -> Solver`."""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold
from genjax.core.laws import Normal
from genjax.core.numerics import bcast
from genjax.core.types import SolverState
from genjax.solvers.base import from_proposal, from_step
from genjax.solvers.levels import choose
from genjax.solvers.transforms import after_step


def mean_shift(solver, log_prob, scale=1.0):
    """Classifier guidance as a shift of the step's mean by scale Sigma grad log p(y | x_t) (2105.05233, algorithm 1).

    The law stays known. Where Sigma is what the model says of itself, the guidance follows it.

    Args:
      solver: one with a Normal law, such as `ddpm()`.
      log_prob: (x, t) -> [B], of noisy x; the gradient is taken at x_t, as in the released code.
      scale: scalar or [B].

    Raises:
      ValueError: a solver without a law.
    """
    if solver.propose is None:
        raise ValueError("solver: expected one with a `propose`, got one whose step has no known law")

    def propose(denoiser, process, state, t, s, keys=None):
        law, memory, info = solver.propose(denoiser, process, state, t, s, keys)
        gradient = jax.grad(lambda x: jnp.sum(log_prob(x, t)))(state.x)
        shift = bcast(scale, law.mean) * bcast(law.std, law.mean) ** 2 * gradient
        return Normal((law.mean + shift).astype(law.mean.dtype), law.std), memory, info

    return from_proposal(propose, solver.init, solver.evals, solver.evals_last)


def nudged(solver, log_prob, scale, low=0.0, high=0.2, variance=False):
    """After each step that ends at s in [low, high], x_s moves along a gradient (AdvDiff, 2307.12499).

    x_s <- x_s + scale w grad log_prob(x_s), with w = 1 (the released code), or the variance sigma_s^2 of the noise
    (the paper's first-order expansion of p(x_s | x_t) p(y | x_s)), which vanishes at s = 0.

    Args:
      log_prob: x [B, ...] -> [B], of nearly clean x.
      scale: scalar or [B].
      low, high: times; the last fifth of a run by default.
      variance: w = sigma_s^2.
    """
    if not low < high:
        raise ValueError(f"low, high: expected low < high, in time, got {low!r} and {high!r}")

    def act(keys, process, x, t, s):
        def move():
            gradient = jax.grad(lambda x: jnp.sum(log_prob(x)))(x)
            weight = scale * process.sigma(s) ** 2 if variance else scale
            return (x + bcast(weight, x) * gradient).astype(x.dtype)

        return choose((jnp.asarray(s) >= low) & (jnp.asarray(s) <= high), move, lambda: x)

    return after_step(solver, act)


def reflect(strong, weak, process, x, t, s, key=None, label="t"):
    """x at t after a step down to s with `strong` and the inverse step back with `weak` (2502.00473, algorithm 1).

    To first order x + c (score_strong - score_weak), c = sigma_t (sigma_t - sigma_s alpha_t / alpha_s) > 0.

    Args:
      label: level at which the weak model is asked about x_s: "t" (the released code) or "s", which must be > 0.
    """
    down = process.posterior(x, strong(x, t, key=key), t, s, 0.0).mean
    eps = weak(down, t if label == "t" else s, key=key).eps
    a_t, a_s, s_t, s_s = (bcast(c, x) for c in (process.alpha(t), process.alpha(s), process.sigma(t), process.sigma(s)))
    return (a_t / a_s * (down - s_s * eps) + s_t * eps).astype(x.dtype)


def reflected(solver, weak, steps, strong=None, label="t"):
    """Weak-to-strong diffusion (2502.00473): the first `steps` steps begin with a reflection.

    Args:
      solver: of the ordinary steps.
      weak: Denoiser whose bias is that of the strong one, but larger. High and low classifier-free guidance of one
        model make zigzag sampling.
      steps: of the noisy beginning of the run (lambda); the step to s = 0 is never reflected.
      strong: Denoiser of the round trip, None for the run's own.
      label: as in `reflect`.

    Raises:
      ValueError: unknown label, or a negative number of steps.
    """
    if label not in ("t", "s"):
        raise ValueError(f"label: expected 't' or 's', got {label!r}")
    if not isinstance(steps, jax.Array) and not steps >= 0:
        raise ValueError(f"steps: expected at least 0, got {steps!r}")

    def init(x, t):
        return SolverState(x, (solver.init(x, t).memory, jnp.zeros((), jnp.int32)))

    def step(keys, denoiser, process, state, t, s):
        inner, i = state.memory
        inside = (i < steps) & (jnp.asarray(s) > 0)
        level = jnp.where(jnp.asarray(s) > 0, s, t)  # finite where the result is thrown away

        def bounce():
            up = strong or denoiser
            return reflect(up, weak, process, state.x, t, level, fold(keys, 1), label)

        x = choose(inside, bounce, lambda: state.x)
        end, info = solver.step(fold(keys, 0), denoiser, process, SolverState(x, inner), t, s)
        return end.x, (end.memory, i + 1), info

    return from_step(step, init, solver.evals + 2, solver.evals_last)
