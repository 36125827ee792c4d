"""Tangent kernels against wide networks and integrals, critics in closed form against their differential equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from genjax.algorithms.particles import kernel_critic, particles, trained_critic
from genjax.losses import kernel_critic as kc
from genjax.losses.mmd import rbf
from genjax.networks import linen_net
from genjax.networks.wide import WideMLP
from genjax.oracles.ntk import empirical_ntk, ntk_relu

RNG = np.random.default_rng(0)


def points(n, dim=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n, dim)))


def test_one_layer_by_hand(x64):
    """Depth 1 without bias, from its two expectations over random units."""
    x, w = points(2), 1.3**2
    g = RNG.standard_normal((1_000_000, 2))
    h = g @ np.asarray(x).T * np.sqrt(w / 2)  # pre-activations of one unit at both points
    relu = np.maximum(h, 0)
    covariance = w * np.mean(relu[:, 0] * relu[:, 1])
    slopes = w * np.mean((h[:, 0] > 0) & (h[:, 1] > 0)) * w * float(x[0] @ x[1]) / 2
    kernel = jax.jit(ntk_relu(1, 1.3, 0.0))(x, x)
    assert float(kernel[0, 1]) == pytest.approx(covariance + slopes, abs=0.01)
    # at equal points: w |x|^2 w / (2 d) from the last layer and the same from the first
    np.testing.assert_allclose(jnp.diag(kernel), w**2 * jnp.sum(x**2, axis=1) / 2, rtol=1e-12)


@pytest.mark.parametrize("bias, last", [(0.0, False), (1.0, False), (0.7, True)])
def test_recursion_is_the_kernel_of_a_wide_network(bias, last):
    """A bias counted twice or left out, a missing 1 / 2 or an activation too many is far beyond the width's error."""
    x = jnp.asarray(points(4), jnp.float32)
    net = linen_net(WideMLP(width=1024, depth=2, bias_std=bias, last_bias=last, antisymmetric=False))

    @jax.jit
    def one(key):
        params, _ = net.init(key, x)
        return empirical_ntk(lambda p, x: net.apply(p, {}, x)[0], params, x)

    found = np.mean([one(key) for key in jax.random.split(jax.random.key(0), 4)], axis=0)
    exact = jax.jit(ntk_relu(2, bias_std=bias, last_bias=last))(x, x)
    assert np.max(np.abs(found - exact)) <= 0.12 * np.max(exact)


def test_antisymmetric_network():
    """f = 0 at the start and the kernel of one half; without the root of 2 it would have twice that."""
    x = jnp.asarray(points(3), jnp.float32)
    twin = linen_net(WideMLP(width=32, depth=2))
    params, _ = twin.init(jax.random.key(0), x)
    np.testing.assert_allclose(twin.apply(params, {}, x)[0], 0, atol=1e-6)
    one = {name: p for name, p in params.items() if not name.endswith("_mirror")}
    single = linen_net(WideMLP(width=32, depth=2, antisymmetric=False))
    of = lambda net: jax.jit(lambda p: empirical_ntk(lambda p, x: net.apply(p, {}, x)[0], p, x))
    np.testing.assert_allclose(of(twin)(params), of(single)(one), rtol=1e-4)


def test_kernel_gradients_at_equal_points(x64):
    """Finite, and at x = x' the slope of half the diagonal; far points agree with differences."""
    x, kernel, step = points(5), ntk_relu(3), jnp.array([[1e-6, 0.0]])

    @jax.jit
    def check(x):
        slope = jax.vmap(lambda row: jax.grad(lambda a: kernel(a[None], row[None])[0, 0])(row))(x)
        diagonal = jax.vmap(jax.grad(lambda a: kernel(a[None], a[None])[0, 0]))(x)
        change = (kernel(x[:1] + step, x[1:]) - kernel(x[:1] - step, x[1:])) / 2e-6
        exact = jax.jacobian(lambda a: kernel(a[None], x[1:])[0])(x[0])[:, 0]
        at_zero = jax.grad(lambda a: ntk_relu(3, bias_std=0.0)(a[None], x).sum())(jnp.zeros(2))
        return slope, diagonal, change[0], exact, at_zero

    slope, diagonal, change, exact, at_zero = check(x)
    np.testing.assert_allclose(slope, diagonal / 2, rtol=1e-8)
    np.testing.assert_allclose(change, exact, rtol=1e-6)
    assert np.isfinite(np.asarray(at_zero)).all()


