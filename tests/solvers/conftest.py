"""Shared by the solver tests: one compiled run per (solver, process), whatever the grid, its length or the data."""

import functools

import jax
import jax.numpy as jnp
import pytest

from genjax.core.keys import fold, per_sample
from genjax.oracles.mixture import Mixture
from genjax.processes import gaussian
from genjax.solvers import SOLVERS

PROCESSES = ("flow", "vp", "sub_vp", "cosine", "ddpm", "ve", "edm", "log_linear")
MAX_POINTS = 700


@functools.cache
def process_named(name, x64):
    return getattr(gaussian, name)()


def run(solver, keys, denoiser, process, x, grid, steps):
    """As `sample`, with a number of steps that is not part of the compiled program."""

    def body(i, state):
        return solver.step(fold(keys, i), denoiser, process, state, grid[i], grid[i + 1])[0]

    return jax.lax.fori_loop(0, steps, body, solver.init(x, grid[0])).x


@functools.cache
def compiled(solver_name, process_name):
    """(keys or None, mixture, process, x, grid, steps) -> x."""
    solver = SOLVERS[solver_name]()

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is the cost here
    def f(keys, mixture, process, x, grid, steps):
        return run(solver, keys, mixture.denoiser(process), process, x, grid, steps)

    def call(keys, mixture, process, x, grid):
        padded = jnp.concatenate([grid, jnp.full(MAX_POINTS - len(grid), grid[-1])])
        keys = None if keys is None else per_sample(keys, len(x))
        return f(keys, mixture, process, x, padded, len(grid) - 1)

    return call


class Tools:
    """What the tests of this folder share."""

    compiled = staticmethod(compiled)
    processes = PROCESSES

    @staticmethod
    def process(name):
        return process_named(name, bool(jax.config.jax_enable_x64))

    @staticmethod
    def gaussian_data(mean=2.0, std=0.5, dim=2):
        """N(mean, std^2) as a mixture of two equal parts, so that it shares the mixture's programs."""
        return Mixture(jnp.full((2, dim), mean), jnp.full(2, std), jnp.zeros(2))

    @staticmethod
    def smooth_mixture():
        """Two broad components: every derivative matters, none is large."""
        return Mixture(jnp.array([[1.0, 0.2], [-0.8, -0.4]]), jnp.array([0.6, 0.45]), jnp.array([0.0, 0.4]))

    @staticmethod
    def marginal(process, t, mean=2.0, std=0.5):
        """(mean, std) of x_t for Gaussian data."""
        alpha, sigma = process.alpha(t), process.sigma(t)
        return alpha * mean, jnp.sqrt(alpha**2 * std**2 + sigma**2)


@pytest.fixture(scope="session")
def tools():
    return Tools
