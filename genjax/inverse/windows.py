"""Windows of images: the simplest forward model with a parameter, for signals that are seen in parts alone.

phi [B, 2] holds the first row and column of each sample's window.
"""

import jax
import jax.numpy as jnp


def crop(x, phi, size):
    """The windows [B, size, size, C] of x [B, H, W, C] at phi [B, 2] (int)."""
    one = lambda x, at: jax.lax.dynamic_slice(x, (at[0], at[1], 0), (size, size, x.shape[-1]))
    return jax.vmap(one)(x, phi)


def paste(window, phi, shape):
    """(canvas [B, H, W, C], mask [B, H, W, 1]): windows [B, h, w, C] at phi, and 1 where they lie; 0 elsewhere.

    Args:
      shape: (H, W, C).
    """

    def one(window, at):
        start = (at[0], at[1], 0)
        canvas = jax.lax.dynamic_update_slice(jnp.zeros(shape, window.dtype), window, start)
        mask = jnp.zeros((*shape[:-1], 1), window.dtype)
        return canvas, jax.lax.dynamic_update_slice(mask, jnp.ones_like(window[..., :1]), start)

    return jax.vmap(one)(window, phi)


def joined(canvas, mask, window, phi):
    """(canvas, mask) with further windows laid over what is there."""
    new, where = paste(window, phi, canvas.shape[1:])
    return jnp.where(where > 0, new, canvas), jnp.maximum(mask, where)
