"""Time samplers: which noise levels a loss is evaluated at.

A sampler is a map from uniform numbers u in [0, 1) to times, with the density of log-SNR that it
makes, so that importance weights are exact. How u is drawn is a separate choice: independently, a
key a sample, or spread evenly over the batch (`lattice`, `stratified`); every sampler takes both.

Learned samplers (`second_moment`, `adaptive`) carry a state and see, after each step, the integrand

  f(lambda) = m(lambda) w(lambda) ||eps - eps_hat||^2     (`losses.denoising`, aux["integrand"])

of L = int f dlambda = E_{lambda ~ p}[f / p] at the times drawn; the others have an empty state.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from genjax.core.keys import per_sample
from genjax.core.keys import uniform as uniform_numbers


class TimeSampler(NamedTuple):
    """Pure functions; `state` is a pytree of arrays, () where nothing is learned."""

    init: Callable  # () -> state
    sample: Callable  # (state, u [n] in [0, 1)) -> t [n]
    log_density: Callable  # (state, t [n]) -> log p(lambda) [n] at lambda = log_snr(t)
    update: Callable  # (state, t [n], integrand [n]) -> state
    learned: bool = False
    steps: int = 0  # levels of the chain that it draws from, 0 for a continuum


# How uniform numbers are spread over a batch.


def independent(keys, n):
    """Independent uniform numbers [n], one key a sample."""
    return uniform_numbers(keys, (n,))


def stratified(keys, n, offset=0, total=None):
    """One number in each of `total` equal cells: u_i = (i + U_i) / total, i = offset ... offset + n - 1.

    Args:
      keys: one key or keys [n].
      n: numbers to draw, static.
      offset: global index of the first (on device d of a split batch: d * n), may be traced.
      total: size of the whole batch, n if None.
    """
    total = n if total is None else total
    return jnp.mod((offset + jnp.arange(n) + uniform_numbers(per_sample(keys, n), (n,))) / total, 1.0)


def lattice(key, n, offset=0, total=None):
    """Evenly spaced numbers with one common shift, u_i = (U + i / total) mod 1 (VDM, 2107.00630, appendix I.1).

    `key` is one key, the same for all parts of a split batch. Each u_i alone is uniform.
    """
    total = n if total is None else total
    return jnp.mod(jax.random.uniform(key) + (offset + jnp.arange(n)) / total, 1.0)


SPREADS = {
    # name: (shared key, per-sample keys, n, offset, total) -> u [n]
    "independent": lambda key, keys, n, offset, total: independent(keys, n),
    # turned at random, so that no place in the batch is tied to a level
    "stratified": lambda key, keys, n, offset, total: stratified(
        keys, n, offset + jax.random.randint(key, (), 0, total), total
    ),
    "lattice": lambda key, keys, n, offset, total: lattice(key, n, offset, total),
}


# Samplers without state.


def _fixed(process, quantile, log_density):
    """A TimeSampler from u -> t and t -> log p(lambda); rounding never leaves [t_min, t_max]."""
    return TimeSampler(
        init=lambda: (),
        sample=lambda state, u: jnp.clip(quantile(u), process.t_min, process.t_max),
        log_density=lambda state, t: log_density(t),
        update=lambda state, t, integrand: state,
    )


def log_rate(process, t):
    """log |d lambda / dt|."""
    return jnp.log(-process.log_snr_rate(t))


def uniform(process):
    """t uniform on [t_min, t_max]: p(lambda) = 1 / ((t_max - t_min) |d lambda / dt|)."""
    span = process.t_max - process.t_min
    return _fixed(process, lambda u: process.t_min + u * span, lambda t: -jnp.log(span) - log_rate(process, t))


def log_snr(process):
    """lambda uniform between its values at t_min and t_max."""
    high, low = process.log_snr(process.t_min), process.log_snr(process.t_max)
    return _fixed(
        process,
        lambda u: process.time(high + u * (low - high)),
        lambda t: jnp.broadcast_to(-jnp.log(high - low), jnp.shape(t)),
    )


def schedule(process, other):
    """lambda as it falls when the time of another process is uniform: its noise schedule as a sampling density.

    The ranges of log-SNR are cut to what both processes have.
    """
    first, last = (
        jnp.clip(other.time(process.log_snr(t)), other.t_min, other.t_max) for t in (process.t_min, process.t_max)
    )

    def log_density(t):
        return -jnp.log(last - first) - log_rate(other, other.time(process.log_snr(t)))

    return _fixed(process, lambda u: process.time(other.log_snr(first + u * (last - first))), log_density)


def _normal(process, to_z, from_z, log_slope, mean, std):
    """z(t) increasing in t and normal, cut to the range of times; log_slope(t) = log |dz / d lambda|."""
    if not std > 0:
        raise ValueError(f"std: expected a number > 0, got {std}")
    # one program: a start of a training would compile twenty of one operation each
    low, high = jax.jit(lambda: tuple(ndtr((to_z(t) - mean) / std) for t in (process.t_min, process.t_max)))()

    def log_density(t):
        z = (to_z(t) - mean) / std
        return -0.5 * z * z - jnp.log(std * jnp.sqrt(2 * jnp.pi)) - jnp.log(high - low) + log_slope(t)

    return _fixed(process, lambda u: from_z(mean + std * ndtri(low + u * (high - low))), log_density)


def log_normal(process, mean=-1.2, std=1.2):
    """ln(sigma / alpha) ~ N(mean, std^2), cut to the process's range (EDM, 2206.00364, table 1)."""
    return _normal(
        process,
        lambda t: -process.log_snr(t) / 2,
        lambda z: process.time(
            -2 * jnp.clip(z, -process.log_snr(process.t_min) / 2, -process.log_snr(process.t_max) / 2)
        ),
        lambda t: jnp.full(jnp.shape(t), -jnp.log(2.0)),
        mean,
        std,
    )


