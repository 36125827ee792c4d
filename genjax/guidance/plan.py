"""Cheaper universal guidance (2312.13253): when to take a gradient, when to reuse one, when to go back and forth.

A run with the gradient through the denoiser at every step and k rounds of self-recurrence costs 2 k plain runs. A
`GuidancePlan` says which steps pay for what; `planned` runs it around any solver, skipped guidance costing nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.keys import fold
from genjax.core.types import SolverState
from genjax.guidance.gradient import bounded, tilted, toward
from genjax.solvers.base import from_step

EVERYWHERE = ((0.0, 1.0),)
VJP_COST = 1.0  # of a gradient in x, in evaluations: as many operations, since no gradient of the weights is taken


class GuidancePlan(NamedTuple):
    """Which steps are guided, and how. Places are fractions of the run: 0 its noisy beginning, 1 the data.

    Fields:
      intervals: pairs (low, high); steps whose middle lies in one are guided.
      every: a new gradient at every n-th guided step, from the first.
      hold: in between, the last gradient acts again (with the current sigma); else nothing does.
      repeats: rounds of each step in `windows`: after each but the last, x_s is noised back to t.
      windows: pairs as in `intervals`.
      through: gradients go through the denoiser.
      stop_below: guidance of a sample ends for good once its loss is below; None for never.
    """

    intervals: tuple = EVERYWHERE
    every: int = 1
    hold: bool = False
    repeats: int = 1
    windows: tuple = EVERYWHERE
    through: bool = True
    stop_below: float | None = None

    def tables(self, steps):
        """(new gradient, any guidance, rounds) of each step: [steps] bool, bool, int; static.

        Raises:
          ValueError: every or repeats below 1, or pairs that are not 0 <= low < high <= 1.
        """
        for name in ("every", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)!r}")
        for name in ("intervals", "windows"):
            for pair in getattr(self, name):
                if len(pair) != 2 or not 0 <= pair[0] < pair[1] <= 1:
                    raise ValueError(f"{name}: expected pairs 0 <= low < high <= 1, got {pair!r}")
        at = (np.arange(steps) + 0.5) / steps
        inside = lambda pairs: np.any([(at > low) & (at < high) for low, high in pairs], axis=0)
        guided = inside(self.intervals)
        fresh = guided & ((np.cumsum(guided) - 1) % self.every == 0)
        acting = guided if self.hold else fresh
        return fresh, acting, np.where(inside(self.windows), self.repeats, 1)

    def cost(self, steps):
        """Denoiser evaluations of a run under a solver of one evaluation a step, backward passes as `VJP_COST`."""
        fresh, _, rounds = self.tables(steps)
        return float(np.sum(rounds * (1 + fresh * (VJP_COST if self.through else 0.0))))


def planned(solver, loss, scale, plan, steps, limit=None):
    """The solver that follows a GuidancePlan: universal guidance (2302.07121, algorithm 1) made cheap.

    Args:
      solver: whose first evaluation is at (x, t); further ones within a step are guided by the gradient taken there.
      loss: x0 [B, ...] -> [B], each entry of its own sample.
      scale: of the gradient: eps gains scale sigma(t) grad loss. Scalar.
      plan: GuidancePlan.
      steps: of the run, which must have as many.
      limit: largest change of eps a sample, as in `bounded`.
    """
    fresh_at, acting_at, rounds_at = plan.tables(steps)
    most, held_needed, stops = int(rounds_at.max()), plan.hold and plan.every > 1, plan.stop_below is not None

    def init(x, t):
        held = jnp.zeros_like(x) if held_needed else ()
        done = jnp.zeros(x.shape[0], bool) if stops else ()
        return SolverState(x, (solver.init(x, t).memory, jnp.zeros((), jnp.int32), held, done))

    def step(keys, denoiser, process, state, t, s):
        memory, i, held, done = state.memory
        fresh, acting, rounds = (jnp.asarray(table)[i] for table in (fresh_at, acting_at, rounds_at))

        def attempt(keys, x, held, done):
            active = ~done if stops else jnp.ones(x.shape[0], bool)
            key = fold(fold(keys, 0), 0)

            def new():
                pred, gradient, value = toward(denoiser, lambda x0, _: loss(x0), process, x, t, None, key, plan.through)
                return pred, gradient.astype(x.dtype), value.astype(x.dtype)

            def old():
                kept = held if held_needed else jnp.zeros_like(x)
                return denoiser(x, t, key=key), kept, jnp.full(x.shape[0], jnp.inf, x.dtype)

            pred, gradient, value = jax.lax.cond(fresh & jnp.any(active), new, old)
            if stops:
                done = done | (value < plan.stop_below)
            mask = (acting & (~done if stops else active)).reshape((-1,) + (1,) * (x.ndim - 1))

            def steered(at, time, cond=None, key=None):
                found = pred if at is x else denoiser(at, time, cond, key)
                shift = bounded(scale * gradient, process, time, limit)
                return tilted(found, jnp.where(mask, shift, 0), process, at, time)

            end, info = solver.step(fold(keys, 0), steered, process, SolverState(x, memory), t, s)
            return end, info, gradient if held_needed else held, done

        if most == 1:
            end, info, held, done = attempt(keys, state.x, held, done)
            return end.x, (end.memory, i + 1, held, done), info

        def body(j, carry):
            x, _, held, done = carry
            here = fold(keys, j)
            end, _, held, done = attempt(here, x, held, done)
            back = process.transition(end.x, s, t).sample(fold(here, 1)).astype(x.dtype)
            return jnp.where(j < rounds - 1, back, end.x), end.memory, held, done

        x, memory_after, held, done = jax.lax.fori_loop(0, rounds, body, (state.x, memory, held, done))
        return x, (memory_after, i + 1, held, done), None

    return from_step(step, init, most * solver.evals, most * solver.evals_last)


def counted(denoiser):
    """(denoiser, counts): the same, with its evaluations and their backward passes counted as it runs.

    For tests of what a plan costs; `counts()` waits for what runs and returns (evaluations, backward passes,
    distinct times).
    """
    found = {"forward": 0, "backward": 0, "times": set()}

    def saw(kind, t=None):
        def add(*times):
            found[kind] += 1
            found["times"].update(float(v) for time in times for v in np.ravel(time))

        jax.debug.callback(add, *(() if t is None else (t,)))

    @jax.custom_vjp
    def mark(x, t):
        return x

    def forward(x, t):
        return x, jnp.zeros_like(t)

    def pull(t, g):
        saw("backward")
        return g, t

    mark.defvjp(forward, pull)

    def counting(x, t, cond=None, key=None):
        saw("forward", t)
        return denoiser(mark(x, jnp.asarray(t)), t, cond, key)

    def counts():
        jax.effects_barrier()
        return found["forward"], found["backward"], len(found["times"])

    return counting, counts
