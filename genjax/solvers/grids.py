"""Time grids: `(process, n) -> [n + 1]` times from t_max down to t_min, then 0.

With `to_zero` (the default) the first n times run from t_max to t_min and the last is 0, the data
itself; otherwise the n + 1 times run from t_max to t_min, and `grid[::-1]` inverts. All times differ.
"""

import jax
import jax.numpy as jnp
import numpy as np


def _finish(process, times, to_zero):
    """The ends made exact, and the final 0."""
    times = jnp.asarray(times).at[0].set(process.t_max).at[-1].set(process.t_min)
    return jnp.concatenate([times, jnp.zeros(1, times.dtype)]) if to_zero else times


def _fractions(n, to_zero):
    """0 ... 1 in n (or n + 1) points."""
    points = n if to_zero else n + 1
    if n < 1 or points < 2:
        raise ValueError(f"n: expected at least {2 if to_zero else 1} steps, got {n}")
    return jnp.linspace(0.0, 1.0, points)


PURE_NOISE = -8.0  # log(alpha / sigma): grids in the noise level put no points but t_max below


def _half_ends(process):
    """log(alpha / sigma) at t_max (bounded, as it is -inf to rounding where alpha is 0) and at t_min."""
    return jnp.maximum(process.log_snr(process.t_max) / 2, PURE_NOISE), process.log_snr(process.t_min) / 2


def uniform(process, n, to_zero=True):
    """Equal steps in time."""
    u = _fractions(n, to_zero)
    return _finish(process, process.t_max + u * (process.t_min - process.t_max), to_zero)


def quadratic(process, n, to_zero=True):
    """Equal steps in sqrt(t) (DDIM, 2010.02502, appendix D.2)."""
    u = _fractions(n, to_zero)
    high, low = jnp.sqrt(process.t_max), jnp.sqrt(process.t_min)
    return _finish(process, (high + u * (low - high)) ** 2, to_zero)


def karras(process, n, rho=7.0, to_zero=True):
    """Equal steps in (sigma / alpha)^(1 / rho) (EDM, 2206.00364, eq. 5)."""
    u = _fractions(n, to_zero)
    high, low = (jnp.exp(-half / rho) for half in _half_ends(process))
    return _finish(process, process.time(-2 * rho * jnp.log(high + u * (low - high))), to_zero)


def log_snr(process, n, to_zero=True):
    """Equal steps in log-SNR (DPM-Solver, 2206.00927, section 3.4)."""
    return exponential(process, n, 1.0, to_zero)


def exponential(process, n, rho=1.0, to_zero=True):
    """log(sigma / alpha) falls as (1 - i / n)^rho; rho > 1 takes smaller steps near the data."""
    u = _fractions(n, to_zero)
    low, high = _half_ends(process)
    return _finish(process, process.time(2 * (high + (1 - u) ** rho * (low - high))), to_zero)


def cosine(process, n, to_zero=True):
    """Equal steps in arctan(sigma / alpha): the levels that a cosine schedule visits in equal times."""
    u = _fractions(n, to_zero)
    high, low = (jnp.arctan(jnp.exp(-half)) for half in _half_ends(process))
    return _finish(process, process.time(-2 * jnp.log(jnp.tan(high + u * (low - high)))), to_zero)


def logistic(process, n, center=-1.2, width=1.5, to_zero=True):
    """Levels log(sigma / alpha) at equal quantiles of a logistic law, cut to the process's range.

    Puts the steps where the denoiser changes: the first step crosses the levels that drown the data, the last
    those far below it. Wide, it is `log_snr`.

    Args:
      center: log(sigma / alpha) of the middle: about the log of the data's scale, between its
        standard deviation and that of its finest detail.
      width: scale of the law; 1 to 2.
    """
    u = _fractions(n, to_zero)
    high, low = ((-half - center) / width for half in _half_ends(process))
    # quantile = logit(a + u (b - a)) with a, b the law at the ends; both tails in logarithms
    log_below, log_above = (
        jnp.logaddexp(jnp.log1p(-u) + f(sign * high), jnp.log(u) + f(sign * low))
        for f, sign in ((jax.nn.log_sigmoid, 1), (jax.nn.log_sigmoid, -1))
    )
    return _finish(process, process.time(-2 * (center + width * (log_below - log_above))), to_zero)


SPACINGS = ("linspace", "leading", "trailing")


def respaced(process, n, spacing="linspace", to_zero=True):
    """Times of a discrete chain of T levels, at whole steps i / T.

    Args:
      process: one on a table (`processes.gaussian.ddpm`).
      n: steps, at most T.
      spacing: "linspace" (both ends, 2102.09672), "leading" (every T / n-th from the first; starts
        below t_max) or "trailing" (every T / n-th back from the last, 2305.08891).

    Raises:
      ValueError: a process without a table, n out of range, unknown spacing.
    """
    levels = getattr(process.curve, "levels", None)
    if levels is None:
        raise ValueError(f"process: expected one on a table of levels, got {type(process.curve).__name__}")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing: expected one of {list(SPACINGS)}, got {spacing!r}")
    total, points = len(levels), n if to_zero else n + 1
    if not 2 <= points <= total:
        raise ValueError(f"n: expected from {2 if to_zero else 1} to {total if to_zero else total - 1} steps, got {n}")
    if spacing == "linspace":
        index = np.round(np.linspace(total, 1, points))
    elif spacing == "leading":
        index = 1 + (np.arange(points) * (total // points))[::-1]
    else:
        index = np.round(total - np.arange(points) * (total / points))
    times = jnp.asarray(index / total, jnp.result_type(float))
    return jnp.concatenate([times, jnp.zeros(1, times.dtype)]) if to_zero else times


GRIDS = {
    "uniform": uniform,
    "quadratic": quadratic,
    "karras": karras,
    "log_snr": log_snr,
    "exponential": exponential,
    "cosine": cosine,
    "logistic": logistic,
    "respaced": respaced,
}
