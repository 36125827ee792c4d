"""A few labelled examples beside every batch, for games whose critic is a classifier (1606.03498, section 5)."""

import jax
import jax.numpy as jnp

from genjax.algorithms import parts
from genjax.core.keys import fold
from genjax.core.types import Algorithm
from genjax.data.resident import permuted


def with_labelled(algorithm, size=0):
    """`algorithm` on batches to which labelled examples are added; the batch's own labels are hidden (-1).

    The labelled set is given at the start, priors["labelled"] = {"x": [N, ...], "label": [N]}, and kept in
    State.frozen["labelled"], so runs with different sets share one program.

    Args:
      algorithm: an Algorithm whose batches are {"x", "label"}, such as a `gan` under `losses.semi_supervised`.
      size: labelled examples a step, drawn without replacement; 0 for all of them.

    Raises:
      ValueError: no labelled examples, or fewer than `size`.
    """
    if size < 0:
        raise ValueError(f"size: expected at least 0, got {size}")

    def joined(key, labelled, batch):
        n = len(labelled["x"])
        if size > n:
            raise ValueError(f"size: expected at most {n} (the labelled examples), got {size}")
        if size:
            rows = permuted(key, jnp.arange(size), n)
            labelled = jax.tree.map(lambda a: a[rows], labelled)
        hidden = jnp.full(len(batch["x"]), -1, labelled["label"].dtype)
        return {
            "x": jnp.concatenate([batch["x"], labelled["x"]]),
            "label": jnp.concatenate([hidden, labelled["label"]]),
        }

    def init(key, batch, priors=None):
        priors = dict(priors or {})
        if "labelled" not in priors:
            raise ValueError(f"priors: expected 'labelled', a dict of x and label, got {sorted(priors)}")
        given = priors.pop("labelled")
        labelled = parts.copy({name: jnp.asarray(given[name]) for name in ("x", "label")})
        state = algorithm.init(key, joined(key, labelled, batch), priors)
        return state._replace(frozen={**(state.frozen or {}), "labelled": labelled})

    def step(key, state, batch):
        own = fold(fold(key, state.step), 101)
        return algorithm.step(key, state, joined(own, state.frozen["labelled"], batch))

    return Algorithm(init, step, algorithm.sample, algorithm.refresh)
