"""The sampling loop, and the ways to make a `Solver`.

A solver is one step (t -> s). `sample` scans it over a grid of times that was computed
beforehand; nothing in a step looks at its neighbours except through `SolverState.memory`.
"""

import jax
import jax.numpy as jnp

from genjax.core.denoiser import bind_cond
from genjax.core.keys import fold, per_sample
from genjax.core.types import Info, Solver, SolverState


def stateless_init(x, t):
    """`init` of a solver without memory."""
    return SolverState(x)


def keep_dtype(new, old):
    """`new` with the dtypes of `old`, leaf by leaf: coefficients in float32 do not widen a bfloat16 state."""
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(f"state: expected the structure {jax.tree.structure(old)}, got {jax.tree.structure(new)}")
    return jax.tree.map(lambda a, b: jnp.asarray(a).astype(jnp.asarray(b).dtype), new, old)


def from_step(step, init=stateless_init, evals=1, evals_last=1, propose=None):
    """A Solver from `step(keys, denoiser, process, state, t, s) -> (x, memory, Info)`.

    `step` hands `fold(keys, 0)` to the denoiser and draws from `fold(keys, 1)`, `fold(keys, 2)` ... A step that
    remembers nothing returns `state.memory` as it is.
    """

    def full_step(keys, denoiser, process, state, t, s):
        x, memory, info = step(keys, denoiser, process, state, t, s)
        return keep_dtype(SolverState(x, memory), state), info

    return Solver(init, full_step, propose, evals, evals_last)


def from_proposal(propose, init=stateless_init, evals=1, evals_last=1):
    """A Solver whose step is one draw from a law.

    Args:
      propose: (denoiser, process, state, t, s, keys=None) -> (Transition, memory, Info). `keys` serve
        denoisers that draw; the law itself is not random.
      init: (x, t) -> SolverState.
    """

    def step(keys, denoiser, process, state, t, s):
        law, memory, info = propose(denoiser, process, state, t, s, fold(keys, 0))
        return law.sample(fold(keys, 1)), memory, info

    return from_step(step, init, evals, evals_last, propose)


def from_update(update, init=stateless_init, evals=1, evals_last=1):
    """A deterministic Solver from `update(denoiser, process, state, t, s, keys) -> (x, memory, Info)`."""

    def step(keys, denoiser, process, state, t, s):
        return update(denoiser, process, state, t, s, fold(keys, 0))

    return from_step(step, init, evals, evals_last)


def nfe(solver, grid):
    """Denoiser evaluations of one run over `grid` [N + 1] (concrete, not traced)."""
    steps = len(grid) - 1
    last = solver.evals_last if float(grid[-1]) == 0 else solver.evals
    return solver.evals * (steps - 1) + last


def sample(keys, denoiser, process, solver, grid, x, cond=None, *, path=False, unroll=1):
    """Runs a solver over a grid of times, as one `lax.scan`.

    Args:
      keys: one key, keys [B], or None for a deterministic solver. One key gives each sample a key
        by its index in the batch.
      denoiser: Denoiser.
      process: Process.
      solver: Solver.
      grid: [N + 1] times from the noisiest to the last (descending to sample, ascending from t_min to
        invert). A last time of 0 is the data itself.
      x: [B, ...] state at grid[0], e.g. `process.prior(keys, like)`.
      cond: condition handed to the denoiser.
      path: also return the states after each step.
      unroll: steps per iteration of the compiled loop.

    Returns:
      x at grid[-1]; with `path`, the pair (x, [N, B, ...]).

    Raises:
      ValueError: a grid that is not a vector of at least 2 times.
    """
    grid = jnp.asarray(grid)
    if grid.ndim != 1 or grid.shape[0] < 2:
        raise ValueError(f"grid: expected a vector of at least 2 times, got shape {grid.shape}")
    if keys is not None:
        keys = per_sample(keys, x.shape[0])
    if cond is not None:
        denoiser = bind_cond(denoiser, cond)

    def body(carry, _):
        i, state = carry
        state, _ = solver.step(fold(keys, i), denoiser, process, state, grid[i], grid[i + 1])
        return (i + 1, state), (state.x if path else None)

    start = (jnp.zeros((), jnp.int32), solver.init(x, grid[0]))
    (_, state), states = jax.lax.scan(body, start, None, grid.shape[0] - 1, unroll=unroll)
    return (state.x, states) if path else state.x


def generate(key, denoiser, process, solver, grid, like, cond=None, **kwargs):
    """`sample` from the prior: `like` gives shape and dtype of the result, [B, ...]."""
    keys = per_sample(key, like.shape[0])
    x = process.prior(fold(keys, 0), like, grid[0])
    return sample(fold(keys, 1), denoiser, process, solver, grid, x.astype(like.dtype), cond, **kwargs)


def info_of(pred):
    """The Info of a step that made one prediction."""
    return Info(pred=pred)