def logit_normal(process, mean=0.0, std=1.0):
    """logit(t) ~ N(mean, std^2), cut to the process's range, for times in (0, 1] (SD3, 2403.03206, section 3.1).

    Raises:
      ValueError: t_max > 1.
    """
    if process.t_max > 1:
        raise ValueError(f"t_max: logit_normal expected a process with times in (0, 1], got {float(process.t_max)}")
    return _normal(
        process,
        lambda t: jnp.log(t) - jnp.log1p(-t),
        jax.nn.sigmoid,
        lambda t: -jnp.log(t) - jnp.log1p(-t) - log_rate(process, t),
        mean,
        std,
    )


# Samplers over a chain of levels.


def _levels(process, steps):
    """Times of levels 1 ... steps; exactly i / steps for a chain of that length (`processes.ddpm`)."""
    if steps < 2:
        raise ValueError(f"steps: expected at least 2, got {steps}")
    i = jnp.arange(steps) / (steps - 1)
    return process.t_min + i * (process.t_max - process.t_min)


def level_index(process, t, steps):
    """Level 0 ... steps - 1 nearest to t."""
    fraction = (t - process.t_min) / (process.t_max - process.t_min)
    return jnp.clip(jnp.round(fraction * (steps - 1)), 0, steps - 1).astype(jnp.int32)


def _chain(process, steps, init, log_probs, update, learned):
    """A sampler of levels with probabilities exp(log_probs(state)) [steps].

    A level stands for 1 / steps of the span of times, so its density in log-SNR is p_i steps that of
    `uniform`; the ratio of two chains' densities is the ratio of their probabilities.
    """
    base, level_times = uniform(process), _levels(process, steps)

    def sample(state, u):
        total = jnp.cumsum(jnp.exp(log_probs(state)))
        i = jnp.searchsorted(total, u * total[-1], side="right")
        return level_times[jnp.minimum(i, steps - 1)]

    def log_density(state, t):
        relative = (log_probs(state) + jnp.log(steps))[level_index(process, t, steps)]
        return relative + base.log_density((), t)

    return TimeSampler(init, sample, log_density, update, learned, steps)


def discrete(process, steps):
    """Each of `steps` levels equally often (2006.11239, algorithm 1)."""
    log_probs = lambda state: jnp.full(steps, -jnp.log(steps))
    return _chain(process, steps, lambda: (), log_probs, lambda state, t, integrand: state, False)


class SecondMoment(NamedTuple):
    values: Any  # [steps, history] last values of each level, a ring
    count: Any  # [steps] int32, values seen of each level


