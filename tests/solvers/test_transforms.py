"""Step transforms and Langevin dynamics against exact laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.keys import sample_keys
from genjax.core.laws import Normal
from genjax.oracles.mixture import Mixture, ring
from genjax.processes import gaussian
from genjax.solvers import (
    SOLVERS,
    churn,
    ddim,
    ddpm,
    generate,
    grids,
    heun,
    mala,
    map_law,
    nfe,
    project,
    resample,
    sample,
    ula,
)

PROCESS = gaussian.vp()
# correlated data: x = (a + b, a - b) with a, b independent; two far components along the first axis
DATA = Mixture(jnp.array([[1.0, 1.0], [-1.0, -1.0]]), jnp.full(2, 0.1), jnp.zeros(2))
KNOWN = jnp.array([[1.0, 0.0]])
MASK = jnp.array([[1.0, 0.0]])


@pytest.mark.parametrize("make", [lambda: ddpm(), lambda: heun()])
def test_project_keeps_what_is_known(make):
    """The known half comes back to the last bit, and the other half fits it: x_1 = 1 means x_2 near 1."""
    n, solver = 256, make()
    known = jnp.broadcast_to(KNOWN, (n, 2))
    f = jax.jit(
        lambda key: generate(
            key,
            DATA.denoiser(PROCESS),
            PROCESS,
            resample(project(solver, known, MASK), 4),
            grids.log_snr(PROCESS, 30),
            jnp.zeros((n, 2)),
        )
    )
    out = f(jax.random.key(0))
    np.testing.assert_array_equal(out[:, 0], 1.0)
    assert jnp.mean(jnp.abs(out[:, 1] - 1) < 0.5) > 0.9  # free: half of them


def test_project_noise_level():
    """Along the way the known part has the mean and variance of q(x_s | known)."""
    n = 4000
    known = jnp.full((n, 2), 0.8)
    for solver in (ddpm(), ddim()):
        inner = project(solver, known, MASK)
        step = jax.jit(
            lambda keys, x, inner=inner: (
                inner.step(keys, DATA.denoiser(PROCESS), PROCESS, inner.init(x, 0.6), 0.6, 0.3)[0].x
            )
        )
        x = step(sample_keys(jax.random.key(0), n), jnp.zeros((n, 2)))[:, 0]
        alpha, sigma = PROCESS.alpha(0.3), PROCESS.sigma(0.3)
        np.testing.assert_allclose(x.mean(), 0.8 * alpha, atol=4 * sigma / n**0.5)
        np.testing.assert_allclose(x.std(), sigma, rtol=0.04)


def test_project_keeps_the_law():
    """With a solver that has a law the wrapper has one: known coordinates included."""
    known = jnp.full((3, 2), 0.8)
    solver = project(ddpm(), known, MASK)
    law, _, _ = solver.propose(DATA.denoiser(PROCESS), PROCESS, solver.init(jnp.zeros((3, 2)), 0.6), 0.6, 0.3)
    np.testing.assert_allclose(law.mean[:, 0], 0.8 * PROCESS.alpha(0.3), rtol=1e-6)
    np.testing.assert_allclose(law.std[:, 0], PROCESS.sigma(0.3), rtol=1e-6)
    assert project(ddim(), known, MASK).propose is None


def test_map_law_needs_a_law():
    shift = lambda law, process, t, s: Normal(law.mean + 1, law.std)
    solver = map_law(ddpm(), shift)
    state = solver.init(jnp.zeros((2, 2)), 0.5)
    args = (DATA.denoiser(PROCESS), PROCESS, state, 0.5, 0.4)
    np.testing.assert_allclose(solver.propose(*args)[0].mean, ddpm().propose(*args)[0].mean + 1, rtol=1e-6)
    with pytest.raises(ValueError, match="solver: expected one with a `propose`"):
        map_law(heun(), shift)
    with pytest.raises(ValueError, match="times: expected at least 1, got 0"):
        resample(ddpm(), 0)


def test_resample_keeps_the_law():
    """Noising back and stepping again leaves the marginals: mean and std of Gaussian data. Counts its evaluations."""
    data = Mixture(jnp.full((1, 1), 2.0), jnp.full(1, 0.5), jnp.zeros(1))
    solver, grid = resample(ddpm(), 3), grids.log_snr(PROCESS, 150)
    f = jax.jit(lambda key: generate(key, data.denoiser(PROCESS), PROCESS, solver, grid, jnp.zeros((2048, 1))))
    out = f(jax.random.key(0))
    np.testing.assert_allclose(out.mean(), 2.0, atol=0.05)
    np.testing.assert_allclose(out.std(), 0.5, rtol=0.06)
    assert nfe(solver, grid) == 450


def test_churn_zero_is_the_solver():
    """gamma = 0 adds no noise; gamma > 0 acts between low and high only."""
    process, x = gaussian.edm(), 80.0 * jax.random.normal(jax.random.key(0), (4, 2))
    data, grid = ring(4, 0.7, 0.2), grids.karras(process, 8)
    run = jax.jit(
        lambda gamma, low, high: sample(
            jax.random.key(1), data.denoiser(process), process, churn(heun(), gamma, low, high), grid, x
        )
    )
    plain = jax.jit(lambda: sample(None, data.denoiser(process), process, heun(), grid, x))()
    np.testing.assert_allclose(run(0.0, 0.0, jnp.inf), plain, atol=1e-5)
    np.testing.assert_allclose(run(0.3, 1e3, jnp.inf), plain, atol=1e-5)
    assert jnp.abs(run(0.3, 0.05, 50.0) - plain).max() > 1e-2


def test_mala_is_exact_where_ula_is_not():
    """N(0, 1) with a large step: ULA's variance is 1 / (1 - tau / 2) in closed form, MALA's is 1."""
    tau, n = 0.6, 4096
    x = jax.random.normal(jax.random.key(0), (n, 1))
    log_prob = lambda x: -0.5 * jnp.sum(x**2, axis=1)
    biased = jax.jit(lambda: ula(jax.random.key(1), lambda x: -x, x, tau, 60))()
    exact, rate = jax.jit(lambda: mala(jax.random.key(1), log_prob, x, tau, 60))()
    np.testing.assert_allclose(biased.var(), 1 / (1 - tau / 2), rtol=0.06)
    np.testing.assert_allclose(exact.var(), 1.0, rtol=0.06)
    assert 0.7 < rate.mean() < 0.99


def test_mala_reaches_a_mixture():
    """From one side of a two-component density, overlapping enough to cross, to the right shares."""
    data = Mixture(jnp.array([[-1.0], [1.0]]), jnp.full(2, 0.7), jnp.log(jnp.array([0.25, 0.75])))
    x, rate = jax.jit(lambda: mala(jax.random.key(0), data.log_prob, -jnp.ones((2048, 1)), 0.3, 400))()
    np.testing.assert_allclose(x.mean(), 0.5, atol=0.08)
    np.testing.assert_allclose(x.var(), 0.49 + 0.75, rtol=0.08)
    assert rate.shape == (2048,)


def test_learned_variance_is_between_the_bounds():
    """DDPM's variances: lower < predicted v = 1/2 < upper, the middle being geometric."""
    state = SOLVERS["ddpm"]().init(jnp.zeros((2, 2)), 0.5)

    def denoiser(x, t, cond=None, key=None):
        return DATA.denoiser(PROCESS)(x, t)._replace(v=jnp.full_like(x, 0.5))

    std = lambda variance: ddpm(variance).propose(denoiser, PROCESS, state, 0.5, 0.4)[0].std
    lower, upper = PROCESS.posterior_std_range(0.5, 0.4)
    for variance, expected in (("lower", lower), ("upper", upper), ("predicted", jnp.sqrt(lower * upper))):
        np.testing.assert_allclose(jnp.broadcast_to(std(variance), (2, 2)), expected, rtol=1e-5)
