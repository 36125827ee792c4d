"""Schedules' values at known steps; what clipping, decay and accumulation do to one known update."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.train import optimizers as op

PARAMS = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}
GRADS = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, -4.0)}


def one_update(transform, grads=GRADS, params=PARAMS):
    return transform.update(grads, transform.init(params), params)[0]


def test_schedules():
    at = lambda schedule, steps: np.array([float(schedule(s)) for s in steps])
    np.testing.assert_allclose(at(op.make_schedule("constant", 0.1), (0, 5, 999)), 0.1, rtol=1e-6)
    np.testing.assert_allclose(at(op.make_schedule("constant", 0.1, warmup=4), (0, 1, 3, 4)), [0.025, 0.05, 0.1, 0.1])
    linear = op.make_schedule("linear", 0.1, steps=110, warmup=10, end=0.1)
    np.testing.assert_allclose(at(linear, (4, 10, 60, 110, 500)), [0.05, 0.1, 0.055, 0.01, 0.01], rtol=1e-5)
    cosine = op.make_schedule("cosine", 0.2, steps=100, warmup=0)
    np.testing.assert_allclose(at(cosine, (0, 25, 50, 100, 101)), [0.2, 0.1 + 0.1 * 0.5**0.5, 0.1, 0, 0], atol=1e-7)
    root = op.make_schedule("inverse_sqrt", 0.01, reference=100, warmup=10)
    np.testing.assert_allclose(at(root, (4, 50, 100, 400, 10000)), [0.005, 0.01, 0.01, 0.005, 0.001], rtol=1e-5)


def test_schedule_counts_optimizer_steps():
    """The third step of a linear decay uses the third rate."""
    transform = op.make_optimizer("sgd", 1.0, {"name": "linear", "steps": 4})
    state, rates = transform.init(PARAMS), []
    for _ in range(5):
        updates, state = transform.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
        rates.append(-float(updates["bias"][0]))
    np.testing.assert_allclose(rates, [1.0, 0.75, 0.5, 0.25, 0.0], atol=1e-6)


def test_first_updates():
    """Adam and Lion move by the rate against the sign; decay touches kernels alone, and is decoupled in adamw."""
    sign = jax.tree.map(jnp.sign, GRADS)
    for name in ("adam", "lion"):
        jax.tree.map(
            lambda u, s: np.testing.assert_allclose(u, -0.1 * s, rtol=1e-4),
            one_update(op.make_optimizer(name, 0.1)),
            sign,
        )
    decayed = one_update(op.make_optimizer("adamw", 0.1, weight_decay=0.5))
    np.testing.assert_allclose(decayed["kernel"], -0.1 - 0.1 * 0.5 * 2, rtol=1e-4)
    np.testing.assert_allclose(decayed["bias"], 0.1, rtol=1e-4)
    decayed = one_update(op.make_optimizer("sgd", 0.1, weight_decay=0.5))
    np.testing.assert_allclose(decayed["kernel"], -0.1 * (3 + 0.5 * 2), rtol=1e-5)
    np.testing.assert_allclose(decayed["bias"], 0.4, rtol=1e-5)
    adam = one_update(op.make_optimizer("adam", 0.1, weight_decay=0.5))  # L2: Adam rescales it away
    np.testing.assert_allclose(adam["kernel"], -0.1, rtol=1e-4)


def test_clipping():
    """The global norm over all leaves, not of each."""
    updates = one_update(op.make_optimizer("sgd", 1.0, clip=1.0))
    np.testing.assert_allclose(optax.tree.norm(updates), 1, rtol=1e-5)
    ratio = np.asarray(updates["kernel"])[0, 0] / np.asarray(updates["bias"])[0]
    np.testing.assert_allclose(ratio, -3 / 4, rtol=1e-5)
    jax.tree.map(
        lambda u, g: np.testing.assert_allclose(u, -g), one_update(op.make_optimizer("sgd", 1.0, clip=100.0)), GRADS
    )


def test_accumulation_equals_the_large_batch():
    """Four batches of gradients make one Adam step with their mean; nothing moves before."""
    keys = jax.random.split(jax.random.key(0), 8)
    grads = [jax.tree.map(lambda p, k=k: jax.random.normal(k, p.shape), PARAMS) for k in keys]
    many, one = op.make_optimizer("adam", 0.1, accumulate=4), op.make_optimizer("adam", 0.1)
    params, state, moves = PARAMS, many.init(PARAMS), []
    update = jax.jit(many.update)
    for g in grads:
        updates, state = update(g, state, params)
        moves.append(float(optax.tree.norm(updates)))
        params = optax.apply_updates(params, updates)
    expected, plain = PARAMS, one.init(PARAMS)
    for half in (grads[:4], grads[4:]):
        mean = jax.tree.map(lambda *g: sum(g) / 4, *half)
        updates, plain = one.update(mean, plain, expected)
        expected = optax.apply_updates(expected, updates)
    assert [m > 0 for m in moves] == [False, False, False, True] * 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), params, expected)


def test_every_optimizer_descends():
    for name in op.OPTIMIZERS:
        transform = op.make_optimizer(name, 0.05)
        value = lambda p: sum(jnp.sum((leaf - 1) ** 2) for leaf in jax.tree.leaves(p))

        @jax.jit
        def run(params, transform=transform, value=value):
            def body(carry, _):
                params, state = carry
                updates, state = transform.update(jax.grad(value)(params), state, params)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(body, (params, transform.init(params)), None, 100)[0][0]

        assert float(value(run(PARAMS))) < 0.05 * float(value(PARAMS)), name


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "adamm"}, r"optimizer: expected one of .*'adamm'"),
        ({"momentum": 0.9}, r"optimizer\.momentum: 'adam' expected one of"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number > 0, got 0.0"),
        ({"schedule": {"name": "cosin"}}, r"schedule: expected one of .*'cosin'"),
        ({"schedule": {"name": "cosine"}}, r"schedule\.steps: 'cosine' needs"),
        ({"schedule": {"name": "constant", "steps": 5}}, r"schedule\.steps: 'constant' expected one of"),
        ({"schedule": {"name": "cosine", "steps": 5, "warmup": 5}}, "steps: expected"),
        ({"clip": -1.0}, "clip"),
        ({"accumulate": 0}, "accumulate"),
        ({"accumulate": 1.5}, "accumulate"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        op.make_optimizer(**arguments)
