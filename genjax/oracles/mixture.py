"""Isotropic Gaussian-mixture data: everything about its diffusion is a closed form.

For x0 ~ sum_k w_k N(m_k, s_k^2 I) and x_t = alpha x0 + sigma eps,

  p_t = sum_k w_k N(alpha m_k, v_k I),  v_k = alpha^2 s_k^2 + sigma^2,
  E[x0 | x_t, k] = m_k + alpha s_k^2 / v_k (x_t - alpha m_k).
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
    """A mixture of K isotropic Gaussians over data of shape [D].

    Attributes:
      means: [K, D].
      stds: [K] standard deviations, >= 0.
      log_weights: [K] logarithms of the weights (need not be normalized).
    """

    means: Any
    stds: Any
    log_weights: Any

    def sample(self, keys, n):
        """Draws (x [n, D], component [n])."""
        shape = (n, *self.log_weights.shape)
        k = jnp.argmax(self.log_weights + draw(jax.random.gumbel, fold(keys, 0), shape), axis=-1)
        noise = normal(fold(keys, 1), (n, self.means.shape[1]))
        return self.means[k] + self.stds[k][:, None] * noise, k

    def _log_joint(self, x, alpha, sigma, cond):
        """log w_k + log N(x; alpha m_k, v_k), [B, K]; variances v, [B, K] or [1, K]."""
        alpha, sigma = (jnp.atleast_1d(a)[:, None] for a in (alpha, sigma))  # [B or 1, 1]
        v = alpha**2 * self.stds[None] ** 2 + sigma**2
        square = jnp.sum((x[:, None, :] - alpha[..., None] * self.means[None]) ** 2, axis=-1)
        log_n = -0.5 * square / v - 0.5 * x.shape[-1] * jnp.log(2 * jnp.pi * v)
        log_w = jax.nn.log_softmax(self.log_weights)[None]
        if cond is not None and "label" in cond:
            label = cond["label"][:, None]  # negative: unconditional
            component = jnp.arange(self.means.shape[0])[None]
            log_w = jnp.where(label < 0, log_w, jnp.where(label == component, 0.0, -jnp.inf))
        return log_w + log_n, v

    def log_prob(self, x, alpha=1.0, sigma=0.0, cond=None):
        """log p_t(x), [B], of data scaled by alpha plus noise sigma (scalars or [B])."""
        return jax.nn.logsumexp(self._log_joint(x, alpha, sigma, cond)[0], axis=-1)

    def denoiser(self, process):
        """The exact Denoiser under a Gaussian process; `cond["label"]` [B] picks a component, -1 none."""

        def denoiser(x, t, cond=None, key=None):
            alpha, sigma = process.alpha(t), process.sigma(t)
            log_joint, v = self._log_joint(x, alpha, sigma, cond)
            weight = jax.nn.softmax(log_joint, axis=-1)[..., None]  # [B, K, 1]
            a, s = (bcast(jnp.atleast_1d(u), 3) for u in (alpha, sigma))
            shrink = self.stds[None, :, None] ** 2 / v[..., None]
            residual = x[:, None, :] - a * self.means[None]
            # per component: x0 = m + alpha shrink r,  eps = sigma r / v; both stay exact as sigma -> 0
            x0 = jnp.sum(weight * (self.means[None] + a * shrink * residual), axis=1)
            eps = jnp.sum(weight * s * residual / v[..., None], axis=1)
            return Prediction(x0=x0, eps=eps)

        return denoiser


def ring(n=8, radius=1.0, std=0.05):
    """n equal Gaussians on a circle, D = 2."""
    angle = 2 * jnp.pi * jnp.arange(n) / n
    means = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return Mixture(means, jnp.full(n, float(std)), jnp.zeros(n))