def second_moment(process, steps, history=10, floor=0.001):
    """Levels in proportion to the root of the mean square of their last losses (iDDPM, 2102.09672, section 3.3).

    Uniform until every level has `history` values; then p = (1 - floor) p + floor / steps.
    """
    flat = jnp.log(1 / steps)

    def init():
        return SecondMoment(jnp.zeros((steps, history)), jnp.zeros(steps, jnp.int32))

    def log_probs(state):
        root = jnp.sqrt(jnp.mean(state.values**2, axis=1))
        total = jnp.sum(root)
        ready = jnp.all(state.count >= history) & (total > 0)
        p = (1 - floor) * root / jnp.where(ready, total, 1.0) + floor / steps
        return jnp.where(ready, jnp.log(p), flat)

    def update(state, t, integrand):
        # the loss of a level is the integrand over time: f |d lambda / dt|
        loss = integrand * jnp.exp(log_rate(process, t))
        level = level_index(process, t, steps)
        # several draws of one level fall into successive slots of its ring; of more than
        # `history` only the last count
        order = jnp.argsort(level, stable=True)
        level, loss = level[order], loss[order]
        first = jnp.searchsorted(level, level, side="left")
        last = jnp.searchsorted(level, level, side="right")
        rank = jnp.arange(len(level)) - first
        slot = (state.count[level] + rank) % history
        row = jnp.where(rank >= last - first - history, level, steps)  # out of range: dropped
        values = state.values.at[row, slot].set(loss, mode="drop")
        return SecondMoment(values, state.count.at[level].add(1))

    return _chain(process, steps, init, log_probs, update, True)


# The adaptive schedule.


class Adaptive(NamedTuple):
    mean: Any  # [bins] exponential average of the integrand, from zero
    mass: Any  # [bins] in [0, 1), weight that the average has gathered


def adaptive(process, bins=100, decay=0.999, floor=0.01):
    """lambda with density proportional to the integrand, so that it becomes flat (VDM++, 2303.00848, section 4.3).

    Keeps an exponential average of the integrand in equal bins of log-SNR, corrected for its start;
    bins not yet seen count as the average bin. A share `floor` of the draws is uniform, so that no
    level starves.
    """
    high, low = process.log_snr(process.t_min), process.log_snr(process.t_max)
    width = (high - low) / bins

    def init():
        return Adaptive(jnp.zeros(bins), jnp.zeros(bins))

    def probs(state):
        seen = state.mass > 0
        level = jnp.where(seen, state.mean / jnp.where(seen, state.mass, 1.0), 0.0)
        fill = jnp.sum(level) / jnp.maximum(jnp.sum(seen), 1)
        level = jnp.where(seen, level, fill)
        total = jnp.sum(level)
        share = jnp.where(total > 0, level / jnp.where(total > 0, total, 1.0), 1 / bins)
        return (1 - floor) * share + floor / bins

    def index(t):
        return jnp.clip(jnp.floor((process.log_snr(t) - low) / width), 0, bins - 1).astype(jnp.int32)

    def sample(state, u):
        edge = jnp.concatenate([jnp.zeros(1), jnp.cumsum(probs(state))])
        where = jnp.interp(u * edge[-1], edge, jnp.arange(bins + 1) / bins)
        return jnp.clip(process.time(low + where * (high - low)), process.t_min, process.t_max)

    def log_density(state, t):
        return jnp.log(probs(state))[index(t)] - jnp.log(width)

    def update(state, t, integrand):
        i = index(t)
        count = jnp.zeros(bins).at[i].add(1.0)
        total = jnp.zeros(bins).at[i].add(integrand)
        step = jnp.where(count > 0, 1 - decay, 0.0)
        average = total / jnp.maximum(count, 1.0)
        return Adaptive(state.mean + step * (average - state.mean), state.mass + step * (1 - state.mass))

    return TimeSampler(init, sample, log_density, update, True)


TIME_SAMPLERS = {
    # name: (process, ...) -> TimeSampler
    "uniform": uniform,
    "log_snr": log_snr,
    "log_normal": log_normal,
    "logit_normal": logit_normal,
    "discrete": discrete,
    "second_moment": second_moment,
    "adaptive": adaptive,
}
