"""LaCon: Late-Constraint Diffusion for Steerable Guided Image Synthesis (arXiv 2305.11520).

    genjax reproduce lacon

A small aligner learns to read a condition from the frozen denoiser's features at any noise level; at sampling the
gradient of its misfit steers the first 60 % of the steps. An unconditional MLP prior of the digits (4,000 steps, its
block activations are the features), aligners on 1,000 pictures, 1,500 steps; conditions: a 4 x 4 average (`coarse`),
the picture binarized at mid-grey (`mask`), Sobel edges (`edges`). 256 held-out targets, 40 steps of DDIM, w = 1;
condition error = mean square between the sample's condition and the target. Rules fixed before the runs, means over
seeds:

1. Condition error over that without control: at most 0.4 (coarse), 0.5 (mask), 0.75 (edges); Frechet distance at most
   1.3 times for coarse and mask. Reported: w of 0.25, 0.5 and 2, no normalization (factor 40), all steps guided.
2. Controls: an untrained aligner keeps at least 0.8 of the error, permuted targets at least 0.9 of it.
3. The coarse aligner's R^2 on held-out noisy digits is at least 0.35 at alpha^2 = 0.5, and below 0.15 at alpha^2 =
   0.03.
4. The coarse error is at most that of a network trained from scratch with the condition as input, for the aligner's
   steps and pictures (`early`); the true operator's gradient through x0 is reported (`operator`).
5. The mask aligner steers with jittered masks (moved by a pixel): error at most 0.7 of that without control.

What fails: rule 4. The network that takes the coarse condition as its input follows it to 0.0043, the aligner to 0.030
at w = 1 (0.020 at w = 2, 0.0092 where all steps are guided, the true operator's gradient 0.018; 0.21 without control).
It is no matter of the early stop alone: a 4 x 4 average is a linear function of the 64 pixels, which a small network
that is given it learns to obey in 1,500 steps, while a gradient through features that hold little at high noise (R^2
0.03 at alpha^2 = 0.03, 0.60 at 0.5) only pushes. Whether that turns where pictures are large and conditions are no
such functions of them, as in the paper, cannot be seen on digits.

`get_config("paper")`: an image prior on ImageNet at 64x64 in the place of the paper's latent text-to-image model.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genjax import build
from genjax.algorithms.supervised import supervised
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.cli import runner_guidance as guides
from genjax.core.denoiser import make_denoiser
from genjax.core.keys import fold, per_sample
from genjax.core.prediction import clip_x0
from genjax.data.spec import DataSpec
from genjax.guidance import chain, energy, late_constraint
from genjax.losses.guides import feature_reading
from genjax.losses.times import uniform
from genjax.networks import MLP, NoiseCond, linen_net
from genjax.solvers import ddim, generate, grids

PAPER = {
    "number": 180,
    "title": "LaCon: Late-Constraint Diffusion for Steerable Guided Image Synthesis",
    "year": 2023,
    "arxiv": "2305.11520",
    "family": "guidance",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3
SPEC = DataSpec((64,), 0, (-1.0, 1.0), 0, ("x",))
EARLY = DataSpec((64,), 0, (-1.0, 1.0), 0, ("x", "embedding"))
STEERED = 0.6  # share of the run


def get_config(scale="small"):
    if scale == "paper":
        return guides.adm_config(540000, 2048, cond=("label",), learning_rate=3e-4)
    return digits.base_config(
        scale,
        4000,
        process={"name": "cosine"},
        denoiser={"target": "v", "scale_input": False},
        loss={"name": "denoising", "time_sampler": {"name": "uniform"}, "weighting": {"name": "v"}},
    )


VARIANTS = {"digits": {"part": "digits"}}


def coarse(x):
    """4 x 4 averages [B, 16]."""
    return x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)


def mask(x):
    """-1 and 1, split at mid-grey, [B, 64]."""
    return jnp.where(x > 0, 1.0, -1.0)


def edges(x):
    """Magnitude of the Sobel gradient, [B, 64], edges repeated."""
    p = jnp.pad(x.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), mode="edge")
    at = lambda i, j: p[:, 1 + i : 9 + i, 1 + j : 9 + j]
    dx = sum(w * (at(i, 1) - at(i, -1)) for i, w in ((-1, 1), (0, 2), (1, 1))) / 8
    dy = sum(w * (at(1, j) - at(-1, j)) for j, w in ((-1, 1), (0, 2), (1, 1))) / 8
    return jnp.sqrt(dx**2 + dy**2 + 1e-6).reshape(-1, 64)


CONDITIONS = {"coarse": coarse, "mask": mask, "edges": edges}


def conditions_of(config):
    """The conditions that are trained and measured: edges are left out where nothing is measured."""
    return CONDITIONS if config.scale == "small" else {name: CONDITIONS[name] for name in ("coarse", "mask")}


class Aligner(nn.Module):
    """R(features, t): concatenated activations and the level, two hidden layers."""

    size: int

    @nn.compact
    def __call__(self, features, t, train=False):
        h = jnp.concatenate(features, axis=-1)
        level = NoiseCond(64, 64, name="level")(4 * t - 2, {})
        for width in (128, 64):
            h = nn.silu(nn.Dense(width)(h) + nn.Dense(width)(level))
        return nn.Dense(self.size)(h)


def prior_of(config, params, process):
    """The Denoiser with features of the prior's parameters."""
    module = MLP(**{k: v for k, v in config.network.items() if k != "name"})

    def fn(x, noise, cond, key):
        out, taps = module.apply({"params": params}, x, noise, None, return_features=True)
        return out, [taps[name] for name in sorted(taps)]

    return make_denoiser(fn, process, **config.denoiser)


