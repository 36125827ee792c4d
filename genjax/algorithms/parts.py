"""Parts that recipes share: conditions and their dropping, the place in a split batch, networks with state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genjax.core.collectives import axis_index, axis_size
from genjax.core.keys import fold, sample_keys, uniform
from genjax.core.numerics import bcast
from genjax.guidance.compose import null_cond


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

    Null is what `guidance.null_cond` says: -1 for labels, 0 for floats.

    Args:
      keys: keys [B].
      cond: dict of arrays [B, ...], or None.
      rate: in [0, 1].
    """
    if cond is None or not rate:
        return cond
    drop = uniform(keys, keys.shape) < rate
    return jax.tree.map(lambda null, c: jnp.where(bcast(drop, c), null, c), null_cond(cond), cond)


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
    index = axis_index(axis_name)
    offset, total = index * n, n * axis_size(axis_name)
    return Draws(sample_keys(samples, n, offset), shared, jax.random.fold_in(local, index), offset, total)


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
