"""The benchmarks measure what they say: the two train steps are one step, and results are read back right."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.algorithms import parts
from genjax.core.keys import fold, uniform
from genjax.losses.times import SPREADS, log_normal
from genjax.processes import gaussian

ROOT = pathlib.Path(__file__).parents[2]


def toolkit_draw(key, step, x):
    """The toolkit's random numbers in the form that the step by hand takes."""
    n = x.shape[0]
    d = parts.draws(key, step, n)
    inner, sampler = fold(d.keys, 0), log_normal(gaussian.edm())
    u = SPREADS["lattice"](d.shared, fold(inner, 1), n, d.offset, d.total)
    eps = gaussian.edm().noise(fold(inner, 2), x)
    return sampler.sample((), u), eps, uniform(fold(d.keys, 1), (n,)) < 0.1, d.local


def test_both_steps_are_the_same_step(benchmark):
    """A different loss, weight, condition, clipping or average on either side would make the ratios meaningless."""
    train_step = benchmark("train_step")
    steps, states, feed, _ = train_step.prepare("mlp", 16, toolkit_draw, width=8, depth=1)
    arrays, indices = feed.take(0, 4)
    begin, key = states["by hand"]["params"], jax.random.key(3)
    jitted = {side: jax.jit(step) for side, step in steps.items()}
    for i in range(4):
        batch = jax.tree.map(lambda a, i=i: a[indices[i]], arrays)
        metrics = {}
        for side, step in jitted.items():
            states[side], metrics[side] = step(key, states[side], batch)
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(metrics["toolkit"][name], metrics["by hand"][name], rtol=1e-3)
    ours, theirs = states["toolkit"], states["by hand"]
    pairs = ((ours.params["denoiser"], theirs["params"]), (ours.ema["denoiser"], theirs["ema"]))
    length = lambda tree: float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))))
    for a, b in pairs:
        moved = length(jax.tree.map(jnp.subtract, b, begin))
        assert moved > 0
        assert length(jax.tree.map(jnp.subtract, a, b)) < 0.01 * moved


def test_the_step_costs_no_more_than_by_hand(benchmark):
    """Work that a recipe adds and the compiler does not remove: more than 1 % of FLOPs or bytes fails."""
    train_step = benchmark("train_step")
    steps, states, feed, _ = train_step.prepare("mlp", 64, depth=1)
    arrays, indices = feed.take(0, 1)
    batch = jax.tree.map(lambda a: a[indices[0]], arrays)
    counts = {side: train_step.work(step, states[side], batch) for side, step in steps.items()}
    for what in ("FLOPs", "bytes accessed"):
        assert counts["by hand"][what] > 1e6
        assert counts["toolkit"][what] <= 1.01 * counts["by hand"][what]


def test_turns_and_tables(benchmark):
    """Both sides are called equally often, the time of a slow one is its own, and the report holds every goal."""
    train_step, run = benchmark("train_step"), benchmark("run")
    calls = {"toolkit": lambda: sum(range(200000)), "by hand": lambda: None}
    times = train_step.take_turns(calls, 0.0, least=7)
    assert times["toolkit"].shape == times["by hand"].shape == (7, 2)
    assert np.median(times["toolkit"][:, 0]) > 10 * np.median(times["by hand"][:, 0])
    both = lambda a, b: {"toolkit": a, "by hand": b}
    count = lambda n: {"FLOPs": n, "bytes accessed": n, "bytes of memory": n}
    result = {"work": both(count(2e6), count(1e6)), "step": times, "loop": both(np.ones((5, 2)), np.ones((5, 2)))}
    found = {statement: value for statement, value, _ in run.goals(train_step.report({"mlp": result}, 8))}
    assert found["mlp, FLOPs, toolkit over by hand"] == 2.0
    assert found["mlp, time of a loop, toolkit over by hand"] == 1.0
    assert len(found) == 4


def test_sampling_programs(benchmark):
    """A grid that were a constant of the program, or a path that were kept, would show here."""
    sampler = benchmark("sampler")
    run, params = sampler.make(batch=4, width=8, depth=1)
    found = sampler.programs(run, params, repeats=1)
    assert found[1000][1] == found[10][1]
    assert found[1000][2] - found[10][2] == 4 * 990  # the grid
    assert sampler.shared(run, params) == 1


def test_imports_of_a_process(benchmark):
    """`import genjax` brings no JAX; the probe sees one that is brought."""
    imports = benchmark("imports")
    assert imports.imported("import genjax")[2] is False
    assert imports.imported("import jax")[2] is True
    wall, cpu = imports.ran(imports.COMMAND)
    assert wall > 0 and cpu >= 0


def test_goals_are_gathered(benchmark):
    """Missed goals are stated by how much; text around them is left out; other headings move one level down."""
    run = benchmark("run")
    text = "# A\n\nErrors. Largest ratio: 1.333 (goal: at most 1.02).\n\n## B\n\nTime 1.1 (goal 1.2); and more.\n"
    text += "- x, s: 0 (goal: at most 0)"
    assert run.goals(text) == [("Largest ratio", 1.333, 1.02), ("Time", 1.1, 1.2), ("x, s", 0.0, 0.0)]
    assert run.verdict(1.333, 1.02) == "missed by 30.7%"
    assert run.verdict(1.02, 1.02) == "met"
    assert run.verdict(1, 0) == "missed by 1"
    page = run.assemble({"solvers": text})
    assert "| Solvers | Largest ratio | 1.333 | 1.02 | missed by 30.7% |" in page
    assert "\n## A\n" in page and "\n### B\n" in page
    kept = run.piece("networks", "a  b\n1  2", "how")
    assert kept == "# Networks\n\nhow\n\n```\na  b\n1  2\n```\n"
    assert run.piece("imports", "# Imports\n\n| a |\n| --- |", "how") == "# Imports\n\nhow\n\n| a |\n| --- |\n"


@pytest.mark.parametrize("name", ["train_step", "sampler", "imports", "networks", "convolution", "solvers"])
def test_every_benchmark_is_run(benchmark, name):
    """A benchmark that the one command forgets."""
    assert name in benchmark("run").BENCHMARKS
    assert (ROOT / "benchmarks" / f"{name}.py").exists()
