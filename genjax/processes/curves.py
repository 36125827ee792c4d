"""Log-SNR curves: lambda(t) = log(alpha^2 / sigma^2), decreasing in t, and its inverse.

A curve says how fast information is lost; `Gaussian.scale` says how the state is scaled. Each curve
is a pytree dataclass whose numbers are leaves. `log_snr(t)` is called with t > 0 only: t = 0 is the
data itself, lambda = +inf, by the convention of `Gaussian`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.nn import sigmoid, softplus

from genjax.core.numerics import float_leaves, safe_div


@struct.dataclass
class LinearBeta:
    """Linear rate beta(t) = beta_min + t (beta_max - beta_min), t in (0, 1] (2011.13456, eq. 32).

    `sub` chooses the sub-VP law sigma = 1 - alpha^2 (there eq. 29) instead of sigma^2 = 1 - alpha^2.
    """

    beta_min: Any = 0.1
    beta_max: Any = 20.0
    sub: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self):
        float_leaves(self, "beta_min", "beta_max")

    def log_snr(self, t):
        integral = t * self.beta_min + 0.5 * t * t * (self.beta_max - self.beta_min)
        log_var = jnp.log(-jnp.expm1(-integral))  # log(1 - alpha^2)
        return -integral - (2 if self.sub else 1) * log_var

    def time(self, log_snr):
        if self.sub:
            # r = (1 - alpha^2) / alpha = 2 sinh(-log alpha); arcsinh keeps its digits as r -> 0
            integral = 2 * jnp.arcsinh(jnp.exp(-log_snr / 2) / 2)
        else:
            integral = softplus(-log_snr)
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * slope * integral))


@struct.dataclass
class Cosine:
    """alpha = cos(pi t / 2) under the vp scale: lambda = -2 log tan(pi t / 2) + 2 log shift (2301.11093)."""

    shift: Any = 1.0

    def __post_init__(self):
        float_leaves(self, "shift")

    def log_snr(self, t):
        # cos(pi t / 2) as the sine of 1 - t, which float32 holds exactly near t = 1; one rounding
        # unit keeps lambda finite at t = 1
        left = 1 - t + jnp.finfo(t.dtype).eps
        log_sin = lambda u: jnp.log(jnp.sin(jnp.pi * u / 2))
        return 2 * (log_sin(left) - log_sin(t) + jnp.log(self.shift))

    def time(self, log_snr):
        return 2 / jnp.pi * jnp.arctan(self.shift * jnp.exp(-log_snr / 2))


@struct.dataclass
class Flow:
    """sigma / alpha = shift t / (1 - t): straight paths under the flow scale (2209.03003; shift as in 2403.03206)."""

    shift: Any = 1.0

    def __post_init__(self):
        float_leaves(self, "shift")

    def log_snr(self, t):
        # one rounding unit keeps lambda, and d alpha / dt = -1, finite at t = 1
        return 2 * (jnp.log(1 - t + jnp.finfo(t.dtype).eps) - jnp.log(t) - jnp.log(self.shift))

    def time(self, log_snr):
        return sigmoid(-log_snr / 2 - jnp.log(self.shift))


@struct.dataclass
class NoiseLevel:
    """Time is the noise level itself, sigma / alpha = t (2206.00364)."""

    def log_snr(self, t):
        return -2 * jnp.log(t)

    def time(self, log_snr):
        return jnp.exp(-log_snr / 2)


@struct.dataclass
class LogLinear:
    """lambda falls linearly from `log_snr_max` at t = 0 to `log_snr_min` at t = 1.

    Under the ve scale this is the geometric schedule of 2011.13456, eq. 30.
    """

    log_snr_max: Any = 10.0
    log_snr_min: Any = -10.0

    def __post_init__(self):
        float_leaves(self, "log_snr_max", "log_snr_min")

    def log_snr(self, t):
        return self.log_snr_max + t * (self.log_snr_min - self.log_snr_max)

    def time(self, log_snr):
        return (log_snr - self.log_snr_max) / (self.log_snr_min - self.log_snr_max)


@struct.dataclass
class Table:
    """Levels of a discrete chain: `levels[i - 1]` at t = i / T, i = 1 ... T, linear in between and beyond."""

    levels: Any  # [T] log-SNR, decreasing

    def log_snr(self, t):
        n = len(self.levels)
        # extrapolated, so that the rate does not vanish where rounding puts t just outside the table
        knots = jnp.arange(1, n + 1, dtype=t.dtype)
        return jnp.interp(t * n, knots, jnp.asarray(self.levels), left="extrapolate", right="extrapolate")

    def time(self, log_snr):
        n = len(self.levels)
        return jnp.interp(-log_snr, -jnp.asarray(self.levels), jnp.arange(1, n + 1)) / n


@struct.dataclass
class Monotone:
    """A learned curve: piecewise linear, decreasing, with fixed ends (VDM, 2107.00630, eq. 17).

    `raw` [K] are free parameters; the drop of piece k is proportional to softplus(raw[k]).
    """

    raw: Any
    log_snr_max: Any = 10.0
    log_snr_min: Any = -10.0

    def __post_init__(self):
        float_leaves(self, "log_snr_max", "log_snr_min")

    def _knots(self):
        drop = softplus(jnp.asarray(self.raw))
        fall = jnp.concatenate([jnp.zeros(1, drop.dtype), jnp.cumsum(drop) / jnp.sum(drop)])
        return jnp.linspace(0, 1, len(fall)), self.log_snr_max + (self.log_snr_min - self.log_snr_max) * fall

    def log_snr(self, t):
        return jnp.interp(t, *self._knots())

    def time(self, log_snr):
        t, levels = self._knots()
        return jnp.interp(-log_snr, -levels, t)


@struct.dataclass
class Interpolant:
    """Any linear interpolant x_t = alpha(t) x0 + sigma(t) eps (2303.08797), for the scale "curve".

    Attributes:
      alpha, sigma: functions of t, differentiable; alpha falls from 1, sigma rises from 0, both > 0
        inside (t_min, t_max). Static: build the curve once, since new functions compile anew.
      t_low, t_high: the bracket in which `time` looks for a level.
    """

    alpha: Any = struct.field(pytree_node=False)
    sigma: Any = struct.field(pytree_node=False)
    t_low: Any = 1e-6
    t_high: Any = 1.0

    def __post_init__(self):
        float_leaves(self, "t_low", "t_high")

    def log_alpha(self, t):
        # one rounding unit keeps it, and d alpha / dt, right where alpha vanishes at t = 1
        return jnp.log(self.alpha(t) + jnp.finfo(t.dtype).eps)

    def log_snr(self, t):
        return 2 * (self.log_alpha(t) - jnp.log(self.sigma(t)))

    def time(self, log_snr):
        """Bisection, then one Newton step from there, which also carries the derivative."""

        def halve(_, bracket):
            low, high = bracket
            middle = (low + high) / 2
            above = self.log_snr(middle) > log_snr  # less noise than asked for: the time is later
            return jnp.where(above, middle, low), jnp.where(above, high, middle)

        low = jnp.broadcast_to(jnp.asarray(self.t_low, log_snr.dtype), log_snr.shape)
        high = jnp.broadcast_to(jnp.asarray(self.t_high, log_snr.dtype), log_snr.shape)
        low, high = lax.fori_loop(0, jnp.finfo(log_snr.dtype).nmant + 4, halve, (low, high))
        t = lax.stop_gradient((low + high) / 2)
        rate = jax.jvp(self.log_snr, (t,), (jnp.ones_like(t),))[1]
        return t + safe_div(log_snr - self.log_snr(t), lax.stop_gradient(rate))


def levels_from_betas(betas):
    """Log-SNR [T] of a discrete vp chain with variances `betas` [T] (2006.11239, eq. 4), in float64."""
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not np.all((betas > 0) & (betas < 1)):
        found = f"shape {betas.shape}, range [{betas.min(initial=np.inf):g}, {betas.max(initial=-np.inf):g}]"
        raise ValueError(f"betas: expected a vector of numbers in (0, 1), got {found}")
    log_alpha_bar = np.cumsum(np.log1p(-betas))
    return log_alpha_bar - np.log(-np.expm1(log_alpha_bar))


def linear_betas(steps, beta_start=1e-4, beta_end=0.02):
    """DDPM's betas for 1000 steps, rescaled to `steps` so that the total noise stays (guided-diffusion's rule)."""
    scale = 1000 / steps
    return np.linspace(scale * beta_start, scale * beta_end, steps)


def cosine_betas(steps, s=0.008, max_beta=0.999):
    """iDDPM's cosine schedule (2102.09672, eq. 17)."""
    u = np.arange(steps + 1) / steps
    alpha_bar = np.cos((u + s) / (1 + s) * np.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta)