@pytest.mark.parametrize("name", ["ipm", "least_squares", "non_saturating"])
def test_closed_forms_solve_their_equations(x64, name):
    """Against an integrator that is given the loss alone: a wrong constant of time or a lost 1 / M shows."""
    n, tau = 6, 1.7
    y, x, at = points(n, seed=1) + 1, points(n, seed=2), points(3, seed=3)
    kernel = ntk_relu(2)
    every = jnp.concatenate([y, x, at])
    gram = jax.jit(kernel)(every, every)
    losses = {
        "ipm": lambda f: jnp.mean(f[n : 2 * n]) - jnp.mean(f[:n]),
        "least_squares": lambda f: jnp.mean((f[n : 2 * n] + 1) ** 2) + jnp.mean((f[:n] - 1) ** 2),
        "non_saturating": lambda f: (
            (jnp.sum(jax.nn.softplus(-f[:n])) + jnp.sum(jax.nn.softplus(f[n : 2 * n]))) / (2 * n)
        ),
    }
    rate = jax.jit(lambda f: -gram @ jax.grad(losses[name])(f))
    f = solve_ivp(lambda _, f: np.asarray(rate(f)), (0, tau), np.zeros(len(every)), rtol=1e-9, atol=1e-11).y[:, -1]
    found = jax.jit(lambda y, x: kc.KERNEL_GAMES[name].critic(kernel, tau, y, x)(every))(y, x)
    np.testing.assert_allclose(found, f, rtol=1e-6, atol=1e-7)


def test_mmd_and_its_rate(x64):
    x, y = points(8, seed=4), points(11, seed=5) + 0.5
    kernel = ntk_relu(2)

    @jax.jit
    def check(x, y):
        both = jnp.concatenate([x, y])
        slope = jax.grad(lambda x: kc.mmd2(kernel, x, y))(x) * 8 / 2  # that of V at each particle
        values = kc.mmd2(kernel, x, x), kc.mmd2(kernel, x, y), kc.mmd2_rate(kernel, x, y, 0.7)
        return kernel(both, both), slope, *values

    k, slope, zero, value, rate = check(x, y)
    sign = np.r_[np.full(8, 1 / 8), np.full(11, -1 / 11)]
    assert float(zero) == pytest.approx(0, abs=1e-10)
    assert float(value) == pytest.approx(sign @ np.asarray(k) @ sign)
    assert float(rate) == pytest.approx(-2 * 0.7 / 8 * float(jnp.sum(slope**2)), rel=1e-6)


def test_particles_take_the_gradient_of_the_witness(x64):
    x, y = points(5, seed=6), points(5, seed=7) + 2
    game, kernel = kc.KERNEL_GAMES["ipm"], rbf((1.5,))

    @jax.jit
    def check(x, y):
        found = particles(jax.random.key(0), kernel_critic(game, kernel, 2.0), game.particle, x, y, 0.1, 1, lambda x: x)
        f = lambda a: 2.0 * (jnp.mean(kernel(a[None], y)) - jnp.mean(kernel(a[None], x)))
        return found, x + 0.1 * jax.vmap(jax.grad(f))(x)

    (found, path), exact = check(x, y)
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    np.testing.assert_array_equal(path[0], x)


def test_a_wide_critic_is_near_its_limit():
    """One network of width 1,024 after 5 steps; data high, generated points low."""
    y, x, at = (jnp.asarray(points(16, seed=s), jnp.float32) for s in (1, 2, 3))
    y = y + 2
    f = jax.jit(lambda key: trained_critic(linen_net(WideMLP(width=1024)), 0.05, 5)(key, y, x)(at))(jax.random.key(0))
    limit = jax.jit(lambda y, x: kc.KERNEL_GAMES["ipm"].critic(ntk_relu(2), 0.05, y, x)(at))(y, x)
    assert np.max(np.abs(f - limit)) < 0.25 * np.max(np.abs(limit))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ntk_relu(0), "depth"),
        (lambda: ntk_relu(1, 0.0), "weight_std"),
        (lambda: trained_critic(None, steps=0), "steps"),
        (lambda: kc.KERNEL_GAMES["least_squares"].critic(ntk_relu(), 1.0, jnp.ones((2, 2)), jnp.ones((3, 2))), "real"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=f"^{message}:"):
        call()
