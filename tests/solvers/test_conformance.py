"""What every solver keeps, whatever its mathematics; and what wrappers of solvers keep."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.keys import fold, per_sample, sample_keys
from genjax.core.types import Prediction, SolverState
from genjax.oracles.mixture import ring
from genjax.processes import gaussian
from genjax.solvers import SOLVERS, exponential_single, generate, grids, lms, runge_kutta, sample, transforms, unipc
from genjax.solvers.base import from_step, info_of, nfe

MIXTURE = ring(4, 0.7, 0.2)
DETERMINISTIC = sorted(name for name, make in SOLVERS.items() if make().propose is None)
NAMES = [name for name in SOLVERS if name not in ("dpmpp_1", "second_order", "exponential_single")]  # same programs


def with_batched_times(keys, solver, denoiser, process, grid, x):
    """`sample` with every time given as [B]."""
    keys = per_sample(keys, x.shape[0])
    full = lambda t: jnp.full(x.shape[0], t)

    def body(state, inputs):
        i, t, s = inputs
        return solver.step(fold(keys, i), denoiser, process, state, full(t), full(s))[0], None

    start = solver.init(x, full(grid[0]))
    return jax.lax.scan(body, start, (jnp.arange(len(grid) - 1), grid[:-1], grid[1:]))[0].x


@pytest.mark.parametrize("name", NAMES)
def test_conformance(name):
    """One program a solver: finite to sigma = 0 from pure noise, dtype and shape kept, no retrace, finite gradients
    in x and in the denoiser; a smaller batch with times as [B] gives its samples unchanged.
    """
    solver, process, traces = SOLVERS[name](), gaussian.flow(), []

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is the cost here
    def program(key, mixture, process, grid, x):
        traces.append(1)
        run = lambda mixture, x: sample(key, mixture.denoiser(process), process, solver, grid, x)
        out, pullback = jax.vjp(run, mixture, x)
        grads = pullback(jnp.ones_like(out))
        return out, grads, with_batched_times(key, solver, mixture.denoiser(process), process, grid, x[:2])

    x = jax.random.normal(jax.random.key(1), (3, 2))
    out, grads, part = program(jax.random.key(0), MIXTURE, process, grids.uniform(process, 5), x)
    assert out.shape == x.shape and out.dtype == x.dtype
    assert jnp.isfinite(out).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert jnp.abs(grads[0].means).max() > 0
    np.testing.assert_allclose(part, out[:2], atol=2e-5)
    again = program(jax.random.key(7), ring(4, 0.9, 0.3), gaussian.flow(2e-3), grids.log_snr(process, 5), x + 1)[0]
    assert len(traces) == 1 and jnp.isfinite(again).all()


COUNTED = {
    **SOLVERS,
    "annealed_langevin(2)": lambda: SOLVERS["annealed_langevin"](steps=2),
    "predictor_corrector(3)": lambda: SOLVERS["predictor_corrector"](steps=3),
    **{f"exponential_single({n})": lambda n=n: exponential_single(n) for n in (1, 2, 3)},
    "resample(rk3, 4)": lambda: transforms.resample(SOLVERS["rk3"](), 4),
    "project(dpmpp_2s)": lambda: transforms.project(SOLVERS["dpmpp_2s"](), 0.0, 1.0),
    "project(dpm2_ancestral)": lambda: transforms.project(SOLVERS["dpm2_ancestral"](), 0.0, 1.0),
}


@pytest.mark.parametrize("name", COUNTED)
def test_declared_evaluations_are_those_made(name):
    """Catches a solver that calls the denoiser more often than `evals` says, in a branch or a loop too, or at s = 0,
    where comparisons at equal evaluations would be unfair; and a law whose `propose` costs more than the step.

    Nothing is compiled: loops run in Python and of a branch only the side taken, so that each call is counted.
    """
    process, solver, calls = gaussian.vp(), COUNTED[name](), []

    def denoiser(x, t, cond=None, key=None):
        calls.append(t)
        return Prediction(x0=0.5 * x, eps=0.1 * x)

    grid, keys, made, proposed = grids.uniform(process, 4), sample_keys(jax.random.key(0), 2), [], []
    with jax.disable_jit():
        state = solver.init(jnp.ones((2, 2)), grid[0])
        for i, (t, s) in enumerate(itertools.pairwise(grid)):
            if solver.propose is not None:
                solver.propose(denoiser, process, state, t, s)
                proposed.append(len(calls))
                calls.clear()
            state, _ = solver.step(fold(keys, i), denoiser, process, state, t, s)
            made.append(len(calls))
            calls.clear()
    assert made == [solver.evals] * 3 + [solver.evals_last]
    assert sum(made) == nfe(solver, grid)
    assert solver.propose is None or proposed == made


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m", "heun", "lms", "dpmpp_2m_sde"])
def test_bfloat16_state(name):
    """Coefficients in float32 must not widen the state: the scan's carry would change its type."""
    process = gaussian.vp()
    x = jnp.ones((2, 2), jnp.bfloat16)

    def denoiser(x, t, cond=None, key=None):
        pred = MIXTURE.denoiser(process)(x.astype(jnp.float32), t)
        return jax.tree.map(lambda a: a.astype(jnp.bfloat16), pred)

    keys = jax.random.key(0)
    out = jax.eval_shape(lambda: sample(keys, denoiser, process, SOLVERS[name](), grids.uniform(process, 4), x))
    assert out.dtype == jnp.bfloat16 and out.shape == x.shape


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_3m_sde", "heun", "unipc", "dpmpp_sde"])
def test_vmap_over_seeds(name):
    """jit(vmap) over seeds gives what each seed gives alone."""
    process = gaussian.edm()
    like, grid = jnp.zeros((3, 2)), grids.karras(process, 5)
    f = lambda key: generate(key, MIXTURE.denoiser(process), process, SOLVERS[name](), grid, like)
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_allclose(jax.jit(jax.vmap(f))(keys)[1], jax.jit(f)(keys[1]), atol=2e-5)


