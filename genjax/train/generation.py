"""Drawing many samples from a trained model, chunk by chunk."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.train.dispatch import layout_of, make_sampler


def class_labels(n, num_classes):
    """Labels 0, 1, ... num_classes - 1, 0, 1 ... [n]: as evenly as n allows."""
    return np.arange(n, dtype=np.int32) % num_classes


def draw(algorithm, key, state, n, cond=None, chunk=256):
    """Samples [n, ...] of a State, each by a key of its own.

    Sample i depends on `key`, i and its condition alone, not on n, `chunk` or the devices. A State that lies on
    a mesh is sampled on all its devices; several processes must call this together.

    Args:
      algorithm: an Algorithm whose `sample` takes keys [B].
      key: one key.
      state: State.
      n: number of samples.
      cond: dict of arrays [n, ...], or None.
      chunk: samples a program call.

    Returns:
      NumPy array.
    """
    chunk = min(chunk, n)
    sample = make_sampler(algorithm, chunk, layout_of(state))
    parts = []
    for first in range(0, n, chunk):
        # the last chunk is filled up, so that one program serves all of them
        rows = np.minimum(np.arange(first, first + chunk), n - 1)
        part = None if cond is None else jax.tree.map(lambda c, rows=rows: jnp.asarray(c)[rows], cond)
        parts.append(np.asarray(sample(key, first, state, part)))
    return np.concatenate(parts)[:n]
