"""Plain functions as networks."""

import jax
import jax.numpy as jnp

from genjax.networks.functions import function_net


def test_function_net():
    """Parameters come from `init` and are differentiated; there is no state. Catches closed-over numbers."""
    net = function_net(lambda p, x, cond: p["a"] * x, {"a": 2.0})
    params, state = net.init(jax.random.key(0), jnp.ones(3), None)
    assert state == {} and float(params["a"]) == 2.0
    slope = jax.grad(lambda p: jnp.sum(net.apply(p, state, jnp.arange(3.0), None, train=True, rngs={})[0]))(params)
    assert float(slope["a"]) == 3.0
    assert function_net(lambda p, x: x).init(None, 1)[0] == {}
