"""What every penalty of the two dictionaries owes a game, on one small critic and one small generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.types import Critique
from genjax.losses.penalties import G_PENALTIES, PENALTIES, Memory

B = 6
SETTINGS = {"consistency": {"augment": lambda keys, x: 0.9 * x + 0.1}}
REPULSIVE = {"latent_diversity"}  # negative: it rewards distance
NAMES = [("critic", name) for name in PENALTIES] + [("generator", name) for name in G_PENALTIES]


class Player:
    """A network of one hidden layer with what penalties ask of a player; of [B, 2, 2] or of latents [B, 3]."""

    def __init__(self, params):
        self.params = params

    def _out(self, x):
        hidden = jnp.tanh(x.reshape(len(x), -1) @ self.params["first"] + self.params["bias"][None])
        return hidden, hidden @ self.params["last"]


class Critic(Player):
    def __call__(self, x, cond=None):
        hidden, out = self._out(x)
        extra = {"reconstructions": {"small": out.reshape(x.shape)}, "targets": {"small": x}}
        return Critique(out[:, 0], hidden, extra=extra)


class Generator(Player):
    def __call__(self, z):
        return self._out(z)[1].reshape(-1, 2, 2)


def game(side):
    """(player's class, its parameters, what it is given, batch leading)."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    n_in = {"critic": 4, "generator": 3}[side]
    params = {"first": normal(n_in, 5), "bias": normal(5), "last": normal(5, 4)}
    if side == "generator":
        return Generator, params, normal(B, 3)
    x = {name: normal(B, 2, 2) for name in ("real", "fake", "between", "direction")}
    x |= {"z": normal(B, 3), "fake_cond": {}, "between_cond": {}}
    return Critic, params, x


def value(side, name):
    """(params, x, keys, memory) -> (value, new memory), and the first memory."""
    made = {"critic": PENALTIES, "generator": G_PENALTIES}[side][name](**SETTINGS.get(name, {}))
    player = {"critic": Critic, "generator": Generator}[side]

    def fn(params, x, keys, memory):
        if side == "critic":
            x = {**x, "generate": lambda z: jnp.sin(jnp.repeat(z[:, :2, None], 2, axis=2))}
        if isinstance(made, Memory):
            return made.fn(keys, player(params), x, memory)
        return made(keys, player(params), x), memory

    return fn, made.init(game(side)[1]) if isinstance(made, Memory) else None


@pytest.fixture(params=NAMES, ids="-".join)
def played(request):
    side, name = request.param
    fn, memory = value(side, name)
    _, params, x = game(side)
    keys = jax.random.split(jax.random.key(1), B)
    if memory is not None:  # of other parameters and points: a memory of the present ones has nothing to say
        memory = jax.jit(fn)(
            jax.tree.map(lambda p: 1.5 * p, params), x, jax.random.split(jax.random.key(2), B), memory
        )[1]
    return name, fn, params, x, keys, memory


def test_value(played):
    """One number a sample or one for all, finite, against the player."""
    name, fn, params, x, keys, memory = played
    found, new = jax.jit(fn)(params, x, keys, memory)
    assert found.shape in ((), (B,)) and np.all(np.isfinite(found))
    assert np.all(found <= 0 if name in REPULSIVE else found >= 0) and np.any(found != 0)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), new) == jax.tree.map(lambda a: (a.shape, a.dtype), memory)


def test_parameters_feel_it(played):
    """Its gradient reaches the parameters, and is finite for a player that is flat."""
    _, fn, params, x, keys, memory = played
    gradient = jax.jit(jax.grad(lambda params: jnp.mean(fn(params, x, keys, memory)[0])))
    felt = jax.tree.leaves(gradient(params))
    assert all(np.all(np.isfinite(g)) for g in felt) and any(np.any(g != 0) for g in felt)
    flat = jax.tree.leaves(gradient(jax.tree.map(jnp.zeros_like, params)))
    assert all(np.all(np.isfinite(g)) for g in flat)


def test_order_of_the_batch(played):
    """Samples are numbered by nothing: reordered with their keys, they bring their values along."""
    _, fn, params, x, keys, memory = played
    order = np.random.default_rng(3).permutation(B)
    program = jax.jit(lambda x, keys: fn(params, x, keys, memory)[0])
    found, reordered = program(x, keys), program(jax.tree.map(lambda a: a[order], x), keys[order])
    np.testing.assert_allclose(reordered, found[order] if found.ndim else found, rtol=2e-5, atol=1e-6)
