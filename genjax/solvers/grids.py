"""Time grids: `(process, n) -> [n + 1]` times from t_max down to t_min, then 0.

With `to_zero` (the default) the first n times run from t_max to t_min and the last is 0, the data
itself; otherwise the n + 1 times run from t_max to t_min.
"""

import jax.numpy as jnp


def _finish(times, to_zero):
    return jnp.concatenate([times, jnp.zeros(1, times.dtype)]) if to_zero else times


def _fractions(n, to_zero):
    """0 ... 1 in n (or n + 1) points."""
    points = n if to_zero else n + 1
    if n < 1 or points < 2:
        raise ValueError(f"n: expected at least {2 if to_zero else 1} steps, got {n}")
    return jnp.linspace(0.0, 1.0, points)


def uniform(process, n, to_zero=True):
    """Equal steps in time."""
    u = _fractions(n, to_zero)
    return _finish(process.t_max + u * (process.t_min - process.t_max), to_zero)


def karras(process, n, rho=7.0, to_zero=True):
    """Equal steps in (sigma / alpha)^(1 / rho) (EDM, 2206.00364, eq. 5)."""
    u = _fractions(n, to_zero)
    high, low = (jnp.exp(-process.log_snr(t) / (2 * rho)) for t in (process.t_max, process.t_min))
    r = (high + u * (low - high)) ** rho
    times = process.time(-2 * jnp.log(r))
    return _finish(times.at[0].set(process.t_max), to_zero)


def log_snr(process, n, to_zero=True):
    """Equal steps in log-SNR (DPM-Solver, 2206.00927)."""
    u = _fractions(n, to_zero)
    low, high = process.log_snr(process.t_max), process.log_snr(process.t_min)
    return _finish(process.time(low + u * (high - low)).at[0].set(process.t_max), to_zero)
