"""What a game needs of an augmentation, and the controller that keeps overfitting at a target."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax.core import collectives


class Controlled(NamedTuple):
    """The state of an adaptive augmentation."""

    p: jax.Array  # probability of every transform, in [0, 1]
    total: jax.Array  # sum of the signs since the last adjustment
    count: jax.Array  # how many there were
    calls: jax.Array  # int32, calls of `update` so far


class Augment(NamedTuple):
    """An augmentation, called as `augment(keys, x, state=None) -> x`; None is the initial state."""

    apply: Callable  # (keys, x [B, H, W, C], state) -> x
    init: Callable  # () -> state
    update: Callable  # (state, signs) -> state
    present: Callable  # (keys, real, fake, state) -> real

    def __call__(self, keys, x, state=None):
        return self.apply(keys, x, self.init() if state is None else state)


def only_reals(keys, real, fake, state):
    """The reals: what is shown as real where nothing else is."""
    del keys, fake, state
    return real


def fixed(fn):
    """The constructor (**numbers) -> Augment of a function `fn(keys, x, **numbers) -> x` without state."""
    names = list(inspect.signature(fn).parameters)[2:]

    @functools.wraps(fn)
    def constructor(**numbers):
        for name in numbers:
            if name not in names:
                raise ValueError(f"augment: expected numbers among {names}, got {name!r}")
        return Augment(
            lambda keys, x, state: fn(keys, x, **numbers), lambda: (), lambda state, signs: state, only_reals
        )

    # what a config may set are the numbers alone
    parameters = list(inspect.signature(fn).parameters.values())[2:]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    constructor.__signature__ = inspect.Signature(keyword)
    return constructor


def check_probability(name, value):
    """Raises ValueError unless the number `value` lies in [0, 1]; what is traced passes."""
    if isinstance(value, (int, float)) and not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a probability in [0, 1], got {value}")


def controller(target=0.6, kimg=500.0, interval=4, p=0.0, *, p_max=1.0, axis_name=None):
    """Keeps the overfitting heuristic r = E[sign D(real)] at `target` (2006.06676, section 3.1).

    Every `interval` calls p moves by a fixed amount, up where r > target and down where r < target,
    so that it would need `kimg` thousand images to go from 0 to 1; it is kept within [0, p_max].

    Args:
      target: of r, in [-1, 1].
      kimg: thousands of real images, above 0.
      interval: calls between adjustments, at least 1.
      p: initial probability.
      p_max: upper limit; transforms leak into the generator from about 0.85 up (section 2.2).
      axis_name: mapped axis over which the batch is spread, or None.

    Returns:
      (init, update): init() -> Controlled, update(state, signs) -> Controlled.
    """
    check_probability("p", p)
    check_probability("p_max", p_max)
    if interval < 1:
        raise ValueError(f"interval: expected at least 1, got {interval}")
    if kimg <= 0:
        raise ValueError(f"kimg: expected a number above 0, got {kimg}")
    if not -1 <= target <= 1:
        raise ValueError(f"target: expected a mean of signs in [-1, 1], got {target}")

    def init():
        zero = jnp.zeros((), jnp.float32)
        return Controlled(jnp.asarray(p, jnp.float32), zero, zero, jnp.zeros((), jnp.int32))

    def update(state, signs):
        devices = collectives.axis_size(axis_name)
        total = state.total + devices * collectives.pmean(jnp.sum(jnp.sign(signs).astype(jnp.float32)), axis_name)
        count, calls = state.count + devices * signs.size, state.calls + 1
        due = calls % interval == 0
        moved = state.p + jnp.sign(total / count - target) * count / (kimg * 1000)
        keep = jnp.where(due, 0.0, 1.0)
        return Controlled(jnp.where(due, jnp.clip(moved, 0, p_max), state.p), keep * total, keep * count, calls)

    return init, update
