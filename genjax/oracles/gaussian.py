"""Gaussian data with any covariance, and mixtures of them: exact under every Gaussian process.

For x0 ~ N(m, U diag(l) U^T) and x_t = alpha x0 + sigma eps, every law is diagonal in the basis U:

  x_t ~ N(alpha m, U diag(alpha^2 l + sigma^2) U^T),
  E[x0 | x_t] = m + U diag(alpha l / (alpha^2 l + sigma^2)) U^T (x_t - alpha m),

and the probability-flow ODE scales each coordinate by the ratio of its standard deviations.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from genjax.core.keys import draw, fold, normal
from genjax.core.types import Prediction


def _columns(*values):
    """Scalars or [B] as [1 or B, 1]."""
    return (jnp.reshape(jnp.asarray(value), (-1, 1)) for value in values)


@struct.dataclass
class GaussianData:
    """N(mean, basis diag(variances) basis^T) over vectors [D].

    Attributes:
      mean: [D].
      basis: [D, D] orthogonal, eigenvectors in columns.
      variances: [D], >= 0.
    """

    mean: Any
    basis: Any
    variances: Any

    def covariance(self):
        """[D, D]."""
        return (self.basis * self.variances[None]) @ self.basis.T

    def sample(self, keys, n):
        """[n, D]."""
        z = normal(keys, (n, self.mean.shape[0])) * jnp.sqrt(self.variances)[None]
        return self.mean[None] + z @ self.basis.T

    def _coordinates(self, x, alpha, sigma):
        """(U^T (x - alpha m) [B, D], variances of x_t [1 or B, D], alpha, sigma [1 or B, 1])."""
        alpha, sigma = _columns(alpha, sigma)
        z = (x - alpha * self.mean[None]) @ self.basis
        return z, alpha**2 * self.variances[None] + sigma**2, alpha, sigma

    def log_prob(self, x, alpha=1.0, sigma=0.0):
        """log p_t(x), [B], of data scaled by alpha plus noise sigma (scalars or [B])."""
        z, v, _, _ = self._coordinates(x, alpha, sigma)
        return -0.5 * jnp.sum(z**2 / v + jnp.log(2 * jnp.pi * v), axis=-1)

    def score(self, x, alpha=1.0, sigma=0.0):
        """grad log p_t(x), [B, D]."""
        z, v, _, _ = self._coordinates(x, alpha, sigma)
        return -(z / v) @ self.basis.T

    def moments(self, x, alpha, sigma):
        """(E[x0 | x_t] [B, D], trace of Cov(x0 | x_t) [B], E[eps | x_t] [B, D])."""
        z, v, a, s = self._coordinates(x, alpha, sigma)
        x0 = self.mean[None] + (a * self.variances[None] / v * z) @ self.basis.T
        trace = jnp.sum(self.variances[None] * s**2 / v, axis=-1)
        return x0, jnp.broadcast_to(trace, x.shape[:1]), (s / v * z) @ self.basis.T

    def denoiser(self, process):
        """The exact Denoiser under a Gaussian process."""

        def denoiser(x, t, cond=None, key=None):
            x0, _, eps = self.moments(x, process.alpha(t), process.sigma(t))
            return Prediction(x0=x0, eps=eps)

        return denoiser

    def flow_map(self, process, x, t, s):
        """Where the probability-flow ODE takes x [B, D] from time t to time s; either may be 0."""
        z, v_t, _, _ = self._coordinates(x, process.alpha(t), process.sigma(t))
        alpha, sigma = _columns(process.alpha(s), process.sigma(s))
        v_s = alpha**2 * self.variances[None] + sigma**2
        return alpha * self.mean[None] + (z * jnp.sqrt(v_s / v_t)) @ self.basis.T

    def bayes_error(self, process, t, target="x0"):
        """The least expected squared error at t, summed over D, of predicting "x0" or "eps"; shaped like t."""
        alpha, sigma = jnp.asarray(process.alpha(t)), jnp.asarray(process.sigma(t))
        total = alpha[..., None] ** 2 * _last(self.variances, alpha) + sigma[..., None] ** 2
        scales = {"x0": sigma, "eps": alpha}  # Var(eps | x_t) = (alpha / sigma)^2 Var(x0 | x_t)
        if target not in scales:
            raise ValueError(f"target: expected one of {sorted(scales)}, got {target!r}")
        return jnp.sum(scales[target][..., None] ** 2 * _last(self.variances, alpha) / total, axis=-1)

    def measurement_posterior(self, matrix, y, noise_std):
        """The law of x0 given y = matrix x0 + noise_std n, as `GaussianData`.

        Args:
          matrix: [M, D].
          y: [M].
          noise_std: scalar > 0.
        """
        return FullMixture.of([self]).measurement_posterior(matrix, y, noise_std).component(0)


def _last(vector, t):
    """A vector [D] as [1 ..., D], to broadcast against t[..., None]."""
    return vector.reshape((1,) * t.ndim + vector.shape)


def gaussian_data(mean, covariance):
    """`GaussianData` from a mean [D] and a covariance [D, D]."""
    variances, basis = jnp.linalg.eigh(jnp.asarray(covariance))
    return GaussianData(jnp.asarray(mean), basis, jnp.maximum(variances, 0))


@struct.dataclass
class FullMixture:
    """A mixture of K Gaussians with full covariances.

    Attributes:
      components: `GaussianData` with a leading axis K on each field.
      log_weights: [K], need not be normalized.
    """

    components: GaussianData
    log_weights: Any

    @classmethod
    def of(cls, components, weights=None):
        """From a list of `GaussianData` and their weights (None: equal)."""
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *components)
        zeros = jnp.zeros(len(components), stacked.mean.dtype)
        return cls(stacked, zeros if weights is None else jnp.log(jnp.asarray(weights)))

    @classmethod
    def from_mixture(cls, mixture):
        """The same law as an isotropic `Mixture` of vectors."""
        k, dim = mixture.means.shape
        basis = jnp.broadcast_to(jnp.eye(dim, dtype=mixture.means.dtype), (k, dim, dim))
        variances = jnp.broadcast_to(mixture.stds[:, None] ** 2, (k, dim))
        return cls(GaussianData(mixture.means, basis, variances), mixture.log_weights)

    def component(self, k):
        """Component k as `GaussianData`."""
        return jax.tree.map(lambda leaf: leaf[k], self.components)

    def sample(self, keys, n):
        """Draws (x [n, D], component [n])."""
        gumbel = draw(jax.random.gumbel, fold(keys, 0), (n, *self.log_weights.shape))
        k = jnp.argmax(self.log_weights[None] + gumbel, axis=-1)
        c = jax.tree.map(lambda leaf: leaf[k], self.components)
        z = normal(fold(keys, 1), c.mean.shape) * jnp.sqrt(c.variances)
        return c.mean + jnp.einsum("nij,nj->ni", c.basis, z), k

    def _log_joint(self, x, alpha, sigma):
        """[B, K]."""
        log_n = jax.vmap(lambda c: c.log_prob(x, alpha, sigma), out_axes=1)(self.components)
        return jax.nn.log_softmax(self.log_weights)[None] + log_n

    def log_prob(self, x, alpha=1.0, sigma=0.0):
        """log p_t(x), [B]."""
        return jax.nn.logsumexp(self._log_joint(x, alpha, sigma), axis=-1)

    def score(self, x, alpha=1.0, sigma=0.0):
        """grad log p_t(x), [B, D]."""
        weight = jax.nn.softmax(self._log_joint(x, alpha, sigma), axis=-1)
        scores = jax.vmap(lambda c: c.score(x, alpha, sigma), out_axes=1)(self.components)
        return jnp.sum(weight[..., None] * scores, axis=1)

    def moments(self, x, alpha, sigma):
        """(E[x0 | x_t] [B, D], trace of Cov(x0 | x_t) [B], E[eps | x_t] [B, D])."""
        weight = jax.nn.softmax(self._log_joint(x, alpha, sigma), axis=-1)
        centers, traces, eps = jax.vmap(lambda c: c.moments(x, alpha, sigma), out_axes=1)(self.components)
        x0 = jnp.sum(weight[..., None] * centers, axis=1)
        between = jnp.sum((centers - x0[:, None]) ** 2, axis=-1)
        return x0, jnp.sum(weight * (traces + between), axis=-1), jnp.sum(weight[..., None] * eps, axis=1)

    def denoiser(self, process):
        """The exact Denoiser under a Gaussian process."""

        def denoiser(x, t, cond=None, key=None):
            x0, _, eps = self.moments(x, process.alpha(t), process.sigma(t))
            return Prediction(x0=x0, eps=eps)

        return denoiser

    def measurement_posterior(self, matrix, y, noise_std):
        """The law of x0 given y = matrix x0 + noise_std n, again a `FullMixture`.

        Args:
          matrix: [M, D].
          y: [M].
          noise_std: scalar > 0.
        """

        identity = jnp.eye(len(y), dtype=self.components.mean.dtype)

        def update(component, log_weight):
            # Each factorization needs the one before: XLA's CPU threads can wait for each other forever where a
            # program holds independent batches of them.
            cov, residual = component.covariance(), y - matrix @ component.mean
            seen = matrix @ cov
            chol = jnp.linalg.cholesky(seen @ matrix.T + noise_std**2 * identity)
            whiten = jax.scipy.linalg.solve_triangular(chol, identity, lower=True)
            gain = (whiten @ seen).T @ whiten
            keep = jnp.eye(cov.shape[0], dtype=cov.dtype) - gain @ matrix
            posterior = gaussian_data(
                component.mean + gain @ residual, keep @ cov @ keep.T + noise_std**2 * gain @ gain.T
            )
            log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(chol)))
            evidence = -0.5 * (jnp.sum((whiten @ residual) ** 2) + log_det + len(y) * jnp.log(2 * jnp.pi))
            return posterior, log_weight + evidence

        return FullMixture(*jax.vmap(update)(self.components, jax.nn.log_softmax(self.log_weights)))
