"""Isotropic Gaussian-mixture data: everything about its diffusion is a closed form.

For x0 ~ sum_k w_k N(m_k, s_k^2 I) and x_t = alpha x0 + sigma eps,

  p_t = sum_k w_k N(alpha m_k, v_k I),  v_k = alpha^2 s_k^2 + sigma^2,
  E[x0 | x_t, k] = m_k + alpha s_k^2 / v_k (x_t - alpha m_k).

All methods are differentiable, so Jacobian products of the denoiser come from `jax.jvp`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from genjax.core.keys import draw, fold, normal
from genjax.core.numerics import bcast
from genjax.core.types import Prediction


@struct.dataclass
class Mixture:
    """A mixture of K isotropic Gaussians over data of any shape [...].

    Attributes:
      means: [K, ...].
      stds: [K] standard deviations, >= 0.
      log_weights: [K] logarithms of the weights (need not be normalized).
      classes: [K] int class of each component; None: each component is its own class.
    """

    means: Any
    stds: Any
    log_weights: Any
    classes: Any = None

    def _labels(self):
        return jnp.arange(self.means.shape[0]) if self.classes is None else jnp.asarray(self.classes)

    def sample(self, keys, n):
        """Draws (x [n, ...], class [n])."""
        shape = (n, *self.log_weights.shape)
        k = jnp.argmax(jnp.asarray(self.log_weights)[None] + draw(jax.random.gumbel, fold(keys, 0), shape), axis=-1)
        noise = normal(fold(keys, 1), (n, *self.means.shape[1:]))
        return self.means[k] + bcast(self.stds[k], noise) * noise, self._labels()[k]

    def _log_joint(self, x, alpha, sigma, cond):
        """log w_k + log N(x; alpha m_k, v_k), [B, K]; residual x - alpha m_k [B, K, D]; variances v, [B or 1, K]."""
        alpha, sigma = (jnp.reshape(jnp.asarray(a), (-1, 1)) for a in (alpha, sigma))  # [B or 1, 1]
        v = alpha**2 * self.stds[None] ** 2 + sigma**2
        means = self.means.reshape(1, self.means.shape[0], -1)
        residual = x.reshape(x.shape[0], 1, -1) - alpha[..., None] * means
        square = jnp.sum(residual**2, axis=-1)
        log_n = -0.5 * square / v - 0.5 * residual.shape[-1] * jnp.log(2 * jnp.pi * v)
        return self._log_prior(cond) + log_n, residual, v

    def _log_prior(self, cond):
        """log w_k given the condition, normalized, [1 or B, K]."""
        log_w = jnp.asarray(self.log_weights)[None]
        if cond is not None and "label" in cond:
            label = cond["label"][:, None]  # negative: unconditional
            log_w = jnp.where((label < 0) | (label == self._labels()[None]), log_w, -jnp.inf)
        return jax.nn.log_softmax(log_w, axis=-1)

    def log_prob(self, x, alpha=1.0, sigma=0.0, cond=None):
        """log p_t(x), [B], of data scaled by alpha plus noise sigma (scalars or [B])."""
        return jax.nn.logsumexp(self._log_joint(x, alpha, sigma, cond)[0], axis=-1)

    def score(self, x, alpha=1.0, sigma=0.0, cond=None):
        """grad log p_t(x), [B, ...]."""
        log_joint, residual, v = self._log_joint(x, alpha, sigma, cond)
        pull = jax.nn.softmax(log_joint, axis=-1) / v
        return -jnp.sum(pull[..., None] * residual, axis=1).reshape(x.shape)

    def log_component_prob(self, x, alpha=1.0, sigma=0.0, cond=None):
        """log p(component k | x_t), [B, K]."""
        return jax.nn.log_softmax(self._log_joint(x, alpha, sigma, cond)[0], axis=-1)

    def log_class_prob(self, x, alpha=1.0, sigma=0.0, num_classes=None):
        """log p(class | x_t), [B, num_classes] (static; default one class a component)."""
        log_k = self.log_component_prob(x, alpha, sigma)
        labels = jnp.arange(num_classes or self.means.shape[0])
        member = self._labels()[None, None] == labels[None, :, None]  # [1, C, K]
        return jax.nn.logsumexp(jnp.where(member, log_k[:, None], -jnp.inf), axis=-1)

    def moments(self, x, alpha, sigma, cond=None):
        """(E[x0 | x_t] [B, ...], trace of Cov(x0 | x_t) [B], E[eps | x_t] [B, ...])."""
        log_joint, residual, v = self._log_joint(x, alpha, sigma, cond)
        weight = jax.nn.softmax(log_joint, axis=-1)[..., None]  # [B, K, 1]
        a, s = (jnp.reshape(jnp.asarray(u), (-1, 1, 1)) for u in (alpha, sigma))
        means = self.means.reshape(1, self.means.shape[0], -1)
        shrink = self.stds[None, :, None] ** 2 / v[..., None]
        # per component: x0 = m + alpha shrink r,  eps = sigma r / v; both stay exact as sigma -> 0
        centers = means + a * shrink * residual
        x0 = jnp.sum(weight * centers, axis=1)
        eps = jnp.sum(weight * s * residual / v[..., None], axis=1)
        inside = residual.shape[-1] * (shrink * s**2)[..., 0]
        between = jnp.sum((centers - x0[:, None]) ** 2, axis=-1)
        trace = jnp.sum(weight[..., 0] * (inside + between), axis=-1)
        return x0.reshape(x.shape), trace, eps.reshape(x.shape)

    def denoiser(self, process):
        """The exact Denoiser under a Gaussian process; `cond["label"]` [B] picks a class, -1 none."""

        def denoiser(x, t, cond=None, key=None):
            x0, _, eps = self.moments(x, process.alpha(t), process.sigma(t), cond)
            return Prediction(x0=x0, eps=eps)

        return denoiser


def _mixture(means, std, weights=None, classes=None):
    means = jnp.asarray(means, jnp.result_type(float))
    stds = jnp.broadcast_to(jnp.asarray(std, means.dtype), means.shape[:1])
    log_weights = jnp.zeros(means.shape[0], means.dtype) if weights is None else jnp.log(jnp.asarray(weights))
    return Mixture(means, stds, log_weights, classes)


def ring(n=8, radius=1.0, std=0.05):
    """n equal Gaussians on a circle, D = 2."""
    angle = 2 * jnp.pi * jnp.arange(n) / n
    return _mixture(radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1), std)


def grid(n=5, spacing=1.0, std=0.05, dim=2):
    """n^dim equal Gaussians on a lattice of side n around the origin, D = dim."""
    axis = spacing * (jnp.arange(n) - (n - 1) / 2)
    return _mixture(jnp.stack(jnp.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim), std)


def random_mixture(key, n=8, shape=(2,), spread=1.0, std=(0.1, 0.5), num_classes=None):
    """n Gaussians with normal means, uniform standard deviations in `std`, and Dirichlet(1) weights.

    Args:
      shape: shape of one datum.
      spread: standard deviation of the means.
      num_classes: components are dealt to this many classes in turn; None: one each.
    """
    mean_key, std_key, weight_key = jax.random.split(key, 3)
    means = spread * jax.random.normal(mean_key, (n, *shape))
    stds = jax.random.uniform(std_key, (n,), minval=std[0], maxval=std[1])
    weights = jax.random.exponential(weight_key, (n,))  # normalized, these are Dirichlet(1)
    classes = None if num_classes is None else jnp.arange(n) % num_classes
    return _mixture(means, stds, weights, classes)
