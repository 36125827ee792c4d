"""Statistics of a batch that may be spread over devices.

`axis_name` is the name of a mapped axis (`pmap`, `vmap`, `shard_map`), or None: then the batch is all
here and these are plain reductions. Under `jax.jit` over a mesh the batch is one global array, and
None is right too.
"""

import jax
import jax.numpy as jnp
from jax import lax


def axis_index(axis_name=None):
    """Index of this device along the axis; 0 without one."""
    return 0 if axis_name is None else lax.axis_index(axis_name)


def axis_size(axis_name=None):
    """Number of devices along the axis; 1 without one."""
    return 1 if axis_name is None else lax.axis_size(axis_name)


def pmean(tree, axis_name=None):
    """Mean of every leaf over devices: for gradients and metrics."""
    return tree if axis_name is None else lax.pmean(tree, axis_name)


def mean(x, axis=0, axis_name=None):
    """Mean over `axis` (an int or a tuple) and over devices."""
    return pmean(jnp.mean(x, axis=axis), axis_name)


def var(x, axis=0, axis_name=None):
    """Variance (divided by the count) over `axis` and over devices, in two passes, so never negative."""
    center = pmean(jnp.mean(x, axis=axis, keepdims=True), axis_name)
    return pmean(jnp.mean((x - center) ** 2, axis=axis), axis_name)


def gather(tree, axis_name=None):
    """Leaves [b, ...] of every device as one batch [devices * b, ...], in the order of the devices."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda x: lax.all_gather(x, axis_name, axis=0, tiled=True), tree)
