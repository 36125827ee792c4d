"""Parallelly Tempered Generative Adversarial Nets: Toward Stabilized Gradients (arXiv 2411.11786).

    genjax reproduce ptgan

One pair of networks, told a temperature tau, learns the laws of alpha x_1 + (1 - alpha) x_2 for all alpha at once
(tau = 0 is the data's), and a penalty on the critic's slope along the mixtures keeps it smooth between them. A ring of
8 Gaussians (radius 1.5, std 0.1; 4,000 points), ReLU networks 64-64, latents in the plane, batch 100, Adam 1e-3
(0, 0.9), one update of each player a step. Arms: `ptgan` (r = 0.9, coherency penalty 100); `wgan_gp` (no tempering,
gradient penalty 10); `ptgan_gp` (tempering with the gradient penalty); `ptgan_r1` (r = 1: the generator learns the
data's law alone, the penalty sees mixtures). A mode is covered where 1 % of 4,000 samples lie within three standard
deviations; SW2 is the sliced W2 distance to fresh data. Networks in the plane feel the variance of their first
weights, so each of the first three arms is played from He's and (`_lecun`) from LeCun's, and the better one, by
its mean SW2 at the time in question, counts for it. Rules, means over five seeds:

1. After 1,500 steps ptgan covers at least 6 modes, at least 2 more than wgan_gp and than ptgan_gp, and its SW2 is at
   most 0.65 of wgan_gp's.
2. After 3,000 steps ptgan covers at least 7 modes with every seed, and its SW2 is at most 0.75 of both others'.
3. Its samples at alpha = 1/2 (3,000 steps) have SW2 at most 0.45 to fresh (x_1 + x_2) / 2.
4. On a single Gaussian (`one_*`, std 0.5) both converge, each from the weights that are the better ones on the ring:
   SW2 at most 0.15 after 3,000 steps.
5. The trace of the covariance of the generator's gradient, over 50 batches at step 500, is at most 0.7 of wgan_gp's.

Reported: ptgan_r1; a grid of 25 Gaussians (`grid_*`); wgan_gp on the single Gaussian from LeCun's weights, and there
and on the ring with five updates of the critic a step (`_five`).

The rules were fixed before a first run in which all arms had Glorot's weights, of variance 2 / (2 + 64) in the
first layer: there ptgan was as good as from LeCun's, wgan_gp covered 0.8 modes after 1,500 steps (SW2 2.1) and did not
converge on the single Gaussian (0.29), where all other rules held. A trial over initializations found that to be the
baseline's handicap: from He's weights it covers 6.5 of 8 modes on average after 1,500 steps (SW2 0.26). So both are
now played from both.

Two claims fail. `late`: SW2 is 0.120 against 0.216 for wgan_gp (a ratio of 0.55) but 0.149 for ptgan_gp (0.80, at most
0.75 asked): tempering with the ordinary penalty catches up; the specification's trial too had the gain shrink with
longer training. It is the better weights that lift that arm: from LeCun's it ends at 0.37. `control`: on the single
Gaussian wgan_gp ends at 0.23 (0.32 from LeCun's weights), ptgan at 0.07: the baseline does not converge where there
are no modes to lose. Arms of five critic updates, added after a first run, say how much of that is a critic that lags
behind: on the single Gaussian they end at 0.19, on the ring wgan_gp so covers 8 modes with every seed after 3,000
steps, with an SW2 of 0.144 against 0.216 at one update and 0.120 of ptgan, but is no surer early (0.37 +- 0.36 after
1,500, one seed in a single mode). So most of ptgan's lead at the end is one over a critic that is short of updates.

`get_config("paper")`: CIFAR-10 with algorithm 3's numbers (one update each, Adam 1e-4 (0, 0.9), penalty 100); the
networks are the residual ones of WGAN-GP.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from genjax import build, metrics
from genjax.algorithms.games import mixture, temperature
from genjax.cli import runner_gan as run
from genjax.cli import runner_probes as probes
from genjax.core.keys import fold

PAPER = {
    "number": 150,
    "title": "Parallelly Tempered Generative Adversarial Nets: Toward Stabilized Gradients",
    "year": 2024,
    "arxiv": "2411.11786",
    "family": "gan",
    "kind": "method",
}
PRIORS = ()
SEEDS = 5
SNAPSHOTS = 6
BATCHES = 50


def get_config(scale="small"):
    if scale == "paper":
        return paper_config()
    config = run.toy_config(
        scale,
        3000,
        batch_size=100,
        data={"name": "ring", "radius": 1.5, "std": 0.1, "n": 4000},
        latent={"name": "normal", "dim": 2},
        loss={"name": "wasserstein"},
        prepare={"tempering": {"r": 0.9}},
        penalties={"coherency": 100.0},
    )
    config.discriminator.activation = "relu"
    config.generator.kernel_init = config.discriminator.kernel_init = "he"
    if scale == "smoke":
        config.train.steps = 4 * SNAPSHOTS
    return config


PLAIN = {"prepare": {}, "penalties": {"gradient_penalty": 10.0}}
LECUN = {"generator.kernel_init": "lecun", "discriminator.kernel_init": "lecun"}
ONE = {"data": {"name": "ring", "modes": 1, "radius": 1.5, "std": 0.5, "n": 4000}}
GRID = {"data": {"name": "grid", "n": 4000}}
ARMS = {"ptgan": {}, "wgan_gp": PLAIN, "ptgan_gp": {"penalties": {"gradient_penalty": 10.0}}}
FIVE = {"algorithm": {"name": "gan", "n_critic": 5}}
VARIANTS = {
    **ARMS,
    **{f"{arm}_lecun": {**LECUN, **others} for arm, others in ARMS.items()},
    "ptgan_r1": {**LECUN, "prepare.tempering.r": 1.0},
    "one_ptgan": {**LECUN, **ONE},
    "one_wgan_gp": {**ONE, **PLAIN},
    "one_wgan_gp_lecun": {**LECUN, **ONE, **PLAIN},
    "one_wgan_gp_five": {**ONE, **PLAIN, **FIVE},
    "wgan_gp_five": {**PLAIN, **FIVE},
    "grid_ptgan": {**LECUN, **GRID},
    "grid_wgan_gp": {**GRID, **PLAIN},
}


def train(config, key, priors):
    """States at evenly spaced steps."""
    return [state for _, state, _ in run.fit(config, key, snapshots=SNAPSHOTS)]


def half_way(config, state, key):
    """SW2 of samples told alpha = 1/2 to mixtures of two fresh points."""
    fresh = jnp.asarray(build.dataset(ConfigDict({"data": config.data.to_dict()}), "test").arrays["x"])
    half = jnp.full(len(fresh) // 2, 0.5)
    goal = mixture(half, fresh[: len(half)], fresh[len(half) :])
    parts = run.game(config)
    z = [parts.latent.sample(fold(key, i), len(half)) for i in (0, 1)]
    tempered = bool(config.prepare)  # what was never told a temperature is sampled as it is
    cond, z = ({"embedding": temperature(half)}, mixture(half, *z)) if tempered else (None, z[0])
    x = jax.jit(lambda state, z: parts.generate(state)(z, cond))(jax.tree.map(jnp.asarray, state), z)
    return metrics.sliced_wasserstein2(x, goal)


def measure(config, key, priors):
    states = priors["ptgan"]
    found = {}
    for share, state in ((0.5, states[SNAPSHOTS // 2 - 1]), (1.0, states[-1])):
        x = run.draw(config, state, fold(key, 5), config.eval.num)
        found |= {f"{name}_{share}": value for name, value in run.toy_measures(config, x).items()}
    found["half_way_w2"] = half_way(config, states[-1], fold(key, 6))
    gradients = probes.generator_gradients(config, states[0], fold(key, 7), BATCHES)
    found["gradient_variance"] = probes.total_variance(gradients)
    found["gradient_square"] = float(np.sum(gradients.mean(axis=0) ** 2))
    return found


def _best(table, arm, share=1.0):
    """The row of an arm from its better initialization, by the mean SW2 after a share of the steps."""
    return min((table[arm], table[f"{arm}_lecun"]), key=lambda row: row[f"sliced_w2_{share}"].mean())


def _early(table):
    ptgan, others = _best(table, "ptgan", 0.5), [_best(table, arm, 0.5) for arm in OTHERS]
    return (
        ptgan["modes_0.5"].mean() >= 6
        and all(ptgan["modes_0.5"].mean() >= other["modes_0.5"].mean() + 2 for other in others)
        and ptgan["sliced_w2_0.5"].mean() <= 0.65 * others[0]["sliced_w2_0.5"].mean()
    )


def _late(table):
    ptgan = _best(table, "ptgan")
    return bool((ptgan["modes_1.0"] >= 7).all()) and all(
        ptgan["sliced_w2_1.0"].mean() <= 0.75 * _best(table, arm)["sliced_w2_1.0"].mean() for arm in OTHERS
    )


OTHERS = ("wgan_gp", "ptgan_gp")
CLAIMS = {
    "early": (
        "after half of the steps: at least 6 modes, 2 more than the others, SW2 at most 0.65 of WGAN-GP's (means)",
        _early,
    ),
    "late": (
        "after all of them: at least 7 modes with every seed, SW2 at most 0.75 of both others' (means)",
        _late,
    ),
    "family": (
        "samples at alpha = 1/2 have SW2 at most 0.45 to mixtures of two fresh points (mean)",
        lambda t: _best(t, "ptgan")["half_way_w2"].mean() <= 0.45,
    ),
    "control": (
        "on a single Gaussian both have SW2 at most 0.15 (means)",
        lambda t: all(t[f"one_{arm}"]["sliced_w2_1.0"].mean() <= 0.15 for arm in ("ptgan", "wgan_gp")),
    ),
    "gradients": (
        "the generator's gradient varies at most 0.7 as much as WGAN-GP's at a sixth of the steps (mean traces)",
        lambda t: (
            _best(t, "ptgan")["gradient_variance"].mean() <= 0.7 * _best(t, "wgan_gp")["gradient_variance"].mean()
        ),
    ),
}


def paper_config():
    """CIFAR-10: algorithm 3 with lambda = 100, r = 0.5 and its Adam; batch and length are those of WGAN-GP's runs."""
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "tfds", "dataset": "cifar10"},
            "generator": {"name": "resnet", "width": 128, "condition": "input"},
            "discriminator": {"name": "resnet", "width": 128, "spectral": 0, "pool": "mean"},
            "latent": {"name": "normal", "dim": 128},
            "loss": {"name": "wasserstein"},
            "prepare": {"tempering": {"r": 0.5}},
            "penalties": {"coherency": 100.0},
            "algorithm": {"name": "gan"},
            "optimizer": {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9},
            "precision": "float32",
            "train": {"steps": 200000, "batch_size": 64},
            "eval": {"num": 10000},
        }
    )
