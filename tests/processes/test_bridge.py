"""The Brownian bridge against the joint Gaussian of its points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import processes
from genjax.core import Prediction

GAMMA = 0.8


@pytest.fixture
def bridge(x64):
    x1 = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    return processes.brownian_bridge(GAMMA).bind(x1=x1)


def ends(bridge):
    rng = np.random.default_rng(1)
    return (jnp.asarray(rng.normal(size=(5, 3))) for _ in range(2))


def covariance(s, t):
    """Cov(x_s, x_t) of the bridge pinned at both ends, s <= t."""
    return GAMMA**2 * s * (1 - t)


def test_posterior_is_bayes(bridge):
    # condition the joint Gaussian of (x_s, x_t) given both ends
    x0, x = ends(bridge)
    t, s = jnp.asarray([1.0, 0.9, 0.5, 0.2, 1e-3]), jnp.asarray([0.7, 0.0, 0.4, 0.1, 5e-4])
    law = bridge.posterior(x.at[0].set(bridge.x1[0]), Prediction(x0=x0), t, s)
    x = x.at[0].set(bridge.x1[0])
    gain = jnp.where(t < 1, covariance(s, t) / jnp.where(t < 1, covariance(t, t), 1), 0)
    mean = bridge.mean(x0, s) + gain[:, None] * (x - bridge.mean(x0, t))
    np.testing.assert_allclose(law.mean, mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(law.std[:, 0] ** 2, covariance(s, s) - gain * covariance(s, t), rtol=1e-9, atol=1e-14)


def test_transitions_compose(bridge):
    x0, _ = ends(bridge)
    s, m, t = 0.2, 0.5, 0.9
    from_data = lambda t: (bridge.mean(x0, t), bridge.std(t) ** 2)
    for (mean, var), start, target in (
        (from_data(s), s, from_data(t)),
        (
            (bridge.transition(x0, s, m).mean, bridge.transition(x0, s, m).std ** 2),
            m,
            (bridge.transition(x0, s, t).mean, bridge.transition(x0, s, t).std ** 2),
        ),
    ):
        law = bridge.transition(mean, start, t)
        slope = (1 - t) / (1 - start)
        np.testing.assert_allclose(law.mean, target[0], rtol=1e-10)
        np.testing.assert_allclose(slope**2 * var + law.std**2, target[1], rtol=1e-10)
    np.testing.assert_allclose(bridge.transition(x0, 0.0, t).std, bridge.std(t), rtol=1e-10)


def test_eta_keeps_the_marginal_and_the_path(bridge):
    x0, eps = ends(bridge)
    for t, s in ((0.8, 0.3), (0.3, 0.8), (0.6, 0.0)):
        x = bridge.perturb(x0, eps, t)
        np.testing.assert_allclose(
            bridge.posterior(x, Prediction(x0=x0), t, s, 0.0).mean, bridge.perturb(x0, eps, s), atol=1e-12
        )
        for eta in (0.3, 1.0):
            law = bridge.posterior(x, Prediction(x0=x0), t, s, eta)
            share = (law.mean - bridge.mean(x0, s)) / eps
            np.testing.assert_allclose(share**2 + law.std**2, bridge.std(s) ** 2 * jnp.ones_like(x), atol=1e-12)


def test_velocity_and_score(bridge):
    # the velocity of one path (true pair), and the score of the Gaussian x_t given both ends
    x0, eps = ends(bridge)
    t, h = 0.37, 1e-6
    x = bridge.perturb(x0, eps, t)
    slope = (bridge.perturb(x0, eps, t + h) - bridge.perturb(x0, eps, t - h)) / (2 * h)
    np.testing.assert_allclose(bridge.velocity(x, Prediction(x0=x0), t), slope, rtol=1e-7)
    log_prob = lambda x: jnp.sum(-0.5 * ((x - bridge.mean(x0, t)) / bridge.std(t)) ** 2)
    np.testing.assert_allclose(bridge.score(x, Prediction(x0=x0), t), jax.grad(log_prob)(x), rtol=1e-9)
    np.testing.assert_allclose(bridge.prediction(x0, x, t).eps, eps, rtol=1e-9)


def test_ends_and_gradients(bridge):
    x0, x = ends(bridge)
    keys = jax.random.key(0)
    np.testing.assert_array_equal(bridge.corrupt(keys, x0, 0.0)[0], x0)
    np.testing.assert_allclose(bridge.corrupt(keys, x0, 1.0)[0], bridge.x1)
    np.testing.assert_array_equal(bridge.prior(keys, x0), bridge.x1)

    def loss(gamma, x, t, s):
        law = bridge.replace(gamma=gamma).posterior(x, Prediction(x0=x0), t, s)
        return jnp.sum(law.mean) + jnp.sum(law.std)

    grads = [jax.grad(loss, argnums=(0, 1, 2, 3))(0.5, x, t, s) for t, s in ((1.0, 0.4), (0.4, 0.0), (0.4, 0.4))]
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))


def test_bad_input():
    free = processes.brownian_bridge()
    with pytest.raises(ValueError, match="x1: expected an end bound by"):
        free.mean(jnp.zeros((1, 2)), 0.5)
    with pytest.raises(TypeError, match=r"bind: expected x1, got \['y'\]"):
        free.bind(y=0)
