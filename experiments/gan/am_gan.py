"""Activation Maximization Generative Adversarial Nets (arXiv 1703.02000).

    genjax reproduce am_gan

Digits as 64-vectors; G 32-128-128-64, D 64-128-128-11 (the 11th class is "generated"), Adam 5e-4 (0.5, 0.999), batch
64, 2,000 steps, Gaussian noise 0.05 on all that D sees, no average of the weights. The arms differ in the loss: `gan`
(two classes, non-saturating), `label_gan` (-log D_r), `am_dynamic` (cross-entropy to the most probable class),
`am_balanced` (the same with rare classes favoured, which small data need), `am_predefined` (G is given the class). An
independent classifier judges 2,000 samples, the smoothing of its labels taken away. Rules fixed before the run, means
over seeds:

1. AM score (lower is better) of `am_balanced` at most 0.85 of `gan`'s and 0.6 of `label_gan`'s.
2. The classifier is surer of the samples of each of the four arms with classes than of `gan`'s (mean largest
   probability).
3. The quality part E H of `am_dynamic` is at most 0.8 of `gan`'s.
4. The Frechet distance (FD) of `am_balanced` is at most 0.85 of `gan`'s.
5. Every class makes up at least 4 % of the samples of `am_balanced` and of `am_predefined`, every seed.
6. `sets`, of real test digits: the AM score ranks (i) the digits < (iii) averages of pairs of different classes < (ii)
   the digits of 5 classes. The Inception Score's order and the parts of both are reported.

1 fails in its second half: AM scores of 0.68 balanced, 1.03 for the plain GAN and 0.78 for LabelGAN, 0.88 of which is
more than 0.6. The specification's trial had 0.18, 0.26 and 0.44: its classifier was surer of everything, and its
LabelGAN lost more classes (the part KL was 0.18 to 0.39 there, 0.15 here). The judge here was trained under noise
and shifts and doubts samples (E H of 0.6 to 1.0, 0.15 of real digits), so the part in which balanced labels
differ, KL (0.007 against 0.150), is small beside the part in which they do not. With predefined labels: 0.30.

The class-aware gradients and the decomposition of the loss are tests.

`get_config("paper")`: CIFAR-10, dynamic labels; the paper reports an Inception Score of 8.91 with predefined ones.
"""

import numpy as np
from ml_collections import ConfigDict

from genjax import metrics
from genjax.cli import runner_features as judged
from genjax.cli import runner_gan as run
from genjax.core.keys import fold
from genjax.data.views import mixed_pairs

