"""Denoising Diffusion Models for Plug-and-Play Image Restoration (arXiv 2305.08995).

    genjax reproduce diffpir

Each step denoises, solves a proximal data step in closed form, and noises anew with a share zeta of fresh noise; no
gradient passes the network. Digits, a trained prior, lambda = 1; 60 % of the pixels missing without noise, blur of
0.8 pixels with noise 0.05, averages of 2x2 with noise 0.02; 64 held-out images. DPS's scale is tuned on other images
for each task and number of steps. Rules fixed before the runs, means over seeds:

A. With 20 steps and zeta = 1 the PSNR is at least 2 dB above the pseudo-inverse on every task, and at least 1 dB
   above DPS with 20 steps on inpainting and blur, which costs a gradient more a step. With 100 steps it is at most
   1.5 dB below DPS with 100 on every task. On blur, 20 steps are above the Gaussian (Wiener) estimate with the data's
   mean and covariance.
B. The mean square of y - A x is at most 1.3 std^2 + 1e-3 on both noisy tasks.
C. The parts: without the data step (lambda = 1e8) the PSNR of inpainting is within 1.5 dB of an unguided sample's;
   with zeta = 1 draws of one image vary more than with zeta = 0.1.
D. `exact`: ten Gaussians in d = 16, two of which agree on the 6 coordinates seen. The sliced W2 to the exact
   posterior falls with zeta (0.1, 0.5, 1 at 20 steps) and with steps (20, 100 at zeta = 1): a good restorer, not an
   exact posterior sampler.
E. One denoiser evaluation a step, no gradient of it.

What failed. A: on inpainting DPS with 20 steps, at its best scale, is 0.1 dB below DiffPIR, not 1 (on blur 3.2 dB);
the gains over the pseudo-inverse are 5.2, 18.3 and 3.5 dB. C: the variance goes the other way, 0.06 with zeta = 1 and
0.10 with 0.1 on inpainting. Draws begin with different noise, which a small zeta keeps to the end, with errors that
fresh noise corrects: PSNR is 2.4 dB lower there. With a weaker prior (128 wide, trained at rate 1e-3) 20 steps were
0.3 dB below the Gaussian estimate on blur; they are 1.4 dB above it now.

`get_config("paper")`: the FFHQ prior at 256x256 (here CelebA-HQ), 100 steps, settings `PUBLISHED`.
"""

import jax.numpy as jnp
import numpy as np

from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.cli import runner_inverse as inverse
from genjax.core.keys import fold
from genjax.inverse import POSTERIOR_SAMPLERS, Gaussian
from genjax.inverse import measure as measured
from genjax.inverse.operators import blur, matrix, random, super_resolution
from genjax.metrics import sliced_wasserstein2
from genjax.oracles.gaussian import gaussian_data
from genjax.processes import gaussian

PAPER = {
    "number": 74,
    "title": "Denoising Diffusion Models for Plug-and-Play Image Restoration",
    "year": 2023,
    "arxiv": "2305.08995",
    "family": "inverse",
    "kind": "method",
}
PRIORS = ("dps",)
SEEDS = 3
SCALES = (0.3, 0.6, 1.0, 2.0, 4.0)
PUBLISHED = {
    "inpaint": {"strength": 1.0, "zeta": 1.0, "steps": 100, "grid": "quadratic"},
    "deblur": {"strength": 1.0, "zeta": 0.1, "steps": 100, "grid": "quadratic"},
}
PROCESS = gaussian.vp()
TASKS = {
    "inpaint": (random(inverse.SHAPE, 0.6), 0.0),
    "blur": (blur(inverse.SHAPE, 0.8), 0.05),
    "sr": (super_resolution(inverse.SHAPE), 0.02),
}


def get_config(scale="small"):
    if scale == "paper":
        return inverse.published_config(1000000, 8)
    return inverse.small_config(scale)


VARIANTS = {"exact": {"part": "exact"}, **{task: {"part": task} for task in TASKS}}


def steps_of(config):
    return (20, 100) if config.scale == "small" else (3, 4)


def diffpir(key, prior, problem, steps, zeta=1.0, strength=1.0):
    numbers = {"zeta": zeta, "strength": strength}
    return inverse.restore(key, "diffpir", prior, PROCESS, problem, numbers, steps=steps, grid="quadratic")[0]


def dps(key, prior, problem, steps, scale):
    return inverse.restore(key, "dps", prior, PROCESS, problem, {"scale": scale}, steps=steps, grid="uniform")[0]


def measure_exact(config, key):
    n, (few, many) = 400 if config.scale == "small" else 16, steps_of(config)
    prior, problem, law = inverse.ambiguous(run.seed_of(key))
    metrics = {"floor": sliced_wasserstein2(law.sample(fold(key, 1), n), law.sample(fold(key, 2), n))}
    for name, steps, zeta in (("few_0.1", few, 0.1), ("few_0.5", few, 0.5), ("few_1", few, 1.0), ("many_1", many, 1.0)):
        x = diffpir(fold(key, 0), prior, inverse.repeat(problem, n), steps, zeta)
        metrics[f"w2_{name}"] = inverse.distance_to_posterior(x, law, fold(key, 1))[0]
    return metrics


