"""Self-Guided Diffusion Models (arXiv 2210.06462).

    genjax reproduce self_guided_diffusion

Classifier-free guidance with labels that the data give themselves: clusters of a self-supervised encoder's features.
Arms differ in the label alone: none, 30 clusters of a SimCLR encoder trained without labels (`self`), the true
class, or the clusters permuted over the pictures (`random`). Digits under one MLP (v-prediction, 3,000 steps), 25
steps of DDIM at w in {1, 1.25, 1.5, 2, 3}, conditions drawn by their frequencies, 1,800 samples; Frechet distance
(FD) in features of a supervised classifier, never of the encoder. Rules fixed before the runs, means over seeds:

1. self at its best w: FD at most 0.6 of no guidance's; that w lies strictly between 1 and 3, and its FD is at most
   0.85 of that at w = 1; at most 1.15 of the true class's best.
2. random: FD at least 0.8 of no guidance's at every w, and 0.9 at w of at most 2.
3. recall (k = 3) of self at w of at most 1.5 is at least 0.8 of no guidance's.

Reported: purity of the clusters, 10 and 100 of them, and of raw pixels; the share of samples nearer to a training
picture than the held-out digits' median. (Unbalanced data, boxes and segmentations are left out.)

`get_config("paper")`: ImageNet at 64x64; with 5,000 clusters in the place of 1,000 classes there.
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
from genjax.core.keys import fold, normal, per_sample, uniform
from genjax.core.prediction import clip_x0
from genjax.data.spec import DataSpec
from genjax.guidance import cfg, chain, draw_labels, purity, self_label
from genjax.losses.contrastive import nt_xent
from genjax.metrics import precision_recall
from genjax.networks import linen_net
from genjax.solvers import ddim, generate, grids

PAPER = {
    "number": 170,
    "title": "Self-Guided Diffusion Models",
    "year": 2023,
    "arxiv": "2210.06462",
    "family": "guidance",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3
CLUSTERS, WEIGHTS = 30, (1.0, 1.25, 1.5, 2.0, 3.0)


def get_config(scale="small"):
    if scale == "paper":
        return guides.adm_config(500000, 256, algorithm={"name": "diffusion", "cond": ("label",), "label_drop": 0.1})
    smoke = scale == "smoke"
    return digits.base_config(
        scale,
        3000,
        network={"name": "mlp", "width": 16 if smoke else 112, "depth": 1 if smoke else 2},
        process={"name": "cosine"},
        denoiser={"target": "v", "scale_input": False},
        loss={"name": "denoising", "time_sampler": {"name": "uniform"}, "weighting": {"name": "v"}},
        algorithm={"name": "diffusion", "cond": ("label",), "label_drop": 0.1},
    )


VARIANTS = {
    "none": {"part": "none", "algorithm": {"name": "diffusion"}},
    **{name: {"part": name} for name in ("self", "class", "random")},
}


class Encoder(nn.Module):
    """Features and, after them, the head that the contrastive loss sees and that is then thrown away."""

    @nn.compact
    def __call__(self, x, train=False):
        h = nn.relu(nn.Dense(128)(x))
        features = nn.Dense(64)(nn.relu(nn.Dense(128)(h)))
        return nn.Dense(32)(nn.relu(nn.Dense(64)(features))), features


def view(keys, x):
    """A picture [B, 64] shifted by up to one pixel, scaled and noised, at random."""
    offsets = jnp.floor(3 * uniform(fold(keys, 0), (x.shape[0], 2))).astype(jnp.int32)
    padded = jnp.pad(x.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), constant_values=-1.0)
    moved = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1]), (8, 8)))(padded, offsets)
    scale = 0.8 + 0.4 * uniform(fold(keys, 1), (x.shape[0], 1))
    return scale * moved.reshape(x.shape) + 0.3 * normal(fold(keys, 2), x.shape)


def encode(config, key, x):
    """Features [N, 64] of an encoder trained on x without labels."""
    net, steps = linen_net(Encoder()), 1500 if config.scale == "small" else 10

    def loss(key, models, batch):
        keys = per_sample(key, batch["x"].shape[0])
        first, second = (models["guide"](view(fold(keys, i), batch["x"]))[0] for i in (1, 2))
        return nt_xent(first, second), {}

    recipe = supervised(net, loss, guides.optimizer(steps), inputs=lambda batch: (batch["x"],))
    params = run.fit(recipe, {"x": x}, key, steps, 256 if config.scale == "small" else 16)[-1][1].params["guide"]
    return np.asarray(net.apply(params, {}, jnp.asarray(x))[0][1])


def labels_of(config, key):
    """(labels [N] or None, number of them, purities) of an arm."""
    x, true = guides.labelled()
    if config.part == "none":
        return None, 0, {}
    if config.part == "class":
        return true, guides.CLASSES, {}
    features = encode(config, fold(key, 7), x)
    seed = run.seed_of(fold(key, 8))
    found = self_label(features, CLUSTERS, seed)
    purities = {f"purity_{k}": purity(self_label(features, k, seed).ids, true) for k in (10, 100)}
    purities |= {f"purity_{CLUSTERS}": purity(found.ids, true)}
    purities |= {"purity_pixels": purity(self_label(x, CLUSTERS, seed).ids, true)}
    ids = found.ids if config.part == "self" else np.random.default_rng(seed).permutation(found.ids)
    return ids, CLUSTERS, purities


def spec(count):
    """The DataSpec of digits with so many labels."""
    return DataSpec((64,), count, (-1.0, 1.0), 0, ("x", "label") if count else ("x",))


def train(config, key, priors):
    labels, count, purities = labels_of(config, key)
    arrays = {"x": digits.training()} | ({} if labels is None else {"label": labels.astype(np.int32)})
    inner = run.model_config(config)
    plan = build.plan(inner)
    state = run.fit(build.algorithm(inner, spec(count)), arrays, key, plan.steps, plan.batch_size)[-1][1]
    share = np.ones(1) if labels is None else np.bincount(labels, minlength=count) / len(labels)
    return {"state": state, "share": share, "purities": purities}


def measure(config, key, priors):
    trained, small = priors["self_guided_diffusion"], config.scale == "small"
    count = 0 if config.part == "none" else len(trained["share"])
    denoiser, process = guides.denoiser_of(config, spec(count), trained["state"])
    n, steps = (1800, 25) if small else (40, 4)
    rng = np.random.default_rng(run.seed_of(fold(key, 9)))
    cond = {"label": jnp.asarray(draw_labels(rng, trained["share"], n))} if count else None
    grid, like = grids.uniform(process, steps), jnp.zeros((n, 64))

    @jax.jit
    def draw(key, w):
        return generate(key, chain(cfg(w), clip_x0())(denoiser, process), process, ddim(), grid, like, cond)

    real, held = guides.features(digits.training()), digits.held_out()
    nearest = lambda x: np.sqrt(((x[:, None] - digits.training()[None]) ** 2).sum(-1)).min(1)
    usual, metrics = np.median(nearest(held[:100])), {k: float(v) for k, v in trained["purities"].items()}
    for w in WEIGHTS if count else WEIGHTS[:1]:
        x = np.clip(np.asarray(draw(fold(key, 5), w)), -1, 1)
        near = precision_recall(real, guides.features(x))
        metrics |= {f"fd_{w:g}": digits.frechet(x), f"precision_{w:g}": near.precision, f"recall_{w:g}": near.recall}
        metrics[f"copies_{w:g}"] = np.mean(nearest(x[:100]) < usual)
    return metrics


def _fd(table, arm):
    """Mean FD at each w."""
    return {w: table[arm][f"fd_{w:g}"].mean() for w in (WEIGHTS if arm != "none" else WEIGHTS[:1])}


def _best(table, arm):
    """(w, FD) of an arm's best."""
    return min(_fd(table, arm).items(), key=lambda pair: pair[1])


