"""Batches by step: the data of step i is a function of the seed and i alone, so a training resumes anywhere.

Small sets live on the device, where only indices are drawn (`data.resident`); others are read ahead from a
source (`data.loader`). The position in the data is the step: no other state is kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.data.loader import Loader, Prefetch
from genjax.data.resident import batch_indices
from genjax.train.multihost import place, rows_of


class Feed(NamedTuple):
    """Batches for several steps at once.

    `take(step, count)` returns (arrays, indices [count, B]): the batch of step `step + i` is
    `tree.map(lambda a: a[indices[i]], arrays)`. Where not `resident`, `arrays` is itself the one batch that
    may be asked for, each process holding its rows.
    """

    take: Callable  # (step, count) -> (dict of arrays, indices [count, B])
    like: Any  # one batch as shapes
    batch_size: int
    most: int | None = None  # largest `count`, None for any
    close: Callable = lambda: None  # ends reading ahead
    resident: bool = True  # all examples lie on the device


def _like(batch_size, examples):
    kind = lambda a: jax.dtypes.canonicalize_dtype(a.dtype)
    return {name: jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), kind(a)) for name, a in examples.items()}


def _check(batch_size, size):
    if batch_size > size:
        raise ValueError(f"train.batch_size: expected at most {size}, the examples of the data, got {batch_size}")


def device_feed(arrays, batch_size, seed=0, sharding=None):
    """A Feed whose examples all lie on the device.

    Args:
      arrays: dict of numpy arrays with one leading axis.
      batch_size: B.
      seed: of the order.
      sharding: placement of the arrays (a replicated one on a mesh); None for the default device.
    """
    size = len(next(iter(arrays.values())))
    _check(batch_size, size)
    on_device = {name: jax.device_put(a, sharding) for name, a in arrays.items()}
    key = jax.random.fold_in(jax.random.key(seed), 2)
    rows = jax.jit(jax.vmap(lambda step: batch_indices(key, step, size, batch_size)))

    def take(step, count):
        return on_device, rows(step + jnp.arange(count))

    return Feed(take, _like(batch_size, arrays), batch_size)


def stream_feed(dataset, batch_size, seed=0, sharding=None, ahead=2):
    """A Feed that reads batches of a Dataset, one a dispatch, while the device computes.

    Args:
      dataset: a `genjax.data.Dataset`.
      batch_size: B.
      seed: of the order.
      sharding: placement of the batches; each process reads the rows that its devices hold.
      ahead: batches kept ready.
    """
    _check(batch_size, len(dataset))
    share, shares = (0, 1) if sharding is None else rows_of(sharding, batch_size)
    put = None if sharding is None else lambda batch: place(batch, sharding)
    reader, position = None, None
    indices = np.arange(batch_size, dtype=np.int32)[None]

    def close():
        nonlocal reader
        if reader is not None:
            reader.close()
        reader = None

    def take(step, count):
        nonlocal reader, position
        if count != 1:
            raise ValueError(f"count: expected 1 batch of a stream at a time, got {count}")
        if reader is None or position != step:
            close()
            loader = Loader(dataset, batch_size, seed, process=share, processes=shares)
            loader.set_state({**loader.get_state(), "next_index": step})
            reader = Prefetch(loader, put, ahead)
        position = step + 1
        return next(reader), indices

    return Feed(take, _like(batch_size, dataset.take([0])), batch_size, 1, close, resident=False)
