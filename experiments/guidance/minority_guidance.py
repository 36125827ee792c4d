"""Don't Play Favorites: Minority Guidance for Diffusion Models (arXiv 2301.12334).

    genjax reproduce minority_guidance

Data that the prior reconstructs badly from noise are rare; a noisy classifier of ten bins of that score guides to the
last bin. Rules fixed before the runs:

1. `plane`: a blob of weight 0.95 and two of 0.025, 2 apart, std 0.2, exact denoiser, linear VP; score at t = 0.5 of
   8,000 points with 5 draws, an MLP classifier, 1,500 steps; 4,000 samples by 100 steps of DDIM. Pass, means over
   seeds: the score's AUC for the minority at least 0.85; its mass at least 0.3 at w = 1 and 0.7 at w = 3, with at
   least 70 % of all samples within 3 std of a mode; rising over w = 0, 1, 3, 6; the lowest bin at w = 1 at most half
   of the unguided mass, labels permuted less than 1.5 times it; noise raised by 1.1 and 1.2 in ancestral steps does
   not reach 0.3 with 70 % near the modes.
2. `digits`: classes 0, 1 and 7, the 7 at 5 %, an MLP prior of 3,000 steps, score at t = 0.6 by the distance of a
   classifier's features, scaled to length 1 as in LPIPS. Pass, means over seeds: AUC at least 0.7; the share of 7 at
   the best of w = 1, 3, 6 at least 3 times the unguided one, where the mean largest probability of another classifier
   is at least 0.8; permuted labels less than 1.5 times.
3. `mixture`: the same rule with an exact prior of the same three classes, a mixture fitted to them, and 8,000 draws of
   it as the data.

Part 2 failed a first run, and part 3 was added to see why. The prior, then an MLP of 128 trained on eps, left the
unguided samples themselves at a mean probability of 0.80 (with 2 % of sevens, not 5), so that none of w = 1, 3, 6
reached 0.8 (0.68, 0.76, 0.79, with 4, 7 and 8 times the sevens): it is now 256 wide and trained on v. The score, then
in pixels, finds strange pictures of the common classes as readily as sevens: with the exact prior 0.19 of its last bin
are sevens (one seed), and guidance cannot go beyond that (0.17 at w = 3), against 0.31 by features (three seeds; AUC
0.92, and 0.84 by pixels), which is also what the paper does. The rules are as they were; in the run of the new parts
the digits' samples have a mean probability of 0.92 and more, with 4, 8 and 9 times the sevens.

What failed: permuted labels raise the digits' share of sevens 1.1, 1.3 and 1.8 times at w = 1, 3 and 6, not less than
1.5 times (in the first run 1.3, 2.4 and 3.8); by seed the last is 0.03, 0.09 and 0.11, where 0.04 are unguided. The
classifier can memorize the 300 pictures, and returns the sevens that chance put into the bin: with 8,000 draws of the
exact prior, permuted labels change the share 1.0, 1.1 and 1.1 times.

Reported: the mean distance to the five nearest of the data (AvgkNN) and the local outlier factor.

`get_config("paper")`: the unconditional prior on ImageNet at 64x64.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from genjax import build
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.cli import runner_guidance as guides
from genjax.core.keys import fold
from genjax.core.laws import Normal
from genjax.core.numerics import safe_div, safe_norm
from genjax.data.spec import DataSpec
from genjax.guidance import chain, classifier, clip_x0, minority_score, quantile_labels
from genjax.guidance.minority import squared_error
from genjax.networks import MLPClassifier
from genjax.oracles.gaussian import FullMixture
from genjax.oracles.mixture import Mixture
from genjax.solvers import ddim, ddpm, generate, grids, map_law

PAPER = {
    "number": 200,
    "title": "Don't Play Favorites: Minority Guidance for Diffusion Models",
    "year": 2024,
    "arxiv": "2301.12334",
    "family": "guidance",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3
BINS, WEIGHTS = 10, (0.0, 1.0, 3.0, 6.0)
PLANE = Mixture(
    jnp.array([[0.0, 0.0], [-2.0, 0.0], [2.0, 0.0]]), jnp.full(3, 0.2), jnp.log(jnp.array([0.95, 0.025, 0.025]))
)
SPEC = DataSpec((64,), 0, (-1.0, 1.0), 0, ("x",))


def get_config(scale="small"):
    if scale == "paper":
        return guides.adm_config(540000, 2048, learning_rate=3e-4)
    return digits.base_config(scale, 3000, process={"name": "vp"}, **guides.digits_prior(scale))


VARIANTS = {part: {"part": part} for part in ("plane", "digits", "mixture")}


def rare_digits(key):
    """(x [N, 64], class [N]) of the classes 0, 1, 7, the last one thinned to 5 %."""
    x, label = guides.labelled()
    rng = np.random.default_rng(run.seed_of(key))
    common = np.flatnonzero((label == 0) | (label == 1))
    rare = rng.permutation(np.flatnonzero(label == 7))[: round(len(common) * 0.05 / 0.95)]
    rows = np.concatenate([common, rare])
    return x[rows], label[rows]


def rare_mixture():
    """(law of the same three classes, 7 at 5 %, class of each component)."""
    law, classes = guides.digit_mixture(class_weights=[9.5, 9.5, 1, 1, 1, 1, 1, 1, 1, 1])
    rows = np.flatnonzero(np.isin(classes, (0, 1, 7)))
    return FullMixture(jax.tree.map(lambda leaf: leaf[rows], law.components), law.log_weights[rows]), classes[rows]


def scored(config, key, denoiser, x, t, distance=squared_error):
    """Minority scores [N] at t."""
    process = build.process(config)
    draw = jax.jit(lambda key, x: minority_score(key, denoiser, process, x, t, 5, distance))
    return np.asarray(draw(key, jnp.asarray(x)))


def perceptual(process, key, steps):
    """(a, b) -> squared distance [B] of the features of a classifier of all the clean digits, scaled to length 1."""
    x, label = guides.labelled()
    params = guides.fit_classifier(process, key, {"x": x, "label": label}, steps, clean=True)

    def unit(x):
        found = MLPClassifier(num_classes=guides.CLASSES).apply({"params": params}, x)[1]
        return safe_div(found, safe_norm(found, axis=1, keepdims=True))

    return lambda a, b: jnp.sum((unit(a) - unit(b)) ** 2, axis=1)


def train(config, key, priors):
    """The data, the prior (digits), the scores, and classifiers of their bins: true and permuted."""
    small, process = config.scale == "small", build.process(config)
    many, state = 8000 if small else 200, {}
    if config.part == "plane":
        x, component = (np.asarray(a) for a in PLANE.sample(fold(key, 0), many))
        rare, denoiser, t = component > 0, PLANE.denoiser(process), 0.5
    elif config.part == "mixture":
        law, classes = rare_mixture()
        x, component = (np.asarray(a) for a in law.sample(fold(key, 0), many))
        rare, denoiser, t = classes[component] == 7, law.denoiser(process), 0.6
    else:
        x, label = rare_digits(fold(key, 0))
        plan = build.plan(run.model_config(config))
        algorithm = build.algorithm(run.model_config(config), SPEC)
        state = run.fit(algorithm, {"x": x}, key, plan.steps, plan.batch_size)[-1][1]
        rare, denoiser, t = label == 7, guides.denoiser_of(config, SPEC, state)[0], 0.6
    pixels = score = scored(config, fold(key, 1), denoiser, x, t)
    if config.part != "plane":
        score = scored(config, fold(key, 1), denoiser, x, t, perceptual(process, fold(key, 7), 600 if small else 20))
    bins = quantile_labels(score, BINS)
    shuffled = np.random.default_rng(run.seed_of(fold(key, 2))).permutation(bins)
    fit = functools.partial(guides.fit_classifier, process, steps=1500 if small else 20, classes=BINS)
    return {
        "x": x,
        "rare": rare,
        "score": score,
        "pixels": pixels,
        "state": state,
        "true": fit(fold(key, 3), {"x": x, "label": bins}),
        "permuted": fit(fold(key, 4), {"x": x, "label": shuffled}),
    }


def outlying(real, small):
    """x -> (mean distance to the five nearest of the data, mean local outlier factor) of samples."""
    from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

    near = NearestNeighbors(n_neighbors=5 if small else 2).fit(real)
    factor = LocalOutlierFactor(n_neighbors=20 if small else 2, novelty=True).fit(real)
    return lambda x: (near.kneighbors(x)[0].mean(), -factor.score_samples(x).mean())


def measure(config, key, priors):
    from sklearn.metrics import roc_auc_score

    trained, small, process = priors["minority_guidance"], config.scale == "small", build.process(config)
    plane = config.part == "plane"
    n, steps = ((4000, 100) if plane else (1000, 50)) if small else (40, 4)
    denoiser = {
        "plane": lambda: PLANE.denoiser(process),
        "mixture": lambda: rare_mixture()[0].denoiser(process),
        "digits": lambda: guides.denoiser_of(config, SPEC, trained["state"])[0],
    }[config.part]()
    net, grid = guides.classifier_net(process, BINS), grids.uniform(process, steps)
    like, last = jnp.zeros((n, *trained["x"].shape[1:])), [clip_x0()] if config.part == "digits" else []
    away = outlying(trained["x"], small)

    @jax.jit
    def draw(key, params, weight, target):
        log_prob, labels = guides.log_prob_of(net, params), jnp.full(n, target)
        steer = chain(classifier(lambda x, t, _: log_prob(x, t, labels), weight), *last)
        return generate(key, steer(denoiser, process), process, ddim(), grid, like)

    @jax.jit
    def heated(key, factor):
        hotter = map_law(ddpm(), lambda law, process, t, s: Normal(law.mean, factor * law.std))
        return generate(key, chain(*last)(denoiser, process), process, hotter, grid, like)

    def report(x):
        x = np.nan_to_num(np.asarray(x), nan=10.0, posinf=10.0, neginf=-10.0)
        if plane:
            far = np.linalg.norm(x[:, None] - np.asarray(PLANE.means)[None], axis=-1)
            found = {"minority": np.mean(far.argmin(axis=1) > 0), "near": np.mean(far.min(axis=1) < 0.6)}
        else:
            p = guides.probabilities(np.clip(x, -1, 1))
            found = {"minority": np.mean(p.argmax(axis=1) == 7), "near": p.max(axis=1).mean()}
        distance, factor = away(x)
        return {**found, "neighbour": distance, "outlier": factor}

    top = BINS - 1
    arms = {f"w{w:g}": draw(fold(key, 5), trained["true"], w, top) for w in WEIGHTS}
    arms |= {"lowest": draw(fold(key, 5), trained["true"], 1.0, 0)}
    arms |= {f"permuted_w{w:g}": draw(fold(key, 5), trained["permuted"], w, top) for w in WEIGHTS[1:]}
    arms |= {f"heated_{f}": heated(fold(key, 6), f) for f in (1.1, 1.2)}
    rare, bins = trained["rare"], quantile_labels(trained["score"], BINS)
    metrics = {"auc": roc_auc_score(rare, trained["score"]), "auc_pixels": roc_auc_score(rare, trained["pixels"])}
    metrics["rare_in_last_bin"] = rare[bins == top].mean()
    for name, x in arms.items():
        metrics |= {f"{name}_{m}": v for m, v in report(x).items()}
    return metrics


def _mean(table, part, metric):
    return table[part][metric].mean()


def _permuted(table, part):
    return all(
        _mean(table, part, f"permuted_w{w:g}_minority") < 1.5 * _mean(table, part, "w0_minority") for w in WEIGHTS[1:]
    )


def _gain(table, part):
    good = [w for w in WEIGHTS[1:] if _mean(table, part, f"w{w:g}_near") >= 0.8]
    shares = [_mean(table, part, f"w{w:g}_minority") for w in good]
    return max(shares, default=0.0) >= 3 * _mean(table, part, "w0_minority")


CLAIMS = {
    "score": (
        "the score's AUC for the minority is at least 0.85 in the plane and at least 0.7 on the digits",
        lambda t: _mean(t, "plane", "auc") >= 0.85 and _mean(t, "digits", "auc") >= 0.7,
    ),
    "plane_mass": (
        "plane: minority mass at least 0.3 at w = 1, 0.7 at w = 3, with 70 % of the samples near a mode; rising in w",
        lambda t: (
            _mean(t, "plane", "w1_minority") >= 0.3
            and _mean(t, "plane", "w3_minority") >= 0.7
            and min(_mean(t, "plane", "w1_near"), _mean(t, "plane", "w3_near")) >= 0.7
            and all(
                _mean(t, "plane", f"w{a:g}_minority") < _mean(t, "plane", f"w{b:g}_minority")
                for a, b in itertools.pairwise(WEIGHTS)
            )
        ),
    ),
    "plane_controls": (
        "plane: the lowest bin halves the mass, permuted labels change it less than 1.5 times, heat does not reach 0.3",
        lambda t: (
            _mean(t, "plane", "lowest_minority") <= 0.5 * _mean(t, "plane", "w0_minority")
            and _permuted(t, "plane")
            and not any(
                _mean(t, "plane", f"heated_{f}_minority") >= 0.3 and _mean(t, "plane", f"heated_{f}_near") >= 0.7
                for f in (1.1, 1.2)
            )
        ),
    ),
    "digits": (
        "digits: the rare class is at least 3 times as frequent, at a mean confidence of 0.8",
        lambda t: _gain(t, "digits"),
    ),
    "mixture": (
        "an exact prior of the digits: the AUC is at least 0.7, and the rule of the digits holds",
        lambda t: _mean(t, "mixture", "auc") >= 0.7 and _gain(t, "mixture"),
    ),
    "permuted": (
        "digits, and their exact prior: permuted labels change the share less than 1.5 times at every w",
        lambda t: _permuted(t, "digits") and _permuted(t, "mixture"),
    ),
}
