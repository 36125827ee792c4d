"""The certificate's constants against exact exponential moments, the KL against quadrature, random weights, critics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom, norm

from genjax.algorithms.players import Maker
from genjax.losses import pac_bayes as pac
from genjax.metrics import wasserstein1, wasserstein_1d
from genjax.networks import linen_net
from genjax.networks.gan.bayes import BayesGenerator, gaussian_weights
from genjax.networks.gan.lipschitz import LipschitzDiscriminator, bjorck, group_sort
from genjax.oracles.truncated import TruncatedMixture, quantile_map

RNG = np.random.default_rng(0)


def test_the_constant_of_the_exact_law_is_sharp():
    """Fair bits on {0, Delta} against a point at 0: W1 is linear in the sample, so the exponential moment is known.

    A term of half the size would be broken here, one of twice the size is told by the ratio.
    """
    n, diameter = 400, 2.5
    k = np.arange(n + 1)
    for lam in (5.0, 20.0):
        gap = diameter * (0.5 - k / n)  # W(P*, Q) - W(P_n, Q)
        log_moment = np.log(np.sum(binom.pmf(k, n, 0.5) * np.exp(lam * gap)))
        slack = pac.certificate(0.0, 0.0, n, diameter, lam, 1 - 1e-12, generated=False)  # log_moment / lam at most
        assert 0.98 * slack <= log_moment / lam <= slack


def test_the_constant_of_two_samples_holds():
    """E exp(lam (W(P*, Q) - W(P_n, Q_n))) for bits of shares p and q, by summing over both samples."""
    n, diameter = 60, 1.5
    k = np.arange(n + 1)
    for p, q in ((0.5, 0.5), (0.5, 0.1), (0.9, 0.1)):
        seen = diameter * np.abs(k[:, None] - k[None]) / n
        gap = diameter * abs(p - q) - seen
        weight = binom.pmf(k, n, p)[:, None] * binom.pmf(k, n, q)[None]
        for lam in (2.0, 10.0):
            slack = pac.certificate(0.0, 0.0, n, diameter, lam, 1 - 1e-12)
            assert np.log(np.sum(weight * np.exp(lam * gap))) / lam <= slack
    assert diameter * abs(0.5 - 0.1) <= np.sum(binom.pmf(k, n, 0.5) * diameter * np.abs(k / n - 0.1)) + 1e-12


def test_best_lam_is_a_minimum():
    for generated in (True, False):
        best = pac.best_lam(7.0, 300, 2.0, generated=generated)
        value = lambda lam, generated=generated: pac.certificate(0.1, 7.0, 300, 2.0, lam, generated=generated)
        assert value(best) < min(value(0.9 * best), value(1.1 * best))


def test_gaussian_kl_by_quadrature():
    mean, std, m0, s0 = np.array([0.3, -1.0]), np.array([0.5, 2.0]), np.array([0.0, 0.5]), np.array([0.8, 1.5])
    exact = 0.0
    for a, b, c, d in zip(mean, std, m0, s0):
        density = lambda x, a=a, b=b, c=c, d=d: norm.pdf(x, a, b) * (norm.logpdf(x, a, b) - norm.logpdf(x, c, d))
        exact += quad(density, a - 12 * b, a + 12 * b)[0]
    assert float(pac.gaussian_kl(mean, std, m0, s0)) == pytest.approx(exact, rel=1e-6)


@pytest.fixture(scope="module")
def generator():
    net = linen_net(BayesGenerator(shape=(2,), width=16, depth=2, rho=-2.0))
    return net, *net.init(jax.random.key(0), jnp.zeros((1, 3)))


def test_random_weights_have_the_law_of_their_parameters(generator):
    """Outputs of an affine net by its draws: x = z K + b has mean z mu and variance softplus(rho)^2 (|z|^2 + 1)."""
    net = linen_net(BayesGenerator(shape=(2,), depth=0, rho=-1.0))
    z = jnp.array([[1.0, -2.0, 0.5]])
    params, state = net.init(jax.random.key(0), z)
    draw = jax.jit(jax.vmap(lambda key: net.apply(params, state, z, rngs={"noise": key})[0][0]))
    x = np.asarray(draw(jax.random.split(jax.random.key(1), 20000)), np.float64)
    std = float(jax.nn.softplus(-1.0)) * np.sqrt(1 + np.sum(np.square(z)))
    np.testing.assert_allclose(x.mean(0), (z @ params["output"]["kernel_mu"])[0], atol=5 * std / np.sqrt(20000))
    np.testing.assert_allclose(x.std(0), std, rtol=0.03)


def test_one_draw_serves_the_batch_and_deterministic_is_the_mean(generator):
    net, params, state = generator
    z = jnp.tile(jnp.array([[0.5, 1.0, -1.0]]), (2, 1))
    x = net.apply(params, state, z, rngs={"noise": jax.random.key(2)})[0]
    np.testing.assert_array_equal(x[0], x[1])
    fixed = linen_net(BayesGenerator(shape=(2,), width=16, depth=2, deterministic=True)).apply(params, state, z)[0]
    narrow = jax.tree_util.tree_map_with_path(
        lambda path, p: p if path[-1].key.endswith("_mu") else jnp.full_like(p, -30.0), params
    )
    np.testing.assert_allclose(net.apply(narrow, state, z, rngs={"noise": jax.random.key(2)})[0], fixed, atol=1e-5)
    assert not np.allclose(x, fixed, atol=1e-3)


def test_radius(generator):
    params = generator[1]
    net = linen_net(BayesGenerator(shape=(2,), width=16, depth=2, deterministic=True, radius=0.3))
    plain = linen_net(BayesGenerator(shape=(2,), width=16, depth=2, deterministic=True))
    z = jnp.asarray(RNG.standard_normal((50, 3)), jnp.float32)
    x, free = net.apply(params, {}, z)[0], plain.apply(params, {}, z)[0]
    norm_ = np.linalg.norm(free, axis=1, keepdims=True)
    np.testing.assert_allclose(x, free * np.minimum(1, 0.3 / norm_), rtol=1e-5)
    assert (norm_ > 0.3).any() and (norm_ < 0.3).any()


def test_penalty_is_the_kl_from_the_start(generator):
    """Zero at the prior; after a shift by d of every mean, d^2 P / (2 s^2); the prior stays what it was."""
    net, params, state = generator
    penalty = pac.bayes_kl()
    prior = penalty.init(params)
    shifted = jax.tree_util.tree_map_with_path(lambda path, p: p + 0.05 if path[-1].key.endswith("_mu") else p, params)
    maker = lambda p: Maker(net, p, state, jax.random.key(0), None, {})
    assert float(penalty.fn(None, maker(params), None, prior)[0]) == pytest.approx(0, abs=1e-3)
    value, kept = penalty.fn(None, maker(shifted), None, prior)
    count, std = len(prior[0]), float(jax.nn.softplus(-2.0))
    assert count == 3 * 16 + 16 + 16 * 16 + 16 + 16 * 2 + 2
    assert float(value) == pytest.approx(count * 0.05**2 / (2 * std**2), rel=1e-3)
    np.testing.assert_array_equal(kept[0], prior[0])
    with pytest.raises(ValueError, match=r"^params:"):
        gaussian_weights({"kernel": jnp.ones(2)})


@pytest.mark.parametrize("shape", [(2, 16), (16, 16), (16, 1)])
def test_bjorck(shape):
    """Never above norm 1, at any number of steps; orthonormal after many."""
    w = jnp.asarray(RNG.standard_normal(shape) * 3, jnp.float32)
    for steps in (0, 1, 5):
        assert np.linalg.norm(bjorck(w, steps), 2) <= 1 + 1e-5
    np.testing.assert_allclose(np.linalg.svd(bjorck(w, 40))[1], 1, atol=1e-4)


def test_group_sort():
    x = jnp.array([[3.0, 1.0, -2.0, 5.0]])
    np.testing.assert_array_equal(group_sort(x), [[1.0, 3.0, -2.0, 5.0]])
    np.testing.assert_array_equal(group_sort(x, 4), [[-2.0, 1.0, 3.0, 5.0]])
    with pytest.raises(ValueError, match=r"^size:"):
        group_sort(x, 3)


def test_lipschitz_critic():
    net = linen_net(LipschitzDiscriminator(width=16, depth=2, steps=20))
    x = jnp.asarray(RNG.standard_normal((200, 2)), jnp.float32)
    params, state = net.init(jax.random.key(0), x)
    logit = lambda x: net.apply(params, state, x[None])[0].logits[0]
    slope = np.linalg.norm(jax.jit(jax.vmap(jax.grad(logit)))(x), axis=1)
    assert slope.max() <= 1 + 1e-5 and slope.max() > 0.3


def test_truncated_mixture_and_quantile_maps():
    law = TruncatedMixture([0.2, 0.9], [0.1, 0.2], [0.5, 0.5])
    mass = lambda x: 0.5 * norm.cdf(x, 0.2, 0.1) + 0.5 * norm.cdf(x, 0.9, 0.2)
    assert law.cdf(0.4) == pytest.approx((mass(0.4) - mass(0)) / (mass(1) - mass(0)))
    u = RNG.random(1000)
    np.testing.assert_allclose(law.cdf(law.quantile(u)), u, atol=1e-7)
    x = law.sample(RNG, 1000)
    assert x.min() >= 0 and x.max() <= 1
    np.testing.assert_allclose(quantile_map([0.1, 0.5, 0.3, 2.0], [0.0, 0.5, 1.0]), [0.1, 0.5, 1.0])


def test_wasserstein1():
    x, y = RNG.standard_normal((2, 40))
    assert wasserstein1(x[:, None], y[:, None]) == pytest.approx(wasserstein_1d(x, y, 1))
    a, b = RNG.standard_normal((2, 5, 2))
    cost = np.linalg.norm(a[:, None] - b[None], axis=-1)
    assert wasserstein1(a, b) == pytest.approx(cost[linear_sum_assignment(cost)].mean())
    assert wasserstein1(a, a[::-1]) == 0
    with pytest.raises(ValueError, match=r"^wasserstein1:"):
        wasserstein1(a, b[:3])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: pac.certificate(0.1, 1.0, 0, 1.0, 1.0), "n"),
        (lambda: pac.certificate(0.1, 1.0, 10, 0.0, 1.0), "diameter"),
        (lambda: pac.certificate(0.1, 1.0, 10, 1.0, 0.0), "lam"),
        (lambda: pac.certificate(0.1, 1.0, 10, 1.0, 1.0, 1.0), "delta"),
        (lambda: pac.best_lam(1.0, 10, 1.0, 0.0), "delta"),
        (lambda: TruncatedMixture([0.0], [1.0], [1.0], 1.0, 0.0), "low"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=f"^{message}:"):
        call()
