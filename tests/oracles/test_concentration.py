"""Tail bounds against laws with known tails, Lipschitz constants against linear maps and chains; the VAE's bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from genjax.losses.autoencoding import negative_elbo, standard_kl
from genjax.metrics.tails import hill, tail_excess
from genjax.networks import linen_net
from genjax.networks.gan import ACTIVATIONS, MLPGenerator
from genjax.networks.vae import MLPVariational
from genjax.oracles import concentration as c

RNG = np.random.default_rng(0)
T = np.linspace(0, 12, 200)


def test_exact_tails_lie_below_the_bounds_and_not_below_smaller_ones():
    """A bound without its 2 L^2, or with L for L^2, shows at once."""
    gaussian = 2 * norm.sf(T / 1.7)  # of 1.7 z, with L = 1.7
    assert (gaussian <= c.gaussian_tail(T, 1.7) + 1e-15).all()
    assert (gaussian > c.gaussian_tail(T, 1.5))[T > 8].all()
    assert (2 * norm.sf(T * 2) <= c.gaussian_tail(T, 1.0, convexity=4.0) + 1e-15).all()
    laplace = np.exp(-T / 1.5)  # of 1.5 z, z Laplace of scale 1, Poincare constant 4
    assert (laplace <= c.poincare_tail(T, 1.5, 4.0) + 1e-15).all()
    assert (laplace > c.gaussian_tail(T, 1.5))[T > 10].all()
    assert 1.7 < c.POINCARE_FACTOR < 1.75


def test_sphere_bound_at_a_coordinate():
    """A coordinate of the sphere S^2 of radius 3 is uniform (Archimedes): P(|x| >= t) = 1 - t / 3."""
    t = np.linspace(0, 3, 50)
    assert (1 - t / 3 <= c.sphere_tail(t, 1.0, 2, 3.0)).all()
    x = RNG.standard_normal((20000, 21))
    x *= np.sqrt(21) / np.linalg.norm(x, axis=1, keepdims=True)
    assert tail_excess(x[:, 0], lambda t: c.sphere_tail(t, 1.0, 20, np.sqrt(21)), "median") < 3
    assert tail_excess(x[:, 0], lambda t: c.sphere_tail(t, 0.6, 20, np.sqrt(21)), "median") > 3


def test_activation_constants():
    x = jnp.linspace(-12, 12, 20001)
    for name, bound in c.LIPSCHITZ.items():
        slope = float(jnp.max(jnp.abs(jax.vmap(jax.grad(ACTIVATIONS[name]))(x))))
        assert 0.985 * bound <= slope <= bound, name


def test_lipschitz_of_chains():
    w = RNG.standard_normal((3, 5, 5))
    params = [{"kernel": a, "bias": a[0]} for a in w]
    exact = np.prod([np.linalg.norm(a, 2) for a in w])
    assert c.lipschitz_upper(params) == pytest.approx(exact)
    assert c.lipschitz_upper(params, "gelu") == pytest.approx(exact * 1.13**2)
    net = linen_net(MLPGenerator(shape=(3,), width=8, depth=2, activation="tanh"))
    params, state = net.init(jax.random.key(0), jnp.zeros((1, 4)))
    z = jnp.asarray(RNG.standard_normal((40, 4)), jnp.float32)
    found = jax.jit(lambda z: c.jacobian_norms(lambda z: net.apply(params, state, z[None])[0][0], z))(z)
    assert 0 < found.max() <= c.lipschitz_upper(params, "tanh") * (1 + 1e-5)


def test_jacobian_norm_of_linear_maps():
    for shape in ((3, 6), (6, 3)):
        a = RNG.standard_normal(shape)
        found = c.jacobian_norms(lambda z, a=a: jnp.asarray(a, jnp.float32) @ z, jnp.zeros((2, shape[1])))
        np.testing.assert_allclose(found, np.linalg.norm(a, 2), rtol=1e-5)


def test_sampler_recursion_is_exact_for_linear_moves():
    """x' = a x + s z: the Jacobian of the last state with respect to all noise is known; a lost square shows."""
    a, s = np.array([1.3, 0.7, 1.1]), np.array([0.5, 0.2, 0.0])
    rows = np.array([2.0 * a.prod(), s[0] * a[1] * a[2], s[1] * a[2], s[2]])
    assert c.sampler_lipschitz(a, s, 2.0)[-1] == pytest.approx(np.linalg.norm(rows))


