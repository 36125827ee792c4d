"""Towards Practical Plug-and-Play Diffusion Models (arXiv 2212.05973).

    genjax reproduce ppap

A classifier of clean data becomes a guide without a label: five copies, each for a fifth of the noise levels, with
low-rank adapters (rank 4, and biases but the last), taught to say of noised generated pictures what the classifier
says of the clean ones. 3,000 pictures by 25 steps of DDIM from an MLP prior of the digits; 250 steps an expert, each
from the classifier itself; `single` is one adapter for all levels, 1,250 steps; `labelled` are five experts with the
training pictures' labels (upper bound); `naive` is the classifier as it is. Guided samples: eps shift, 50 steps of
DDIM, 500 samples, scales 1, 2, 4 and 8; success by a judge that is none of these. Rules fixed before the runs, means
over seeds:

1. The best success of the experts is at least 0.2 above the best of naive, and at least 0.02 above what single
   reaches at scales whose Frechet distance is at most 1.05 of theirs; or else theirs is at most 0.9 of single's
   smallest with at least their success less 0.02.
2. At most 20 % of the weights of an expert are trained.
3. Accuracy on noisy held-out digits, range by range: the experts never more than 0.02 below single, and at least
   0.03 above it in two of the five ranges.

What fails, and why as far as known. `specialised`: the experts' accuracy by range is 0.975, 0.885, 0.650, 0.350, 0.122,
single's 0.968, 0.891, 0.682, 0.385, 0.163. There is no room for the claim on digits: the exact posterior of a mixture
fitted to them has 0.99, 0.97, 0.80, 0.46, 0.17, so that one adapter that sees no level is near the optimum at all of
them. Nor is it the budget alone: in a pilot (one seed, pictures drawn from that mixture) with 10 times the steps for
both and a rate of 5e-3 the experts had 0.976, 0.939, 0.780, 0.456, 0.191, single 0.974, 0.945, 0.788, 0.464, 0.189 (in
cross-entropy the experts lead from the third range on, 0.665 against 0.672, 1.56 against 1.59, 2.22 against 2.25); with
rank 1 and 4 times the steps single stays level too. `guides`: success 0.80 of the experts, 0.62 naive, 0.88 single at
scale 8 (FD 8.9, 15.5, 5.3). 250 steps are too few for an expert: labels, which should bound it, give 0.81 (FD 8.9).

`get_config("paper")`: the unconditional prior on ImageNet at 64x64 (there at 256x256; scale 7.5).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from genjax import build
from genjax.algorithms.supervised import supervised
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.cli import runner_guidance as guides
from genjax.core.keys import fold, per_sample
from genjax.core.keys import uniform as uniform_numbers
from genjax.core.prediction import clip_x0
from genjax.core.trees import merge, partition
from genjax.guidance import chain, classifier, equal_ranges, expert_bank, stack_experts
from genjax.losses.guides import knowledge_transfer, noisy_classification
from genjax.losses.times import uniform
from genjax.networks.lora import lora_init, lora_merge
from genjax.solvers import ddim, generate, grids

PAPER = {
    "number": 56,
    "title": "Towards Practical Plug-and-Play Diffusion Models",
    "year": 2023,
    "arxiv": "2212.05973",
    "family": "guidance",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3
EXPERTS, RANK, SCALES = 5, 4, (1.0, 2.0, 4.0, 8.0)
BIASES = r"(?<!logits/)bias$"


def get_config(scale="small"):
    if scale == "paper":
        return guides.adm_config(540000, 2048, learning_rate=3e-4)
    return digits.base_config(
        scale,
        4000,
        process={"name": "cosine"},
        denoiser={"target": "eps", "scale_input": False},
        loss={"name": "denoising", "time_sampler": {"name": "uniform"}, "weighting": {"name": "eps"}},
    )


VARIANTS = {"digits": {"part": "digits"}}


def times_between(process, low, high):
    """Uniform times in [low, high]."""
    return uniform(process)._replace(sample=lambda state, u: low + (high - low) * u)


def parts_of(config):
    """The number of experts: a program each, so fewer where nothing is measured."""
    return EXPERTS if config.scale == "small" else 2


def adapters(key):
    """(take, put) of `supervised`: low-rank adapters of all kernels, and the biases but the last."""

    def take(params):
        return {"lora": lora_init(key, params, RANK), "bias": partition(params, BIASES)[0]}

    def put(params, taken):
        return merge(taken["bias"], partition(lora_merge(params, taken["lora"]), BIASES)[1])

    return take, put


def train(config, key, priors):
    small, process = config.scale == "small", build.process(config)
    steps, count, warm = (250, 3000, 1200) if small else (4, 64, 20)
    parts = parts_of(config)
    x, label = guides.labelled()
    state = run.train(config, key, priors)
    net = guides.classifier_net(process, clean=True)
    params = guides.fit_classifier(process, fold(key, 1), {"x": x, "label": label}, warm, clean=True)
    denoiser, _ = guides.denoiser_of(config, digits.spec(), state)
    made = jax.jit(
        lambda key: generate(
            key,
            clip_x0()(denoiser, process),
            process,
            ddim(),
            grids.uniform(process, 25 if small else 3),
            jnp.zeros((count, 64)),
        )
    )(fold(key, 2))
    pictures = {"x": np.clip(np.asarray(made), -1, 1)}  # without labels
    teacher = lambda x: net.apply(params, {}, x)[0]
    inputs = lambda batch: (batch["x"], jnp.full(1, 0.5))
    low, high = float(process.t_min), float(process.t_max)
    ends = [low, *equal_ranges(parts, low, high).tolist(), high]

    def fit(i, arrays, loss, steps):
        recipe = supervised(
            net,
            loss,
            guides.optimizer(steps),
            inputs=inputs,
            models={"teacher": teacher},
            trainable=adapters(fold(key, 9)),
        )
        start = {"guide": jax.tree.map(jnp.asarray, params)}
        return run.fit(recipe, arrays, fold(key, 10 + i), steps, 128 if small else 16, priors=start)[-1][1].params[
            "guide"
        ]

    between = [times_between(process, *pair) for pair in itertools.pairwise(ends)]
    experts = [fit(i, pictures, knowledge_transfer(process, times), steps) for i, times in enumerate(between)]
    labelled = {"x": x, "label": label}
    told = [fit(i, labelled, noisy_classification(process, times), steps) for i, times in enumerate(between)]
    single = fit(20, pictures, knowledge_transfer(process, uniform(process)), parts * steps)
    return {
        "prior": state,
        "params": params,
        "experts": stack_experts(experts),
        "labelled": stack_experts(told),
        "single": stack_experts([single]),
    }


def measure(config, key, priors):
    trained, small, process = priors["ppap"], config.scale == "small", build.process(config)
    n, steps = (500, 50) if small else (20, 4)
    denoiser, _ = guides.denoiser_of(config, digits.spec(), trained["prior"])
    net, params = guides.classifier_net(process, clean=True), trained["params"]
    _, put = adapters(fold(key, 9))
    low, high = float(process.t_min), float(process.t_max)
    parts = parts_of(config)
    edges = {"experts": equal_ranges(parts, low, high), "labelled": equal_ranges(parts, low, high), "single": []}
    guide_of = lambda taken: lambda x, t: net.apply(put(params, taken), {}, x)[0]
    banks = {name: expert_bank(guide_of, trained[name], edge) for name, edge in edges.items()}
    banks["naive"] = lambda x, t: net.apply(params, {}, x)[0]
    labels, like, grid = jnp.arange(n) % guides.CLASSES, jnp.zeros((n, 64)), grids.uniform(process, steps)
    metrics = {}
    for name, bank in banks.items():

        def log_prob(x, t, cond, bank=bank):
            return jnp.take_along_axis(jax.nn.log_softmax(bank(x, t)), labels[:, None], axis=1)[:, 0]

        def draw(key, scale, log_prob=log_prob):
            steer = chain(classifier(log_prob, scale), clip_x0())
            return generate(key, steer(denoiser, process), process, ddim(), grid, like)

        draw = jax.jit(draw)
        for scale in SCALES:
            x = np.clip(np.asarray(draw(fold(key, 5), scale)), -1, 1)
            metrics |= {
                f"success_{name}_{scale:g}": guides.accuracy(x, labels),
                f"fd_{name}_{scale:g}": digits.frechet(x),
            }
        if name == "naive":
            metrics["success_none"] = guides.accuracy(draw(fold(key, 5), 0.0), labels)
    real, truth = jnp.asarray(digits.held_out()), jnp.asarray(guides.held_out_labels())
    for name, bank in banks.items():

        @jax.jit
        def right(key, low, high, bank=bank):
            keys = per_sample(key, len(real))
            t = low + (high - low) * uniform_numbers(fold(keys, 0), (len(real),))
            x, _ = process.corrupt(fold(keys, 1), real, t)
            return jnp.mean(jnp.argmax(bank(x, t), axis=1) == truth)

        ends = np.linspace(low, high, parts + 1)
        for i in range(parts):
            draws = [right(fold(fold(key, 6), j), ends[i], ends[i + 1]) for j in range(4 if small else 1)]
            metrics[f"right_{name}_{i}"] = np.mean([float(v) for v in draws])
    one = jax.tree.map(lambda leaf: leaf[0], trained["experts"])
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    return {**metrics, "trained_share": size(one) / size(params)}


def _arm(table, name):
    """[(success, FD)] at each scale, means over seeds."""
    row = table["digits"]
    return [(row[f"success_{name}_{s:g}"].mean(), row[f"fd_{name}_{s:g}"].mean()) for s in SCALES]


def _better_guide(table):
    best, fd = max(_arm(table, "experts"))
    naive = max(success for success, _ in _arm(table, "naive"))
    matched = [success for success, other in _arm(table, "single") if other <= 1.05 * fd]
    equal = [other for success, other in _arm(table, "single") if success >= best - 0.02]
    more = best >= max(matched, default=0.0) + 0.02
    return best >= naive + 0.2 and (more or fd <= 0.9 * min(equal, default=np.inf))


def _gaps(table):
    row = table["digits"]
    return [row[f"right_experts_{i}"].mean() - row[f"right_single_{i}"].mean() for i in range(EXPERTS)]


CLAIMS = {
    "guides": (
        "the experts' success is 0.2 above the naive classifier's, 0.02 above a single adapter's at a matched distance",
        _better_guide,
    ),
    "small": (
        "at most 20 % of the weights of an expert are trained",
        lambda t: bool((t["digits"]["trained_share"] <= 0.2).all()),
    ),
    "specialised": (
        "accuracy on noisy digits: never 0.02 below the single adapter's, 0.03 above it in two of five ranges",
        lambda t: min(_gaps(t)) >= -0.02 and sum(gap >= 0.03 for gap in _gaps(t)) >= 2,
    ),
}
