"""Restoration in the operator's singular basis: DDRM, DDNM and its noisy form.

With A = U diag(s) V^T, every coefficient of V^T x is measured by itself, y_i / s_i = x_i + (std / s_i) n, or not at
all (s_i = 0). Written for z = x / alpha and r = sigma / alpha, the level in units of x0.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from genjax.core.keys import fold, normal_like, per_sample
from genjax.core.numerics import safe_div, safe_sqrt
from genjax.core.prediction import with_x0
from genjax.inverse import sampler
from genjax.solvers.ancestral import ddim
from genjax.solvers.base import from_step, info_of

# singular values below this share of the largest count as 0; a blur's pseudo-inverse cuts earlier
SEEN = 1e-5


class Spectrum(NamedTuple):
    """A measurement in the basis V."""

    svd: Any
    seen: Any  # [1, D] bool
    value: Any  # [B, D] y_i / s_i, 0 where not seen
    noise: Any  # [1, D] std / s_i, 0 where not seen


def spectrum(measurement):
    """The Spectrum of a measurement whose operator has `svd` and whose noise has `std`."""
    svd = measurement.operator.svd()
    s = jnp.asarray(svd.singular, measurement.y.dtype)[None]
    seen = s > SEEN * jnp.max(s)
    inverse = jnp.where(seen, 1 / jnp.where(seen, s, 1), 0)
    noise = jnp.asarray(measurement.noise.std, s.dtype) * inverse
    return Spectrum(svd, seen, inverse * svd.ut(measurement.y), noise)


def spectral_solver(measurement, eta=0.85, eta_b=1.0):
    """DDRM (2201.11793, eq. 7-8) as a Solver: `eta` where nothing is measured or its noise exceeds r, else `eta_b`.

    A coefficient at level r is drawn with standard deviation eta r around x0 + sqrt(1 - eta^2) r d, where d is eps if
    it is not measured and (y_i - x0) s_i / std if r < std / s_i; else around (1 - eta_b) x0 + eta_b y_i so that the
    variance, that of the measurement included, is r^2. At s = 0 without noise the measurement is met exactly.
    """
    at = spectrum(measurement)

    def step(keys, denoiser, process, state, t, s):
        pred = denoiser(state.x, t, key=fold(keys, 0))
        x0, eps = at.svd.vt(pred.x0), at.svd.vt(pred.eps)
        r = sampler.ratio(process, s)
        toward = jnp.where(at.seen, safe_div(at.value - x0, at.noise), eps)
        free = x0 + jnp.sqrt(1 - eta**2) * r * toward
        close = at.seen & (r >= at.noise)
        mean = jnp.where(close, (1 - eta_b) * x0 + eta_b * at.value, free)
        std = jnp.where(close, safe_sqrt(r**2 - (eta_b * at.noise) ** 2), eta * r)
        z = mean + std * normal_like(fold(keys, 1), mean)
        return sampler.scaled(process.alpha(s), at.svd.v(z.astype(state.x.dtype))), state.memory, info_of(pred)

    return from_step(step)


def spectral_start(keys, process, measurement, like, t):
    """x at the first level: measured coefficients around the measurement, with the noise that is missing (eq. 7)."""
    at = spectrum(measurement)
    r, alpha, sigma = sampler.ratio(process, t), process.alpha(t), process.sigma(t)
    measured = at.seen & (r >= at.noise)
    mean = jnp.where(measured, alpha * at.value, 0)
    std = jnp.where(measured, safe_sqrt(sigma**2 - (alpha * at.noise) ** 2), sigma)
    return at.svd.v((mean + std * normal_like(keys, mean)).astype(like.dtype)).astype(like.dtype)


def ddrm(eta=0.85, eta_b=1.0, steps=20, grid="cosine"):
    """Denoising diffusion restoration (2201.11793). For operators with `svd` and Gaussian noise, 0 included.

    Args:
      eta, eta_b: in [0, 1], the published 0.85 and 1.
    """
    sampler.at_least(steps, 2, "steps")

    def run(key, denoiser, process, measurement, like):
        keys, ts = per_sample(key, like.shape[0]), sampler.times(process, steps, grid)
        solver, inner = spectral_solver(measurement, eta, eta_b), fold(keys, 1)
        x = spectral_start(fold(keys, 0), process, measurement, like, ts[0])
        step = lambda i, state, t, s: solver.step(fold(inner, i), denoiser, process, state, t, s)[0]
        return sampler.scan_steps(step, solver.init(x, ts[0]), ts).x, {}

    return sampler.PosteriorSampler("ddrm", run, ("svd", "known_std"), steps)


def null_space(measurement, weight=1.0):
    """DDNM as a Guidance: x0 <- x0 + weight A^+ (y - A x0), eps recomputed (2212.00490, eq. 13).

    The range of A^+ comes from the measurement, its null space from the denoiser; noise in y is copied.
    """
    operator, _, y = measurement

    def guidance(denoiser, process):
        def guided(x, t, cond=None, key=None):
            pred = denoiser(x, t, cond, key)
            x0 = pred.x0 + weight * operator.pinv((y - operator.forward(pred.x0)).astype(x.dtype))
            return with_x0(pred, x0.astype(x.dtype), x, process, t)

        return guided

    return guidance


def ddnm(weight=1.0, steps=100, eta=1.0, grid="cosine"):
    """Denoising diffusion null-space model (2212.00490, algorithm 1), for measurements without noise.

    Travelling back in time (its algorithm 2) is `solvers.transforms.resample` around a DDIM step under `null_space`.
    """
    return sampler.from_solver(
        "ddnm", lambda *_: ddim(eta), steps, grid, ("pinv",), guidance=lambda m: null_space(m, weight)
    )


def noisy_null_space(measurement, eta=1.0):
    """DDNM+ (2212.00490, eq. 17-19) as a Solver: the noise that y brings in is counted as part of the step's.

    The mean of a step holds a (x0 + w (y_i - x0)) in each coefficient; w = min(1, std_s / (a e_i)) and the noise
    added has variance std_s^2 - (a w e_i)^2, with e_i = std / s_i and std_s that of the DDIM step.
    """
    at = spectrum(measurement)

    def step(keys, denoiser, process, state, t, s):
        x = state.x
        pred = denoiser(x, t, key=fold(keys, 0))
        std = process.posterior(x, pred, t, s, eta).std
        std = jnp.reshape(std, (-1, 1)) if jnp.ndim(std) else std
        alpha, sigma = process.alpha(t), process.sigma(t)
        keep = safe_div(safe_sqrt(process.sigma(s) ** 2 - std**2), sigma)  # of x_t
        gain = process.alpha(s) - keep * alpha  # of x0
        brought = jnp.abs(gain) * at.noise
        weight = jnp.where(brought > std, safe_div(std, brought), 1.0)
        x0 = at.svd.vt(pred.x0)
        x0 = x0 + jnp.where(at.seen, weight * (at.value - x0), 0)
        left = safe_sqrt(std**2 - jnp.where(at.seen, weight * brought, 0) ** 2)
        new = gain * x0 + keep * at.svd.vt(x) + left * normal_like(fold(keys, 1), x0)
        return at.svd.v(new.astype(x.dtype)), state.memory, info_of(pred)

    return from_step(step)


def ddnm_plus(eta=1.0, steps=100, grid="cosine"):
    """DDNM+ (2212.00490, section 3.3): DDNM for noisy measurements; without noise the same as `ddnm`."""
    needs = ("svd", "known_std")
    return sampler.from_solver("ddnm_plus", lambda m, like: noisy_null_space(m, eta), steps, grid, needs)
