"""Hamiltonian moves, annealed chains and steps among candidates against exact laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.keys import sample_keys
from genjax.guidance import denoiser_of, product_density
from genjax.oracles.categorical import random_table
from genjax.oracles.mixture import Mixture
from genjax.processes import gaussian
from genjax.processes.discrete import masked
from genjax.solvers import (
    acceptance,
    best_of_candidates,
    best_of_runs,
    ddim,
    ddpm,
    generate,
    grids,
    hmc,
    posterior_mean_value,
    sample,
    uhmc,
    with_moves,
)
from genjax.solvers.mcmc import hmc_moves, mala_moves, uhmc_moves, ula_moves

PROCESS = gaussian.vp()


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4)


def test_hmc_is_exact_where_uhmc_has_its_known_bias():
    """N(0, 1), step h: leapfrog keeps v^2 + (1 - h^2 / 4) x^2, so UHMC's variance is 1 / (1 - h^2 / 4); HMC's is 1."""
    h, n = 1.2, 6000
    x = jax.random.normal(jax.random.key(0), (n, 1))
    biased = jax.jit(lambda: uhmc(jax.random.key(1), lambda x: -x, x, h, 40, 2))()
    close(biased.var(), 1 / (1 - h**2 / 4), 0.1)
    log_prob = lambda x: -0.5 * jnp.sum(x**2, axis=1)
    for damping, mass in ((0.0, 1.0), (0.7, 1.3)):
        exact, rate = jax.jit(
            lambda d=damping, m=mass: hmc(jax.random.key(1), log_prob, x, h * m, 40, 2, damping=d, mass=m)
        )()
        close(exact.var(), 1.0, 0.06)
        assert 0.6 < rate.mean() < 0.99


def test_hmc_reaches_a_mixture():
    """From one side to the right shares, momentum kept in part: a wrong sign at rejection breaks the balance."""
    data = Mixture(jnp.array([[-1.0], [1.0]]), jnp.full(2, 0.7), jnp.log(jnp.array([0.25, 0.75])))
    x, rate = jax.jit(lambda: hmc(jax.random.key(0), data.log_prob, -jnp.ones((2048, 1)), 0.5, 150, 3, 0.5))()
    close(x.mean(), 0.5, 0.08)
    close(x.var(), 0.49 + 0.75, 0.1)
    assert rate.shape == (2048,)


# Two Gaussians; their product is N(m, s^2) in closed form. The sum of their noised scores is that of no noised law.
PAIR = [Mixture(jnp.array([[m]]), jnp.array([s]), jnp.zeros(1)) for m, s in ((-0.5, 1.0), (1.0, 0.3))]
VARIANCE = 1 / (1 / 1.0**2 + 1 / 0.3**2)
MEAN = VARIANCE * (-0.5 / 1.0**2 + 1.0 / 0.3**2)
DENSITY = product_density([lambda x, t, _=None, m=m: m.log_prob(x, PROCESS.alpha(t), PROCESS.sigma(t)) for m in PAIR])


def test_chains_mend_the_product():
    """Reverse diffusion with summed scores misses the product's mean and width; every kind of chain comes nearer."""
    grid, like = grids.log_snr(PROCESS, 40), jnp.zeros((1500, 1))
    denoiser = denoiser_of(DENSITY, PROCESS)
    draw = lambda solver: jax.jit(lambda k: generate(k, denoiser, PROCESS, solver, grid, like))(jax.random.key(0))
    error = lambda x: abs(float(x.mean() - MEAN)) / VARIANCE**0.5 + abs(float(x.std() / VARIANCE**0.5 - 1))
    plain = error(draw(ddpm()))
    assert plain > 0.3
    kinds = {
        "ula": ula_moves(0.1, 10),
        "mala": mala_moves(DENSITY, 0.3, 10),
        "uhmc": uhmc_moves(0.4, 10, 3, 0.5),
        "hmc": hmc_moves(DENSITY, 0.5, 10, 3, 0.5),
    }
    found = {name: error(draw(with_moves(ddpm(), moves))) for name, moves in kinds.items()}
    assert all(value < 0.6 * plain for value in found.values()), (plain, found)
    assert found["hmc"] < 0.15, found


def test_acceptance_is_counted():
    """The mean over levels with moves: 1 for vanishing steps, less for long ones, in (0, 1]."""
    denoiser, grid = denoiser_of(DENSITY, PROCESS), grids.log_snr(PROCESS, 5)
    keys, x = sample_keys(jax.random.key(0), 64), jax.random.normal(jax.random.key(1), (64, 1))

    @jax.jit
    def rate(step):
        solver = with_moves(ddim(), hmc_moves(DENSITY, step, 4))
        state = solver.init(x, grid[0])
        for i in range(5):
            state = solver.step(
                jax.vmap(jax.random.fold_in, (0, None))(keys, i), denoiser, PROCESS, state, *grid[i : i + 2]
            )[0]
        return acceptance(state.memory)

    assert rate(1e-3).min() > 0.99
    assert 0.2 < rate(1.5).mean() < 0.95


