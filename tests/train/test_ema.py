"""Averages against direct sums, and post-hoc widths against tracks that were really kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from genjax.build import common
from genjax.train import ema as em

TREE = {"w": jnp.arange(6.0).reshape(2, 3), "b": (jnp.ones(2), jnp.zeros(()))}


def test_inverse_of_the_width():
    for g in (0.1, 0.5, 6.94, 16.97, 200.0):
        np.testing.assert_allclose(em.std_to_exp(em.exp_to_std(g)), g, atol=1e-8 * max(g, 1))
    np.testing.assert_allclose([em.std_to_exp(0.05), em.std_to_exp(0.10)], [16.97, 6.94], atol=5e-3)
    for std in (0.0, 0.3, -1.0):
        with pytest.raises(ValueError, match="std"):
            em.std_to_exp(std)


def test_width_is_that_of_the_profile():
    """The standard deviation of the profile tau^g on [0, 1], by numeric integration."""
    tau = (np.arange(200000) + 0.5) / 200000
    for std in (0.05, 0.2):
        weight = tau ** em.std_to_exp(std)
        weight /= weight.sum()
        mean = np.sum(weight * tau)
        np.testing.assert_allclose(np.sqrt(np.sum(weight * (tau - mean) ** 2)), std, rtol=1e-6)


@pytest.mark.parametrize(
    "ema, keep",
    [
        (em.constant(0.9), lambda t: 0.9),
        (em.warmup(0.9), lambda t: min(0.9, (1 + t) / (10 + t))),
        (em.half_life(20.0, 0.5), lambda t: 0.5 ** (1 / min(20.0, 0.5 * t))),
        (em.power((0.1,)), lambda t: (1 - 1 / t) ** (em.std_to_exp(0.1) + 1)),
    ],
    ids=["constant", "warmup", "half_life", "power"],
)
def test_recursion(ema, keep):
    """30 steps against the recursion in float64; the first steps are where warm-ups differ."""
    values = np.random.default_rng(0).normal(size=(31, 4))
    state, expected = ema.init({"p": jnp.asarray(values[0], jnp.float32)}), values[0]
    update = jax.jit(ema.update)
    for t in range(1, 31):
        state = update(state, {"p": jnp.asarray(values[t], jnp.float32)}, jnp.int32(t))
        expected = keep(t) * expected + (1 - keep(t)) * values[t]
        np.testing.assert_allclose(ema.read(state)["p"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", em.EMAS)
def test_accumulated_batches_count_as_one_update(name):
    """An average beside an optimizer that accumulates three batches is that of one batch of three, at every update.

    Catches an average that is moved, or warms up, with every batch: on weights that stand still in between.
    """
    rng, decayed = np.random.default_rng(0), {}
    gradients = jnp.asarray(rng.normal(size=(12, 4)), jnp.float32)
    for n in (1, 3):
        config = ConfigDict(
            {"optimizer": {"name": "sgd", "learning_rate": 0.1, "accumulate": n}, "ema": {"name": name}}
        )
        average, optimizer = common.ema(config), common.optimizer(config)

        @jax.jit
        def step(carry, g, average=average, optimizer=optimizer):
            params, opt, state, count = carry
            updates, opt = optimizer.update(g, opt, params)
            params = optax.apply_updates(params, updates)
            return params, opt, average.update(state, params, count + 1), count + 1

        params, decayed[n] = jnp.ones(4), []
        carry = (params, optimizer.init(params), average.init(params), jnp.int32(0))
        batches = gradients if n == 3 else gradients.reshape(4, 3, 4).mean(axis=1)
        for g in batches:
            carry = step(carry, g)
            decayed[n].append(np.asarray(average.read(carry[2])))
    np.testing.assert_allclose(decayed[3][2::3], decayed[1], rtol=1e-5)
    np.testing.assert_array_equal(decayed[3][3], decayed[3][2])
    assert np.abs(decayed[1][-1] - decayed[1][0]).max() > 1e-4
    game = ConfigDict({"optimizer": {}, "g_optimizer": {"accumulate": 2}, "ema": {"name": name}})
    update = common.ema(game, "g_optimizer").update
    start = common.ema(game).init(jnp.zeros(2))
    np.testing.assert_array_equal(jax.tree.leaves(update(start, jnp.ones(2), jnp.int32(1)))[0], 0)


def test_init_is_a_copy_and_equal_values_stay():
    """Donating both params and average must be possible, and an average of one value is that value, bit for bit."""
    for name, make in em.EMAS.items():
        ema = make()
        params = jax.tree.map(jnp.copy, TREE)
        state = ema.init(params)
        buffers = {a.unsafe_buffer_pointer() for a in jax.tree.leaves((params, state))}
        assert len(buffers) == len(jax.tree.leaves((params, state))), name
        step = jax.jit(lambda p, s, ema=ema: (p, ema.update(s, p, 5)), donate_argnums=(0, 1))
        params, state = step(params, state)
        jax.tree.map(np.testing.assert_array_equal, ema.read(state), TREE)
        dtypes = jax.tree.map(lambda a: a.dtype, ema.read(state))
        assert dtypes == jax.tree.map(lambda a: a.dtype, TREE)


def test_power_forgets_the_start():
    """The first update has factor 0: the initial weights do not enter."""
    ema = em.power()
    state = ema.update(ema.init({"p": jnp.full(3, 1e6)}), {"p": jnp.ones(3)}, 1)
    for track in (0, 1):
        np.testing.assert_array_equal(ema.read(state, track)["p"], 1.0)
    with pytest.raises(ValueError, match="track"):
        ema.read(state, 2)
    with pytest.raises(ValueError, match="track"):
        em.constant().read({}, 1)


@pytest.fixture(scope="module")
def walk():
    """A random walk of 4,096 steps: snapshots of both kept tracks, and the wanted averages kept directly.

    In double precision, as the test is of the algebra.
    """
    steps, wanted = 4096, (0.03, 0.07, 0.15, 0.20)
    with jax.enable_x64(True):
        theta = jnp.cumsum(jax.random.normal(jax.random.key(0), (steps, 64)), axis=0)
        ema = em.power((0.05, 0.10, *wanted))

        def body(state, inputs):
            step, params = inputs
            state = ema.update(state, params, step)
            return state, jnp.stack(state[:2])

        final, kept = jax.jit(lambda: jax.lax.scan(body, ema.init(theta[0]), (jnp.arange(1, steps + 1), theta)))()
    kept = np.asarray(kept)
    snapshots = [
        (t, std, {"p": kept[t - 1, track]})
        for t in range(128, steps + 1, 128)
        for track, std in enumerate((0.05, 0.10))
    ]
    return snapshots, {std: np.asarray(final[2 + i]) for i, std in enumerate(wanted)}


@pytest.mark.parametrize("std, tolerance", [(0.03, 5e-3), (0.07, 1e-3), (0.15, 1e-3), (0.20, 5e-3)])
def test_posthoc_reconstruction(walk, std, tolerance, x64):
    """From 32 snapshots of two tracks, any width at the end; the nearest snapshot is at least 100 times worse."""
    snapshots, direct = walk
    true = direct[std]
    relative = lambda p: np.linalg.norm(np.asarray(p) - true) / np.linalg.norm(true)
    rebuilt = relative(em.posthoc_ema(snapshots, 4096, std)["p"])
    nearest = min(relative(params["p"]) for _, _, params in snapshots)
    assert rebuilt <= tolerance
    assert nearest >= 100 * rebuilt


def test_posthoc_weights_of_a_kept_track(walk):
    """Asked for what was kept, it gives that snapshot back; coefficients sum to 1; the condition is at most 1e7."""
    times, stds = np.array([s[0] for s in walk[0]]), np.array([s[1] for s in walk[0]])
    weights = em.posthoc_weights(times, stds, 4096, 0.10)
    np.testing.assert_allclose(weights, (times == 4096) & (stds == 0.10), atol=1e-6)
    np.testing.assert_allclose(em.posthoc_weights(times, stds, 3000, 0.2).sum(), 1)
    g = np.array([em.std_to_exp(s) for s in stds])
    assert np.linalg.cond(em._inner(times[:, None], g[:, None], times[None], g[None])) < 1e7


def test_bad_input():
    with pytest.raises(ValueError, match="decay"):
        em.constant(1.0)
    with pytest.raises(ValueError, match="half-life"):
        em.half_life(0.0)
    with pytest.raises(ValueError, match="snapshots"):
        em.posthoc_ema([], 1, 0.1)
    with pytest.raises(ValueError, match="time"):
        em.posthoc_weights([10.0], [0.1], 20, 0.1)
    with pytest.raises(ValueError, match="stds"):
        em.power(())
