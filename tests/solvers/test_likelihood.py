"""Likelihood by the probability-flow ODE, and adaptive integration, against exact densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.oracles.mixture import Mixture, ring
from genjax.processes import gaussian
from genjax.solvers import grids, log_likelihood, ode, sample
from genjax.solvers.adaptive import integrate_adaptive, sample_adaptive

MIXTURE = Mixture(jnp.array([[1.0, 0.2], [-0.8, -0.4]]), jnp.array([0.6, 0.45]), jnp.array([0.0, 0.4]))


def ascending(process, n):
    return grids.log_snr(process, n, to_zero=False)[::-1]


@pytest.fixture(scope="module")
def x0():
    return MIXTURE.sample(jax.random.key(0), 16)[0]


@pytest.mark.parametrize("name, tolerance", [("edm", 5e-3), ("flow", 2e-3), ("vp", 3e-3), ("ve", 1e-2)])
def test_mixture(x0, name, tolerance):
    """Exact trace: log p of each point. What is left is the prior's own error, N(0, sigma^2) for p at t_max.

    Catches: a wrong sign or factor in the trace, the prior or the change of variables.
    """
    process = getattr(gaussian, name)()
    r = jnp.exp(-process.log_snr(process.t_min) / 2)
    exact = MIXTURE.log_prob(x0, 1.0, r)
    f = jax.jit(lambda process, x: log_likelihood(MIXTURE.denoiser(process), process, x, ascending(process, 80)))
    np.testing.assert_allclose(f(process, x0), exact, atol=tolerance)


def test_gaussian_to_fourth_order(x64):
    """The error of the integration falls as n^-4 (against a fine grid, so that the prior's error drops out)."""
    process, data = gaussian.edm(), Mixture(jnp.zeros((1, 3)), jnp.full(1, 0.5), jnp.zeros(1))
    x = data.sample(jax.random.key(1), 8)[0]
    f = jax.jit(lambda grid: log_likelihood(data.denoiser(process), process, x, grid))
    fine = f(ascending(process, 400))
    errors = [float(jnp.max(jnp.abs(f(ascending(process, n)) - fine))) for n in (20, 40)]
    assert errors[0] / errors[1] > 12, errors
    np.testing.assert_allclose(fine, data.log_prob(x, 1.0, 0.002), atol=2e-4)


def test_hutchinson_is_unbiased(x0):
    """512 probes: the mean over probes approaches the exact trace; one probe differs."""
    process = gaussian.edm()
    f = lambda probes: jax.jit(
        lambda: log_likelihood(
            MIXTURE.denoiser(process), process, x0, ascending(process, 40), keys=jax.random.key(0), probes=probes
        )
    )()
    exact = jax.jit(lambda: log_likelihood(MIXTURE.denoiser(process), process, x0, ascending(process, 40)))()
    many, one = f(512), f(1)
    np.testing.assert_allclose(many, exact, atol=0.15)
    assert jnp.abs(many - exact).mean() < 0.3 * jnp.abs(one - exact).mean()


def test_conditional(x0):
    """`cond` reaches the denoiser: log p(x | component)."""
    process, cond = gaussian.edm(sigma_max=1000.0), {"label": jnp.arange(16) % 2}  # means matter less to the prior
    out = jax.jit(lambda: log_likelihood(MIXTURE.denoiser(process), process, x0, ascending(process, 120), cond))()
    np.testing.assert_allclose(out, MIXTURE.log_prob(x0, 1.0, 0.002, cond), atol=1e-2)


def test_adaptive_likelihood(x0):
    process = gaussian.vp()
    f = lambda integrate: log_likelihood(
        MIXTURE.denoiser(process), process, x0, ascending(process, 100), integrate=integrate
    )
    np.testing.assert_allclose(
        jax.jit(lambda: f(integrate_adaptive(1e-6, 1e-6)))(), jax.jit(lambda: f(None))(), atol=2e-4
    )


@pytest.mark.parametrize("name", ["edm", "flow"])
def test_adaptive_sampling(x64, name):
    """The flow of a ring to a tolerance, with the count of evaluations; and back up."""
    process, data = getattr(gaussian, name)(), ring(4, 0.7, 0.2)
    denoiser = data.denoiser(process)
    x = jax.random.normal(jax.random.key(0), (8, 2)) * process.sigma(process.t_max)
    down = jax.jit(lambda x: sample_adaptive(denoiser, process, x, process.t_max, process.t_min, rtol=1e-6, atol=1e-6))
    up = jax.jit(lambda x: sample_adaptive(denoiser, process, x, process.t_min, process.t_max, rtol=1e-6, atol=1e-6)[0])
    out, evals = down(x)
    grid = grids.log_snr(process, 200, to_zero=False)
    exact = jax.jit(lambda x: sample(None, denoiser, process, ode.rk4("flow"), grid, x))(x)
    np.testing.assert_allclose(out, exact, atol=5e-5)
    assert 40 < evals < 3000
    np.testing.assert_allclose(up(out), x, rtol=2e-3, atol=2e-3 * process.sigma(process.t_max))


def test_tighter_tolerance_costs_more(x64):
    process = gaussian.edm()
    denoiser = ring(4, 0.7, 0.2).denoiser(process)
    x = jax.random.normal(jax.random.key(0), (4, 2)) * 80.0
    f = jax.jit(lambda tol: sample_adaptive(denoiser, process, x, process.t_max, process.t_min, rtol=tol, atol=tol))
    (loose, cheap), (tight, dear), (exact, _) = f(1e-3), f(1e-5), f(1e-9)
    assert cheap < dear
    assert jnp.abs(tight - exact).max() < 0.2 * jnp.abs(loose - exact).max() + 1e-4


def test_bad_arguments(x0):
    process = gaussian.edm()
    denoiser = MIXTURE.denoiser(process)
    with pytest.raises(ValueError, match="grid: expected times ascending from t_min > 0"):
        log_likelihood(denoiser, process, x0, grids.karras(process, 5))
    with pytest.raises(ValueError, match="keys: the Hutchinson estimate"):
        log_likelihood(denoiser, process, x0, ascending(process, 5), probes=2)
    with pytest.raises(ValueError, match="s: expected a scalar time > 0, got 0"):
        sample_adaptive(denoiser, process, x0, 80.0, 0.0)