def train(config, key, priors):
    small, process, inner = config.scale == "small", build.process(config), run.model_config(config)
    steps = 1500 if small else 10
    state = run.train(config, key, priors)
    average = build.ema(inner)
    weights = average.read(state.ema, 0)["denoiser"]
    denoiser = prior_of(config, weights, process)
    rows = np.random.default_rng(run.seed_of(fold(key, 9))).permutation(len(digits.training()))[: 1000 if small else 50]
    x = digits.training()[rows]
    found = {}
    for i, (name, condition) in enumerate(conditions_of(config).items()):
        target = np.asarray(condition(jnp.asarray(x)))
        net = linen_net(Aligner(target.shape[1]))
        inputs = lambda batch: (denoiser(batch["x"], 0.5).features, jnp.full(1, 0.5))
        loss = feature_reading(process, uniform(process))
        recipe = supervised(net, loss, guides.optimizer(steps), inputs=inputs, models={"denoiser": denoiser})
        arrays = {"x": x, "target": target}
        fitted = run.fit(recipe, arrays, fold(key, i), steps, 128 if small else 16)[-1][1]
        found[name] = fitted.params["guide"]
    inner = run.model_config(early_config(config))
    inner.train.steps = steps  # its learning rate cools down over them, as the aligner's does
    arrays = {"x": x, "embedding": np.asarray(coarse(jnp.asarray(x)))}
    recipe = build.algorithm(inner, EARLY)
    early = run.fit(recipe, arrays, fold(key, 5), steps, 128 if small else 16)[-1][1]
    return {"prior": weights, "aligners": found, "early": early}


