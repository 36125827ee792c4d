"""Generative Diffusion Prior for Unified Image Restoration and Enhancement (arXiv 2304.01247).

    genjax reproduce gdp

The mean of each ancestral step moves against the gradient of the data loss at the predicted clean image, which costs
no gradient of the network; unknown parameters of the degradation are fitted along the way. 200 steps; scales tuned on
other images for each task and form. Rules fixed before the runs, means over seeds:

A. Digits, a trained prior, 64 held-out images: `sr` (averages of 2x2) and `inpaint` (70 % missing), noise 0.01. PSNR
   at least 4 dB above the pseudo-inverse, and at least 1.5 dB above the x_t form, whose loss is taken at the noisy
   state.
B. `blind`: low light y = f x + m in [0, 1] with unknown f in [0.15, 0.5] and m in [0, 0.1], noise 0.01. PSNR at least
   5 dB above GDP that takes f = 1, m = 0, and at least 1 dB above a stretch between least and largest value; the
   median error of f is at most 10 %.
C. `exact`: ten Gaussians in d = 16, two of which agree on the 6 coordinates seen: sliced W2 to the exact posterior at
   most 0.6 of the x_t form's, each at its best scale.
D. One denoiser evaluation a step, no gradient of it.

What failed. B, by its last part alone: the median error of f is 10.1 % (4, 9 and 17 by seed), where PSNR is 16 dB above
f = 1 and 2.1 dB above the stretch. Where f is worse PSNR is too (28.6, 26.8 and 26.4 dB), at the same scale, 1 for
every seed. Why seeds differ is not known; gain and offset are fitted together at fixed rates.

`get_config("paper")`: ADM at 256x256, unconditional (ImageNet in the paper, CelebA-HQ here), 1,000 steps; the scale
is that of a sum of squares, as everywhere in the toolkit, and so not the published number.
"""

import jax
import jax.numpy as jnp

from genjax.cli import runner_default as run
from genjax.cli import runner_inverse as inverse
from genjax.core.keys import fold
from genjax.inverse import POSTERIOR_SAMPLERS, Gaussian
from genjax.inverse import measure as measured
from genjax.inverse.operators import low_light, random, super_resolution
from genjax.metrics import sliced_wasserstein2
from genjax.processes import gaussian

PAPER = {
    "number": 131,
    "title": "Generative Diffusion Prior for Unified Image Restoration and Enhancement",
    "year": 2023,
    "arxiv": "2304.01247",
    "family": "inverse",
    "kind": "method",
}
PRIORS = ("dps",)
SEEDS = 3
SCALES = {"x0": (0.1, 0.3, 1.0, 3.0, 10.0), "x_t": (1.0, 3.0, 10.0, 30.0)}
RATES = {"log_gain": 0.8, "offset": 0.05}  # stable while the gain is at most 1, where it starts
PROCESS = gaussian.vp()
TASKS = {"sr": super_resolution(inverse.SHAPE), "inpaint": random(inverse.SHAPE, 0.7)}


def get_config(scale="small"):
    if scale == "paper":
        return inverse.published_config(
            1950000, 256, channels=256, num_blocks=2, attention=(32, 16, 8), head_channels=64
        )
    return inverse.small_config(scale)


VARIANTS = {part: {"part": part} for part in ("exact", *TASKS, "blind")}


def gdp(config, key, prior, problem, scale, form="x0", rates=None, clip=(-1.0, 1.0)):
    """(x, phi)."""
    steps = 200 if config.scale == "small" else 4
    numbers = {"scale": scale} | ({} if rates is None else {"rates": rates})
    x, extra = inverse.restore(
        key, "gdp", prior, PROCESS, problem, numbers, form=form, clip=clip, steps=steps, grid="uniform"
    )
    return x, extra["phi"]


def measure_exact(config, key):
    n = 400 if config.scale == "small" else 16
    prior, problem, law = inverse.ambiguous(run.seed_of(key))
    metrics = {"floor": sliced_wasserstein2(law.sample(fold(key, 1), n), law.sample(fold(key, 2), n))}
    for form, scales in SCALES.items():
        draws = [gdp(config, fold(key, 0), prior, inverse.repeat(problem, n), s, form, clip=None)[0] for s in scales]
        finite = [x for x in draws if jnp.isfinite(x).all()]
        metrics[f"w2_{form}"] = min(inverse.distance_to_posterior(x, law, fold(key, 1))[0] for x in finite)
    return metrics


def sets(config, key):
    """(images to restore, images to tune on)."""
    return inverse.images(fold(key, 0), 64 if config.scale == "small" else 2)[:2]


