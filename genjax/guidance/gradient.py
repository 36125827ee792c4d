"""Guidance by the gradient of a log-probability of the noisy state."""

import jax
import jax.numpy as jnp

from genjax.core.numerics import bcast
from genjax.core.prediction import with_eps


def classifier(log_prob, scale=1.0):
    """Classifier guidance (2105.05233, algorithm 2): the score gains scale grad log p(y | x_t).

    Args:
      log_prob: (x, t, cond) -> [B], each entry a function of its own sample; the classifier sees noisy x.
      scale: scalar or [B].
    """

    def guidance(denoiser, process):
        def guided(x, t, cond=None, key=None):
            pred = denoiser(x, t, cond, key)
            gradient = jax.grad(lambda x: jnp.sum(log_prob(x, t, cond)))(x)
            eps = pred.eps - bcast(scale * process.sigma(t), x) * gradient
            return with_eps(pred, eps.astype(x.dtype), x, process, t)

        return guided

    return guidance
