"""Every solver against exact answers, in double precision.

Deterministic solvers: the probability-flow map of a Gaussian in closed form, the order of convergence on a
mixture, and inversion. Stochastic ones: mean and variance on Gaussian data, propagated exactly where the
step is a draw from a law, by sampling where it is not.
"""

import jax
import jax.numpy as jnp
import pytest

from genjax.core.types import SolverState
from genjax.oracles.mixture import Mixture
from genjax.solvers import GRIDS, SOLVERS

ORDERS = {
    # deterministic solvers: the order that each promises
    "ddim": 1,
    "euler": 1,
    "heun": 2,
    "midpoint": 2,
    "ralston": 2,
    "dpm2": 2,
    "dpmpp_2s": 2,
    "dpmpp_2m": 2,
    "dpmpp_3m": 2,  # as published
    "dpm_solver_2": 2,
    "rk3": 3,
    "dpmpp_3s": 3,
    "exponential_multistep": 3,
    "dpm_solver_3": 3,
    "deis": 3,
    "rk4": 4,
    "unipc": 4,  # order 3 and a corrector
    "lms": 4,
}
WEAK_ORDERS = {
    # one draw from a law a step: the order of the mean on Gaussian data; that of the variance is 1 in all, as
    # the prediction along a noisy path is not smooth
    "ddpm": 1,
    "euler_ancestral": 1,
    "dpm2_ancestral": 1,
    "dpmpp_2s_ancestral": 1,
    "dpmpp_1_sde": 1,
    "dpmpp_2m_sde": 2,
    "dpmpp_3m_sde": 2,
    "euler_maruyama": 1,
    "reverse_diffusion": 1,
}
SAMPLED = {
    # no law: (steps, tolerance of the standard deviation in shares)
    "dpmpp_sde": (150, 0.03),
    "heun_churn": (150, 0.04),
    "predictor_corrector": (400, 0.05),
    "annealed_langevin": (400, 0.05),
}
SAME = {
    # general constructors whose default is another entry: the same program
    "dpmpp_1": "euler",
    "second_order": "heun",
    "exponential_single": "dpmpp_2s",
}


OTHERS = ["vp", "edm", "ddpm", "ve", "cosine", "sub_vp", "log_linear"]


def two_processes(names, without=()):
    """(solver, process): each solver on flow, which reaches pure noise, and one more, in turn."""
    pairs = [(name, p) for i, name in enumerate(names) for p in ("flow", OTHERS[i % len(OTHERS)])]
    return [pair for pair in pairs if pair[1] not in without]


