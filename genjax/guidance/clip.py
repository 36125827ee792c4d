"""Guidances that keep x0 in the range of the data."""

import jax.numpy as jnp

from genjax.core.numerics import bcast
from genjax.core.prediction import clip_x0, with_x0


def dynamic_threshold(quantile=0.995, limit=1.0):
    """Dynamic thresholding (Imagen, 2205.11487, section 2.3).

    x0 is clipped to [-q, q] and multiplied by limit / q, where q is the given quantile of |x0| in the sample, but
    at least `limit`; eps is recomputed.

    Raises:
      ValueError: a quantile outside (0, 1].
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile: expected a number in (0, 1], got {quantile!r}")

    def guidance(denoiser, process):
        def thresholded(x, t, cond=None, key=None):
            pred = denoiser(x, t, cond, key)
            magnitude = jnp.abs(pred.x0).reshape(x.shape[0], -1)
            q = bcast(jnp.maximum(jnp.quantile(magnitude, quantile, axis=1), limit), x).astype(x.dtype)
            return with_x0(pred, jnp.clip(pred.x0, -q, q) * (limit / q), x, process, t)

        return thresholded

    return guidance


__all__ = ["clip_x0", "dynamic_threshold"]
