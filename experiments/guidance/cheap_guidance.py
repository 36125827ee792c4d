"""Conditional Image Generation with Pretrained Generative Model (arXiv 2312.13253).

    genjax reproduce cheap_guidance

Universal guidance of an unconditional prior by the gradient of a loss on x0, in full (every step, through the
denoiser, four rounds of recurrence) and by a cheap plan: guided from 20 to 80 % of the steps, three rounds there and
one elsewhere, no gradient through the denoiser. The prior is a mixture of 30 full-covariance Gaussians fitted to the
digits, its denoiser exact. Which shortcuts the paper takes is not public; the plan is the search space of its
abstract. Rules fixed before the runs:

Conditions: a class, by a classifier's cross-entropy; a 4 x 4 average of a held-out digit; the centre of its mass. 60
steps of DDIM, 128 samples a condition; the scale of every arm and condition is the best of 1, 4 and 16 (accuracy, or
error), the change of eps bounded at 8. Pass, means over seeds: the counted cost is at least 3 times lower and the time
after compiling at least 2 times; class accuracy (by another classifier) at least 95 % of the full arm's, the errors of
the average and of the centre at most 1.15 times, Frechet distance at most 1.25 times; the cheap plan beats the
same with guidance outside the interval, in the first and in the last 40 %, each by 10 points of accuracy or 1.4 times
in the average's error; unguided accuracy is 5 to 15 %; what is counted as it runs is the plan's closed form, over 60
noise levels. Reported, no rule: the full arm with 8 steps, and with one round.

What failed: the cheap plan (accuracy 0.99, error of the average 0.133) beats guidance in the first and in the last 40 %
as asked (0.89 and 0.71), but guidance outside the interval by 6 points and 1.28 times alone (0.93 and 0.170), not by 10
points or 1.4 times. Every arm, this one too, has the best of three scales.

`get_config("paper")`: the unconditional prior on ImageNet, at 64x64.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from genjax import build
from genjax.cli import runner_digits as digits
from genjax.cli import runner_guidance as guides
from genjax.core.keys import fold
from genjax.core.numerics import mean_except_batch
from genjax.guidance import GuidancePlan, counted, planned
from genjax.guidance.plan import VJP_COST
from genjax.losses.guides import cross_entropy
from genjax.solvers import ddim, generate, grids

PAPER = {
    "number": 13,
    "title": "Conditional Image Generation with Pretrained Generative Model",
    "year": 2023,
    "arxiv": "2312.13253",
    "family": "guidance",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3


def _cheap(*intervals):
    return GuidancePlan(intervals=intervals, repeats=3, windows=intervals, through=False)


PLANS = {
    # name: (plan or None, steps)
    "none": (None, 60),
    "full": (GuidancePlan(repeats=4), 60),
    "cheap": (_cheap((0.2, 0.8)), 60),
    "outside": (_cheap((0.0, 0.2), (0.8, 1.0)), 60),
    "first": (_cheap((0.0, 0.4)), 60),
    "last": (_cheap((0.6, 1.0)), 60),
    "fewer_steps": (GuidancePlan(repeats=4), 8),
    "one_round": (GuidancePlan(), 60),
}
SCALES = (1.0, 4.0, 16.0)


def get_config(scale="small"):
    if scale == "paper":
        return guides.adm_config(540000, 2048, learning_rate=3e-4)
    config = guides.exact_config(scale)
    config.eval.arm = "cheap"  # so that all arms share one training
    return config


VARIANTS = {name: {"eval.arm": name} for name in PLANS}


def train(config, key, priors):
    """The classifier that guides: of clean digits, as one takes it off the shelf. All arms of a seed share it."""
    x, label = guides.labelled()
    steps = 1200 if config.scale == "small" else 20
    return guides.fit_classifier(build.process(config), key, {"x": x, "label": label}, steps, clean=True)


def average(x):
    """2 x 2 block means [B, 16] of digits [B, 64]."""
    return x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)


def center(x):
    """Centre of mass [B, 2] of the light, in units of the half width."""
    light = jnp.clip((x + 1) / 2, 0, 1).reshape(-1, 8, 8)
    at = (jnp.arange(8) - 3.5) / 4
    mass = jnp.sum(light, axis=(1, 2)) + 1e-3
    return (
        jnp.stack([jnp.sum(light * at[None, :, None], (1, 2)), jnp.sum(light * at[None, None], (1, 2))], -1)
        / mass[:, None]
    )


def conditions(net, params, real, labels):
    """name -> loss: x0 -> [B]; sums, so that each is of the size of a log-likelihood."""
    return {
        "class": lambda x0: cross_entropy(net.apply(params, {}, x0)[0], labels),
        "average": lambda x0: 0.5 * jnp.sum((average(x0) - average(real)) ** 2, axis=1),
        "center": lambda x0: 20 * jnp.sum((center(x0) - center(real)) ** 2, axis=1),
    }


def measure(config, key, priors):
    process, (prior, _) = build.process(config), guides.digit_mixture()
    (plan, steps), small = PLANS[config.eval.arm], config.scale == "small"
    n, steps = (128, steps) if small else (8, 5)
    denoiser, grid, like = prior.denoiser(process), grids.uniform(process, steps), jnp.zeros((n, 64))
    net, params = guides.classifier_net(process, clean=True), priors["cheap_guidance"]
    labels, real = jnp.arange(n) % guides.CLASSES, jnp.asarray(digits.held_out()[:n])

    def scores(name, x):
        """(what is to be small, metrics) of samples under a condition."""
        if name == "class":
            right = guides.accuracy(x, labels)
            return -right, {"accuracy": right}
        read = average if name == "average" else center
        error = float(jnp.sqrt(jnp.mean(mean_except_batch((read(jnp.asarray(x)) - read(real)) ** 2))))
        return error, {f"error_{name}": error}

    metrics = {"cost": float(steps) if plan is None else plan.cost(steps)}
    for name, loss in conditions(net, params, real, labels).items():

        def draw(key, scale, loss=loss, denoiser=denoiser):
            solver = ddim() if plan is None else planned(ddim(), loss, scale, plan, steps, limit=8.0)
            return generate(key, denoiser, process, solver, grid, like)

        run, found = jax.jit(draw), []
        for scale in SCALES if plan is not None else SCALES[:1]:
            x = np.clip(np.asarray(run(fold(key, 5), scale)), -1, 1)
            value, entries = scores(name, x)
            found.append((value, {**entries, f"fd_{name}": digits.frechet(x), f"scale_{name}": scale}))
        metrics |= min(found, key=lambda pair: pair[0])[1]
        if name == "class":
            times = []
            for _ in range(3):
                start = time.perf_counter()
                run(fold(key, 5), 4.0).block_until_ready()
                times.append(time.perf_counter() - start)
            metrics["seconds"] = min(times)
        if name == "average":  # the cheapest loss, to count with
            seen, counts = counted(denoiser)
            jax.jit(lambda key, draw=draw, seen=seen: draw(key, 4.0, denoiser=seen))(fold(key, 6)).block_until_ready()
            forward, backward, levels = counts()
            metrics |= {"counted": forward + VJP_COST * backward, "levels": levels}
    return metrics


def _mean(table, arm, metric):
    return table[arm][metric].mean()


def _beats(table, control):
    return _mean(table, "cheap", "accuracy") >= _mean(table, control, "accuracy") + 0.1 or 1.4 * _mean(
        table, "cheap", "error_average"
    ) <= _mean(table, control, "error_average")


CLAIMS = {
    "cheaper": (
        "the cheap plan's counted cost is at least 3 times lower, its time after compiling at least 2 times",
        lambda t: (
            _mean(t, "full", "cost") >= 3 * _mean(t, "cheap", "cost")
            and _mean(t, "full", "seconds") >= 2 * _mean(t, "cheap", "seconds")
        ),
    ),
    "as_good": (
        "accuracy at least 95 % of the full arm's, errors at most 1.15 times, Frechet distances at most 1.25 times",
        lambda t: (
            _mean(t, "cheap", "accuracy") >= 0.95 * _mean(t, "full", "accuracy")
            and all(_mean(t, "cheap", m) <= 1.15 * _mean(t, "full", m) for m in ("error_average", "error_center"))
            and all(_mean(t, "cheap", m) <= 1.25 * _mean(t, "full", m) for m in ("fd_class", "fd_average", "fd_center"))
        ),
    ),
    "placement": (
        "guidance outside the interval, in the first or in the last 40 % is worse by 10 points or 1.4 times",
        lambda t: all(_beats(t, control) for control in ("outside", "first", "last")),
    ),
    "unguided": (
        "without guidance 5 to 15 % of the samples are of the class",
        lambda t: 0.05 <= _mean(t, "none", "accuracy") <= 0.15,
    ),
    "counted": (
        "evaluations counted as they run equal the plan's closed form, over one noise level a step, every seed",
        lambda t: all(
            bool((row["counted"] == row["cost"]).all() and (row["levels"] == PLANS[arm][1]).all())
            for arm, row in t.items()
        ),
    ),
}
