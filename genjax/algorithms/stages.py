"""Staged methods: a list of (Algorithm, steps, handover), one compile a stage."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax.algorithms import parts
from genjax.core.trees import path_name
from genjax.core.types import Algorithm


class Stage(NamedTuple):
    """One stage of a training."""

    algorithm: Algorithm
    steps: int
    handover: Callable | None = None  # (key, state of the stage before, batch) -> its first State; None: `init`


def inherit(old, new):
    """The tree `new` with the leaves of `old` wherever both have one of the same path and shape."""
    kept = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(old)}

    def pick(path, leaf):
        found = kept.get(path_name(path))
        return leaf if found is None or jnp.shape(found) != jnp.shape(leaf) else found

    return parts.copy(jax.tree_util.tree_map_with_path(pick, new))


def carry_over(algorithm):
    """A handover to `algorithm`: parameters, averages and collections go on, optimizers start anew.

    As progressive growing does at the start and the end of each fade (1710.10196, section A.1); penalties and
    controllers start anew too, and the count of steps at 0.
    """

    def handover(key, state, batch):
        new = algorithm.init(key, batch)
        extra = dict(new.extra)
        extra["net"] = inherit(state.extra["net"], new.extra["net"])
        return new._replace(params=inherit(state.params, new.params), ema=inherit(state.ema, new.ema), extra=extra)

    return handover
