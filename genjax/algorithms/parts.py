"""Parts that recipes share: conditions and their dropping, the place in a split batch, networks with state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genjax.core.keys import fold, sample_keys, uniform
from genjax.core.numerics import bcast


def condition(batch, names):
    """The fields `names` of a batch as a condition, None for no names.

    Raises:
      ValueError: a field that the batch lacks.
    """
    for name in names:
        if name not in batch:
            raise ValueError(f"cond: expected a field of the batch, one of {sorted(batch)}, got {name!r}")
    return {name: batch[name] for name in names} or None


def drop_condition(keys, cond, rate):
    """The condition with all fields of a sample made null at once, with probability `rate`.

    Null is -1 for whole numbers (labels) and 0 for floats.

    Args:
      keys: keys [B].
      cond: dict of arrays [B, ...], or None.
      rate: in [0, 1].
    """
    if cond is None or not rate:
        return cond
    drop = uniform(keys, keys.shape) < rate
    null = lambda c: jnp.full_like(c, -1 if jnp.issubdtype(c.dtype, jnp.integer) else 0)
    return {name: jnp.where(bcast(drop, c), null(c), c) for name, c in cond.items()}


class Draws(NamedTuple):
    """The random numbers of one training step: those of samples and those common to all of them."""

    keys: Any  # [B] keys, by global index
    shared: Any  # one key, the same on all devices
    local: Any  # one key, different on every device of an axis
    offset: Any  # global index of the first sample
    total: int  # samples in the whole batch


def draws(key, step, n, axis_name=None):
    """The `Draws` of training step `step` for a (part of a) batch of n samples.

    With an axis name (pmap, shard_map or vmap over parts) the part's place is its index along the axis, so
    that a batch split over devices draws what the whole one would.
    """
    key = jax.random.fold_in(key, step)
    samples, shared, local = (jax.random.fold_in(key, i) for i in range(3))
    if axis_name is None:
        return Draws(sample_keys(samples, n), shared, local, 0, n)
    index = jax.lax.axis_index(axis_name)
    offset = index * n
    total = n * jax.lax.axis_size(axis_name)
    return Draws(sample_keys(samples, n, offset), shared, jax.random.fold_in(local, index), offset, total)


def mean_over(tree, axis_name=None):
    """Averages over the parts of an axis; `tree` itself without one."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def gather(tree, axis_name=None):
    """Arrays [n, ...] of all parts joined, [parts n, ...]; `tree` itself without an axis."""
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


def copy(tree):
    """A copy with buffers of its own, so that both may be donated."""
    return jax.tree.map(lambda a: jnp.array(a, copy=True), tree)


class Calls:
    """A network in training: a plain callable that keeps the collections its calls return.

    Lives inside one traced step. `state` after the loss is the network's new mutable state; each call
    starts from that of the call before.
    """

    def __init__(self, net, params, state, rng):
        self.net, self.params, self.state, self.rng, self.count = net, params, state, rng, 0

    def __call__(self, *x):
        rngs = {"dropout": fold(self.rng, self.count)}
        self.count += 1
        out, self.state = self.net.apply(self.params, self.state, *x, train=True, rngs=rngs)
        return out
