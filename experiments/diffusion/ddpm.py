"""Denoising Diffusion Probabilistic Models (arXiv 2006.11239).

    genjax reproduce ddpm

Rules fixed before the runs:

A. `sampler`, exact: eight Gaussians in the plane and their closed-form noise prediction. Pass: ancestral
   sampling in 1,000 steps has a sliced W2 to data of at most 1.5 times that between two sets of data,
   for both choices of sigma_t; 50 steps with the larger one are worse than 1,000.
   `bound`, exact: the sum of KL terms equals a Monte-Carlo estimate of the bound from the log-ratio of
   whole chains within 3 standard errors, is not below the true negative log-likelihood, and the prior's
   term is below 1e-3 nats a dimension.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from genjax.core.keys import fold, per_sample
from genjax.losses.elbo import chain_bound
from genjax.metrics.distances import sliced_wasserstein2
from genjax.oracles.mixture import ring
from genjax.processes import gaussian
from genjax.solvers import grids
from genjax.solvers.ancestral import VARIANCES, ddpm
from genjax.solvers.base import generate

PAPER = {
    "number": 23,
    "title": "Denoising Diffusion Probabilistic Models",
    "year": 2020,
    "arxiv": "2006.11239",
    "family": "diffusion",
}
PRIORS = ()
SEEDS = 3


def get_config(scale="small"):
    return ConfigDict()


VARIANTS = {"sampler": {"part": "sampler"}, "bound": {"part": "bound"}}


def measure_sampler(config, key):
    """Sliced W2 of ancestral samples over that of two sets of data."""
    draws, steps = {"small": (4000, 1000), "smoke": (50, 20)}[config.scale]
    process, mixture = gaussian.ddpm(steps), ring(8, 0.7, 0.05)
    denoiser = mixture.denoiser(process)
    data = np.asarray(mixture.sample(jax.random.fold_in(key, 0), 5 * draws)[0]).reshape(5, draws, 2)
    floor = np.mean([sliced_wasserstein2(data[0], other) for other in data[1:]])
    metrics = {"floor": floor}
    for variance in ("lower", "upper"):
        for n in (steps, steps // 20):
            run = jax.jit(
                lambda k, v=variance, n=n: generate(
                    k, denoiser, process, ddpm(v), grids.uniform(process, n), jnp.zeros((draws, 2))
                )
            )
            x = run(jax.random.fold_in(key, 1))
            name = "all" if n == steps else "few"
            metrics[f"{variance}_{name}"] = np.mean([sliced_wasserstein2(x, other) for other in data[1:]]) / floor
    return metrics


def measure_bound(config, key):
    """The bound as a sum of KL terms and as a log-ratio of chains, against the true likelihood; nats an example."""
    draws, steps = {"small": (4000, 1000), "smoke": (50, 20)}[config.scale]
    process, mixture = gaussian.ddpm(steps), ring(8, 0.7, 0.05)
    denoiser = mixture.denoiser(process)
    grid = grids.uniform(process, steps)
    x0, _ = mixture.sample(jax.random.fold_in(key, 0), draws)
    bound = jax.jit(lambda k: chain_bound(k, denoiser, process, x0, grid, variance="lower"))(jax.random.fold_in(key, 1))

    @jax.jit
    def chain(keys):
        """log q(x_1..T | x0) - log p(x_T, x_1..T), the decoder as in `bound`, for chains drawn forwards."""

        def step(carry, inputs):
            x, total = carry
            i, s, t = inputs  # from s up to t
            law = process.transition(x, s, t)
            later = law.sample(fold(keys, i))
            back = process.posterior(later, denoiser(later, t), t, s)
            return (later, total + law.log_prob(later) - back.log_prob(x)), None

        up = grid[::-1]
        first = process.transition(x0, 0.0, up[1])
        x1 = first.sample(fold(keys, 0))
        start = (x1, first.log_prob(x1))
        (x, total), _ = jax.lax.scan(step, start, (jnp.arange(1, steps), up[1:-1], up[2:]))
        prior = -0.5 * jnp.sum(x**2, -1) / process.sigma(up[-1]) ** 2
        return total - prior + x.shape[-1] * (process.log_sigma(up[-1]) + 0.5 * jnp.log(2 * jnp.pi))

    ratio = chain(per_sample(jax.random.fold_in(key, 2), draws)) + bound.decoder
    total = np.asarray(bound.total, np.float64)
    truth = -np.asarray(mixture.log_prob(x0), np.float64)
    gap = np.asarray(ratio, np.float64) - total
    return {
        "bound": total.mean(),
        "true_nll": truth.mean(),
        "gap": (total - truth).mean(),
        "gap_error": (total - truth).std() / np.sqrt(draws),
        "chain_gap_in_errors": np.abs(gap.mean()) / (gap.std() / np.sqrt(draws)),
        "prior_per_dim": np.max(np.asarray(bound.prior)) / 2,
    }


def measure(config, key, priors):
    return {"sampler": measure_sampler, "bound": measure_bound}[config.part](config, key)


CLAIMS = {}
