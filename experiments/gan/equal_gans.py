"""Are GANs Created Equal? A Large-Scale Study (arXiv 1711.10337).

    genjax reproduce equal_gans

Five losses, one pair of MLPs (64 pixels, 2 x 128), one budget: for each loss and seed 6 random configurations of the
paper's wide ranges (learning rate log-uniform in 1e-5 ... 1e-2, beta1 uniform in 0 ... 1, weight of a penalty
log-uniform in 0.1 ... 100; one update of the critic a step, no batch norm), 600 steps of batch 64 on the digits, then
the best one again with 6 other seeds. Frechet distance (FD) of 1,000 samples to the test digits, in features of the
digits' classifier; a run that diverged counts as the worst, at least as the FD of blank images. Rules fixed before the
run:

1. Tuning matters more than the loss: over the losses, the largest of the best FDs (mean over seeds) divided by the
   smallest is less than the mean over the losses of the 90th divided by the 10th percentile of their 18 trials.
2. Budget: the expected best FD of b trials falls with b for every loss, and the ranking of the losses after 1 trial
   differs from that after 6 in at least one pair.
3. The distance reacts (`probes`): real digits without 5 of the classes are at least 8 times as far from the test
   digits as all training digits, and the training digits themselves, pure memory, are nearer than the samples of any
   model, every seed.
4. A known manifold (`triangles`, 16x16, delta 0.75 for values in [0, 1]): precision of test images at least 0.95, of
   noise 0; a generator of small triangles alone (radius below 0.5) has precision at least 0.9 and recall at most 0.5.

Reported, as a finding whichever way it falls: whether a loss is better than the non-saturating one once tuned
(`rerun`, mean of the best configuration's 6 other seeds).
"""

import jax
import numpy as np

from genjax import data
from genjax.cli import runner_features as judged
from genjax.cli import runner_gan as run
from genjax.cli import runner_grid as grid
from genjax.core.keys import fold, sample_keys
from genjax.data.triangles import distance_to_triangles
from genjax.metrics.ranking import expected_best, failures_as_worst

PAPER = {
    "number": 10,
    "title": "Are GANs Created Equal? A Large-Scale Study",
    "year": 2018,
    "arxiv": "1711.10337",
    "family": "gan",
    "kind": "study",
}
PRIORS = ()
SEEDS = 3
TRIALS, DELTA, SMALL = 6, 0.75, 0.5
SPACE = {"learning_rate": ("log", 1e-5, 1e-2), "b1": ("linear", 0.0, 1.0)}


def get_config(scale="small"):
    config = run.digits_config(scale, 600, eval={"num": 64 if scale == "smoke" else 1000})
    del config.ema
    return config


VARIANTS = {
    "non_saturating": {},
    "minimax": {"loss": {"name": "minimax"}},
    "least_squares": {"loss": {"name": "least_squares"}},
    "wgan_gp": {"loss": {"name": "wasserstein"}, "penalties": {"gradient_penalty": {"weight": 10.0}}},
    "dragan": {"penalties": {"dragan": {"weight": 10.0}}},
    "probes": {"part": "probes"},
    "triangles": {"part": "triangles"},
}
LOSSES = ("non_saturating", "minimax", "least_squares", "wgan_gp", "dragan")


def distances(samples):
    """FD of each [N, 64] in samples from the test digits; at least that of blank images where a run diverged."""
    test = judged.sets()[1].arrays["x"]
    worst = judged.frechet(np.full(samples[0].shape, -1.0), test)
    found = [judged.frechet(x, test) if np.isfinite(x).all() else np.nan for x in samples]
    return failures_as_worst(found, worst)


def search(config, key):
    """All trials of a random search, and the best one's other seeds."""
    space = SPACE | dict.fromkeys(config.penalties, ("log", 0.1, 100.0))
    numbers = grid.random_numbers(space, TRIALS, run.seed_of(fold(key, 7)))
    trials = distances(grid.play(config, sample_keys(fold(key, 1), TRIALS), numbers, config.eval.num)[1])
    best = int(np.argmin(trials))
    again = {name: np.full(TRIALS, values[best]) for name, values in numbers.items()}
    reruns = distances(grid.play(config, sample_keys(fold(key, 2), TRIALS), again, config.eval.num)[1])
    return {
        "best": trials[best],
        "rerun": reruns.mean(),
        "rerun_spread": reruns.std(ddof=1),
        "best_rate": numbers["learning_rate"][best],
        **{f"trial_{i}": value for i, value in enumerate(trials)},
        **{f"rerun_{i}": value for i, value in enumerate(reruns)},
    }


