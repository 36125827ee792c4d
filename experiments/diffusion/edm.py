"""Elucidating the Design Space of Diffusion-Based Generative Models (arXiv 2206.00364).

    genjax reproduce edm

Three parts; the rules were fixed before the runs.

A. `solvers`: order of the samplers and the spacing of the noise levels, no training. Data are eight
   Gaussians (std 0.05) on a ring of radius 0.7, the denoiser is exact, and a solver's error is the RMS
   distance of its end points from those of Heun in 2,000 steps, over fixed latents. Pass: from 35 to 71
   network evaluations (NFE) Heun's error falls by at least 3.5 and Euler's by at most 3; at 71 NFE Heun's
   error is at most 0.6 of Euler's; rho = 7 makes Euler's error at most 0.05 of that with equal steps in
   sigma. (At 17 NFE Euler is ahead, so nothing is claimed for tiny budgets.)
B. `scaling`: on data of standard deviation 0.5 the network's input and its training target have unit
   variance within 5 % for sigma in {0.01, 0.1, 0.5, 2, 20}; without c_in the input's deviation at
   sigma = 20 is above 10.
C. `edm` against `ve_baseline`: one MLP on the digits at equal steps, data order and initialization,
   once with EDM's preconditioning, weight and log-normal noise levels, once with the VE design (plain
   input, noise as the target, log-uniform levels, weight 1/sigma^2). Denoising MSE of held-out
   digits on eight noise levels, each over that of the best linear denoiser, averaged. Pass: EDM at most
   0.9 of the baseline with every seed. Both networks are given ln(sigma)/4, so that the noise
   embedding is not part of the comparison.

`get_config("paper")`: CIFAR-10, class-conditional DDPM++; the paper reports FID 1.79 in 35 NFE.
"""

import jax
import jax.numpy as jnp
import numpy as np

from genjax import build
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.core.denoiser import make_denoiser
from genjax.core.keys import fold, normal, per_sample
from genjax.core.prediction import target_coefficients
from genjax.networks import unet
from genjax.oracles.gaussian import gaussian_data
from genjax.oracles.mixture import ring
from genjax.processes import gaussian
from genjax.solvers import grids
from genjax.solvers.base import nfe, sample
from genjax.solvers.ode import euler, heun