def one_process(names):
    """(solver, process), in turn: flow and the others."""
    return [(name, "flow" if i % 2 == 0 else OTHERS[i // 2 % len(OTHERS)]) for i, name in enumerate(names)]


def test_every_solver_is_here():
    known = {*ORDERS, *WEAK_ORDERS, *SAMPLED, *SAME}
    assert known == set(SOLVERS), "give each solver its order in ORDERS or WEAK_ORDERS, or a place in SAMPLED or SAME"


@pytest.mark.parametrize("name", SAME)
def test_same_program(tools, name):
    """The defaults of the general constructors are the named solvers (tested below), to the last operation."""
    process, data = tools.process("vp"), tools.gaussian_data()

    def program(name):
        solver = SOLVERS[name]()

        def step(x, t, s):
            return solver.step(None, data.denoiser(process), process, solver.init(x, t), t, s)[0].x

        return str(jax.make_jaxpr(step)(jnp.ones((2, 2)), 0.5, 0.4))

    assert program(name) == program(SAME[name])


def noise_grid(process, n, to_zero):
    return GRIDS["log_snr"](process, n, to_zero=to_zero)


MAP_ERROR = {1: 0.05, 2: 0.012, 3: 0.004, 4: 0.003}


@pytest.mark.parametrize("name, process_name", two_processes(ORDERS))
def test_exact_map_of_gaussian_data(x64, tools, name, process_name):
    """(x - alpha m) / std is constant along the flow; grids that end at 0 and at t_min.

    Catches: any wrong coefficient, and a wrong limit at alpha = 0 or sigma = 0.
    """
    process, data = tools.process(process_name), tools.gaussian_data()
    run = tools.compiled(name, process_name)
    z = jax.random.normal(jax.random.key(1), (64, 2))
    for to_zero in (True, False):
        grid = noise_grid(process, 40, to_zero)
        (mean, std), (mean_end, std_end) = (tools.marginal(process, t) for t in (grid[0], grid[-1]))
        x = run(None, data, process, mean + std * z, grid)
        error = jnp.sqrt(jnp.mean((x - (mean_end + std_end * z)) ** 2))
        assert error < MAP_ERROR[ORDERS[name]], f"{error:.2e} to_zero={to_zero}"


def interior_grid(process, n):
    """Equal steps in log-SNR over the middle, after two short ones: multistep solvers start at low order."""
    u = jnp.concatenate([jnp.array([0.0, n**-3.0, n**-2.0]), jnp.linspace(1 / n, 1.0, n)])
    return process.time(2 * (-2.0 + 5.0 * u))


@pytest.fixture(scope="module")
def reference():
    return {}


@pytest.mark.parametrize("name, process_name", two_processes(ORDERS, without=["ddpm"]))  # a table is not smooth
def test_order_of_convergence(x64, tools, reference, name, process_name):
    """The error falls as n^-order on a mixture, where the denoiser is not linear; grids that do not reach 0.

    Catches: coefficients that are right only for equal steps, or only to a lower order.
    """
    process, data = tools.process(process_name), tools.smooth_mixture()
    x = jax.random.normal(jax.random.key(2), (64, 2)) * process.sigma(interior_grid(process, 4)[0])
    if process_name not in reference:
        reference[process_name] = tools.compiled("rk4", process_name)(
            None, data, process, x, interior_grid(process, 640)
        )
    run = tools.compiled(name, process_name)
    errors = jnp.array(
        [
            jnp.sqrt(jnp.mean((run(None, data, process, x, interior_grid(process, n)) - reference[process_name]) ** 2))
            for n in (32, 64, 128)
        ]
    )
    orders = jnp.log2(errors[:-1] / errors[1:])
    assert orders[-1] > ORDERS[name] - 0.25 and orders[-1] < ORDERS[name] + 0.6, f"{orders} errors {errors}"


@pytest.mark.parametrize("name", ORDERS)
def test_inversion_round_trip(x64, tools, name):
    """Down to t_min, up again: back at the start, to the order's accuracy. Catches steps that assume s < t."""
    process, data = tools.process("flow"), tools.smooth_mixture()
    run = tools.compiled(name, "flow")
    grid = process.time(jnp.linspace(-6.0, 6.0, 81))
    x = jax.random.normal(jax.random.key(3), (64, 2)) * process.sigma(grid[0])
    back = run(None, data, process, run(None, data, process, x, grid), grid[::-1])
    error = jnp.sqrt(jnp.mean((back - x) ** 2))
    assert error < {1: 0.15, 2: 0.01, 3: 2e-3, 4: 1e-3}[ORDERS[name]], f"{error:.2e}"


def propagate(solver, process, mean, std, grid, steps):
    """Mean and variance after `steps` steps on N(2, 0.25) data in one dimension, with no sampling.

    The step is affine in x and in the remembered predictions: its matrix is read off at basis vectors.
    """
    data = Mixture(jnp.full((1, 1), 2.0), jnp.full(1, 0.5), jnp.zeros(1))
    denoiser = data.denoiser(process)
    memory = solver.init(jnp.zeros((1, 1)), grid[0]).memory
    past = 0 if memory == () else len(memory.features)
    d = past + 1
    basis = jnp.concatenate([jnp.zeros((1, d)), jnp.eye(d)])
    columns = tuple(basis[:, j : j + 1] for j in range(d))

    def with_features(memory, features):
        return memory if past == 0 else memory._replace(features=features)

    def body(i, carry):
        mu, cov, memory = carry
        state = SolverState(columns[0], with_features(memory, columns[1:]))
        law, new, _ = solver.propose(denoiser, process, state, grid[i], grid[i + 1])
        out = jnp.concatenate([law.mean, *(() if past == 0 else new.features)], axis=1)
        matrix = (out[1:] - out[:1]).T
        cov = (matrix @ cov @ matrix.T).at[0, 0].add(jnp.ravel(jnp.broadcast_to(law.std, (d + 1, 1)))[0] ** 2)
        return matrix @ mu + out[0], cov, with_features(new, memory.features if past else ())

    mu, cov = jnp.zeros(d).at[0].set(mean), jnp.zeros((d, d)).at[0, 0].set(std**2)
    mu, cov, _ = jax.lax.fori_loop(0, steps, body, (mu, cov, memory))
    return mu[0], jnp.sqrt(cov[0, 0])


@pytest.mark.parametrize("name, process_name", one_process(WEAK_ORDERS))
def test_exact_moments_of_stochastic_solvers(x64, tools, name, process_name):
    """Mean 2 and standard deviation 0.5 are reached, to 0 and to t_min, with errors that fall as n^-order.

    Catches: too much or too little noise in any step (which no number of steps mends).
    """
    process, solver = tools.process(process_name), SOLVERS[name]()
    f = jax.jit(lambda process, grid, steps: propagate(solver, process, *tools.marginal(process, grid[0]), grid, steps))

    def errors(grid):
        mean, std = f(process, jnp.concatenate([grid, jnp.zeros(700 - len(grid))]), len(grid) - 1)
        exact_mean, exact_std = tools.marginal(process, grid[-1])
        return jnp.abs(mean - exact_mean) / exact_std, jnp.abs(std - exact_std) / exact_std

    for to_zero in (True, False):
        mean_error, std_error = errors(noise_grid(process, 640, to_zero))
        assert mean_error < 0.02 and std_error < 0.02, f"{mean_error:.1e} {std_error:.1e}"
    if process_name != "ddpm":  # a table is not smooth
        coarse, fine = (errors(interior_grid(process, n)) for n in (64, 256))
        for order, a, b in zip((WEAK_ORDERS[name], 1), coarse, fine):
            assert a / b > 0.75 * 4**order or b < 1e-9, f"{a:.1e} {b:.1e}"


@pytest.mark.parametrize("name, process_name", one_process(SAMPLED))
def test_sampled_law(x64, tools, name, process_name):
    """Mean and standard deviation of 4,096 draws on Gaussian data, grids that end at 0 and at t_min."""
    process, data = tools.process(process_name), tools.gaussian_data()
    run, (steps, tolerance) = tools.compiled(name, process_name), SAMPLED[name]
    for to_zero in (True, False):
        grid = noise_grid(process, steps, to_zero)
        (mean, std), (mean_end, std_end) = (tools.marginal(process, t) for t in (grid[0], grid[-1]))
        x = mean + std * jax.random.normal(jax.random.key(1), (2048, 2))
        x = run(jax.random.key(2), data, process, x, grid)
        assert jnp.abs(jnp.mean(x) - mean_end) < 0.05 * std_end
        assert jnp.abs(jnp.std(x) / std_end - 1) < tolerance, f"{jnp.std(x) / std_end:.4f} to_zero={to_zero}"
