"""Train steps and samplers beside other JAX toolkits: the same network, weights, batch, optimizer and noise.

  python -m benchmarks.other_toolkits [--only flaxdiff diffuse] [--turns 9]

  flaxdiff   FlaxDiff with the toolkit's U-Net: EDM's loss, Adam and a weight average; DDIM on Karras' grid
  diffuse    diffuse-jax with the toolkit's U-Net: DDIM on a variance-preserving process; it has no training

First the sides must agree: in the samples from the same noise, and in loss and gradient with the same numbers drawn.
FlaxDiff's squared error is halved and its weight has 1e-6 in the denominator; it cuts samples to [-1, 1], as is done
to both before they are compared. Each takes the fastest path that its documentation shows: FlaxDiff the step that its
trainer's `fit` compiles and the loop of its `generate_samples`, diffuse-jax its `generate`, here jitted; the toolkit
the program that `train.loop` dispatches and a jitted `sample`. They take turns on one core; CPU times are compared.

  compiling   CPU s of a process's first call less those of a later one; "cold" with an empty compilation cache,
              "warm" with what such a process left in it
  memory      of a compiled program with arguments and results; FlaxDiff's sampler has one that each step calls

What is measured is kept in results/other_toolkits.json; a case whose package is not installed is printed as kept.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks.torch_networks import check, differences, gap, medians, weights_of
from benchmarks.train_step import take_turns
from genjax import losses, networks, processes, solvers
from genjax.algorithms.diffusion import diffusion
from genjax.algorithms.parts import draws
from genjax.core import make_denoiser
from genjax.core.keys import fold
from genjax.losses.times import SPREADS
from genjax.train.dispatch import make_dispatch
from genjax.train.ema import constant
from genjax.train.loop import data_mesh
from genjax.train.workdir import write_json

ROOT = pathlib.Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "results" / "other_toolkits.json"
SHAPE, BATCH, LEARNING_RATE, DECAY = (16, 16, 3), 8, 2e-4, 0.999
SIGMA_DATA, SIGMAS, P_MEAN, P_STD = 0.5, (0.002, 80.0), -1.2, 1.2
BETAS, TIMES = (0.1, 20.0), (0.9, 0.01)  # where diffuse-jax does not cut the noise and signal levels
STEPS, LONG, LOOP = (10, 50), (10, 100), 4  # timed; for memory; train steps a dispatch
TOLERANCE, GOAL, MEMORY_GOAL = 1e-3, 1.0, 1.01


class Named(nn.Module):
    """A network whose noise level goes by FlaxDiff's name."""

    net: nn.Module

    def __call__(self, x, temb):
        return self.net(x, temb)


def unet():
    return networks.UNet(channels=64, multipliers=(1, 2), attention=(8,), head_channels=64)


class Case(NamedTuple):
    """What is compared with which package."""

    module: str
    package: str
    title: str
    edm: bool  # EDM's denoiser, loss and grid; else eps on equal steps of a variance-preserving process


CASES = {
    "flaxdiff": Case("flaxdiff", "flaxdiff", "FlaxDiff", True),
    "diffuse": Case("diffuse", "diffuse-jax", "diffuse-jax", False),
}


class Problem(NamedTuple):
    """The same for both sides."""

    edm: bool
    net: Any
    params: Any
    images: np.ndarray  # [B, H, W, C] in 0 ... 255
    start: jax.Array  # noise that samplers start from
    key: jax.Array  # of that noise


class Side(NamedTuple):
    """A toolkit at work. `step` and `loop` are None where it has no training."""

    step: Any  # () -> (call() -> (loss, first moments of Adam), lower() -> the step's program, lowered)
    loop: Any  # () -> call() of LOOP steps, as trainings take them
    sampler: Callable  # steps -> call() -> samples
    program: Callable  # steps -> the sampler's program, lowered


