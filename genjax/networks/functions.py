"""Plain functions as networks: laws that do not learn, generators of a few numbers, critics known by hand."""

import jax
import jax.numpy as jnp

from genjax.core.types import Net


def function_net(fn, params=None):
    """The Net of `fn(params, *x) -> out`, without mutable state.

    As the generator of a game whose optimizer does nothing it is a law that a critic is trained against.

    Args:
      fn: (params, *x) -> out; a generator's x are (z, cond), a discriminator's (x, cond).
      params: what `init` returns, a pytree of numbers; {} where None.

    Example:
      >>> net = function_net(lambda p, z, cond: z + p["shift"], {"shift": 2.0})
      >>> params, state = net.init(None, jnp.zeros(1), None)
      >>> float(net.apply(params, state, jnp.ones(()), None)[0])
      3.0
    """

    def init(key, *x):
        return jax.tree.map(jnp.asarray, {} if params is None else params), {}

    def apply(params, state, *x, train=False, rngs=None):
        return fn(params, *x), state

    return Net(init, apply)