CLAIMS = {
    "guides": (
        "clusters at their best w have at most 0.6 of the FD without guidance",
        lambda t: _best(t, "self")[1] <= 0.6 * _fd(t, "none")[1.0],
    ),
    "inside": (
        "their best w lies strictly between 1 and 3, with at most 0.85 of the FD at w = 1",
        lambda t: 1 < _best(t, "self")[0] < 3 and _best(t, "self")[1] <= 0.85 * _fd(t, "self")[1.0],
    ),
    "as_labels": (
        "their best FD is at most 1.15 times that of the true classes",
        lambda t: _best(t, "self")[1] <= 1.15 * _best(t, "class")[1],
    ),
    "not_random": (
        "permuted clusters keep at least 0.8 of the FD without guidance at every w, 0.9 at w of at most 2",
        lambda t: all(fd >= (0.9 if w <= 2 else 0.8) * _fd(t, "none")[1.0] for w, fd in _fd(t, "random").items()),
    ),
    "covers": (
        "the recall with clusters at w of at most 1.5 is at least 0.8 of that without guidance",
        lambda t: all(
            t["self"][f"recall_{w:g}"].mean() >= 0.8 * t["none"]["recall_1"].mean() for w in WEIGHTS if w <= 1.5
        ),
    ),
}


def figure(table, path):
    """Frechet distance and recall over w, one line an arm, seeds thin."""
    from matplotlib.figure import Figure

    from genjax.cli.runner_report import save_figure

    picture = Figure(figsize=(8.4, 3.4), layout="constrained")
    axes = picture.subplots(1, 2)
    for axis, metric, name in zip(axes, ("fd", "recall"), ("Frechet distance", "recall (k = 3)")):
        for i, arm in enumerate(a for a in table if a != "none"):
            curves = np.stack([table[arm][f"{metric}_{w:g}"] for w in WEIGHTS])
            axis.plot(WEIGHTS, curves, color=f"C{i}", alpha=0.3, linewidth=0.8)
            axis.plot(WEIGHTS, curves.mean(axis=1), "o-", color=f"C{i}", markersize=3, label=arm)
        axis.axhline(table["none"][f"{metric}_1"].mean(), color="0.4", linestyle="--", label="no labels")
        axis.set(xlabel="w", ylabel=name)
    axes[0].set_yscale("log")
    axes[0].legend(fontsize=8)
    picture.suptitle("Guidance by clusters, classes and permuted clusters of the digits (arXiv 2210.06462)", fontsize=9)
    save_figure(picture, path)
