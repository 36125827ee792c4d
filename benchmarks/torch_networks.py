"""Networks, train steps and samplers beside plain PyTorch, with the same weights.

  python -m benchmarks.torch_networks [--only ddpmpp adm dit] [--turns 3] [--threads 1]

EDM's DDPM++ U-Net at 32 pixels, the ADM U-Net at 64 and DiT-B/2 on 32x32x4 latents, here and as written in
`torch_twins` (eager): a train step (loss, gradient, clipping, Adam, weight average), here the program that
`train.loop` dispatches, and the real sampler, some steps of Heun for the U-Nets and of DDIM for DiT; the time of a step
does not depend on their number. First the sides must agree: the sampler's images, the loss and the whole gradient.

Widths are the published ones; of the blocks there are one a level in the place of four (DDPM++) and three (ADM), and
four in the place of twelve (DiT), so that compiling and a step take seconds on one core. Dropout is off on both
sides, so that both compute the same numbers. Each side runs on `--threads` cores; the process is kept on these. On
a machine that does other work the ratio of CPU times is the one to read: with one thread it is that of wall-clock
times on an idle machine. What is measured is kept in results/torch_networks.json.
"""

import argparse
import gc
import importlib.util
import json
import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.train_step import standard_error, take_turns
from genjax import build
from genjax.algorithms.parts import draws
from genjax.core.keys import fold, uniform
from genjax.data.spec import DataSpec
from genjax.losses.times import SPREADS
from genjax.networks.unet import PRESETS
from genjax.solvers import GRIDS, SOLVERS, sample
from genjax.train.loop import data_mesh, make_dispatch
from genjax.train.workdir import write_json

CLIP, LEARNING_RATE, HALF_LIFE, RAMP_UP, DROP, SIGMA_DATA = 1.0, 1e-4, 200.0, 0.05, 0.1, 0.5
P_MEAN, P_STD, LEVELS = -1.2, 1.2, 1000
TOLERANCE = 1e-4
KEPT = pathlib.Path(__file__).parent / "results" / "torch_networks.json"
UNET_GOAL, DIT_GOAL = 1.0, 0.833  # time over PyTorch's: equal, and 1.2 times as fast


class Model(NamedTuple):
    """A network and what is done with it."""

    network: dict  # the toolkit's config group
    shape: tuple  # of a sample
    classes: int
    batch: int
    target: str  # "edm": EDM's preconditioning and loss; "eps": DDPM's
    sampler: tuple  # (solver, grid, steps)
    goal: float


def _unet(preset, **fields):
    return {"name": "unet", **PRESETS[preset], "num_blocks": 1, "dropout": 0.0, **fields}


DIT_B_2 = {"name": "dit", "dim": 768, "depth": 4, "heads": 12, "noise_dim": 256, "noise_features": "positional"}
MODELS = {
    "ddpmpp": Model(_unet("ddpmpp_cifar"), (32, 32, 3), 0, 2, "edm", ("heun", "karras", 18), UNET_GOAL),
    "adm": Model(_unet("adm_imagenet64"), (64, 64, 3), 1000, 1, "edm", ("heun", "karras", 4), UNET_GOAL),
    "dit": Model(DIT_B_2, (32, 32, 4), 1000, 2, "eps", ("ddim", "uniform", 10), DIT_GOAL),
}


# The toolkit's side.


class Ours(NamedTuple):
    """A model of the toolkit with weights."""

    model: Model
    parts: object  # `build.parts`
    state: object
    batch: dict


