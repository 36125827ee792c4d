"""Many games in one program: each is the game that would be played alone, and none disturbs another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.cli import runner_gan as run
from genjax.cli import runner_grid as grid
from genjax.core.keys import sample_keys


@pytest.fixture(scope="module")
def config():
    config = run.toy_config("smoke", 0, data={"name": "ring"}, penalties={"r1": {"weight": 1.0}})
    config.train.steps = 3
    return config


def test_numbers_reach_their_games(config):
    """The rate 0 leaves a network where it began; equal numbers and keys give equal games, another weight another one.
    A game that is given what is not finite does not disturb the others."""
    keys = jnp.stack([jax.random.key(0)] * 4)
    numbers = {"learning_rate": np.array([1e-2, 1e-2, 0.0, np.nan]), "r1": np.array([1.0, 5.0, 1.0, 1.0])}
    state, x = grid.play(config, keys, numbers, 8)
    assert x.shape == (4, 8, 2)
    kernel = state.params["discriminator"]["layer0"]["kernel"]
    assert np.isfinite(x[:3]).all() and not np.isfinite(x[3]).any()
    assert np.abs(kernel[0] - kernel[1]).max() > 1e-6
    assert np.abs(kernel[0] - kernel[2]).max() == pytest.approx(0.03, rel=0.2)  # Adam: three moves of at most 0.01
    again = grid.play(config, keys, {**numbers, "learning_rate": np.array([1e-2, 1e-2, 1e-2, 0.0])}, 8)[1]
    np.testing.assert_allclose(again[2], x[0], atol=1e-5)
    np.testing.assert_allclose(again[3], x[2], atol=1e-6)


def test_random_numbers():
    """Laws and ranges; the log law has its median at the geometric mean."""
    found = grid.random_numbers({"learning_rate": ("log", 1e-4, 1e-2), "b1": ("linear", 0.0, 0.5)}, 4000, 0)
    assert np.median(found["learning_rate"]) == pytest.approx(1e-3, rel=0.1)
    assert found["b1"].mean() == pytest.approx(0.25, abs=0.01) and found["b1"].max() <= 0.5
    with pytest.raises(ValueError, match="b1: expected"):
        grid.random_numbers({"b1": ("log", 0.0, 1.0)}, 2, 0)


def test_what_a_grid_does_not_play(config):
    keys = sample_keys(jax.random.key(0), 2)
    with pytest.raises(ValueError, match=r"numbers: expected some of .*got 'drift'"):
        grid.play(config, keys, {"drift": np.ones(2)}, 4)
    told = config.copy_and_resolve_references()
    told.augment = {"name": "instance_noise"}
    with pytest.raises(ValueError, match="algorithm: expected a plain game in a grid"):
        grid.play(told, keys, {"learning_rate": np.ones(2)}, 4)