def problem(case):
    """The Problem of a Case."""
    net, key, size = unet(), jax.random.PRNGKey(3), (BATCH, *SHAPE)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(size), jnp.zeros(BATCH))["params"]
    images = np.random.default_rng(1).integers(0, 256, size).astype(np.uint8)
    noise = jax.random.normal(jax.random.split(key)[1], size)  # as diffuse-jax draws it
    return Problem(case.edm, net, weights_of(shapes), images, (SIGMAS[1] if case.edm else 1.0) * noise, key)


def ours(given):
    """The toolkit's Side of a Problem."""
    net = networks.linen_net(given.net)
    if given.edm:
        process, options = processes.edm(*SIGMAS), {"target": "edm", "sigma_data": SIGMA_DATA}
        grid = lambda steps: solvers.GRIDS["karras"](process, steps)
    else:
        process, options = processes.vp(*BETAS), {"target": "eps", "scale_input": False, "noise_input": "t"}
        grid = lambda steps: jnp.linspace(*TIMES, steps + 1)
    denoise = functools.partial(make_denoiser, process=process, **options)

    @jax.jit
    def sampled(params, times, x):
        fn = lambda x, noise, cond, key: net.apply(params, {}, x, noise, cond)[0]
        return solvers.sample(None, denoise(fn), process, solvers.SOLVERS["ddim"](), times, x)

    sampler = lambda steps: functools.partial(sampled, given.params, grid(steps), given.start)
    program = lambda steps: sampled.lower(given.params, grid(steps), given.start)
    if not given.edm:
        return Side(None, None, sampler, program)
    times = losses.TIME_SAMPLERS["log_normal"](process, P_MEAN, P_STD)
    loss = losses.denoising(process, times, losses.WEIGHTINGS["edm"](SIGMA_DATA))
    algorithm = diffusion(net, denoise, loss, optax.adam(LEARNING_RATE), constant(DECAY), times=times)
    batch = {"x": jnp.asarray((given.images - 127.5) / 127.5, jnp.float32)}
    init = lambda: jax.jit(algorithm.init)(jax.random.key(0), batch, {"denoiser": given.params})

    def step():
        state, key, one = [init()], jax.random.key(1), jax.jit(algorithm.step, donate_argnums=1)

        def call():
            state[0], metrics = one(key, state[0], batch)
            return jax.block_until_ready(metrics["loss"]), state[0].opt["denoiser"][0].mu["denoiser"]

        return call, lambda: one.lower(key, state[0], batch)

    def loop():
        state, indices = [init()], jnp.broadcast_to(jnp.arange(BATCH), (LOOP, BATCH))
        many = make_dispatch(algorithm.step, data_mesh(jax.local_devices()[:1]))

        def call():
            state[0], metrics = many(jax.random.key(1), state[0], batch, indices, LOOP)
            return jax.block_until_ready(metrics["loss"])

        return call

    return Side(step, loop, sampler, program)


@contextlib.contextmanager
def same_draws():
    """Inside, FlaxDiff's step is traced with the noise that the toolkit's first step draws in the place of draws."""
    process, d = processes.edm(*SIGMAS), draws(jax.random.key(1), 0, BATCH)
    times, inner = losses.TIME_SAMPLERS["log_normal"](process, P_MEAN, P_STD), fold(d.keys, 0)
    sigma = times.sample(times.init(), SPREADS["lattice"](d.shared, fold(inner, 1), BATCH, d.offset, d.total))
    noise = process.noise(fold(inner, 2), jnp.zeros((BATCH, *SHAPE)))
    level = (jnp.log(sigma) - P_MEAN) / P_STD
    with mock.patch.object(jax.random, "normal", lambda key, shape=(), dtype=None: noise if shape[1:] else level):
        yield


