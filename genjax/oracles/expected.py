"""The least possible denoising loss: E ||x0 - E[x0 | x_t]||^2, for any oracle with `moments`.

The error is the expected trace of the posterior covariance, which the oracles know in closed form;
only the average over x_t is left, by Monte Carlo or, for an isotropic mixture in few dimensions, by
Gauss-Hermite quadrature.
"""

import jax.numpy as jnp
import numpy as np

from genjax.core.keys import fold, normal_like


def bayes_error(key, oracle, process, t, n=4096):
    """Monte-Carlo estimate (mean, standard error) of E ||x0 - E[x0 | x_t]||^2 at a scalar t.

    The error of eps is (alpha / sigma)^2 times this.
    """
    drawn = oracle.sample(fold(key, 0), n)
    x0 = drawn[0] if isinstance(drawn, tuple) else drawn
    x = process.perturb(x0, normal_like(fold(key, 1), x0), t)
    trace = oracle.moments(x, process.alpha(t), process.sigma(t))[1]
    return jnp.mean(trace), jnp.std(trace) / jnp.sqrt(n)


def bayes_error_quadrature(mixture, process, t, order=32):
    """E ||x0 - E[x0 | x_t]||^2 at a scalar t for an isotropic mixture of vectors [D], D <= 3.

    Each component's law of x_t is integrated by a Gauss-Hermite rule of `order` nodes a dimension.

    Raises:
      ValueError: D > 3.
    """
    k, dim = mixture.means.shape
    if dim > 3:
        raise ValueError(f"mixture: expected at most 3 dimensions for quadrature, got {dim}")
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    points = np.stack(np.meshgrid(*[nodes] * dim, indexing="ij"), axis=-1).reshape(1, -1, dim)
    mass = np.prod(np.stack(np.meshgrid(*[weights] * dim, indexing="ij"), axis=-1).reshape(-1, dim), axis=-1)
    alpha, sigma = process.alpha(t), process.sigma(t)
    spread = jnp.sqrt(alpha**2 * mixture.stds**2 + sigma**2)[:, None, None]
    x = alpha * mixture.means[:, None] + spread * points.astype(mixture.means.dtype)
    trace = mixture.moments(x.reshape(-1, dim), alpha, sigma)[1].reshape(k, -1)
    log_w = jnp.asarray(mixture.log_weights)
    prior = jnp.exp(log_w - jnp.max(log_w))
    return jnp.sum(prior / jnp.sum(prior) * (trace @ jnp.asarray(mass / mass.sum(), trace.dtype)))
