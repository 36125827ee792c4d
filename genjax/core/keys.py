"""Per-sample random keys.

Every random draw in a sampler or a loss comes from a key of its own sample,
`fold_in(key, global_index)`, so a sample does not change with the size of the
batch, the number of devices or the mesh.

`keys` means: one typed key, a batch `[B]` of typed keys, or None (for code that
draws nothing). A wrapper hands `fold(keys, 0)` inwards and draws from
`fold(keys, 1)`, `fold(keys, 2)` ..., never from `keys` itself: two wrappers
around each other then never share a stream.
"""

import jax
import jax.numpy as jnp

from genjax.core.placement import across_batch


def check_keys(keys):
    """Raises TypeError unless `keys` is None or made of typed keys (`jax.random.key`)."""
    if keys is not None and not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(f"keys: expected typed keys from jax.random.key, got dtype {keys.dtype}")


def sample_keys(key, n, offset=0):
    """Keys of the samples `offset ... offset + n - 1`.

    Args:
      key: one typed key.
      n: number of samples, static.
      offset: global index of the first sample (on a pmap device:
        `axis_index * local_batch`), may be traced.

    Returns:
      Typed keys, [n].
    """
    return across_batch(jax.vmap(jax.random.fold_in, (None, 0))(key, offset + jnp.arange(n)))


def per_sample(keys, n):
    """`keys` as [n]: a single key is split by sample index, a batch passes."""
    check_keys(keys)
    if keys.ndim == 0:
        return sample_keys(keys, n)
    if keys.shape != (n,):
        raise ValueError(f"keys: expected one key or keys of shape ({n},), got {keys.shape}")
    return keys


def fold(keys, data):
    """`fold_in` of the integer `data` (may be traced) into one key, a batch of keys or None."""
    if keys is None:
        return None
    check_keys(keys)
    return jax.random.fold_in(keys, data) if keys.ndim == 0 else jax.vmap(jax.random.fold_in, (0, None))(keys, data)


def draw(sampler, keys, shape, *args):
    """`sampler(key, shape[1:], *args)` for each sample of a batch of shape `shape`.

    `sampler` is a function such as `jax.random.normal`. Raises ValueError where keys are missing.
    """
    if keys is None:
        raise ValueError("keys: this step draws random numbers and needs keys, got None")
    return jax.vmap(lambda key: sampler(key, shape[1:], *args))(per_sample(keys, shape[0]))


def normal(keys, shape, dtype=None):
    """Standard normal numbers of shape `shape` [B, ...], one stream a sample."""
    return draw(jax.random.normal, keys, shape, dtype or jnp.result_type(float))


def normal_like(keys, x):
    """Standard normal numbers of the shape and dtype of x [B, ...]."""
    return normal(keys, x.shape, x.dtype)


def uniform(keys, shape, dtype=None):
    """Uniform numbers in [0, 1) of shape `shape` [B, ...], one stream a sample."""
    return draw(jax.random.uniform, keys, shape, dtype or jnp.result_type(float))
