"""Broadcasting over data and guarded elementary functions."""

import jax.numpy as jnp
import numpy as np


def bcast(t, x):
    """`t` shaped to broadcast against `x`.

    Args:
      t: scalar, [B], or an array of x's rank (axes of size 1 allowed).
      x: array [B, ...], or its rank as an int.

    Returns:
      t unchanged where it is a scalar or has x's rank, else [B, 1, ..., 1].
    """
    rank = x if isinstance(x, int) else jnp.ndim(x)
    t = jnp.asarray(t)
    if t.ndim in (0, rank):
        return t
    if t.ndim == 1:
        return t.reshape(t.shape + (1,) * (rank - 1))
    raise ValueError(f"t: expected a scalar, [B] or rank {rank}, got shape {t.shape}")


def float_time(t):
    """`t` as an array of its own float type, float32 at least: times lose meaning in half precision."""
    t = jnp.asarray(t)
    t = t.astype(jnp.result_type(t, float))
    return t.astype(jnp.promote_types(t.dtype, jnp.float32))


def batch_time(t, x):
    """`t` (scalar, [B], or x's rank with one number a sample) as [B]: what a network is given.

    It takes the float type of x, but never less than float32, and never the type of whole-number x.
    """
    t, batch = float_time(t), x.shape[0]
    if t.size not in (1, batch):
        raise ValueError(f"t: expected one time or one a sample ({batch}), got shape {t.shape}")
    if jnp.issubdtype(x.dtype, jnp.floating):
        t = t.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.broadcast_to(t.reshape(-1), (batch,))


def safe_div(a, b):
    """a / b, and 0 where b is 0, with finite gradients there."""
    zero = b == 0
    return jnp.where(zero, 0, a / jnp.where(zero, 1, b))


def safe_sqrt(a):
    """Square root, 0 with zero gradient where a <= 0 (rounding below zero included); NaN stays NaN."""
    zero = a <= 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, a)))


def safe_norm(x, axis=None, keepdims=False):
    """Euclidean norm whose gradient at zero is zero instead of NaN."""
    square = jnp.sum(x * x, axis=axis, keepdims=keepdims)
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def sum_except_batch(x):
    """Sum over all axes but the first: [B, ...] -> [B]."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def mean_except_batch(x):
    """Mean over all axes but the first: [B, ...] -> [B]."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def float_leaf(value):
    """A Python number as an array of the default float type, anything else as it is.

    Fields of pytree dataclasses pass through here: a field that comes once as int and once as
    float would otherwise compile the same program twice.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return np.asarray(value, jnp.result_type(float))
    return value


def float_leaves(obj, *names):
    """Applies `float_leaf` to the named fields of a frozen dataclass, for `__post_init__`."""
    for name in names:
        object.__setattr__(obj, name, float_leaf(getattr(obj, name)))
