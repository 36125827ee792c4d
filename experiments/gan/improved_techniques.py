"""Improved Techniques for Training GANs (arXiv 1606.03498).

    genjax reproduce improved_techniques

A. `digits_*`: a classifier of digits from 5 labels a class and the other 1,388 training digits without labels. D is
   64-96-96-10 with noise 0.3 on the input and 0.2 on the hidden layers, its logit of "generated" 0; G 32-96-96-64; Adam
   5e-4 (0.5), every step all 50 labels, 50 unlabelled and 100 generated digits. Arms, 1,200 steps: `digits_supervised`
   (the unsupervised part has weight 0), `digits_plain` (L_G = -log D_r), `digits_matching` (feature matching), and
   the first and the last at 4,000 steps (`_long`); `digits_shuffled` is `digits_plain` with the pixels of each
   unlabelled digit in a random order, which takes what could be learned from them. Error on the 359 test digits, 5
   draws of labels. Pass: the better of `digits_plain` and `digits_matching` has at most 0.85 of the supervised
   error (means) and less in at least 4 of 5 draws; `digits_matching_long` at most that of `digits_supervised_long`;
   the error of `digits_shuffled` is at least 0.95 of the supervised one.
B. `ring_*`: a ring of 8 Gaussians (radius 2, std 0.1), G 8-64-64-2, D 2-64-64, non-saturating loss, Adam 1e-3 (0.5),
   batch 48, 1,200 steps, with (`ring_minibatch`, 8 kernels of size 4) and without minibatch discrimination
   (`ring_plain`). Pass: at least 1.5 modes more are covered with it (1 % of 4,000 samples within three
   standard deviations each; means over 5 seeds).

Two claims fail. `matching`: at 4,000 steps feature matching has an error of 0.168, the supervised network 0.136; it is
no better at 1,200 steps (0.153 against 0.135), where -log D_r gives 0.100. The paper trains it for hundreds of
epochs, with weight normalization and more labels; why it harms here is not known. `modes`: the plain game covers all
8 modes with every seed, so nothing is left to gain on this ring (the specification's trial had 2 or 3 of 8 without);
the share of samples within three standard deviations does rise, from 0.34 to 0.54.

The exact statements (Inception Score, historical averaging, one-sided smoothing, virtual batch norm) are tests.

`get_config("paper")`: CIFAR-10 with labels, the model of table 3 (Inception Score 8.09).
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from genjax import build
from genjax.algorithms.semi_supervised import with_labelled
from genjax.cli import runner_default
from genjax.cli import runner_features as judged
from genjax.cli import runner_gan as run
from genjax.cli.runner_probes import critique_of
from genjax.core.keys import fold
from genjax.data.views import few_labels

PAPER = {
    "number": 75,
    "title": "Improved Techniques for Training GANs",
    "year": 2016,
    "arxiv": "1606.03498",
    "family": "gan",
    "kind": "method",
}
PRIORS = ()
SEEDS = 5
PER_CLASS = 5


def get_config(scale="small"):
    if scale == "paper":
        return paper_config()
    smoke = scale == "smoke"
    network = {"name": "mlp", "width": 16 if smoke else 96, "depth": 1 if smoke else 2}
    return run.digits_config(
        scale,
        1200,
        batch_size=50,
        generator=dict(network),
        discriminator={**network, "head": "classes", "input_noise": 0.3, "hidden_noise": 0.2},
        loss={"name": "semi_supervised", "weight": 1.0, "reals": "unlabelled"},
        eval={"num": 64 if smoke else 4000},
    )


SUPERVISED, LONG = {"loss.weight": 0.0}, {"part": "long"}
MATCHING = {
    "loss": {
        "name": "feature_matching",
        "base": {"name": "semi_supervised", "weight": 1.0, "reals": "unlabelled"},
        "norm": "l2",
    }
}
RING = {
    "part": "ring",
    "data": {"name": "ring", "radius": 2.0, "std": 0.1},
    "generator": {"name": "mlp", "width": 64, "depth": 2},
    "discriminator": {"name": "mlp", "width": 64, "depth": 2},
    "latent": {"name": "normal", "dim": 8},
    "loss": {"name": "non_saturating"},
    "optimizer.learning_rate": 1e-3,
    "train.batch_size": 48,
}
MINIBATCH = {"name": "mlp", "width": 64, "depth": 2, "minibatch": 8, "minibatch_dim": 4}
VARIANTS = {
    "digits_supervised": SUPERVISED,
    "digits_plain": {},
    "digits_matching": MATCHING,
    "digits_shuffled": {"part": "shuffled"},
    "digits_supervised_long": {**SUPERVISED, **LONG},
    "digits_matching_long": {**MATCHING, **LONG},
    "ring_plain": RING,
    "ring_minibatch": {**RING, "discriminator": MINIBATCH},
}


def known_labels(key):
    """(50 labelled training digits, the others without labels) of a seed, two Datasets."""
    return few_labels(judged.sets("digits_vector")[0], PER_CLASS, run.seed_of(fold(key, 7)))


def train(config, key, priors):
    """The State at the end."""
    config = config.copy_and_resolve_references().unlock()
    if config.part == "ring":
        return run.fit(config, key)[-1][1]
    if config.part == "long" and config.scale == "small":
        config.train.steps = 4000
    labelled, rest = known_labels(key)
    arrays = dict(rest.arrays)
    if config.part == "shuffled":
        order = np.random.default_rng(run.seed_of(fold(key, 8)))
        arrays["x"] = order.permuted(arrays["x"], axis=1)
    plan = build.plan(runner_default.model_config(config))
    algorithm = with_labelled(run.game(config).algorithm)
    priors = {"labelled": labelled.arrays}
    return runner_default.fit(algorithm, arrays, key, plan.steps, plan.batch_size, priors=priors)[-1][1]


def measure(config, key, priors):
    state = priors["improved_techniques"]
    if config.part == "ring":
        return run.toy_measures(config, run.draw(config, state, fold(key, 5), config.eval.num))
    test = judged.sets("digits_vector")[1].arrays
    critique = critique_of(run.game(config), jax.tree.map(jnp.asarray, state))(test["x"])
    wrong = np.asarray(critique.extra["class_logits"]).argmax(axis=1) != test["label"]
    x = run.draw(config, state, fold(key, 5), min(2000, config.eval.num))
    return {"error": wrong.mean(), "fd": run.digit_measures(x)["fd"], "logit_held_out": np.mean(critique.logits)}


def _gain(t):
    best = min(("digits_plain", "digits_matching"), key=lambda arm: t[arm]["error"].mean())
    return t[best]["error"], t["digits_supervised"]["error"]


CLAIMS = {
    "unlabelled_help": (
        "the better semi-supervised arm has at most 0.85 of the supervised error, and less in 4 of 5 draws of labels",
        lambda t: (lambda a, b: bool(a.mean() <= 0.85 * b.mean() and np.mean(a < b) >= 0.8))(*_gain(t)),
    ),
    "matching": (
        "feature matching at 4,000 steps has at most the error of the supervised network at 4,000 steps",
        lambda t: t["digits_matching_long"]["error"].mean() <= t["digits_supervised_long"]["error"].mean(),
    ),
    "shuffled": (
        "unlabelled digits with shuffled pixels do not help: at least 0.95 of the supervised error",
        lambda t: t["digits_shuffled"]["error"].mean() >= 0.95 * t["digits_supervised"]["error"].mean(),
    ),
    "modes": (
        "minibatch discrimination covers at least 1.5 modes of 8 more",
        lambda t: t["ring_minibatch"]["modes"].mean() >= t["ring_plain"]["modes"].mean() + 1.5,
    ),
}


def paper_config():
    """Section 6.2, table 3, "our methods": labels, minibatch discrimination, smoothed labels, virtual batch norm."""
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "tfds", "dataset": "cifar10"},
            "generator": {"name": "dcgan", "width": 128, "norm": "virtual"},
            "discriminator": {
                "name": "dcgan",
                "width": 96,
                "head": "classes",
                "minibatch": 50,
                "dropout": 0.5,
                "input_noise": 0.05,
            },
            "latent": {"name": "uniform", "dim": 100},
            "loss": {"name": "semi_supervised", "weight": 1.0},
            "penalties": {"historical_averaging": {"weight": 1e-3}},
            "algorithm": {"name": "gan"},
            "optimizer": {"name": "adam", "learning_rate": 3e-4, "b1": 0.5, "b2": 0.999},
            "precision": "float32",
            "train": {"steps": 600000, "batch_size": 100},
            "eval": {"num": 50000},
        }
    )