def measure(config, key, priors):
    trained, small, process = priors["lacon"], config.scale == "small", build.process(config)
    n, steps = (256, 40) if small else (8, 4)
    denoiser, real = prior_of(config, trained["prior"], process), jnp.asarray(digits.held_out()[:n])
    grid, like = grids.uniform(process, steps), jnp.zeros((n, 64))
    until = float(process.t_max) * (1 - STEERED)

    def draw(name, params, target, scale, above=until, normalize=True):
        net = linen_net(Aligner(target.shape[1]))
        read = lambda features, t: net.apply(params, {}, features, t)[0]
        steer = chain(late_constraint(read, target, scale, above, normalize), clip_x0())
        return generate(fold(key, 5), steer(denoiser, process), process, ddim(), grid, like)

    run_arm = jax.jit(draw, static_argnums=(0, 5))
    free = jax.jit(lambda: generate(fold(key, 5), clip_x0()(denoiser, process), process, ddim(), grid, like))()
    clip = lambda x: np.clip(np.asarray(x), -1, 1)
    error = lambda name, x, target: float(jnp.mean((CONDITIONS[name](jnp.asarray(clip(x))) - target) ** 2))
    metrics = {"fd_free": digits.frechet(clip(free))}
    for name, condition in conditions_of(config).items():
        target, params = condition(real), trained["aligners"][name]
        metrics[f"{name}_free"] = error(name, free, target)
        for w in (0.25, 0.5, 1.0, 2.0):
            x = run_arm(name, params, target, w, until, True)
            metrics |= {f"{name}_w{w:g}": error(name, x, target), f"{name}_fd_w{w:g}": digits.frechet(clip(x))}
        metrics[f"{name}_all_steps"] = error(name, run_arm(name, params, target, 1.0, 0.0, True), target)
        untrained = linen_net(Aligner(target.shape[1])).init(
            fold(key, 6), denoiser(like[:1], 0.5).features, jnp.ones(1)
        )[0]
        metrics[f"{name}_untrained"] = error(name, run_arm(name, untrained, target, 1.0, until, True), target)
        other = jnp.roll(target, n // 2, axis=0)
        metrics[f"{name}_permuted"] = error(name, run_arm(name, params, other, 1.0, until, True), target)
    target = coarse(real)
    raw = run_arm("coarse", trained["aligners"]["coarse"], target, 40.0, until, False)
    metrics["coarse_raw"] = error("coarse", raw, target)
    early, _ = guides.denoiser_of(early_config(config), EARLY, trained["early"])
    cond = {"embedding": target}
    conditioned = jax.jit(lambda: generate(fold(key, 5), clip_x0()(early, process), process, ddim(), grid, like, cond))
    metrics["coarse_early"] = error("coarse", conditioned(), target)
    misfit = lambda x0, _: 8 * jnp.sum((coarse(x0) - target) ** 2, axis=1)
    steered = chain(energy(misfit, 1.0, limit=8.0), clip_x0())
    operator = jax.jit(lambda: generate(fold(key, 5), steered(denoiser, process), process, ddim(), grid, like))
    metrics["coarse_operator"] = error("coarse", operator(), target)
    jittered = mask(jnp.roll(real.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64))
    x = run_arm("mask", trained["aligners"]["mask"], jittered, 1.0, until, True)
    metrics |= {"jittered": error("mask", x, jittered), "jittered_free": error("mask", free, jittered)}
    return metrics | reading(config, key, trained, denoiser, process)


def early_config(config):
    """The config of the network that takes the condition as its input."""
    config = config.copy_and_resolve_references()
    config.unlock()
    config.network.embedding_dim, config.algorithm.cond = 16, ("embedding",)
    return config


def reading(config, key, trained, denoiser, process):
    """R^2 of the coarse aligner on held-out digits by level."""
    real = jnp.asarray(digits.held_out() if config.scale == "small" else digits.held_out()[:16])
    target, net = coarse(real), linen_net(Aligner(16))
    spread = jnp.mean((target - jnp.mean(target, axis=0, keepdims=True)) ** 2)

    @jax.jit
    def r2(t):
        x, _ = process.corrupt(per_sample(fold(key, 8), len(real)), real, t)
        read = net.apply(trained["aligners"]["coarse"], {}, denoiser(x, t).features, jnp.full(len(real), t))[0]
        return 1 - jnp.mean((read - target) ** 2) / spread

    at = lambda share: process.time(jnp.log(share / (1 - share)))
    return {f"r2_{share}": r2(at(share)) for share in (0.03, 0.5, 0.9)}


def _ratio(table, metric, base):
    return table["digits"][metric].mean() / table["digits"][base].mean()


CLAIMS = {
    "steers": (
        "condition error at most 0.4 (coarse), 0.5 (mask) and 0.75 (edges) of that without control",
        lambda t: all(
            _ratio(t, f"{name}_w1", f"{name}_free") <= most
            for name, most in (("coarse", 0.4), ("mask", 0.5), ("edges", 0.75))
        ),
    ),
    "quality": (
        "the Frechet distance at w = 1 is at most 1.3 times that without control (coarse and mask)",
        lambda t: all(_ratio(t, f"{name}_fd_w1", "fd_free") <= 1.3 for name in ("coarse", "mask")),
    ),
    "controls": (
        "an untrained aligner keeps at least 0.8 of the error, permuted targets at least 0.9 (coarse and mask)",
        lambda t: all(
            _ratio(t, f"{name}_untrained", f"{name}_free") >= 0.8
            and _ratio(t, f"{name}_permuted", f"{name}_free") >= 0.9
            for name in ("coarse", "mask")
        ),
    ),
    "reads": (
        "the coarse aligner's R^2 is at least 0.35 at alpha^2 = 0.5 and below 0.15 at 0.03",
        lambda t: t["digits"]["r2_0.5"].mean() >= 0.35 and t["digits"]["r2_0.03"].mean() < 0.15,
    ),
    "late_or_early": (
        "the coarse error is at most that of a network trained with the condition as input for the same steps",
        lambda t: _ratio(t, "coarse_w1", "coarse_early") <= 1,
    ),
    "jittered": (
        "masks moved by a pixel are followed: at most 0.7 of the error without control",
        lambda t: _ratio(t, "jittered", "jittered_free") <= 0.7,
    ),
}


def figure(table, path):
    """Condition error over that without control, along w and for the other arms; seeds thin or as dots."""
    from matplotlib.figure import Figure

    from genjax.cli.runner_report import save_figure

    row, picture, weights = table["digits"], Figure(figsize=(9.6, 3.4), layout="constrained"), (0.25, 0.5, 1.0, 2.0)
    error, distance, others = picture.subplots(1, 3)
    arms = ("all_steps", "untrained", "permuted")
    for i, name in enumerate(CONDITIONS):
        free = row[f"{name}_free"].mean()
        for axis, metric, base in ((error, f"{name}_w", free), (distance, f"{name}_fd_w", row["fd_free"].mean())):
            curves = np.stack([row[f"{metric}{w:g}"] for w in weights]) / base
            axis.plot(weights, curves, color=f"C{i}", alpha=0.3, linewidth=0.8)
            axis.plot(weights, curves.mean(axis=1), "o-", color=f"C{i}", markersize=3, label=name)
        for j, arm in enumerate(arms):
            values = row[f"{name}_{arm}"] / free
            others.bar(j + 0.27 * (i - 1), values.mean(), 0.25, color=f"C{i}")
            others.plot(np.full(len(values), j + 0.27 * (i - 1)), values, "k.", markersize=3)
    error.set(xlabel="w", ylabel="condition error / without control", ylim=(0, None))
    distance.set(xlabel="w", ylabel="Frechet distance / without control")
    others.set(xticks=range(len(arms)), ylabel="condition error (w = 1)")
    others.set_xticklabels([arm.replace("_", " ") for arm in arms])
    for axis in (error, distance, others):
        axis.axhline(1.0, color="0.4", linestyle="--", linewidth=0.8)
    error.legend(fontsize=8)
    picture.suptitle("Late constraints on digits (arXiv 2305.11520)", fontsize=9)
    save_figure(picture, path)
