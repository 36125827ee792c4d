"""Generative latent optimization and labelled batches: closed forms of one step, the law of codes, inversion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from genjax import build
from genjax.algorithms.glo import ball, decoder, fit_codes, glo, principal_codes, project_ball
from genjax.algorithms.semi_supervised import with_labelled
from genjax.core.types import Algorithm, State
from genjax.data import DataSpec
from genjax.inverse.generator import invert_generator
from genjax.losses.pyramid import squared_error
from genjax.networks.functions import function_net

N, DIM, D = 6, 2, 3
linear = function_net(lambda w, z, cond: z @ w, jnp.ones((DIM, D)))


def make(**options):
    options = {"num": N, "dim": DIM, **options}
    rate = options.pop("rate", 0.1)
    return glo(linear, squared_error(), optax.sgd(0.05), optax.sgd(rate), **options)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    codes = np.asarray(project_ball(jnp.asarray(rng.normal(size=(N, DIM)), jnp.float32)))
    return jnp.asarray(rng.normal(size=(N, D)), jnp.float32), codes


def test_one_step_by_hand(data):
    """A linear generator under squared error. Catches code gradients divided by the batch, rows that were not drawn
    but move, a projection that is left out, and codes that move where they should not."""
    x, codes = data
    index = jnp.array([4, 1, 2])
    batch = {"x": x[index], "index": index}
    algorithm = make(rate=2.0, scale=1.5)
    state = algorithm.init(jax.random.key(0), batch, {"codes": codes})
    after, metrics = jax.jit(algorithm.step)(jax.random.key(1), state, batch)
    w = np.ones((DIM, D))
    gap = 1.5 * codes[index] @ w - np.asarray(x[index])
    moved = codes[index] - 2.0 * (2 / D) * 1.5 * gap @ w.T
    moved = moved / np.maximum(1, np.linalg.norm(moved, axis=1, keepdims=True))
    assert np.linalg.norm(moved, axis=1).max() == pytest.approx(1)  # the ball is reached
    np.testing.assert_allclose(after.extra["codes"][index], moved, atol=1e-5)
    rest = np.setdiff1d(np.arange(N), index)
    np.testing.assert_array_equal(after.extra["codes"][rest], codes[rest])
    pull = np.mean([2 / D * np.outer(1.5 * codes[i], g) for i, g in zip(index, gap)], axis=0)
    np.testing.assert_allclose(after.params["generator"], w - 0.05 * pull, atol=1e-5)
    assert float(metrics["loss"]) == pytest.approx(np.mean(gap**2), rel=1e-5)
    still = make(train_codes=False)
    fixed = still.step(jax.random.key(1), still.init(jax.random.key(0), batch, {"codes": codes}), batch)[0]
    np.testing.assert_array_equal(fixed.extra["codes"], codes)


def test_each_code_has_its_own_optimizer(data):
    """Adam's first move of a code is its rate, whenever it comes. Catches one state for all codes."""
    x, codes = data
    codes = 0.1 * codes
    algorithm = glo(linear, squared_error(), optax.sgd(0.0), optax.adam(0.01), num=N, dim=DIM)
    rows = lambda index: {"x": x[jnp.array(index)], "index": jnp.array(index)}
    state = algorithm.init(jax.random.key(0), rows([0, 1]), {"codes": codes})
    step = jax.jit(algorithm.step)
    for index in ([0, 1], [0, 1], [2, 3]):
        state = step(jax.random.key(1), state, rows(index))[0]
    np.testing.assert_allclose(np.abs(state.extra["codes"] - codes)[2:4], 0.01, rtol=1e-3)
    np.testing.assert_array_equal(state.extra["code_opt"][0].count, [2, 2, 1, 1, 0, 0])


def test_split_batch_is_the_whole_one(data):
    """Two devices against one: generator and codes. Catches rows that only their own device writes."""
    x, codes = data
    index = jnp.arange(4)
    batch = {"x": x[index], "index": index}
    whole, split = make(), make(axis_name="data")
    state = whole.init(jax.random.key(0), batch, {"codes": codes})
    after = whole.step(jax.random.key(1), state, batch)[0]
    halves = jax.tree.map(lambda a: a.reshape(2, 2, *a.shape[1:]), batch)
    step = jax.vmap(lambda b: split.step(jax.random.key(1), state, b)[0], axis_name="data")
    both = step(halves)
    for i in range(2):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a, b[i], atol=1e-6),
            (after.params, after.extra["codes"]),
            (both.params, both.extra["codes"]),
        )


def test_law_of_codes():
    """Mean and covariance of draws from the fitted Gaussian, of less than full rank too; all samples in the ball."""
    rng = np.random.default_rng(1)
    flat = rng.normal(size=(500, 2)) @ np.array([[0.3, 0.1, 0.2], [0.0, 0.2, 0.1]]) + np.array([0.1, -0.2, 0.0])
    law = fit_codes(jnp.asarray(flat, jnp.float32))
    drawn = np.asarray(law.draw(jax.random.key(0), 20_000))
    np.testing.assert_allclose(drawn.mean(axis=0), flat.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(flat.T), atol=5e-3)
    far = fit_codes(jnp.asarray(5 * flat, jnp.float32)).sample(jax.random.key(0), 1000)
    assert float(jnp.linalg.norm(far, axis=1).max()) <= 1 + 1e-5
    radius = np.linalg.norm(ball(3)(jax.random.key(2), 4000), axis=1)
    assert np.mean(radius <= 0.5) == pytest.approx(1 / 8, abs=0.02) and radius.max() <= 1


