"""Every generator and discriminator plays: init, step and sample of the recipe traced by shape."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

from genjax.algorithms import games, gan
from genjax.losses.adversarial import hinge
from genjax.losses.penalties import Penalty, path_length, r1, reconstruction
from genjax.networks import linen_net
from genjax.networks.gan import DISCRIMINATORS, GENERATORS

SIZE = 16
BATCH = {"x": jax.ShapeDtypeStruct((8, SIZE, SIZE, 3), "float32")}
KEY = jax.eval_shape(lambda: jax.random.key(0))


def net(table, name, **fields):
    """The network at its defaults, for images of 16 x 16."""
    module = table[name]
    known = {
        k: v
        for k, v in {"shape": (SIZE, SIZE, 3), "head": "linear", **fields}.items()
        if k in module.__dataclass_fields__
    }
    return linen_net(module(**known))


def trace(generator, discriminator, **options):
    """Shapes of the State after a step, and of 2 samples."""
    adam = optax.adam(1e-3)
    algorithm = gan(generator, discriminator, hinge(), adam, adam, latent=games.normal(16), **options)
    state = jax.eval_shape(algorithm.init, KEY, BATCH)
    after, metrics = jax.eval_shape(algorithm.step, KEY, state, BATCH)
    assert jax.tree.map(lambda s: (s.shape, s.dtype), after) == jax.tree.map(lambda s: (s.shape, s.dtype), state)
    assert all(m.shape == () for m in metrics.values())
    return state, jax.eval_shape(functools.partial(algorithm.sample, n=2), KEY, state)


@pytest.mark.parametrize("name", GENERATORS)
def test_generator(name):
    _, x = trace(net(GENERATORS, name), net(DISCRIMINATORS, "mlp", width=8, depth=1))
    assert x.shape == (2, SIZE, SIZE, 3)


@pytest.mark.parametrize("name", sorted(set(DISCRIMINATORS) - {"projected"}))  # that one needs a backbone
def test_discriminator(name):
    trace(
        net(GENERATORS, "mlp", width=8, depth=1),
        net(DISCRIMINATORS, name),
        penalties={"r1": Penalty(r1(), 1.0, every=4)},
    )


def test_path_lengths_in_styles():
    """StyleGAN2's own penalty, in W; truncation pulls the styles."""
    lengths = {"path": Penalty(path_length("style"), 2.0, every=4)}
    generator, discriminator = net(GENERATORS, "stylegan2"), net(DISCRIMINATORS, "mlp", width=8, depth=1)
    state, x = trace(generator, discriminator, g_penalties=lengths, truncation=0.7, truncate="style")
    assert x.shape == (2, SIZE, SIZE, 3) and state.extra["g_penalties"]["path"].shape == ()


def test_growing_stages_share_their_parameters():
    """Stage 1 of a growing pair works at 8 x 8 on the data's 16 x 16; its tree is that of the last stage."""
    trees = []
    for stage in (1, 2):
        pair = [net(table, "progressive", stage=stage) for table in (GENERATORS, DISCRIMINATORS)]
        state, x = trace(*pair, prepare=(games.growing(stage, games.ramp(0, 10)),))
        assert x.shape == (2, 4 * 2**stage, 4 * 2**stage, 3)
        trees.append(jax.tree.map(lambda s: s.shape, state.params))
    assert trees[0] == trees[1]


def test_reconstructing_discriminator():
    trace(
        net(GENERATORS, "mlp", width=8, depth=1),
        net(DISCRIMINATORS, "fastgan"),
        penalties={"rec": Penalty(reconstruction(), 10.0)},
    )


def test_ramp():
    alpha = games.ramp(5, 10)
    assert [float(alpha(jnp.int32(s))) for s in (0, 5, 10, 15, 99)] == [0, 0, 0.5, 1, 1]
    assert float(games.ramp(0, 0)(3)) == 1.0