@pytest.mark.parametrize("name", sorted(set(SOLVERS) - set(DETERMINISTIC)))
def test_step_is_a_draw_from_propose(name):
    """`propose` tells the law that `step` draws from: same mean and noise under the documented key; the memory too.

    Its log-probability is that of the normal law at the drawn point, and a point mass at s = 0 has std 0.
    """
    process, solver = gaussian.vp(), SOLVERS[name]()
    denoiser, keys = MIXTURE.denoiser(process), sample_keys(jax.random.key(3), 4)

    @jax.jit
    def both(x):
        state = solver.init(x, 0.8)
        state, _ = solver.step(fold(keys, 0), denoiser, process, state, 0.8, 0.6)
        law, memory, _ = solver.propose(denoiser, process, state, 0.6, 0.4)
        new, _ = solver.step(fold(keys, 1), denoiser, process, state, 0.6, 0.4)
        end, _, _ = solver.propose(denoiser, process, state, 0.6, 0.0)
        return law.sample(fold(fold(keys, 1), 1)), law, law.log_prob(new.x), new, memory, end.std

    drawn, law, log_prob, new, memory, end_std = both(jax.random.normal(jax.random.key(1), (4, 2)))
    np.testing.assert_allclose(new.x, drawn, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.memory, memory)
    z = (new.x - law.mean) / law.std
    std = jnp.broadcast_to(law.std, z.shape)
    expected = jnp.sum(-0.5 * z**2 - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi), axis=1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4)
    assert (law.std > 0).all() and jnp.all(end_std == 0)


def test_keys_rule():
    """Solvers that draw say so when there are none; a sample's noise comes from its own key."""
    process = gaussian.edm()
    run = lambda keys, name, x: sample(
        keys, MIXTURE.denoiser(process), process, SOLVERS[name](), grids.karras(process, 3), x
    )
    x = jnp.ones((2, 2)) * 80.0
    for name in ("ddpm", "dpmpp_sde"):
        with pytest.raises(ValueError, match="keys: this step draws random numbers"):
            run(None, name, x)
    with pytest.raises(TypeError, match="keys: expected typed keys"):
        run(jnp.zeros(2, jnp.uint32), "ddpm", x)
    keys = sample_keys(jax.random.key(0), 2)
    swapped = run(keys[::-1], "ddpm", x)
    np.testing.assert_allclose(run(keys, "ddpm", x), swapped[::-1], atol=1e-6)
    assert jnp.abs(swapped[0] - swapped[1]).max() > 1e-3