def test_hill_on_exact_quantiles():
    u = (np.arange(100000) + 0.5) / 100000
    for index in (1.5, 2.0, 6.0):
        x = u ** (-1 / index)
        assert hill(x * 7 * np.sign(u - 0.5), 2000) == pytest.approx(index, rel=0.01)
    assert hill(norm.isf(u), 500) > 6


def test_tail_excess_counts_as_a_binomial():
    """The level of one test: at a bound that is the law itself, a hundred sets seldom reach 3, none 5."""
    found = [tail_excess(RNG.standard_normal(2000), lambda t: 2 * norm.sf(t), points=1) for _ in range(100)]
    assert np.mean(np.array(found) > 2) < 0.15 and max(found) < 5
    heavy = RNG.standard_t(2, 20000)
    assert tail_excess(heavy, lambda t: c.gaussian_tail(t, 3.0)) > 10
    assert tail_excess(np.zeros(10), lambda t: t) == -np.inf


def test_negative_elbo_of_a_linear_model():
    """x = a z + std n has -log p(x) in closed form, reached at the exact posterior; KL without its half shows."""
    a, std = 1.4, 0.6
    precision = 1 + a**2 / std**2
    x = jnp.asarray(RNG.standard_normal((6, 1)) * 2, jnp.float32)
    mean, var = x * a / std**2 / precision, 1 / precision

    def model(x, eps):
        z = mean + jnp.sqrt(var) * eps
        return a * z, mean, jnp.full_like(mean, jnp.log(var))

    loss = jax.jit(lambda key: negative_elbo(1, std)(key, {"autoencoder": model}, {"x": x})[0])
    draws = jax.vmap(loss)(jax.random.split(jax.random.key(0), 4000))
    exact = -norm.logpdf(np.asarray(x)[:, 0], 0, np.sqrt(a**2 + std**2))
    np.testing.assert_allclose(draws.mean(0), exact, atol=5 * np.max(draws.std(0)) / np.sqrt(4000))
    np.testing.assert_allclose(standard_kl(jnp.zeros((1, 3)), jnp.zeros((1, 3))), 0.0)


def test_variational_network():
    net = linen_net(MLPVariational(shape=(2,), latent=3, width=8, depth=1))
    x, eps = jnp.ones((4, 2)), jnp.zeros((4, 3))
    params, state = net.init(jax.random.key(0), x, eps)
    decoded, mean, log_var = net.apply(params, state, x, eps)[0]
    assert decoded.shape == (4, 2) and mean.shape == log_var.shape == (4, 3)
    np.testing.assert_allclose(net.apply(params, state, mean, method="decode")[0], decoded, rtol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: c.gaussian_tail(1.0, 0.0), "lipschitz"),
        (lambda: c.lipschitz_upper([np.eye(2)], "sine"), "activation"),
        (lambda: c.lipschitz_upper([np.ones((2, 2, 2))]), "params"),
        (lambda: c.sampler_lipschitz([1.0], [1.0, 2.0]), "lipschitz"),
        (lambda: hill([1.0, 2.0], 2), "k"),
        (lambda: hill([0.0, 0.0, 2.0], 1), "x"),
        (lambda: tail_excess([1.0, 2.0], np.exp, "mode"), "center"),
        (lambda: negative_elbo(1, std=0.0), "std"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=f"^{message}:"):
        call()