PAPER = {
    "number": 198,
    "title": "Activation Maximization Generative Adversarial Nets",
    "year": 2018,
    "arxiv": "1703.02000",
    "family": "gan",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3


def get_config(scale="small"):
    if scale == "paper":
        return paper_config()
    config = run.digits_config(
        scale,
        2000,
        loss={"name": "am_gan", "labels": "balanced"},
        augment={"name": "instance_noise", "std": 0.05},
        eval={"num": 64 if scale == "smoke" else 2000},
    )
    config.discriminator.head = "extra_class"
    del config.ema
    return config


def _am(labels):
    return {"loss": {"name": "am_gan", "labels": labels}}


VARIANTS = {
    "gan": {"loss": {"name": "non_saturating"}, "discriminator.head": "linear"},
    "label_gan": {"loss": {"name": "label_gan"}},
    "am_dynamic": _am("dynamic"),
    "am_balanced": _am("balanced"),
    "am_predefined": {**_am("predefined"), "algorithm": {"name": "gan", "cond": ("label",)}},
    "sets": {"part": "sets"},
}
WITH_CLASSES = ("label_gan", "am_dynamic", "am_balanced", "am_predefined")


def train(config, key, priors):
    """The State at the end."""
    return None if config.part == "sets" else run.fit(config, key)[-1][1]


def measure_sets(key):
    """Both scores of sets made of real test digits whose faults are known."""
    test = judged.sets("digits_vector")[1].arrays
    seed = run.seed_of(fold(key, 5))
    five = np.random.default_rng(seed).permutation(10)[:5]
    mixed = mixed_pairs(test["x"], test["label"], 2000, seed)
    sets = {"real": test["x"], "five_classes": test["x"][np.isin(test["label"], five)], "mixed": mixed}
    found = {}
    for name, x in sets.items():
        found |= {f"{metric}_{name}": value for metric, value in certainty(x).items()}
    return found


def certainty(x):
    """{am_score, am_entropy, am_kl, inception_score, confidence} of digits x."""
    logits, reference = (judged.certain(y) for y in (x, judged.sets("digits_vector")[0].arrays["x"]))
    am = metrics.am_score(logits, reference)
    return {
        "am_score": am.score,
        "am_entropy": am.entropy,
        "am_kl": am.kl,
        "inception_score": metrics.inception_score(logits)[0],
        "confidence": np.exp(logits).max(axis=1).mean(),
    }


def measure(config, key, priors):
    if config.part == "sets":
        return measure_sets(key)
    x = run.draw(config, priors["am_gan"], fold(key, 5), config.eval.num)
    return run.digit_measures(x) | certainty(x)


CLAIMS = {
    "am_score": (
        "the AM score with balanced labels is at most 0.85 of the plain GAN's and 0.6 of LabelGAN's",
        lambda t: (
            t["am_balanced"]["am_score"].mean() <= 0.85 * t["gan"]["am_score"].mean()
            and t["am_balanced"]["am_score"].mean() <= 0.6 * t["label_gan"]["am_score"].mean()
        ),
    ),
    "confidence": (
        "the judge is surer of the samples of every arm with classes than of the plain GAN's",
        lambda t: all(t[arm]["confidence"].mean() > t["gan"]["confidence"].mean() for arm in WITH_CLASSES),
    ),
    "quality": (
        "the entropy part of the AM score with plain dynamic labels is at most 0.8 of the plain GAN's",
        lambda t: t["am_dynamic"]["am_entropy"].mean() <= 0.8 * t["gan"]["am_entropy"].mean(),
    ),
    "distance": (
        "the Frechet distance with balanced labels is at most 0.85 of the plain GAN's",
        lambda t: t["am_balanced"]["fd"].mean() <= 0.85 * t["gan"]["fd"].mean(),
    ),
    "classes": (
        "with balanced and with predefined labels every class has at least 4 % of the samples, every seed",
        lambda t: all(bool((t[arm]["smallest_class"] >= 0.04).all()) for arm in ("am_balanced", "am_predefined")),
    ),
    "ranking": (
        "the AM score ranks real digits < averages of digits < half of the classes, every seed",
        lambda t: bool(
            (t["sets"]["am_score_real"] < t["sets"]["am_score_mixed"]).all()
            and (t["sets"]["am_score_mixed"] < t["sets"]["am_score_five_classes"]).all()
        ),
    ),
}


def figure(table, path):
    """The two parts of the AM score, of every arm and of the sets of real digits."""
    from matplotlib.figure import Figure

    from genjax.cli.runner_report import save_figure

    picture = Figure(figsize=(9, 3.4), layout="constrained")
    panels = picture.subplots(1, 2, width_ratios=(5, 3))
    arms = {arm: (table[arm]["am_entropy"], table[arm]["am_kl"]) for arm in table if arm != "sets"}
    row = table["sets"]
    sets = {name: (row[f"am_entropy_{name}"], row[f"am_kl_{name}"]) for name in ("real", "mixed", "five_classes")}
    for axis, bars, title in ((panels[0], arms, "arms"), (panels[1], sets, "sets of real digits")):
        low, high = ([np.mean(v[i]) for v in bars.values()] for i in (0, 1))
        axis.bar(list(bars), low, label="E H: unsure of samples")
        axis.bar(list(bars), high, bottom=low, label="KL: classes missing")
        axis.set_title(title, fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
    panels[0].set_ylabel("AM score (lower is better)")
    panels[0].legend(fontsize=7)
    picture.suptitle("AM-GAN (arXiv 1703.02000)", fontsize=9)
    save_figure(picture, path)


def paper_config():
    """Section 6: CIFAR-10 with DCGAN-like networks, Adam with exponential decay taken as linear; dynamic labels."""
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "tfds", "dataset": "cifar10"},
            "generator": {"name": "dcgan", "width": 128},
            "discriminator": {"name": "dcgan", "width": 64, "head": "extra_class", "dropout": 0.3, "input_noise": 0.1},
            "latent": {"name": "normal", "dim": 100},
            "loss": {"name": "am_gan", "labels": "dynamic"},
            "algorithm": {"name": "gan"},
            "optimizer": {
                "name": "adam",
                "learning_rate": 4e-4,
                "b1": 0.5,
                "b2": 0.999,
                "schedule": {"name": "linear"},
            },
            "precision": "float32",
            "train": {"steps": 200000, "batch_size": 100},
            "eval": {"num": 50000},
        }
    )