def tuned(config, key, prior, problem, other, tuning, form="x0", rates=None):
    """((x, phi), scale) at the scale that is best on `tuning`."""
    go = lambda i, problem, scale: gdp(config, fold(key, i), prior, problem, scale, form, rates)
    scale = inverse.best(SCALES[form], lambda s: inverse.mean_psnr(go(3, other, s)[0], tuning))
    return go(4, problem, scale), scale


def measure_task(config, key, priors):
    prior, (test, tuning) = inverse.digits_prior(priors, config.scale), sets(config, key)
    operator = TASKS[config.part]
    problem, other = (measured(fold(key, 1 + i), operator, Gaussian(0.01), x) for i, x in enumerate((test, tuning)))
    metrics = {
        "psnr_pinv": inverse.mean_psnr(operator.pinv(problem.y), test),
        "psnr_unguided": inverse.mean_psnr(gdp(config, fold(key, 4), prior, problem, 0.0)[0], test),
    }
    for form in SCALES:
        (x, _), metrics[f"scale_{form}"] = tuned(config, key, prior, problem, other, tuning, form)
        metrics[f"psnr_{form}"] = inverse.mean_psnr(x, test)
    method = POSTERIOR_SAMPLERS["gdp"](steps=10)
    return metrics | {"evaluations": method.nfe / 10, "gradients": method.vjps}


def measure_blind(config, key, priors):
    prior, pair = inverse.digits_prior(priors, config.scale), sets(config, key)
    operator = low_light(inverse.SHAPE, gain=1.0, offset=0.0)
    problems, gains = [], []
    for i, x in enumerate(pair):
        gain = jax.random.uniform(fold(key, 5 + i), (len(x),), minval=0.15, maxval=0.5)
        offset = jax.random.uniform(fold(key, 7 + i), (len(x), 1, 1, 1), maxval=0.1)
        phi = {"log_gain": jnp.log(gain), "offset": offset}
        problems.append(measured(fold(key, 1 + i), operator, Gaussian(0.02), x, phi))  # 0.01 of light
        gains.append(gain)
    (test, tuning), (problem, other) = pair, problems
    (x, phi), scale = tuned(config, key, prior, problem, other, tuning, rates=RATES)
    (plain, _), scale_known = tuned(config, key, prior, problem, other, tuning)
    y = problem.y
    low, high = (f(y, axis=(1, 2, 3), keepdims=True) for f in (jnp.min, jnp.max))
    return {
        "psnr": inverse.mean_psnr(x, test),
        "psnr_known": inverse.mean_psnr(plain, test),
        "psnr_stretch": inverse.mean_psnr(2 * (y - low) / (high - low) - 1, test),
        "gain_error": jnp.median(jnp.abs(jnp.exp(phi["log_gain"]) / gains[0] - 1)),
        "scale": scale,
        "scale_known": scale_known,
    }


def measure(config, key, priors):
    if config.part == "exact":
        return measure_exact(config, key)
    return (measure_blind if config.part == "blind" else measure_task)(config, key, priors)


CLAIMS = {
    "a_restores": (
        "digits: at least 4 dB above the pseudo-inverse on both tasks",
        lambda t: all(t[task]["psnr_x0"].mean() >= t[task]["psnr_pinv"].mean() + 4 for task in TASKS),
    ),
    "a_form": (
        "digits: at least 1.5 dB above the x_t form on both tasks",
        lambda t: all(t[task]["psnr_x0"].mean() >= t[task]["psnr_x_t"].mean() + 1.5 for task in TASKS),
    ),
    "b_blind": (
        "low light: at least 5 dB above f = 1 and 1 dB above a stretch, median error of f at most 10 %",
        lambda t: (
            t["blind"]["psnr"].mean() >= t["blind"]["psnr_known"].mean() + 5
            and t["blind"]["psnr"].mean() >= t["blind"]["psnr_stretch"].mean() + 1
            and t["blind"]["gain_error"].mean() <= 0.1
        ),
    ),
    "c_posterior": (
        "exact mixture: sliced W2 to the posterior at most 0.6 of the x_t form's",
        lambda t: t["exact"]["w2_x0"].mean() <= 0.6 * t["exact"]["w2_x_t"].mean(),
    ),
    "d_cost": (
        "one denoiser evaluation a step, no gradient of it",
        lambda t: all((t[task]["evaluations"] == 1).all() and (t[task]["gradients"] == 0).all() for task in TASKS),
    ),
}