def config_of(model):
    """The toolkit's config."""
    edm = model.target == "edm"
    network = {k: v for k, v in model.network.items() if k != "num_classes"}
    return ConfigDict(
        {
            "data": {"name": "digits"},  # not read: the DataSpec is given
            "process": {"name": "edm" if edm else "ddpm"},
            "network": network,
            "denoiser": {"target": "edm", "sigma_data": SIGMA_DATA}
            if edm
            else {"target": "eps", "scale_input": False, "noise_input": "t1000"},
            "loss": {
                "name": "denoising",
                "time_sampler": {"name": "log_normal", "mean": P_MEAN, "std": P_STD} if edm else "uniform",
                "weighting": {"name": "edm", "sigma_data": SIGMA_DATA} if edm else "eps",
            },
            "algorithm": {"name": "diffusion", **({"cond": ("label",), "label_drop": DROP} if model.classes else {})},
            "optimizer": {"name": "adam", "learning_rate": LEARNING_RATE, "clip": CLIP},
            "ema": {"name": "half_life", "steps": HALF_LIFE, "ramp_up": RAMP_UP},
            "train": {"steps": 1000, "batch_size": model.batch},
        }
    )


def weights_of(shapes, seed=0):
    """Random parameters of a tree of shapes: none zero, so that every weight has a gradient."""
    rng = np.random.default_rng(seed)

    def one(path, p):
        scale, name = 1 / np.sqrt(np.prod(p.shape[:-1])) if p.ndim > 1 else 0.1, path[-1].key
        return jnp.asarray((name == "scale") + scale * rng.normal(size=p.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def ours(model):
    """The `Ours` of a Model, its batch drawn from a generator of its own."""
    fields = ("x", "label") if model.classes else ("x",)
    parts = build.parts(config_of(model), DataSpec(model.shape, model.classes, None, fields=fields))
    rng = np.random.default_rng(1)
    batch = {"x": jnp.asarray(SIGMA_DATA * rng.normal(size=(model.batch, *model.shape)), jnp.float32)}
    if model.classes:
        batch["label"] = jnp.asarray(rng.integers(model.classes, size=model.batch), jnp.int32)
    params = weights_of(jax.eval_shape(parts.net.init, jax.random.key(0), *_inputs(model, batch))[0])
    init = jax.jit(lambda params: parts.algorithm.init(jax.random.key(0), batch, {"denoiser": params}))
    return Ours(model, parts, init(params), batch)


def _inputs(model, batch):
    cond = {"label": batch["label"]} if model.classes else None
    return batch["x"], jnp.linspace(0.1, 0.9, len(batch["x"])), cond


def drawn(side, key):
    """What the first step of the dispatched program draws: {name: array}, the terms of the train step below."""
    x, process = side.batch["x"], side.parts.process
    n = len(x)
    d = draws(jax.random.fold_in(key, 0), 0, n)
    inner = fold(d.keys, 0)
    u = SPREADS["lattice"](d.shared, fold(inner, 1), n, d.offset, d.total)
    t = side.parts.times.sample(side.parts.times.init(), u)
    found = {"t": t, "alpha": process.alpha(t), "sigma": process.sigma(t), "eps": process.noise(fold(inner, 2), x)}
    if side.model.classes:
        found["label"] = jnp.where(uniform(fold(d.keys, 1), (n,)) < DROP, -1, side.batch["label"])
    return {name: np.asarray(value) for name, value in found.items()}


def dispatched(side, key):
    """A function of no arguments that takes one train step, the state carried on; its attribute `state` is a list."""
    program = make_dispatch(side.parts.algorithm.step, data_mesh(jax.local_devices()[:1]))
    carry, indices = [side.state], jnp.arange(side.model.batch)[None]
    compiled = program.lower(key, side.state, side.batch, indices, 1).compile()

    def call():
        carry[0], metrics = compiled(key, carry[0], side.batch, indices, 1)
        return jax.block_until_ready(metrics)

    call.state = carry
    return call


def sampled(side, n=1):
    """(compiled sampler, its arguments: parameters, process, times, start, condition)."""
    process, (solver, grid, steps) = side.parts.process, side.model.sampler
    times = GRIDS[grid](process, steps)
    start = process.prior(jax.random.split(jax.random.key(3), n), jnp.zeros((n, *side.model.shape)), times[0])
    cond = {"label": side.batch["label"][:n]} if side.model.classes else None

    def program(params, process, times, start, cond):
        fn = lambda x, noise, cond, key: side.parts.net.apply(params, {}, x, noise, cond)[0]
        return sample(None, side.parts.denoise(fn, process=process), process, SOLVERS[solver](), times, start, cond)

    arguments = side.state.params["denoiser"], process, times, start, cond
    return jax.jit(program).lower(*arguments).compile(), arguments


# PyTorch's side.


class Theirs(NamedTuple):
    """The same model in PyTorch."""

    model: Model
    network: object  # (x [B, C, H, W], noise [B], label [B] or None) -> output
    weights: dict  # the tree of tensors
    process: object  # of the toolkit, whose tables of numbers it uses


def theirs(side, channels_last=False):
    """The `Theirs` of an `Ours`, with its weights."""
    import torch

    from benchmarks.torch_twins import carried, dit, unet

    module = build_fields(side.model)
    weights = carried(side.state.params["denoiser"])
    apply = unet if side.model.network["name"] == "unet" else dit
    for p in jax.tree.leaves(weights):
        if channels_last and p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
        p.requires_grad_()
    return Theirs(
        side.model, lambda x, noise, label: apply(weights, x, noise, label, module), weights, side.parts.process
    )


def build_fields(model):
    """All fields of the network, those left to their defaults too."""
    from genjax.networks import NETWORKS

    values = {k: v for k, v in model.network.items() if k not in ("name", "num_classes")}
    return vars(NETWORKS[model.network["name"]](**values, parent=None))


def torch_step(other, batch):
    """step(drawn=None) -> (loss, norm of the gradient), which draws its numbers itself where none are given; with
    the optimizer as its attribute `optimizer`."""
    import torch

    from benchmarks.torch_twins import image

    model, leaves = other.model, jax.tree.leaves(other.weights)
    optimizer = torch.optim.Adam(leaves, lr=LEARNING_RATE, fused=True)
    average = [p.detach().clone() for p in leaves]
    x = image(batch["x"])
    label = torch.tensor(np.asarray(batch["label"])).long() if model.classes else None
    column = lambda a: torch.as_tensor(a)[:, None, None, None]
    count = [0]
    if model.target == "eps":
        times = np.arange(1, LEVELS + 1) / LEVELS
        alphas, sigmas = (
            torch.tensor(np.asarray(f(jnp.asarray(times)))) for f in (other.process.alpha, other.process.sigma)
        )

    def draw():
        n = len(x)
        found = {"eps": torch.randn_like(x)}
        if model.classes:
            found["label"] = torch.where(torch.rand(n) < DROP, -1, label)
        if model.target == "edm":
            return {**found, "sigma": (P_MEAN + P_STD * torch.randn(n)).exp()}
        i = torch.randint(LEVELS, (n,))
        return {**found, "t": (i + 1) / LEVELS, "alpha": alphas[i], "sigma": sigmas[i]}

    def loss(d):
        s, eps = column(d["sigma"]), d["eps"]
        if model.target == "eps":
            out = other.network(column(d["alpha"]) * x + s * eps, 1000 * d["t"], d.get("label"))
            return ((out - eps) ** 2).mean()
        total = s**2 + SIGMA_DATA**2
        noisy = x + s * eps
        out = other.network(noisy / total.sqrt(), d["sigma"].log() / 4, d.get("label"))
        x0 = SIGMA_DATA**2 / total * noisy + s * SIGMA_DATA / total.sqrt() * out
        return (total / (s * SIGMA_DATA) ** 2 * (x0 - x) ** 2).mean()

    def step(drawn=None):
        if drawn is not None:
            drawn = {k: image(v) if k == "eps" else torch.tensor(np.asarray(v)) for k, v in drawn.items()}
            if "label" in drawn:
                drawn["label"] = drawn["label"].long()
        optimizer.zero_grad(set_to_none=True)
        value = loss(drawn or draw())
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(leaves, CLIP)
        optimizer.step()
        count[0] += 1
        keep = 0.5 ** (1 / min(HALF_LIFE, RAMP_UP * count[0]))
        with torch.no_grad():
            torch._foreach_lerp_(average, leaves, 1 - keep)
        return value.item(), norm.item()

    step.optimizer = optimizer
    return step


def torch_sampler(other, arguments):
    """A function of no arguments: the sampler of the model on the toolkit's arguments of it."""
    import torch

    from benchmarks.torch_twins import image

    _, process, times, start, cond = arguments
    model, first = other.model, image(start)
    label = None if cond is None else torch.tensor(np.asarray(cond["label"])).long()
    at = [np.asarray(f(times), np.float64).tolist() for f in (process.alpha, process.sigma)]
    full = lambda v: torch.full((len(first),), float(v))

    def x0_eps(x, i):
        a, s = at[0][i], at[1][i]
        if model.target == "eps":
            eps = other.network(x, full(1000 * float(times[i])), label)
            return (x - s * eps) / a, eps
        total = s**2 + SIGMA_DATA**2
        out = other.network(x / total**0.5, full(np.log(s) / 4), label)
        x0 = SIGMA_DATA**2 / total * x + s * SIGMA_DATA / total**0.5 * out
        return x0, (x - x0) / s

    @torch.no_grad()
    def run():
        x = first
        for i in range(len(times) - 1):
            b, s, r = at[0][i + 1], at[1][i], at[1][i + 1]
            x0, eps = x0_eps(x, i)
            new = b * x0 + r * eps
            if model.sampler[0] == "heun" and r > 0:  # alpha is 1
                new = x + (r - s) / 2 * (eps + x0_eps(new, i + 1)[1])
            x = new
        return x

    return run


# Both.


def gap(a, b):
    """|a - b| / |b| of two lists of arrays."""
    a, b = ([np.asarray(v, np.float64) for v in list] for list in (a, b))
    return float(np.sqrt(sum(((u - v) ** 2).sum() for u, v in zip(a, b)) / sum((v**2).sum() for v in b)))


def agreement(side, other, step, other_step):
    """Relative differences of {"loss", "norm of the gradient", "gradient", "gradient of one weight"}.

    Each side takes its first step, both with the numbers that the toolkit draws. Gradients are compared as directions
    and their norms apart: PyTorch's norm of millions of float32 numbers is 1e-4 too small on a CPU, so that it clips
    less than it is told.
    """
    from benchmarks.torch_twins import carried

    metrics = step()
    value, norm = other_step(drawn(side, jax.random.key(1)))
    is_adam = lambda s: hasattr(s, "mu")
    (adam,) = [s for s in jax.tree.leaves(step.state[0].opt["denoiser"], is_leaf=is_adam) if is_adam(s)]
    # Adam's first moments after one step are 1 - b1 times the clipped gradient
    mine = _directions([leaf.numpy() for leaf in jax.tree.leaves(carried(adam.mu["denoiser"]))])
    moments = [other_step.optimizer.state[p]["exp_avg"].numpy() for p in jax.tree.leaves(other.weights)]
    moments = _directions(moments)
    each = [gap([a], [b]) for a, b in zip(mine, moments) if np.linalg.norm(b) > 1e-4]
    return {
        "loss": abs(float(metrics["loss"]) / value - 1),
        "norm of the gradient": abs(float(metrics["grad_norm"]) / norm - 1),
        "gradient": gap(mine, moments),
        "gradient of one weight": max(each),
    }


def _directions(arrays):
    """The arrays over their common norm, in double precision."""
    arrays = [np.asarray(a, np.float64) for a in arrays]
    return [a / np.sqrt(sum((b**2).sum() for b in arrays)) for a in arrays]


def medians(both):
    """{"toolkit", "PyTorch": s of CPU, "cpu", "wall": ratios, "error", "turns"} of the times of two sides."""
    mine, others = (np.median(both[who], axis=0) for who in ("toolkit", "PyTorch"))
    wall, cpu = mine / others
    error = standard_error(both["toolkit"][:, 1] / both["PyTorch"][:, 1])
    found = {"toolkit": mine[1], "PyTorch": others[1], "cpu": cpu, "wall": wall, "error": error}
    return {**{k: round(float(v), 4) for k, v in found.items()}, "turns": len(both["toolkit"])}


def check(name, found, tolerance=TOLERANCE):
    """Raises AssertionError where the sides differ by more than `tolerance`."""
    for which, value in found.items():
        if not value < tolerance:
            raise AssertionError(f"{name}: the {which} of both sides differ by {value:.2e}, above {tolerance:g}")


def compare(name, turns, channels_last=False):
    """What is measured of one model: {"agree": {...}, "times": {what: `medians`}}."""
    model = MODELS[name]
    side = ours(model)
    other = theirs(side, channels_last)
    solver, arguments = sampled(side)
    ends = {}

    def keep(who, f):
        def call():
            ends[who] = np.asarray(f())

        return call

    both = {
        "toolkit": keep("toolkit", lambda: solver(*arguments)),
        "PyTorch": keep("PyTorch", torch_sampler(other, arguments)),
    }
    name_of = f"{model.sampler[2]} steps of {model.sampler[0]}, one image"
    times = {name_of: medians(take_turns(both, 0, 2, 0))}
    found = {"images": gap([ends["toolkit"].transpose(0, 3, 1, 2)], [ends["PyTorch"]])}
    step = dispatched(side, jax.random.key(1))
    other_step = torch_step(other, side.batch)
    found.update(agreement(side, other, step, other_step))
    loose = ("images", "norm of the gradient")  # rounding compounds over the steps; see `agreement`
    check(name, {k: v for k, v in found.items() if k not in loose})
    check(name, {k: found[k] for k in loose}, 10 * TOLERANCE)
    times["train step"] = medians(take_turns({"toolkit": step, "PyTorch": other_step}, 0, turns, 0))
    return {"batch": model.batch, "goal": model.goal, "agree": found, "times": times}


def keep_to(threads):
    """Keeps this process, and the threads of both packages, to so many cores."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)


HEADER = [
    "| network | what | toolkit, s of CPU | PyTorch, s of CPU | ratio | of wall clock | standard error | turns |",
    "| --- " * 8 + "|",
]


def differences(found):
    """How far the two sides are from each other, in words."""
    return "relative differences: " + ", ".join(f"{which} {value:.1e}" for which, value in found["agree"].items())


def page(results, threads, remarks, goals):
    """The table of `results`, lines of remarks and of goals as Markdown."""
    rows = []
    for name, found in results.items():
        for what, t in found["times"].items():
            row = [f"{name}, batch {found['batch']}", what, f"{t['toolkit']:.3f}", f"{t['PyTorch']:.3f}"]
            row += [f"{t[key]:.3f}" for key in ("cpu", "wall", "error")]
            rows.append("| " + " | ".join([*row, str(t["turns"])]) + " |")
    return "\n".join([f"{threads} thread(s) each, float32, medians.", "", *HEADER, *rows, "", *remarks, "", *goals])


def report(results, threads):
    """Table, remarks and goals as Markdown."""
    remarks = [f"- {name}: {differences(found)}." for name, found in results.items()]
    goals = [
        f"- {name}, {what}, CPU time over PyTorch's: {t['cpu']:.3f} (goal: at most {found['goal']})"
        for name, found in results.items()
        for what, t in found["times"].items()
    ]
    return page(results, threads, remarks, goals)


def measured(kept, names, only, measure):
    """{name: result}: of a file what is there, else, and where `only` names it, measured and written to it."""
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for name in names:
        if name in results and name not in (only or ()):
            continue
        if only and name not in only:
            continue
        results[name] = measure(name)
        write_json(kept, {n: results[n] for n in names if n in results})
        jax.clear_caches()
        gc.collect()
    return {n: results[n] for n in names if n in results}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(MODELS), help="measured again; else what is not kept yet")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true", help="kernels of PyTorch with channels last")
    options = parser.parse_args()
    print("# Networks beside PyTorch\n")
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: what was kept is printed.\n")
        print(report(json.loads(KEPT.read_text()), options.threads))
        return
    keep_to(options.threads)
    results = measured(KEPT, MODELS, options.only, lambda name: compare(name, options.turns, options.channels_last))
    print(report(results, options.threads))


if __name__ == "__main__":
    main()
