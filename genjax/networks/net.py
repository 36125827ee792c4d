"""The one thin adapter from Linen modules to `Net`."""

import jax

from genjax.core.types import Net


def linen_net(module):
    """The Net of a Linen module.

    init(key, *x) -> (params, state): `state` holds the mutable collections (batch statistics), {} for most.
    apply(params, state, *x, train=False, rngs=None, **kwargs) -> (out, state): keyword arguments such as
    `return_features` go to the module; the state is updated where `train`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from genjax.networks import MLP, linen_net
      >>> net = linen_net(MLP(width=8, depth=1))
      >>> params, state = net.init(jax.random.key(0), jnp.zeros((2, 3)), jnp.zeros(2))
      >>> out, state = net.apply(params, state, jnp.ones((2, 3)), jnp.zeros(2))
      >>> out.shape
      (2, 3)
    """

    def init(key, *x):
        keys = dict(zip(("params", "dropout"), jax.random.split(key)))
        variables = dict(module.init(keys, *x))
        return variables.pop("params", {}), variables

    def apply(params, state, *x, train=False, rngs=None, **kwargs):
        variables = {"params": params, **state}
        if not (train and state):
            return module.apply(variables, *x, train=train, rngs=rngs, **kwargs), state
        return module.apply(variables, *x, train=train, rngs=rngs, mutable=list(state), **kwargs)

    return Net(init, apply)