PAPER = {
    "number": 32,
    "title": "Elucidating the Design Space of Diffusion-Based Generative Models",
    "year": 2022,
    "arxiv": "2206.00364",
    "family": "diffusion",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3
SCALING_LEVELS = (0.01, 0.1, 0.5, 2.0, 20.0)
TRAINED_LEVELS = tuple(float(s) for s in np.geomspace(0.02, 20.0, 8).round(4))


def get_config(scale="small"):
    if scale == "paper":
        return paper_config()
    return digits.base_config(
        scale,
        3000,
        process={"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0},
        denoiser={"target": "edm", "sigma_data": 0.5, "scale_input": True, "noise_input": "edm"},
        loss={
            "name": "denoising",
            "time_sampler": {"name": "log_normal", "mean": -1.2, "std": 1.2},
            "weighting": {"name": "edm", "sigma_data": 0.5},
        },
        sample={"solver": "heun", "grid": "karras", "steps": 18},
    )


VE = {
    "denoiser.target": "eps",
    "denoiser.scale_input": False,
    "loss.time_sampler": {"name": "log_snr"},
    "loss.weighting": {"name": "eps"},  # 1 / sigma^2 on the error of the denoised image
}
VARIANTS = {
    "solvers": {"part": "solvers"},
    "scaling": {"part": "scaling"},
    "edm": {"part": "training"},
    "ve_baseline": {"part": "training", **VE},
}


def linear_sigma(process, n):
    """Equal steps in sigma, then 0: the control for `karras`."""
    return jnp.append(jnp.linspace(process.t_max, process.t_min, n), 0.0)


def measure_solvers(config, key):
    """RMS distance from the exact end points, and the ratios that the claims are about."""
    process = gaussian.edm()
    mixture = ring(8, 0.7, 0.05)
    denoiser = mixture.denoiser(process)
    latents, reference_steps = {"small": (4000, 2000), "smoke": (64, 100)}[config.scale]
    x = process.t_max * normal(key, (latents, 2))
    run = jax.jit(lambda solver, grid: sample(None, denoiser, process, solver, grid, x), static_argnums=0)
    solvers = {"euler": euler(), "heun": heun()}
    reference = run(solvers["heun"], grids.karras(process, reference_steps))
    spacings = {"rho7": grids.karras, "linear": linear_sigma}
    runs = [("heun", "rho7", 18), ("heun", "rho7", 36), ("euler", "rho7", 35), ("euler", "rho7", 71)]
    runs += [("heun", "linear", 36), ("euler", "linear", 71)]
    metrics = {}
    for name, spacing, steps in runs:
        grid = spacings[spacing](process, steps)
        gap = run(solvers[name], grid) - reference
        metrics[f"{name}_{spacing}_nfe{nfe(solvers[name], grid)}"] = jnp.sqrt(jnp.mean(jnp.sum(gap**2, axis=-1)))
    return metrics


def measure_scaling(config, key):
    """Standard deviations of what the network is given and asked for, at each noise level."""
    x0 = 0.5 * jnp.sign(normal(jax.random.fold_in(key, 0), (200000, 2)))  # far from normal, std 0.5
    eps = normal(jax.random.fold_in(key, 1), x0.shape)
    process = gaussian.edm()
    metrics = {}
    for sigma in SCALING_LEVELS:
        x = process.perturb(x0, eps, sigma)
        c, d = target_coefficients("edm", process, jnp.asarray(sigma), 0.5)
        metrics[f"target_var_{sigma}"] = jnp.var(c * x0 + d * eps)
        for name, scale_input in (("edm", True), ("ve", False)):
            # a network that shows its input as a feature
            network = make_denoiser(
                lambda inputs, *_: (jnp.zeros_like(inputs), inputs),
                process,
                "edm",
                sigma_data=0.5,
                scale_input=scale_input,
            )
            metrics[f"{name}_input_var_{sigma}"] = jnp.var(network(x, sigma).features)
    return metrics


def scaled_digits(x):
    """Digits with mean 0 and standard deviation 0.5 over all pixels."""
    train = digits.training()
    return (0.5 * (x - train.mean()) / train.std()).astype(np.float32)


def train(config, key, priors):
    if config.part != "training":
        return {}
    model = run.model_config(config)
    arrays = {"x": scaled_digits(digits.training())}
    plan = build.plan(model)
    return run.fit(build.algorithm(model, digits.spec()), arrays, key, plan.steps, plan.batch_size)[-1][1]


def measure_training(config, key, state):
    """Denoising error of held-out digits at each noise level over that of the best linear denoiser, and the mean."""
    train, test = scaled_digits(digits.training()), jnp.asarray(scaled_digits(digits.held_out()))
    centred = train - train.mean(axis=0)
    oracle = gaussian_data(jnp.asarray(train.mean(axis=0)), jnp.asarray(centred.T @ centred / (len(train) - 1)))
    process = build.process(config)

    @jax.jit
    def errors(state, key):
        denoisers = run.denoiser_of(config, digits.spec(), state)[0], oracle.denoiser(process)

        def at(sigma):
            x, true = process.corrupt(per_sample(key, len(test)), test, sigma)
            return jnp.stack([jnp.mean((d(x, sigma).x0 - true.x0) ** 2) for d in denoisers])

        return jax.lax.map(at, jnp.array(TRAINED_LEVELS))

    network, linear = jnp.mean(jnp.stack([errors(state, fold(key, i)) for i in range(8)]), axis=0).T
    metrics = {f"mse_ratio_{sigma}": ratio for sigma, ratio in zip(TRAINED_LEVELS, network / linear)}
    return {"mse_ratio": jnp.mean(network / linear), **metrics}


def measure(config, key, priors):
    if config.part == "training":
        return measure_training(config, key, priors["edm"])
    return {"solvers": measure_solvers, "scaling": measure_scaling}[config.part](config, key)


def _near_one(values):
    return bool((np.abs(values - 1) <= 0.05).all())


CLAIMS = {
    "order": (
        "from 35 to 71 NFE Heun's error falls at least 3.5-fold and Euler's at most 3-fold, every seed",
        lambda t: bool(
            (t["solvers"]["heun_rho7_nfe35"] >= 3.5 * t["solvers"]["heun_rho7_nfe71"]).all()
            and (t["solvers"]["euler_rho7_nfe35"] <= 3 * t["solvers"]["euler_rho7_nfe71"]).all()
        ),
    ),
    "heun": (
        "at 71 NFE Heun's error is at most 0.6 of Euler's, every seed",
        lambda t: bool((t["solvers"]["heun_rho7_nfe71"] <= 0.6 * t["solvers"]["euler_rho7_nfe71"]).all()),
    ),
    "spacing": (
        "rho = 7 makes Euler's error at most 0.05 of that with equal steps in sigma, every seed",
        lambda t: bool((t["solvers"]["euler_rho7_nfe71"] <= 0.05 * t["solvers"]["euler_linear_nfe71"]).all()),
    ),
    "unit_variance": (
        "input and target have variance 1 within 5 % at five noise levels; without c_in the input's std exceeds 10",
        lambda t: (
            all(
                _near_one(t["scaling"][f"target_var_{s}"]) and _near_one(t["scaling"][f"edm_input_var_{s}"])
                for s in SCALING_LEVELS
            )
            and bool((t["scaling"]["ve_input_var_20.0"] > 100).all())
        ),
    ),
    "training": (
        "after equal steps the denoising error under EDM's design is at most 0.9 of the VE design's, every seed",
        lambda t: bool((t["edm"]["mse_ratio"] <= 0.9 * t["ve_baseline"]["mse_ratio"]).all()),
    ),
}


def paper_config():
    """Table 7, CIFAR-10, class-conditional, DDPM++ (no augmentation): 200 Mimg at batch 512."""
    config = digits.base_config(
        "small",
        390625,
        **{
            "data": {"name": "tfds", "dataset": "cifar10"},
            "process": {"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0},
            "network": {"name": "unet", **unet.PRESETS["ddpmpp_cifar"]},
            "denoiser": {"target": "edm", "sigma_data": 0.5, "scale_input": True, "noise_input": "edm"},
            "loss": {
                "name": "denoising",
                "time_sampler": {"name": "log_normal", "mean": -1.2, "std": 1.2},
                "weighting": {"name": "edm", "sigma_data": 0.5},
            },
            "algorithm": {"name": "diffusion", "cond": ("label",)},
            "optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": {"name": "constant", "warmup": 19532}},
            "ema": {"name": "half_life", "steps": 977.0, "ramp_up": 0.05},
            "sample": {"solver": "heun", "grid": "karras", "steps": 18},
        },
    )
    config.train.batch_size = 512
    return config