def wiener(operator, y, std):
    """The posterior mean under a Gaussian with the training digits' mean and covariance."""
    x = digits.training().astype(np.float64)
    law = gaussian_data(jnp.asarray(x.mean(0), jnp.float32), jnp.asarray(np.cov(x.T), jnp.float32))
    a = matrix(operator)
    means = [law.measurement_posterior(a, one.reshape(-1), max(std, 1e-2)).mean for one in y]
    return jnp.stack(means).reshape(-1, *inverse.SHAPE)


def measure_task(config, key, priors):
    prior, n, (few, many) = inverse.digits_prior(priors, config.scale), 64, steps_of(config)
    n = n if config.scale == "small" else 2
    operator, std = TASKS[config.part]
    test, tuning, _ = inverse.images(fold(key, 0), n)
    problem, other = (measured(fold(key, 1 + i), operator, Gaussian(std), x) for i, x in enumerate((test, tuning)))
    metrics = {
        "psnr_pinv": inverse.mean_psnr(operator.pinv(problem.y), test),
        "psnr_wiener": inverse.mean_psnr(wiener(operator, problem.y, std), test),
        "psnr_unguided": inverse.mean_psnr(dps(fold(key, 3), prior, problem, few, 0.0), test),
    }
    for name, steps in (("few", few), ("many", many)):
        x = diffpir(fold(key, 3), prior, problem, steps)
        metrics[f"psnr_{name}"], metrics[f"residual_{name}"] = (
            inverse.mean_psnr(x, test),
            inverse.residual(problem, x),
        )
        score = lambda s, steps=steps: inverse.mean_psnr(dps(fold(key, 4), prior, other, steps, s), tuning)
        scale = inverse.best(SCALES, score)
        metrics[f"psnr_dps_{name}"] = inverse.mean_psnr(dps(fold(key, 3), prior, problem, steps, scale), test)
        metrics[f"scale_dps_{name}"] = scale
    for zeta in (0.1, 1.0):
        draws = np.stack([diffpir(fold(key, 5 + i), prior, problem, few, zeta) for i in range(4)])
        metrics[f"psnr_zeta_{zeta}"] = np.mean([inverse.mean_psnr(jnp.asarray(x), test) for x in draws])
        metrics[f"variance_zeta_{zeta}"] = draws.var(axis=0).mean()
    blind = diffpir(fold(key, 3), prior, problem, few, strength=1e8)
    method = POSTERIOR_SAMPLERS["diffpir"](steps=few)
    return metrics | {
        "psnr_no_data": inverse.mean_psnr(blind, test),
        "evaluations": method.nfe / few,
        "gradients": method.vjps,
    }


def measure(config, key, priors):
    return measure_exact(config, key) if config.part == "exact" else measure_task(config, key, priors)


def _gap(table, task, name, other):
    return table[task][f"psnr_{name}"].mean() - table[task][f"psnr_{other}"].mean()


CLAIMS = {
    "a_restores": (
        "20 steps: at least 2 dB above the pseudo-inverse on every task, and above Wiener's estimate on blur",
        lambda t: all(_gap(t, task, "few", "pinv") >= 2 for task in TASKS) and _gap(t, "blur", "few", "wiener") > 0,
    ),
    "a_few": (
        "20 steps: at least 1 dB above DPS with 20 steps on inpainting and blur",
        lambda t: all(_gap(t, task, "few", "dps_few") >= 1 for task in ("inpaint", "blur")),
    ),
    "a_many": (
        "100 steps: at most 1.5 dB below DPS with 100 steps on every task",
        lambda t: all(_gap(t, task, "many", "dps_many") >= -1.5 for task in TASKS),
    ),
    "b_consistent": (
        "the mean square of y - A x is at most 1.3 std^2 + 1e-3 on both noisy tasks",
        lambda t: all(t[task]["residual_few"].mean() <= 1.3 * TASKS[task][1] ** 2 + 1e-3 for task in ("blur", "sr")),
    ),
    "c_parts": (
        "without the data step inpainting is within 1.5 dB of an unguided sample; zeta = 1 varies more than 0.1",
        lambda t: (
            abs(_gap(t, "inpaint", "no_data", "unguided")) <= 1.5
            and all((t[task]["variance_zeta_1.0"] > t[task]["variance_zeta_0.1"]).all() for task in TASKS)
        ),
    ),
    "d_exact": (
        "exact mixture: the sliced W2 to the posterior falls with zeta and with steps",
        lambda t: (
            t["exact"]["w2_few_0.1"].mean()
            > t["exact"]["w2_few_0.5"].mean()
            > t["exact"]["w2_few_1"].mean()
            > t["exact"]["w2_many_1"].mean()
        ),
    ),
    "e_cost": (
        "one denoiser evaluation a step and no gradient of it",
        lambda t: bool((t["blur"]["evaluations"] == 1).all() and (t["blur"]["gradients"] == 0).all()),
    ),
}