def test_samples_are_decoded_codes(data):
    """`sample` decodes the scaled Gaussian of the codes, and does not depend on how many are drawn."""
    x, codes = data
    algorithm = make(scale=2.0)
    state = algorithm.init(jax.random.key(0), {"x": x, "index": jnp.arange(N)}, {"codes": codes})
    few, many = (np.asarray(algorithm.sample(jax.random.key(3), state, n)) for n in (2, 50))
    np.testing.assert_allclose(few, many[:2], atol=1e-6)
    assert np.abs(many).max() / 2.0 <= np.sqrt(2) + 1e-5  # of the sum of the two numbers of a code in the ball
    np.testing.assert_allclose(decoder(linear, state, 2.0)(codes), 2.0 * codes @ np.ones((DIM, D)), rtol=1e-5)


def test_principal_codes_are_white():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 5))
    z = principal_codes(x, 2)
    inside = np.linalg.norm(z, axis=1) < 1 - 1e-5
    assert 0.5 < inside.mean() < 1  # of a standard normal in the plane by sqrt 2: 1 - e^{-1}
    assert np.linalg.norm(z, axis=1).max() <= 1 + 1e-5


def test_inversion_finds_the_code_of_a_linear_generator():
    """Convex, so every start ends at the least squares solution; of two restarts the better one is handed back."""
    w = jnp.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]])
    z = jnp.array([[0.3, -0.7], [1.2, 0.1]])
    sample = lambda keys, n: jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
    run = lambda **options: invert_generator(
        jax.random.key(0), lambda z: z @ w, z @ w, sample, squared_error(), steps=300, **options
    )
    found, error = jax.jit(lambda: run(restarts=2))()
    np.testing.assert_allclose(found, z, atol=1e-2)
    assert float(error.max()) < 1e-4
    inside = jax.jit(lambda: run(project=project_ball))()[0]
    np.testing.assert_allclose(inside[0], z[0], atol=1e-2)
    assert float(jnp.linalg.norm(inside[1])) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="steps: expected"):
        run(restarts=0)


def test_labelled_examples_join_every_batch():
    """What the recipe inside is given. Catches labels that leak into the batch, and draws with repetition."""
    seen = lambda key, state, batch: (state._replace(params=batch), {})
    inside = Algorithm(lambda key, batch, priors: State(jnp.array(0), batch, (), frozen=()), seen, None)
    labelled = {"x": 10 + jnp.arange(4.0)[:, None], "label": jnp.arange(4)}
    batch = {"x": jnp.zeros((3, 1)), "label": jnp.full(3, 7)}
    whole = with_labelled(inside)
    state = whole.init(jax.random.key(0), batch, {"labelled": labelled})
    given = whole.step(jax.random.key(0), state, batch)[0].params
    np.testing.assert_array_equal(given["label"], [-1, -1, -1, 0, 1, 2, 3])
    np.testing.assert_array_equal(given["x"][:, 0], [0, 0, 0, 10, 11, 12, 13])
    some = with_labelled(inside, 2)
    drawn = [some.step(jax.random.key(1), state._replace(step=i), batch)[0].params for i in range(20)]
    labels = np.stack([d["label"][3:] for d in drawn])
    assert (labels[:, 0] != labels[:, 1]).all() and len(np.unique(labels)) == 4
    assert all(np.array_equal(d["x"][3:, 0], 10 + d["label"][3:]) for d in drawn)
    with pytest.raises(ValueError, match="priors: expected 'labelled'"):
        whole.init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match="size: expected at most 4"):
        with_labelled(inside, 5).init(jax.random.key(0), batch, {"labelled": labelled})


def test_config_and_bad_input(data):
    """The build layer reaches the recipe; what does not fit is named before anything is compiled."""
    config = ConfigDict(
        {
            "data": {"name": "digits_vector", "indexed": True},
            "generator": {"name": "mlp", "width": 4, "depth": 1},
            "loss": {"name": "l1"},
            "algorithm": {"name": "glo", "num": 1438, "dim": 3},
            "code_optimizer": {"name": "sgd", "learning_rate": 10.0},
            "train": {"steps": 2, "batch_size": 4},
        }
    )
    dataset = build.dataset(config)
    assert dataset.spec.fields == ("x", "label", "index")
    algorithm = build.algorithm(config, dataset.spec)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), dataset.take(np.arange(4)))
    assert state.extra["codes"].shape == (1438, 3) and build.table(config) == ("loss", "code_norm")
    with pytest.raises(ValueError, match=r"data.indexed: expected true"):
        build.parts(config, DataSpec((64,), 10))
    config.algorithm.num = 0
    with pytest.raises(ValueError, match="algorithm: num: expected num and dim of at least 1, got 0 and 3"):
        build.parts(config, dataset.spec)
    x, codes = data
    with pytest.raises(ValueError, match="batch: expected a field 'index'"):
        make().init(jax.random.key(0), {"x": x})
    with pytest.raises(ValueError, match=r"codes: expected shape \(6, 2\), got \(5, 2\)"):
        make().init(jax.random.key(0), {"x": x, "index": jnp.arange(N)}, {"codes": codes[:5]})
