"""Averages of the weights along training: constant, warmed up, and power-function tracks with post-hoc widths.

An `EMA` is a NamedTuple of pure functions over any pytree of parameters. `step` is the number of
optimizer steps done, this one included, so the first update has step 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class EMA(NamedTuple):
    init: Callable  # (params) -> state, a copy, so that both may be donated
    update: Callable  # (state, params, step) -> state
    read: Callable  # (state, track=0) -> params


def _copy(params):
    return jax.tree.map(lambda p: jnp.array(p, copy=True), params)


def _mix(old, new, keep):
    """keep old + (1 - keep) new, as a difference so that equal values stay equal."""
    return jax.tree.map(lambda o, n: (o + (1 - keep) * (n - o)).astype(o.dtype), old, new)


def _single(keep):
    """An EMA of one track with factor keep(step)."""

    def read(state, track=0):
        if track != 0:
            raise ValueError(f"track: this average has one track, 0, got {track}")
        return state

    return EMA(_copy, lambda state, params, step: _mix(state, params, keep(step)), read)


def _decay(decay):
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected a number in [0, 1), got {decay}")
    return decay


def constant(decay=0.999):
    """theta_ema <- decay theta_ema + (1 - decay) theta."""
    decay = _decay(decay)
    return _single(lambda step: decay)


def warmup(decay=0.9999):
    """`constant` with factor min(decay, (1 + step) / (10 + step)): short at first."""
    decay = _decay(decay)
    return _single(lambda step: jnp.minimum(decay, (1 + step) / (10 + step)))


def half_life(steps=1000.0, ramp_up=0.05):
    """Factor 2^(-1 / h) with h = min(steps, ramp_up step): the half-life grows with training (EDM, 2206.00364)."""
    if not steps > 0 or not ramp_up > 0:
        raise ValueError(f"half-life: expected steps > 0 and ramp_up > 0, got {steps} and {ramp_up}")
    return _single(lambda step: 0.5 ** (1 / jnp.minimum(steps, ramp_up * step)))


def every(average, n):
    """`average` of weights that change after each n-th step alone: updated then, its steps counted in n's.

    For optimizers that accumulate n batches (`make_optimizer`): updated after each batch it would take the same
    weights n times, decay n times as fast and warm up n times as soon as its numbers say.
    """
    if n == 1:
        return average

    def update(state, params, step):
        return jax.lax.cond(step % n == 0, lambda: average.update(state, params, step // n), lambda: state)

    return EMA(average.init, update, average.read)


# Power-function profiles (EDM2, 2312.02696, section 3): the average at time t weights tau <= t by tau^g.


def exp_to_std(exponent):
    """Relative width of the profile tau^g: sqrt((g + 1) / ((g + 2)^2 (g + 3)))."""
    g = np.float64(exponent)
    return np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3)))


def std_to_exp(std):
    """The exponent g of a relative width: the largest real root of g^3 + 7 g^2 + (16 - s^-2) g + (12 - s^-2).

    Raises:
      ValueError: std outside (0, 1/sqrt(12)): wider than an even average of all of training.
    """
    if not 0 < std < 12**-0.5:
        raise ValueError(f"std: expected a number in (0, {12**-0.5:.4f}), got {std}")
    inverse = np.float64(std) ** -2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    g = np.max(roots[np.abs(roots.imag) < 1e-6 * np.abs(roots)].real)
    for _ in range(3):  # polish by Newton's method
        g -= (g**3 + 7 * g**2 + (16 - inverse) * g + 12 - inverse) / (3 * g**2 + 14 * g + 16 - inverse)
    return g


def power(stds=(0.05, 0.10)):
    """One track a relative width, each with factor (1 - 1 / step)^(g + 1).

    State is a tuple of trees; `read(state, track)` gives that of `stds[track]`. Save both along training
    and `posthoc_ema` makes any other width.
    """
    stds = tuple(float(s) for s in stds)
    if not stds:
        raise ValueError("stds: expected at least one relative width, got none")
    exponents = [std_to_exp(s) for s in stds]

    def init(params):
        return tuple(_copy(params) for _ in stds)

    def update(state, params, step):
        keeps = [(1 - 1 / step) ** (float(g) + 1) for g in exponents]
        return tuple(_mix(track, params, keep) for track, keep in zip(state, keeps))

    def read(state, track=0):
        if not 0 <= track < len(stds):
            raise ValueError(f"track: expected 0 ... {len(stds) - 1}, got {track}")
        return state[track]

    return EMA(init, update, read)


def _inner(t_a, g_a, t_b, g_b):
    """Inner product of the profiles (g + 1) tau^g / t^(g + 1) on [0, t], float64, broadcast."""
    t_a, g_a, t_b, g_b = (np.asarray(u, np.float64) for u in (t_a, g_a, t_b, g_b))
    power = np.where(t_a < t_b, g_b, -g_a)
    return (g_a + 1) * (g_b + 1) * (t_a / t_b) ** power / ((g_a + g_b + 1) * np.maximum(t_a, t_b))


def posthoc_weights(times, stds, time, std):
    """Coefficients [n] of stored averages that come nearest to the average of width `std` at `time`.

    Least squares between the profiles, in float64, scaled to sum 1.

    Args:
      times: [n] steps at which the averages were stored, > 0.
      stds: [n] their relative widths.
      time: step of the average that is wanted, in (0, max(times)].
      std: its relative width.

    Raises:
      ValueError: no snapshots, lengths that differ, or a time after the last snapshot.
    """
    times, stds = np.asarray(times, np.float64), np.asarray(stds, np.float64)
    if times.ndim != 1 or times.shape != stds.shape or not len(times):
        raise ValueError(f"snapshots: expected equally many times and stds, got {times.shape} and {stds.shape}")
    if not 0 < time <= times.max():
        raise ValueError(f"time: expected a step in (0, {times.max():g}], the last snapshot's, got {time}")
    g = np.array([std_to_exp(s) for s in stds])
    matrix = _inner(times[:, None], g[:, None], times[None], g[None])
    wanted = _inner(times, g, time, std_to_exp(std))
    weights = np.linalg.solve(matrix, wanted)
    return weights / weights.sum()


def posthoc_ema(snapshots, time, std):
    """Parameters averaged with relative width `std` at `time`, from stored tracks of other widths.

    Args:
      snapshots: list of (step, std, params), of all tracks and steps kept.
      time, std: as in `posthoc_weights`.

    Returns:
      A pytree like params, summed in float64 and cast back to the parameters' types.
    """
    if not snapshots:
        raise ValueError("snapshots: expected at least one (step, std, params), got none")
    times, stds, trees = zip(*snapshots)
    weights = posthoc_weights(times, stds, time, std)

    def combine(*leaves):
        total = sum(w * np.asarray(leaf, np.float64) for w, leaf in zip(weights, leaves))
        return jnp.asarray(total.astype(np.asarray(leaves[0]).dtype))

    return jax.tree.map(combine, *trees)


EMAS = {"constant": constant, "warmup": warmup, "half_life": half_life, "power": power}
