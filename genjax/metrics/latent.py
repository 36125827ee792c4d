"""Measures of a generator's latent space: perceptual path length."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.keys import fold, sample_keys, uniform
from genjax.core.numerics import bcast


def slerp(a, b, t):
    """From a to b [B, D] along great circles, t [B] in [0, 1]; lengths go straight from one to the other."""
    length = lambda v: jnp.linalg.norm(v, axis=-1, keepdims=True)
    ua, ub = a / length(a), b / length(b)
    angle = jnp.arccos(jnp.clip(jnp.sum(ua * ub, axis=-1, keepdims=True), -1 + 1e-6, 1 - 1e-6))
    t = t[:, None]
    turned = (jnp.sin((1 - t) * angle) * ua + jnp.sin(t * angle) * ub) / jnp.sin(angle)
    return turned * ((1 - t) * length(a) + t * length(b))


def latent_path_length(key, generate, sample, distance, n=1000, eps=1e-4, path="slerp", chunk=250, trim=0.01):
    """E d(G(z_t), G(z_{t + eps})) / eps^2 along paths between two latents (1812.04948, section 4.1).

    Args:
      key: one key; pair i depends on it and on i alone.
      generate: z [B, D] -> x.
      sample: (keys [B], B) -> z, the law of latents.
      distance: (x, y) -> [B], squared, such as that of features.
      n: number of pairs.
      eps: step along the path.
      path: "slerp" for normal latents, "lerp" for styles and bounded latents.
      trim: share left out at each end.

    Returns:
      A float.
    """
    if path not in ("slerp", "lerp"):
        raise ValueError(f"path: expected 'slerp' or 'lerp', got {path!r}")
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim: expected a share in [0, 0.5), got {trim}")
    move = slerp if path == "slerp" else (lambda a, b, t: a + bcast(t, a) * (b - a))

    @jax.jit
    def lengths(first):
        keys = sample_keys(key, chunk, first)
        a, b = sample(fold(keys, 0), chunk), sample(fold(keys, 1), chunk)
        t = uniform(fold(keys, 2), (chunk,))
        return distance(generate(move(a, b, t)), generate(move(a, b, t + eps))) / eps**2

    found = np.concatenate([np.asarray(lengths(first), np.float64) for first in range(0, n, chunk)])[:n]
    found = np.sort(found)
    cut = int(trim * len(found))
    return float(np.mean(found[cut : len(found) - cut]))
