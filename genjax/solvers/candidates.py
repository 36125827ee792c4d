"""Steps chosen among candidates by a value (SVDD, 2408.08252): guidance without a gradient.

The optimal step towards p(x0) exp(r(x0) / a) is p(x_s | x_t) exp(v_s(x_s) / a) with the soft value
v_s(x) = a log E[exp(r(x0) / a) | x_s = x]; it is drawn here by importance among M draws of the solver's own law,
sample by sample. For tokens as for numbers.
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import draw, fold
from genjax.core.numerics import bcast
from genjax.solvers.base import from_step
from genjax.solvers.levels import choose


def best_of_candidates(solver, value, count, temperature=1.0, start=None):
    """The solver that draws `count` candidates of each step and keeps one, with probability exp(value / temperature).

    Args:
      solver: one with a law that draws, such as `ddpm()`.
      value: (denoiser, process, x [B, ...], s) -> [B], the value of x at time s (0 included, where it is the reward).
      count: M; 1 is the solver itself.
      temperature: a > 0 of the tilted law; 0 keeps the best.
      start: time from which values are trusted: larger times take the first candidate. None: always.

    Raises:
      ValueError: a solver without a law, no candidates, or a negative temperature.
    """
    if solver.propose is None:
        raise ValueError("solver: expected one with a `propose`, got one whose step has no known law")
    if count < 1:
        raise ValueError(f"count: expected at least 1 candidate, got {count!r}")
    if isinstance(temperature, (int, float)) and temperature < 0:
        raise ValueError(f"temperature: expected a number >= 0, got {temperature!r}")
    greedy = isinstance(temperature, (int, float)) and temperature == 0

    def step(keys, denoiser, process, state, t, s):
        law, memory, info = solver.propose(denoiser, process, state, t, s, fold(keys, 0))
        if count == 1:
            return law.sample(fold(keys, 1)), memory, info
        drawn = jax.vmap(lambda i: law.sample(fold(fold(keys, 1), i)))(jnp.arange(count))  # [M, B, ...]

        def chosen():
            flat = drawn.reshape(-1, *drawn.shape[2:])
            values = value(denoiser, process, flat, s).reshape(drawn.shape[:2])
            if greedy:
                index = jnp.argmax(values, axis=0)
            else:
                gumbel = draw(jax.random.gumbel, fold(keys, 2), values.T.shape, values.dtype)
                index = jnp.argmax(values / temperature + gumbel.T, axis=0)
            at = index.reshape((1, -1) + (1,) * (drawn.ndim - 2))
            return jnp.take_along_axis(drawn, at, axis=0)[0]

        x = chosen() if start is None else choose(jnp.asarray(s) <= start, chosen, lambda: drawn[0])
        return x, memory, info

    # each candidate's value may ask the denoiser once
    return from_step(step, solver.init, solver.evals * (1 + count), solver.evals_last)


def posterior_mean_value(reward):
    """Value r(x0(x_s)) of the predicted data (SVDD-PM): one evaluation a candidate; the reward itself at s = 0.

    For tokens the data are the most likely token at each place that is not known.

    Args:
      reward: x0 [B, ...] -> [B]; need not be differentiable.
    """

    def value(denoiser, process, x, s):
        level = jnp.where(jnp.asarray(s) > 0, s, process.t_min)

        def predicted():
            pred = denoiser(x, level)
            if pred.logits is None:
                return reward(pred.x0)
            known = process.log_emission(x, level)  # -inf where x rules a token out
            allowed = jnp.where(known > -jnp.inf, 0.0, -jnp.inf)
            return reward(jnp.argmax(jax.nn.log_softmax(pred.logits) + allowed, axis=-1))

        return choose(jnp.asarray(s) > 0, predicted, lambda: reward(x))

    return value


def best_of_runs(keys, run, reward, count):
    """The best of `count` whole runs for each sample: what candidates at every step are to be compared with.

    Args:
      keys: [B] keys.
      run: keys [B] -> x [B, ...].
      reward: x [B, ...] -> [B].

    Returns:
      x [B, ...].
    """

    def body(best, i):
        x = run(fold(keys, i))
        value = reward(x)
        old, top = best
        better = value > top
        return (jnp.where(bcast(better, x), x, old), jnp.where(better, value, top)), None

    x = run(fold(keys, 0))
    (best, _), _ = jax.lax.scan(body, (x, reward(x)), jnp.arange(1, count))
    return best