def flaxdiff(given):
    """FlaxDiff's Side of a Problem."""
    from flaxdiff.inputs import DiffusionInputConfig
    from flaxdiff.predictors import KarrasPredictionTransform
    from flaxdiff.samplers import DDIMSampler
    from flaxdiff.schedulers import EDMNoiseScheduler, KarrasVENoiseScheduler
    from flaxdiff.trainer import GeneralDiffusionTrainer, TrainState
    from flaxdiff.utils import RandomMarkovState

    model, params = Named(given.net), {"params": {"net": given.params}}
    levels = {"sigma_min": SIGMAS[0], "sigma_max": SIGMAS[1], "rho": 7, "sigma_data": SIGMA_DATA}
    config, target = DiffusionInputConfig("image", SHAPE, []), KarrasPredictionTransform(SIGMA_DATA)
    denoiser = DDIMSampler(model, KarrasVENoiseScheduler(1, **levels), target, config)

    def sampler(steps):
        at = jnp.linspace(1000.0, 0.0, steps)  # by default rounded to whole numbers
        return lambda: denoiser.generate_samples(params, BATCH, SHAPE[0], steps_override=at, priors=given.start)

    def step():
        adam, rng = optax.adam(LEARNING_RATE), jax.random.PRNGKey(1)
        fields = {"metrics": None, "dynamic_scale": None, "rngs": rng}
        state = TrainState.create(apply_fn=model.apply, params=params, ema_params=params, tx=adam, **fields)
        fields = {"model_output_transform": target, "train_state": state, "checkpoint_base_path": tempfile.mkdtemp()}
        schedule = EDMNoiseScheduler(1, **levels)
        trainer = GeneralDiffusionTrainer(model, adam, schedule, config, rng, distributed_training=False, **fields)
        one, batch, carry = trainer._define_train_step(BATCH), {"image": given.images}, [state, RandomMarkovState(rng)]

        def call():
            carry[0], loss, carry[1] = one(*carry, batch, 0)
            return jax.block_until_ready(loss), carry[0].opt_state[0].mu["params"]["net"]

        return call, lambda: one.lower(*carry, batch, 0)

    def loop():
        call, _ = step()
        return lambda: [call() for _ in range(LOOP)]

    t = jnp.ones(BATCH)
    return Side(step, loop, sampler, lambda steps: denoiser.sample_model.lower(params, given.start, t))


def diffuse(given):
    """diffuse-jax's Side of a Problem."""
    from diffuse.denoisers.denoiser import Denoiser
    from diffuse.diffusion.sde import SDE, LinearSchedule
    from diffuse.integrator import DDIMIntegrator
    from diffuse.predictor import Predictor
    from diffuse.timer import VpTimer

    model = SDE(LinearSchedule(*BETAS, t0=0.0, T=1.0))

    @functools.partial(jax.jit, static_argnums=2)
    def sampled(params, key, steps):
        network = lambda x, t: given.net.apply({"params": params}, x[None], t[None])[0]
        integrator = DDIMIntegrator(model, VpTimer(steps, eps=TIMES[1], tf=TIMES[0]))
        made = Denoiser(integrator, model, Predictor(model, network, "noise"), SHAPE)
        return made.generate(key, steps, BATCH)[0].integrator_state.position

    sampler = lambda steps: functools.partial(sampled, given.params, given.key, steps)
    return Side(None, None, sampler, lambda steps: sampled.lower(given.params, given.key, steps))


def sides(name):
    """(Problem, {"toolkit": Side maker, "other": Side maker}) of a case."""
    given, other = problem(CASES[name]), {"flaxdiff": flaxdiff, "diffuse": diffuse}[CASES[name].module]
    return given, {"toolkit": lambda: ours(given), "other": lambda: other(given)}


def agreement(mine, other):
    """Relative differences of {"samples"} and, with a training, {"loss", "gradient"}; FlaxDiff's loss is half ours."""
    cut = (lambda x: np.clip(x, -1, 1)) if other.step else np.asarray
    found = {"samples": gap([cut(mine.sampler(STEPS[0])())], [np.asarray(other.sampler(STEPS[0])())])}
    if other.step:
        loss, moments = mine.step()[0]()
        with same_draws():
            half, half_moments = other.step()[0]()
        found["loss"] = abs(float(2 * half / loss) - 1)
        found["gradient"] = gap(jax.tree.leaves(jax.tree.map(lambda m: 2 * m, half_moments)), jax.tree.leaves(moments))
    return found


