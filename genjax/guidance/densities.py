"""Composition of densities: what annealed MCMC samples exactly at every level (2302.11552).

A log-density is a function (x, t, cond=None) -> [B], log q_t up to a constant of its own, at the noise level of t. A
sum of scores at level t is not the score of the noised product, so reverse diffusion with it is biased; Markov
chains on the composed q_t (`solvers.mcmc`) leave exactly that density invariant, and at t -> 0 it is the product.

A network becomes an energy by

  half_square  E = |f(u)|^2 / 2,    distance  E = |f(u) - u|^2,    inner  E = <u, f(u)>,

with u = c_in x the network's input, eps = grad_u E, and log q_t = -E / (c_in sigma).
"""

import jax
import jax.numpy as jnp

from genjax.core.denoiser import NOISE_INPUTS, denoiser_from_score
from genjax.core.numerics import batch_time, bcast, sum_except_batch

ENERGIES = {
    "half_square": lambda f, u: 0.5 * sum_except_batch(f * f),
    "distance": lambda f, u: sum_except_batch((f - u) ** 2),
    "inner": lambda f, u: sum_except_batch(f * u),
}


def energy_log_density(fn, process, form="half_square", *, sigma_data=1.0, scale_input=True, noise_input="edm"):
    """The log-density of a network taken as an energy.

    Args:
      fn: (u, noise [B], cond, key) -> array of u's shape, smooth (its second derivatives train it).
      process: a Gaussian process.
      form: a name in `ENERGIES`.
      sigma_data, scale_input, noise_input: as in `core.make_denoiser`.

    Returns:
      (x, t, cond=None, key=None) -> [B].

    Raises:
      ValueError: unknown form or noise_input.
    """
    if form not in ENERGIES:
        raise ValueError(f"form: expected one of {sorted(ENERGIES)}, got {form!r}")
    if noise_input not in NOISE_INPUTS:
        raise ValueError(f"noise_input: expected one of {sorted(NOISE_INPUTS)}, got {noise_input!r}")

    def log_density(x, t, cond=None, key=None):
        alpha, sigma = process.alpha(t), process.sigma(t)
        c_in = 1 / jnp.sqrt(alpha**2 * sigma_data**2 + sigma**2) if scale_input else jnp.ones_like(sigma)
        u = (bcast(c_in, x) * x).astype(x.dtype)
        value = ENERGIES[form](fn(u, NOISE_INPUTS[noise_input](process, batch_time(t, x)), cond, key), u)
        return -value / jnp.broadcast_to((c_in * sigma).reshape(-1), value.shape)

    return log_density


def denoiser_of(log_density, process):
    """The Denoiser whose score is the gradient of a log-density (x, t, cond) -> [B]."""

    def score(x, t, cond=None):
        return jax.grad(lambda x: jnp.sum(log_density(x, t, cond)))(x)

    return denoiser_from_score(score, process)


def energy_denoiser(fn, process, form="half_square", **options):
    """The Denoiser of a network taken as an energy, the gradient of `energy_log_density`; trained as any other."""
    return denoiser_of(energy_log_density(fn, process, form, **options), process)


def _checked(log_densities, weights, name):
    if not log_densities:
        raise ValueError("log_densities: expected at least one, got none")
    if len(weights) != len(log_densities):
        raise ValueError(f"{name}: expected {len(log_densities)} numbers, got {len(weights)}")


def product_density(log_densities, weights=None):
    """sum_i w_i log q_i: the product; negative weights negate ([1.3, -0.3]), None for all 1."""
    weights = [1.0] * len(log_densities) if weights is None else weights
    _checked(log_densities, weights, "weights")
    return lambda x, t, cond=None: sum(w * q(x, t, cond) for w, q in zip(weights, log_densities))


def mixture_density(log_densities, log_weights=None):
    """log sum_i exp(l_i + log q_i): the mixture, of densities whose constants are comparable (or put into l_i)."""
    log_weights = [0.0] * len(log_densities) if log_weights is None else log_weights
    _checked(log_densities, log_weights, "log_weights")

    def log_density(x, t, cond=None):
        return jax.nn.logsumexp(jnp.stack([w + q(x, t, cond) for w, q in zip(log_weights, log_densities)]), axis=0)

    return log_density


def conditional_density(base, experts, weights=None):
    """log q_0 + sum_i w_i (log q_i - log q_0): guidance and products of conditions as a density."""
    weights = [1.0] * len(experts) if weights is None else weights
    _checked(experts, weights, "weights")
    rest = 1 - sum(weights)
    return lambda x, t, cond=None: rest * base(x, t, cond) + sum(w * q(x, t, cond) for w, q in zip(weights, experts))
