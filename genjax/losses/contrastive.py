"""Contrastive losses of representations."""

import jax
import jax.numpy as jnp


def nt_xent(first, second, temperature=0.5):
    """The normalized temperature-scaled cross-entropy of SimCLR (2002.05709, eq. 1), one value a pair.

    Args:
      first, second: [B, D] representations of two views of each sample, B >= 2.
      temperature: > 0.

    Returns:
      [B], the mean of a pair's two terms.

    Raises:
      ValueError: arrays of different shapes, or fewer than two pairs.
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] < 2:
        raise ValueError(f"views: expected two arrays [B, D] with B >= 2, got {first.shape} and {second.shape}")
    n = first.shape[0]
    z = jnp.concatenate([first, second])
    z = z / jnp.maximum(jnp.linalg.norm(z, axis=1, keepdims=True), 1e-6)
    similar = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, z @ z.T / temperature)
    partner = (jnp.arange(2 * n) + n) % (2 * n)
    terms = -jnp.take_along_axis(jax.nn.log_softmax(similar, axis=1), partner[:, None], axis=1)[:, 0]
    return (terms[:n] + terms[n:]) / 2
