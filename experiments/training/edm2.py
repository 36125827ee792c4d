"""Analyzing and Improving the Training Dynamics of Diffusion Models (arXiv 2312.02696).

    genjax reproduce edm2

Rules fixed before the runs:

A. `posthoc`: post-hoc EMA, exact algebra. Parameters that walk at random for 4,096 steps, averages of
   relative widths 0.05 and 0.10 stored 32 times; widths never tracked are reconstructed at the end and
   compared with the same width tracked directly. Pass: relative error at most 1e-3 for 0.07 and
   0.15, at most 5e-3 for 0.03 and 0.20; the nearest stored average is at least 100 times worse for each;
   width -> exponent -> width is the identity to 1e-8.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from genjax.core.keys import normal
from genjax.train import ema

PAPER = {
    "number": 177,
    "title": "Analyzing and Improving the Training Dynamics of Diffusion Models",
    "year": 2023,
    "arxiv": "2312.02696",
    "family": "training",
}
PRIORS = ()
SEEDS = 3
TRACKED = (0.05, 0.10)
WANTED = (0.03, 0.07, 0.15, 0.20)


def get_config(scale="small"):
    return ConfigDict()


VARIANTS = {"posthoc": {"part": "posthoc"}}


def measure_posthoc(config, key):
    steps, snapshots, size = {"small": (4096, 32, 1000), "smoke": (64, 8, 10)}[config.scale]
    average = ema.power(TRACKED + WANTED)
    start = jnp.zeros((1, size))

    def step(carry, i):
        params, state = carry
        params = params + normal(jax.random.fold_in(key, i), params.shape)
        return (params, average.update(state, params, i)), None

    @jax.jit
    def run():
        def period(carry, first):
            carry, _ = jax.lax.scan(step, carry, first + 1 + jnp.arange(steps // snapshots))
            return carry, carry[1]

        return jax.lax.scan(period, (start, average.init(start)), steps // snapshots * jnp.arange(snapshots))[1]

    tracks = [np.asarray(t) for t in run()]  # a track: [snapshots, 1, size]
    times = steps // snapshots * (1 + np.arange(snapshots))
    stored = [(t, std, tracks[k][i]) for i, t in enumerate(times) for k, std in enumerate(TRACKED)]
    metrics = {}
    for std, track in zip(WANTED, tracks[len(TRACKED) :]):
        gap = lambda params, truth=track[-1]: np.linalg.norm(params - truth) / np.linalg.norm(truth)
        metrics[f"error_{std}"] = gap(np.asarray(ema.posthoc_ema(stored, steps, std)))
        metrics[f"nearest_{std}"] = min(gap(params) for _, _, params in stored)
    exponents = np.array([0.5, 1.0, 5.0, 6.94, 16.97, 100.0])
    inverse = np.array([ema.std_to_exp(ema.exp_to_std(g)) for g in exponents])
    metrics["inversion_error"] = np.max(np.abs(inverse / exponents - 1))
    return metrics


def measure(config, key, priors):
    return measure_posthoc(config, key)


CLAIMS = {}
