"""The order of the data: a function of seed and step alone, so that a training resumes anywhere.

Step i takes positions [i B, (i + 1) B) of an endless sequence of epochs, each a random permutation
drawn from (seed, epoch). No state is kept: the position in the data is the step.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np


class Feed(NamedTuple):
    """Batches for many steps at once.

    `take(step, count)` returns (arrays, indices [count, B]): the batch of step `step + i` is
    `tree.map(lambda a: a[indices[i]], arrays)`.
    """

    take: Callable  # (step, count) -> (dict of arrays, indices [count, B])
    like: Any  # one batch as shapes
    batch_size: int


def make_order(seed, size, batch_size):
    """`order(step, count)` -> indices [count, batch_size] of the examples of `count` steps.

    Within an epoch each of the `size` examples comes once; a batch may reach into the next epoch.
    """
    cache = {}

    def permutation(epoch):
        if epoch not in cache:
            cache[epoch] = np.random.default_rng([seed, epoch]).permutation(size).astype(np.int32)
        return cache[epoch]

    def order(step, count):
        first, last = step * batch_size, (step + count) * batch_size
        epochs = range(first // size, (last - 1) // size + 1)
        indices = np.concatenate([permutation(e) for e in epochs])[first - epochs[0] * size :][: last - first]
        for epoch in [e for e in cache if e < epochs[-1]]:
            del cache[epoch]
        return indices.reshape(count, batch_size)

    return order


def _shape(batch_size, example):
    return jax.ShapeDtypeStruct(
        (batch_size, *np.shape(example)), jax.dtypes.canonicalize_dtype(np.asarray(example).dtype)
    )


def device_feed(arrays, batch_size, seed=0, sharding=None):
    """A Feed whose examples all lie on the device; only indices travel.

    Args:
      arrays: dict of numpy arrays with one leading axis N.
      batch_size: B.
      seed: of the order.
      sharding: placement of the arrays (a replicated one on a mesh); None for the default device.
    """
    size = len(next(iter(arrays.values())))
    order = make_order(seed, size, batch_size)
    on_device = {name: jax.device_put(a, sharding) for name, a in arrays.items()}
    like = {name: _shape(batch_size, a[0]) for name, a in arrays.items()}
    return Feed(lambda step, count: (on_device, order(step, count)), like, batch_size)


def stream_feed(source, batch_size, steps_per_call=1, seed=0, threads=4):
    """A Feed that reads its examples while the device computes.

    The call for steps i ... i + n - 1 begins to read the n steps that follow.

    Args:
      source: random access, `len(source)` and `source[i]` -> dict of arrays.
      batch_size: B.
      steps_per_call: largest `count`; what is returned has always this many batches, so that one
        program serves (the last ones empty where `count` is less).
      seed: of the order.
      threads: readers.
    """
    order = make_order(seed, len(source), batch_size)
    readers = ThreadPoolExecutor(threads)
    ahead = {}

    def read(step, count):
        return [readers.submit(source.__getitem__, int(i)) for i in order(step, count).ravel()]

    def take(step, count):
        pending = ahead.pop((step, count), None) or read(step, count)
        for futures in ahead.values():  # the guess was wrong: a training's last steps, or a resume
            for future in futures:
                future.cancel()
        ahead.clear()
        ahead[step + count, count] = read(step + count, count)
        arrays = {name: np.zeros((steps_per_call * batch_size, *s.shape[1:]), s.dtype) for name, s in like.items()}
        for i, future in enumerate(pending):
            for name, value in future.result().items():
                arrays[name][i] = value
        return arrays, np.arange(count * batch_size, dtype=np.int32).reshape(count, batch_size)

    like = {name: _shape(batch_size, a) for name, a in source[0].items()}
    return Feed(take, like, batch_size)
