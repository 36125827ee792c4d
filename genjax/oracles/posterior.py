"""Exact posteriors: what a sampler of p(x0 | y) should draw.

For a prior that is a mixture of Gaussians and y = A x0 + n with Gaussian n, the posterior is again a mixture:
weights times evidences, means and covariances by the Kalman update. Being a mixture, it has an exact denoiser
E[x0 | x_t, y] at every noise level, so a sampler that uses it is perfect up to the discretization.

For any other measurement: a grid in one or two dimensions, or prior samples weighted by the likelihood, with
the Monte-Carlo error of every answer.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from genjax.core.keys import draw, fold, uniform
from genjax.core.types import Prediction
from genjax.oracles.gaussian import FullMixture, GaussianData
from genjax.oracles.mixture import Mixture


def _full(prior):
    """(FullMixture over vectors, shape of one sample)."""
    if isinstance(prior, Mixture):
        k, shape = prior.means.shape[0], prior.means.shape[1:]
        return FullMixture.from_mixture(prior.replace(means=prior.means.reshape(k, -1))), shape
    if isinstance(prior, GaussianData):
        return FullMixture.of([prior]), prior.mean.shape
    if isinstance(prior, FullMixture):
        return prior, prior.components.mean.shape[1:]
    raise TypeError(f"prior: expected a Mixture, FullMixture or GaussianData, got {type(prior).__name__}")


@struct.dataclass
class Posterior:
    """The law of x0 given one y, over samples of shape `shape`.

    Attributes:
      law: `FullMixture` over vectors [D].
      shape: of one sample.
    """

    law: FullMixture
    shape: tuple = struct.field(pytree_node=False)

    def weights(self):
        """Probabilities of the components given y, [K]."""
        return jax.nn.softmax(self.law.log_weights)

    def means(self):
        """Means of the components given y, [K, *shape]."""
        return self.law.components.mean.reshape(-1, *self.shape)

    def covariances(self):
        """Covariances of the components given y, [K, D, D]."""
        return jax.vmap(GaussianData.covariance)(self.law.components)

    def mean(self):
        """E[x0 | y], of shape `shape`."""
        return jnp.einsum("k,kd->d", self.weights(), self.law.components.mean).reshape(self.shape)

    def covariance(self):
        """Cov(x0 | y), [D, D]."""
        w, offset = self.weights(), self.law.components.mean - self.mean().reshape(1, -1)
        return jnp.einsum("k,kij->ij", w, self.covariances()) + jnp.einsum("k,ki,kj->ij", w, offset, offset)

    def sample(self, keys, n):
        """[n, *shape]."""
        return self.law.sample(keys, n)[0].reshape(n, *self.shape)

    def log_prob(self, x, alpha=1.0, sigma=0.0):
        """log p_t(x | y), [B], of x [B, *shape] at a noise level."""
        return self.law.log_prob(x.reshape(x.shape[0], -1), alpha, sigma)

    def score(self, x, alpha=1.0, sigma=0.0):
        """grad log p_t(x | y), [B, *shape]: the prior's score plus the likelihood's grad log p(y | x_t)."""
        return self.law.score(x.reshape(x.shape[0], -1), alpha, sigma).reshape(x.shape)

    def denoiser(self, process):
        """E[x0 | x_t, y] as a Denoiser: under any solver, a sampler of the exact posterior."""
        inner = self.law.denoiser(process)

        def denoiser(x, t, cond=None, key=None):
            pred = inner(x.reshape(x.shape[0], -1), t)
            return Prediction(x0=pred.x0.reshape(x.shape), eps=pred.eps.reshape(x.shape))

        return denoiser


def _whitened(matrix, y, noise_std, noise_covariance):
    """(matrix, y, std) of the same measurement with white noise."""
    if (noise_std is None) == (noise_covariance is None):
        raise ValueError("noise_std, noise_covariance: expected one of them, got both or none")
    if noise_covariance is None:
        return matrix, y, noise_std
    chol = jnp.linalg.cholesky(noise_covariance)
    solve = lambda b: jax.scipy.linalg.solve_triangular(chol, b, lower=True)
    return solve(matrix), solve(y), jnp.ones((), y.dtype)


def posterior(prior, matrix, y, noise_std=None, *, noise_covariance=None):
    """The exact `Posterior` of x0 given y = matrix x0 + n.

    Args:
      prior: `Mixture` over any shape (D elements), `FullMixture` or `GaussianData`.
      matrix: [M, D]; rows of zeros (a mask's holes, with 0 in y) change nothing.
      y: [M] or any shape of M elements.
      noise_std: scalar > 0.
      noise_covariance: [M, M] positive definite, in place of noise_std.

    Raises:
      ValueError: shapes that do not fit, a noise level that is not positive, both or no noise given.
    """
    law, shape = _full(prior)
    y, dim = jnp.asarray(y).reshape(-1), law.components.mean.shape[-1]
    if matrix.shape != (y.shape[0], dim):
        raise ValueError(f"matrix: expected shape {(y.shape[0], dim)} for this y and prior, got {matrix.shape}")
    if noise_std is not None and not isinstance(noise_std, jax.core.Tracer) and not noise_std > 0:
        raise ValueError(f"noise_std: expected > 0, got {noise_std}")
    return Posterior(law.measurement_posterior(*_whitened(matrix, y, noise_std, noise_covariance)), shape)


def posterior_denoiser(prior, matrix, y, noise_std, process):
    """E[x0 | x_t, y] as a Denoiser, each sample with a measurement of its own.

    Args:
      y: [B, M] or [B, ...] of M elements a sample.
      (others as in `posterior`)
    """
    laws = jax.vmap(lambda y: posterior(prior, matrix, y, noise_std))(y.reshape(y.shape[0], -1))

    def denoiser(x, t, cond=None, key=None):
        a, s = (jnp.broadcast_to(c.reshape(-1), x.shape[:1]) for c in (process.alpha(t), process.sigma(t)))

        def one(law, x, a, s):
            x0, _, eps = law.law.moments(x.reshape(1, -1), a, s)
            return x0.reshape(x.shape), eps.reshape(x.shape)

        return Prediction(*jax.vmap(one)(laws, x, a, s))

    return denoiser


@struct.dataclass
class Weighted:
    """A posterior as N weighted points.

    Attributes:
      points: [N, ...].
      log_weights: [N], not normalized: log p(y | point), or log of the joint on a grid.
      cell: [...] side lengths of a grid's cells (samples are spread over them); None: points as they are.
    """

    points: Any
    log_weights: Any
    cell: Any = None

    def weights(self):
        """Normalized, [N]."""
        return jax.nn.softmax(self.log_weights)

    def effective(self):
        """Effective number of points, 1 / sum of squared weights."""
        return 1 / jnp.sum(self.weights() ** 2)

    def log_evidence(self):
        """log p(y): the sum over a grid's cells, the mean over prior samples."""
        volume = -jnp.log(self.log_weights.shape[0]) if self.cell is None else jnp.sum(jnp.log(self.cell))
        return jax.nn.logsumexp(self.log_weights) + volume

    def expect(self, function):
        """(E[function(x)], its Monte-Carlo standard error); function maps [N, ...] to [N, ...].

        The error is that of self-normalized importance sampling; on a grid it means nothing.
        """
        values, w = function(self.points), self.weights()
        mean = jnp.tensordot(w, values, 1)
        return mean, jnp.sqrt(jnp.tensordot(w**2, (values - mean[None]) ** 2, 1))

    def mean(self):
        """E[x0 | y]."""
        return self.expect(lambda x: x)[0]

    def covariance(self):
        """Cov(x0 | y), [D, D]."""
        offset = (self.points - self.mean()[None]).reshape(self.points.shape[0], -1)
        return jnp.einsum("n,ni,nj->ij", self.weights(), offset, offset)

    def sample(self, keys, n):
        """[n, ...], drawn with replacement; on a grid uniform within the drawn cell."""
        cumulative = jnp.cumsum(self.weights())
        u = draw(jax.random.uniform, fold(keys, 0), (n,), cumulative.dtype) * cumulative[-1]
        x = self.points[jnp.clip(jnp.searchsorted(cumulative, u, side="right"), 0, cumulative.shape[0] - 1)]
        return x if self.cell is None else x + self.cell[None] * (uniform(fold(keys, 1), x.shape, x.dtype) - 0.5)


def grid_posterior(log_prior, log_likelihood, low, high, n=400):
    """The posterior by brute force on a grid, in one or two dimensions (midpoint rule).

    Args:
      log_prior: x [N, D] -> [N].
      log_likelihood: x [N, D] -> [N], log p(y | x).
      low, high: lengths D, the box; it must hold nearly all of the posterior.
      n: cells along each axis.

    Returns:
      `Weighted` of n^D points.
    """
    low, high = (jnp.asarray(a, jnp.result_type(float)) for a in (low, high))
    if low.shape not in ((1,), (2,)) or low.shape != high.shape:
        raise ValueError(f"low, high: expected one or two numbers each, got shapes {low.shape} and {high.shape}")
    cell = (high - low) / n
    axes = [low[i] + cell[i] * (jnp.arange(n) + 0.5) for i in range(low.shape[0])]
    points = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, low.shape[0])
    return Weighted(points, log_prior(points) + log_likelihood(points), cell)


def importance_posterior(points, log_likelihood):
    """The posterior of any measurement from prior samples, weighted by the likelihood.

    Args:
      points: [N, ...] drawn from the prior.
      log_likelihood: x [N, ...] -> [N], log p(y | x).

    Returns:
      `Weighted`; look at `effective()` before believing it (a few hundred at least).
    """
    return Weighted(points, log_likelihood(points))