TABLE = random_table(jax.random.key(0), 3, 3)
TOKENS = masked(3)
REWARD = lambda x: jnp.sum(x == 1, axis=-1).astype(jnp.float32)
TEMPERATURE = 0.5


def soft_value(denoiser, process, x, s):
    """a log E[exp(r / a) | x_s = x], by enumeration."""
    values = REWARD(jnp.asarray(TABLE.sequences())) / TEMPERATURE
    return TEMPERATURE * jax.nn.logsumexp(TABLE.log_posterior(process, x, s) + values[None], axis=1)


def rewards(solver, n=3000):
    """Law of the reward of samples, [4]."""
    grid = jnp.linspace(1.0, 0.0, 13).at[-1].set(0.0)
    like = jnp.zeros((n, 3), jnp.int32)
    x = jax.jit(lambda k: generate(k, TABLE.denoiser(TOKENS), TOKENS, solver, grid, like))(jax.random.key(2))
    return np.bincount(np.asarray(REWARD(x)).astype(int), minlength=4) / n


def test_candidates_draw_the_tilted_law():
    """Tokens, exact soft values: with many candidates p(x) exp(r / a) / Z; with one the base; 0 takes the best."""
    base = jnp.exp(TABLE.log_probs)
    r = REWARD(jnp.asarray(TABLE.sequences()))
    law = lambda p: np.array([float(jnp.sum(jnp.where(r == k, p, 0))) for k in range(4)])
    tilted = law(jax.nn.softmax(TABLE.log_probs + r / TEMPERATURE))
    distance = lambda a, b: 0.5 * np.abs(a - b).sum()
    many, one = rewards(best_of_candidates(ddpm(), soft_value, 20, TEMPERATURE)), rewards(ddpm())
    assert distance(one, law(base)) < 0.05
    assert distance(many, tilted) < 0.08 < 0.2 < distance(one, tilted)
    greedy = rewards(best_of_candidates(ddpm(), soft_value, 5, 0.0))
    mean = posterior_mean_value(REWARD)
    assert greedy @ np.arange(4) > one @ np.arange(4) + 0.5
    assert rewards(best_of_candidates(ddpm(), mean, 5, TEMPERATURE)) @ np.arange(4) > one @ np.arange(4) + 0.3


def test_candidates_of_numbers():
    """One candidate is the solver to the last bit; before `start` too; samples are independent of the batch."""
    data = Mixture(jnp.zeros((1, 2)), jnp.full(1, 0.5), jnp.zeros(1))
    value = posterior_mean_value(lambda x0: x0[:, 0])
    grid, keys = grids.log_snr(PROCESS, 8), sample_keys(jax.random.key(0), 6)
    x = jax.random.normal(jax.random.key(1), (6, 2))
    run = lambda solver, keys, x: jax.jit(
        lambda keys, x: sample(keys, data.denoiser(PROCESS), PROCESS, solver, grid, x)
    )(keys, x)
    np.testing.assert_array_equal(run(best_of_candidates(ddpm(), value, 1), keys, x), run(ddpm(), keys, x))
    chosen = best_of_candidates(ddpm(), value, 4, 0.1)
    close(run(chosen, keys, x)[:2], run(chosen, keys[:2], x[:2]))
    assert run(chosen, keys, x)[:, 0].mean() > run(ddpm(), keys, x)[:, 0].mean()
    with pytest.raises(ValueError, match="solver: expected one with a `propose`"):
        best_of_candidates(ddim(), value, 4)
    with pytest.raises(ValueError, match="count: expected at least 1 candidate, got 0"):
        best_of_candidates(ddpm(), value, 0)


def test_best_of_runs():
    """The largest reward of independent runs: of n uniform numbers its mean is n / (n + 1)."""
    run = lambda keys: jax.vmap(lambda key: jax.random.uniform(key, (1,)))(keys)
    best = jax.jit(lambda keys: best_of_runs(keys, run, lambda x: x[:, 0], 4))(sample_keys(jax.random.key(0), 4000))
    close(best.mean(), 4 / 5, 0.01)


def test_bad_arguments():
    with pytest.raises(ValueError, match="leapfrog: expected at least 1 step"):
        uhmc(jax.random.key(0), lambda x: -x, jnp.zeros((2, 1)), 0.1, 3, 0)
    with pytest.raises(ValueError, match=r"damping: expected a number in \[0, 1\)"):
        hmc(jax.random.key(0), lambda x: -jnp.sum(x**2, 1), jnp.zeros((2, 1)), 0.1, 3, 1, 1.0)