def probes(key):
    """FD of real digits to test digits: all of them, without some classes, with noise."""
    train, test = (part.arrays for part in judged.sets())
    rng = np.random.default_rng(run.seed_of(fold(key, 7)))
    order, x = rng.permutation(10), train["x"]
    found = {"train": judged.frechet(x, test["x"])}
    for count in (1, 2, 5):
        kept = x[~np.isin(train["label"], order[:count])]
        found[f"without_{count}"] = judged.frechet(kept, test["x"])
        found[f"ratio_{count}"] = found[f"without_{count}"] / found["train"]
    return found | {"noise_0.2": judged.frechet(x + 0.2 * rng.normal(size=x.shape), test["x"])}


def manifold(config, key):
    """Precision of images, and recall of a generator of small triangles, on the manifold of triangles."""
    n = 20 if config.scale == "smoke" else 100
    seed = run.seed_of(fold(key, 7)) % 2**20
    real = data.load("triangles", split="test", num=n, seed=seed).arrays["x"]
    small = data.load("triangles", split="test", num=n, seed=seed, radius=(0.3, SMALL)).arrays["x"]
    noise = np.asarray(jax.random.uniform(fold(key, 8), real.shape, minval=-1.0, maxval=1.0))
    near = lambda x, largest=None: float(np.mean(distance_to_triangles(x, largest) < DELTA))
    return {
        "precision_real": near(real),
        "precision_noise": near(noise),
        "precision_small": near(small),
        "recall_small": near(real, SMALL),
        "recall_all": near(real, 0.95),
    }


def measure(config, key, priors):
    if config.part == "probes":
        return probes(key)
    if config.part == "triangles":
        return manifold(config, key)
    return search(config, key)


def trials(t, loss):
    """All trials of a loss, over the seeds."""
    return np.concatenate([t[loss][f"trial_{i}"] for i in range(TRIALS)])


def spreads(t):
    """(largest best over smallest best, mean over losses of the 90th over the 10th percentile)."""
    best = [t[loss]["best"].mean() for loss in LOSSES]
    within = [np.divide(*np.percentile(trials(t, loss), (90, 10))) for loss in LOSSES]
    return max(best) / min(best), float(np.mean(within))


def budgets(t):
    """loss -> expected best FD of 1 ... 6 trials."""
    return {loss: expected_best(trials(t, loss))[:TRIALS] for loss in LOSSES}


def _reversed(curves):
    first, last = ([curve[i] for curve in curves.values()] for i in (0, -1))
    order = lambda values: np.sign(np.subtract.outer(values, values))
    return bool((order(first) * order(last) < 0).any())


CLAIMS = {
    "tuning": (
        "the best FDs of the losses differ by a smaller factor than the trials of one loss (90th over 10th percentile)",
        lambda t: (lambda s: s[0] < s[1])(spreads(t)),
    ),
    "budget": (
        "more trials reach a lower FD with every loss, and change the ranking of at least one pair of losses",
        lambda t: all((np.diff(c) < 0).all() for c in budgets(t).values()) and _reversed(budgets(t)),
    ),
    "reacts": (
        "without 5 classes real digits are at least 8 times as far as all of them; memory beats every model, each seed",
        lambda t: bool(
            (t["probes"]["ratio_5"] >= 8).all()
            and all((t["probes"]["train"] < t[loss]["best"]).all() for loss in LOSSES)
        ),
    ),
    "manifold": (
        "triangles: precision of test images >= 0.95, noise 0; small ones alone: precision >= 0.9, recall <= 0.5",
        lambda t: bool(
            (t["triangles"]["precision_real"] >= 0.95).all()
            and (t["triangles"]["precision_noise"] == 0).all()
            and (t["triangles"]["precision_small"] >= 0.9).all()
            and (t["triangles"]["recall_small"] <= 0.5).all()
        ),
    ),
}


def figure(table, path):
    """A heat map of all trials, sorted, and the budget curves."""
    from matplotlib.figure import Figure

    from genjax.cli.runner_heat_map import heat_map
    from genjax.cli.runner_report import save_figure

    picture = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    values = np.stack([np.sort(trials(table, loss)) for loss in LOSSES])
    image = heat_map(left, values, LOSSES, (), size=6)
    left.set(xlabel="trial, best first", title="FD of every trial")
    picture.colorbar(image, ax=left, label="log10 FD")
    for loss, curve in budgets(table).items():
        right.plot(np.arange(1, TRIALS + 1), curve, "o-", label=loss)
    right.set(xlabel="trials", ylabel="expected best FD", yscale="log", title="what a budget reaches")
    right.legend(fontsize=7)
    picture.suptitle("Are GANs created equal? Digits (arXiv 1711.10337)", fontsize=9)
    save_figure(picture, path)