def test_path_and_state():
    process = gaussian.edm()
    x = 80.0 * jnp.ones((2, 2))
    denoiser, grid = MIXTURE.denoiser(process), grids.karras(process, 4)
    end, path = sample(None, denoiser, process, SOLVERS["heun"](), grid, x, path=True)
    assert path.shape == (4, 2, 2)
    np.testing.assert_array_equal(path[-1], end)
    by_hand = SolverState(x)
    for t, s in ((grid[0], grid[1]), (grid[1], grid[2])):
        by_hand, info = SOLVERS["heun"]().step(None, denoiser, process, by_hand, t, s)
    np.testing.assert_allclose(path[1], by_hand.x, rtol=1e-5)
    np.testing.assert_allclose(info.pred.x0, denoiser(path[0], grid[1]).x0, rtol=1e-4, atol=1e-6)


def test_ring_of_eight_known_answers(x64, tools):
    """EDM's schedule and sampler on a ring: Heun at 18 and 36 steps, Euler at equal evaluations.

    The orders' ratios and the magnitudes were measured independently in another language. Dropping the
    correction fails the first, a linear schedule the last.
    """
    process, data = gaussian.edm(), ring(8, 0.7, 0.05)
    x = 80.0 * jax.random.normal(jax.random.key(0), (1000, 2))
    end = lambda name, grid: tools.compiled(name, "edm")(None, data, process, x, grid)
    reference = end("heun", grids.karras(process, 640))
    error = lambda name, grid: float(jnp.sqrt(jnp.mean(jnp.sum((end(name, grid) - reference) ** 2, axis=-1))))
    heun_18, heun_36 = (error("heun", grids.karras(process, n)) for n in (18, 36))
    euler_35, euler_71 = (error("euler", grids.karras(process, n)) for n in (35, 71))
    assert heun_18 / heun_36 >= 3.5 and euler_35 / euler_71 <= 3
    assert heun_36 / euler_71 <= 0.6
    np.testing.assert_allclose([heun_18, heun_36, euler_35, euler_71], [0.0144, 0.0027, 0.0174, 0.0083], rtol=0.25)
    assert euler_71 / error("euler", grids.uniform(process, 71)) <= 0.05


def test_bad_arguments():
    process = gaussian.edm()
    for call, message in [
        (lambda: SOLVERS["ddpm"]("upper-ish"), "variance: expected one of"),
        (lambda: SOLVERS["heun"]("vp"), "frame: expected one of"),
        (lambda: exponential_single(4), "order: expected 1, 2 or 3, got 4"),
        (lambda: exponential_single(2, "x0"), "form: expected one of"),
        (lambda: lms(9), "order: expected an integer from 1 to 4, got 9"),
        (lambda: unipc(2, "B3"), "variant: expected one of"),
        (lambda: SOLVERS["exponential_multistep"](2, "noise", 1.0), "eta: expected 0 in the form 'noise'"),
        (lambda: SOLVERS["dpmpp_2m"]("heun"), "rule: expected one of"),
        (lambda: runge_kutta((((0.5, 0.5),), (0.5, 0.5))), "tableau: expected rows of 1, 2"),
        (lambda: sample(None, None, process, SOLVERS["ddim"](), jnp.ones(1), jnp.ones((1, 2))), "grid: expected"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_step_that_drops_its_memory_is_told():
    process = gaussian.vp()
    forgetful = from_step(lambda keys, denoiser, process, state, t, s: (state.x, None, info_of(state.x)))
    with pytest.raises(ValueError, match="state: expected the structure"):
        generate(
            jax.random.key(0), ring().denoiser(process), process, forgetful, grids.uniform(process, 2), jnp.ones((2, 2))
        )
