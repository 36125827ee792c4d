"""A recipe small enough to train in milliseconds, with all that a State can hold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.core.types import Algorithm, State
from genjax.train import feed as feeds


def make_toy(learning_rate=0.05):
    """Noisy regression of y on x; `extra` holds a random key and a table, `ema` a copy."""
    optimizer = optax.adam(learning_rate)

    def init(key, batch, priors=None):
        params = {"w": jax.random.normal(key, batch["x"].shape[1:]), "b": jnp.zeros(())}
        extra = {"key": jax.random.key(7), "seen": jnp.zeros(32, jnp.int32), "batch": jnp.sum(batch["x"])}
        return State(jnp.int32(0), params, optimizer.init(params), jax.tree.map(jnp.copy, params), extra)

    def step(key, state, batch):
        def loss_fn(params):
            noise = 0.1 * jax.random.normal(key, batch["y"].shape)
            return jnp.mean((batch["x"] @ params["w"] + params["b"] + noise - batch["y"]) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, state.ema, params)
        extra = {**state.extra, "seen": state.extra["seen"].at[batch["index"]].add(1)}
        return State(state.step + 1, params, opt, ema, extra), {"loss": loss, "norm": optax.tree.norm(grads)}

    return Algorithm(init, step, lambda key, state, n, cond=None: state.params["w"])


@pytest.fixture(scope="session")
def arrays():
    x = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
    return {"x": x, "y": x @ np.arange(5, dtype=np.float32), "index": np.arange(32, dtype=np.int32)}


@pytest.fixture(scope="session")
def toy():
    return make_toy()


@pytest.fixture(scope="session")
def feed(arrays):
    return feeds.device_feed(arrays, 8)


@pytest.fixture
def same():
    """Whether two pytrees are equal in structure, types and every bit."""

    def check(a, b):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                x, y = jax.random.key_data(x), jax.random.key_data(y)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))

    return check
