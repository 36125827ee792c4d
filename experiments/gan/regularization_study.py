"""A Large-Scale Study on Regularization and Normalization in GANs (arXiv 1807.04720).

    genjax reproduce regularization_study

A grid of 21 cells: losses {ns, ls, wgan} x {nothing, WGAN-GP penalty 10, DRAGAN penalty 10, R1 of weight 1, spectral,
batch, layer norm of the critic}. Digits as 64-vectors, MLPs 2 x 192 (55 thousand parameters each), Adam (0.5, 0.999)
at learning rates 2e-4 and 1e-3, batch 64, 500 updates of both, 3 seeds: 126 runs, the two rates in one program. Frechet
distance (FD) and KID of 1,500 samples to the training digits in features of the digits' classifier; a run that
diverged counts as the worst, at least as blank images. The score of a cell: the median over seeds at its better rate.
Rules fixed before the run:

1. For at least 2 of the 3 losses the best of {spectral, gp, r1} is at most 0.85 of the score of nothing.
2. Batch norm in the critic is not in the best quarter of the cells, with any loss.
3. FD and KID rank the cells alike: rank correlation at least 0.8.
4. Ring of 8 Gaussians (`ring_*`, MLPs 2 x 64, Adam 1e-3 (0, 0.9), 2,500 steps): with R1 and R2 of weight 0.1 the
   divergence of the histogram of modes from the uniform one is at most 0.4 of that without (means).

Reported, as a finding whichever way it falls: whether the gap between the best and the second loss under the best
normalization is smaller than the spread over seeds (`no loss wins`), in the picture's title.

What failed: the ring. The game without a penalty is hardly imbalanced here (a divergence of 0.0017; 6,000 draws of the
data would have 0.0006), so R1 and R2 (0.0010) have little to mend. The finding: under R1, the best regularizer, least
squares wins by more than the spread over seeds. Spectral norm, which the paper recommends, is among the worst: games
under it learn slowly, and 500 updates are too few (see `studiogan`, which plays 4,000).
"""

import jax.numpy as jnp
import numpy as np

from genjax import metrics
from genjax.cli import runner_features as judged
from genjax.cli import runner_gan as run
from genjax.cli import runner_grid as grid
from genjax.core.keys import fold
from genjax.metrics.curves import spearman
from genjax.metrics.ranking import failures_as_worst

PAPER = {
    "number": 50,
    "title": "A Large-Scale Study on Regularization and Normalization in GANs",
    "year": 2019,
    "arxiv": "1807.04720",
    "family": "gan",
    "kind": "study",
}
PRIORS = ()
SEEDS = 3
RATES = (2e-4, 1e-3)
LOSSES = {"ns": "non_saturating", "ls": "least_squares", "wgan": "wasserstein"}


def _network(**changes):
    return {"name": "mlp", "width": 192, "depth": 2, **changes}


KINDS = {
    # name: overrides beside the loss
    "none": {},
    "gp": {"penalties": {"gradient_penalty": {"weight": 10.0}}},
    "dragan": {"penalties": {"dragan": {"weight": 10.0}}},
    "r1": {"penalties": {"r1": {"weight": 1.0}}},
    "sn": {"discriminator": _network(spectral=1)},
    "bn": {"discriminator": _network(norm="batch")},
    "ln": {"discriminator": _network(norm="layer")},
}
RING = {
    "part": "ring",
    "data": {"name": "ring"},
    "generator": {"name": "mlp", "width": 64, "depth": 2},
    "discriminator": {"name": "mlp", "width": 64, "depth": 2},
    "latent": {"name": "normal", "dim": 4},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "b1": 0.0, "b2": 0.9},
    "train.batch_size": 128,
}


def get_config(scale="small"):
    config = run.digits_config(scale, 500, width=192, eval={"num": 64 if scale == "smoke" else 1500})
    del config.ema
    return config


CELLS = [f"{loss}_{kind}" for loss in LOSSES for kind in KINDS]
VARIANTS = {
    **{f"{n}_{k}": {"loss": {"name": loss}, **kind} for n, loss in LOSSES.items() for k, kind in KINDS.items()},
    "ring_none": RING,
    "ring_r1r2": {**RING, "penalties": {"r1_r2": {"weight": 0.1}}},
}


def ring(config, key):
    config = config.copy_and_resolve_references().unlock()
    if config.scale == "small":
        config.train.steps = 2500
    state = run.fit(config, key)[-1][1]
    return run.toy_measures(config, run.draw(config, state, fold(key, 5), 4 * config.eval.num))