def work(compiled):
    """{"FLOPs", "bytes" of arguments, results and temporaries, "temporary": of the last alone} of a program."""
    m = compiled.memory_analysis()
    every = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes + m.temp_size_in_bytes
    return {"FLOPs": compiled.cost_analysis()["flops"], "bytes": every, "temporary": m.temp_size_in_bytes}


def turns_of(calls, turns, scale=1):
    """`medians` of {"toolkit", "other"}, seconds over `scale`."""
    times = take_turns({who: lambda call=call: jax.block_until_ready(call()) for who, call in calls.items()}, 0, turns)
    found = medians({"toolkit": times["toolkit"] / scale, "PyTorch": times["other"] / scale})
    return {"other" if key == "PyTorch" else key: value for key, value in found.items()}


def compare(name, turns):
    """What one process finds of a case: {"agree", "parameters", "times", "work", "memory"}."""
    given, makers = sides(name)
    both = {who: make() for who, make in makers.items()}
    found = {"agree": agreement(*both.values()), "times": {}, "work": {}}
    check(name, found["agree"], TOLERANCE)
    if both["other"].step:
        steps = {who: side.step() for who, side in both.items()}
        found["times"]["a train step called alone"] = turns_of({who: call for who, (call, _) in steps.items()}, turns)
        found["work"] = {who: work(lower().compile()) for who, (_, lower) in steps.items()}
        calls = {who: side.loop() for who, side in both.items()}
        found["times"]["a train step in a training"] = turns_of(calls, turns, LOOP)
    for n in STEPS:
        calls = {who: side.sampler(n) for who, side in both.items()}
        found["times"][f"{n} steps of DDIM"] = turns_of(calls, turns if n == STEPS[0] else max(turns // 3, 3))
    found["memory"] = {who: {str(n): work(side.program(n).compile()) for n in LONG} for who, side in both.items()}
    return {**found, "parameters": sum(p.size for p in jax.tree.leaves(given.params))}


def start(name, who, what):
    """{"first", "later": CPU s of calls, "peak": bytes} of this process; `what` is "loop" or a number of steps."""
    side = sides(name)[1][who]()
    call, spent = side.loop() if what == "loop" else side.sampler(int(what)), []
    for _ in range(3):
        began = time.process_time()
        jax.block_until_ready(call())
        spent.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"first": spent[0], "later": min(spent[1:]), "peak": peak}


def child(*arguments, cache=None):
    """What a process of its own prints last."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    if cache:
        limits = {"MIN_COMPILE_TIME_SECS": "0", "MIN_ENTRY_SIZE_BYTES": "-1"}
        env.update({f"JAX_PERSISTENT_CACHE_{k}": v for k, v in limits.items()}, JAX_COMPILATION_CACHE_DIR=cache)
    command = [sys.executable, "-m", "benchmarks.other_toolkits", "--child", *map(str, arguments)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env).stdout
    return json.loads(out.splitlines()[-1])


def starts(name, training):
    """{what: {side: {"cold", "warm": CPU s of compiling, "peak": bytes of the cold process}}}."""
    found = {}
    for what in (*(("loop",) if training else ()), *LONG):
        found[str(what)], kinds = {}, ("cold", "warm") if what != LONG[1] else ("cold",)
        for who in ("toolkit", "other"):
            with tempfile.TemporaryDirectory() as cache:
                runs = {kind: child(name, who, what, cache=cache) for kind in kinds}
            found[str(what)][who] = {kind: run["first"] - run["later"] for kind, run in runs.items()}
            found[str(what)][who]["peak"] = runs["cold"]["peak"]
    return found


def measure(name, turns, kept=None):
    """Yields what is kept of a case: first, unless `kept` is it, without "starts", then with them."""
    packages = ("jax", "jaxlib", "flax", CASES[name].package)
    if kept is None:
        versions = {p: importlib.metadata.version(p) for p in packages}
        kept = {**child(name, "compare", turns), "versions": versions}
        yield kept
    yield {**kept, "starts": starts(name, bool(kept["work"]))}


def figures(found):
    """[(what, unit, (toolkit's, other's), remark, goal or None)] of a case."""
    pair = lambda by, *path: tuple(functools.reduce(lambda d, k: d[k], path, by[who]) for who in ("toolkit", "other"))
    mib = lambda two: tuple(v / 2**20 for v in two)
    rows = []
    for what, t in found["times"].items():
        remark = f"wall clock {t['wall']:.3f}, standard error {t['error']:.3f}, {t['turns']} turns"
        rows.append((what, "ms of CPU", (1e3 * t["toolkit"], 1e3 * t["other"]), remark, GOAL))
    if found["work"]:
        flops = tuple(v / 1e6 for v in pair(found["work"], "FLOPs"))
        rows.append(("a train step", "10^6 FLOPs", flops, "", None))
        rows.append(("a train step", "MiB of memory", mib(pair(found["work"], "bytes")), "", None))
    for n in LONG:
        rows.append((f"{n} steps of DDIM", "MiB of memory", mib(pair(found["memory"], str(n), "bytes")), "", None))
    for what, by in found.get("starts", {}).items():
        title = "train step" if what == "loop" else f"{what} steps of DDIM"
        for kind in [k for k in ("cold", "warm") if k in by["toolkit"]]:
            rows.append((f"{title}, compiling, {kind}", "s of CPU", pair(by, kind), "", GOAL))
        rows.append((f"{title}, whole process", "MiB at the peak", mib(pair(by, "peak")), "", None))
    return rows


def report(results):
    """Table, remarks and goals as Markdown."""
    head = ["beside", "what", "unit", "toolkit", "the other", "ratio", ""]
    lines, remarks, goals = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"], [], []
    for name, found in results.items():
        title = CASES[name].title
        for what, unit, two, remark, goal in figures(found):
            numbers = [f"{v:.3g}" if v < 100 else f"{v:.0f}" for v in two] + [f"{two[0] / two[1]:.3f}"]
            lines.append("| " + " | ".join([title, what, unit, *numbers, remark]) + " |")
            if goal:
                goals.append(f"- {what}, {unit}, over that of {title}: {two[0] / two[1]:.3f} (goal: at most {goal})")
        versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
        remarks.append(f"- {title}: {differences(found)}; {found['parameters']:,} parameters; {versions}.")
        few, many = (found["memory"]["toolkit"][str(n)]["temporary"] for n in LONG)
        text = f"- {title}'s case, the toolkit's temporaries of {LONG[1]} steps over {LONG[0]}"
        goals.append(f"{text}: {many / few:.4f} (goal: at most {MEMORY_GOAL})")
    size = " x ".join(map(str, SHAPE))
    text = f"Batches of {BATCH} x {size}, one thread, float32, medians of calls that take turns."
    return "\n".join([text, "", *lines, "", *remarks, "", *goals])


def refreshed(only, turns):
    """{case: result}: what is kept, after measuring what `only` names, or is missing, and is installed."""
    results = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in only or [n for n in CASES if "starts" not in results.get(n, {})]:
        if importlib.util.find_spec(CASES[name].module) is None:
            print(f"{CASES[name].package} is not installed: what was kept is printed.\n")
            continue
        for found in measure(name, turns, None if only else results.get(name)):
            results[name] = found
            write_json(KEPT, {n: results[n] for n in CASES if n in results})
    return {n: results[n] for n in CASES if n in results}


def main():
    if sys.argv[1:2] == ["--child"]:
        name, what, last = sys.argv[2:]
        with contextlib.redirect_stdout(sys.stderr):
            found = compare(name, int(last)) if what == "compare" else start(name, what, last)
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(CASES), help="measured again; else what is not kept yet")
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    print("# Other JAX toolkits\n")
    print(report(refreshed(options.only, options.turns)))


if __name__ == "__main__":
    main()