def measure(config, key, priors):
    if config.part == "ring":
        return ring(config, key)
    real = judged.sets()[0].arrays["x"]
    features = judged.features(real)
    blank = np.full((config.eval.num, 64), -1.0)

    def scores(x):
        if not np.isfinite(x).all():
            return np.nan, np.nan
        size = min(500, len(x))
        return judged.frechet(x, real), metrics.kid(judged.features(x), features, subsets=20, subset_size=size)[0]

    keys = jnp.stack([fold(key, 0)] * len(RATES))  # one start and one order of the data for both rates
    x = grid.play(config, keys, {"learning_rate": np.array(RATES)}, config.eval.num)[1]
    fd, kid = (failures_as_worst(v, w) for v, w in zip(np.array([scores(s) for s in x]).T, scores(blank)))
    diverged = float(np.mean([not np.isfinite(s).all() for s in x]))
    return {
        "diverged": diverged,
        **{f"fd_{i}": value for i, value in enumerate(fd)},
        **{f"kid_{i}": value for i, value in enumerate(kid)},
    }


def best(t, cell):
    """The rate at which a cell does best."""
    return int(np.argmin([np.median(t[cell][f"fd_{i}"]) for i in range(len(RATES))]))


def score(t, cell, metric="fd"):
    """Median over seeds at the cell's better rate."""
    return float(np.median(t[cell][f"{metric}_{best(t, cell)}"]))


def _helped(t):
    return sum(min(score(t, f"{n}_{k}") for k in ("sn", "gp", "r1")) <= 0.85 * score(t, f"{n}_none") for n in LOSSES)


def no_loss_wins(t):
    """(best kind, best loss, gap to the second, spread over seeds) under the kind with the best mean over losses."""
    kind = min(KINDS, key=lambda k: np.mean([score(t, f"{n}_{k}") for n in LOSSES]))
    ranked = sorted(LOSSES, key=lambda n: score(t, f"{n}_{kind}"))
    first, second = (f"{n}_{kind}" for n in ranked[:2])
    return kind, ranked[0], score(t, second) - score(t, first), float(np.std(t[first][f"fd_{best(t, first)}"], ddof=1))


CLAIMS = {
    "helps": (
        "for at least 2 of 3 losses spectral norm or a gradient penalty reaches at most 0.85 of the FD of nothing",
        lambda t: _helped(t) >= 2,
    ),
    "batch_norm": (
        "batch norm in the critic is not in the best quarter of the cells, with any loss",
        lambda t: not {f"{n}_bn" for n in LOSSES} & set(sorted(CELLS, key=lambda c: score(t, c))[: len(CELLS) // 4]),
    ),
    "metrics_agree": (
        "FD and KID rank the cells alike: rank correlation at least 0.8",
        lambda t: spearman([score(t, c) for c in CELLS], [score(t, c, "kid") for c in CELLS]) >= 0.8,
    ),
    "ring": (
        "on the ring R1 and R2 bring the imbalance of modes to at most 0.4 of that without",
        lambda t: t["ring_r1r2"]["histogram_kl"].mean() <= 0.4 * t["ring_none"]["histogram_kl"].mean(),
    ),
}


def figure(table, path):
    """A heat map of the cells' scores with the spread over seeds, and FD against KID."""
    from matplotlib.figure import Figure

    from genjax.cli.runner_heat_map import heat_map
    from genjax.cli.runner_report import save_figure

    picture = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    values = np.array([[score(table, f"{n}_{k}") for k in KINDS] for n in LOSSES])
    spread = lambda cell: np.std(table[cell][f"fd_{best(table, cell)}"], ddof=1)
    texts = [[f"{score(table, f'{n}_{k}'):.1f}\n±{spread(f'{n}_{k}'):.1f}" for k in KINDS] for n in LOSSES]
    image = heat_map(left, values, LOSSES, KINDS, texts)
    picture.colorbar(image, ax=left, label="log10 FD")
    kind, winner, gap, spread = no_loss_wins(table)
    verdict = "no loss wins" if gap < spread else f"{winner} wins"
    left.set_title(f"FD; under {kind} {verdict}: gap {gap:.2f}, spread over seeds {spread:.2f}", fontsize=9)
    for n in LOSSES:
        fd, kid = ([score(table, f"{n}_{k}", m) for k in KINDS] for m in ("fd", "kid"))
        right.loglog(fd, kid, "o", label=n)
    right.set(xlabel="FD", ylabel="KID")
    right.tick_params(which="both", labelsize=6)
    right.legend(fontsize=7)
    picture.suptitle("Regularization and normalization on the digits (arXiv 1807.04720)", fontsize=9)
    save_figure(picture, path)
