"""Solving 3D Inverse Problems using Pre-trained 2D Diffusion Models (arXiv 2211.10655).

    genjax reproduce diffusion_mbir

A prior of slices restores a volume; an ADMM iteration with the total variation between neighbouring slices follows
each denoising, its variables living through all steps. Volumes of 16 slices of 16x16, ellipses that move from one
random set to another; FOUR views, noise 1 % of the largest measurement; the prior of slices that `mcg` trains; 60
ancestral steps from sigma 10 to 0.01, lambda = 0.02, rho = 0.05, one step of conjugate gradients, |A| = 1. Three
volumes a seed. Arms with the same draws: `slices`, lambda = rho = 0; `reset`, the variables set to zero at each step;
ADMM with total variation in z alone (300 iterations of 5 steps from zero, the best of four lambda on the test
volumes); filtered back projection. Rules fixed before the runs, means over seeds:

A. PSNR at least 4 dB above `slices` and 1 dB above total variation alone.
B. The total variation along z is at most 3 times the truth's, above 10 times for `slices`; the relative residual |y -
   A x| / |y| at most 0.03.
C. `reset` loses at least 0.5 dB and its total variation is at least 0.4 of the truth's higher.

What failed. A: 2.7 dB above slice by slice (26.7 and 24.0), not 4, and B: the total variation slice by slice is 3.9
times the truth's, not above 10; the method's is 0.9. Both rules count on a weak prior of slices. In a first run that of
`mcg` was 192 wide and trained at rate 1e-3 (now 256 and 2e-3, longer): slice by slice had 15.6 dB and 13 times the
truth's total variation, the method 23.4 dB, less than total variation alone (23.9 in both runs); the better prior
brings slices of one volume together by itself, and the method 2.9 dB above total variation alone.

`get_config("paper")`: the score model of AAPM slices at 256x256 (a set to be prepared), VE, 2,000 steps; published
lambda and rho are in `PUBLISHED`, for an operator that is not normalized.
"""

import functools

import jax
import jax.numpy as jnp

from genjax.cli import runner_inverse as inverse
from genjax.core.keys import fold
from genjax.inverse import Gaussian, total_variation_step
from genjax.inverse import measure as measured
from genjax.inverse.linear import curvature
from genjax.inverse.operators import dense, matrix, radon, slices
from genjax.inverse.volume import difference
from genjax.metrics.image import psnr
from genjax.processes import gaussian
from genjax.worlds import phantoms

PAPER = {
    "number": 94,
    "title": "Solving 3D Inverse Problems using Pre-trained 2D Diffusion Models",
    "year": 2023,
    "arxiv": "2211.10655",
    "family": "inverse",
    "kind": "method",
}
PRIORS = ("mcg",)
SEEDS = 3
SHAPE, DEPTH, VIEWS = (16, 16, 1), 16, 4
WEIGHT, RHO = 0.02, 0.05
WEIGHTS = (0.003, 0.01, 0.03, 0.1)  # of total variation alone
PUBLISHED = {"weight": 0.04, "rho": 10.0, "steps": 2000}
PROCESS = gaussian.edm(0.01, 10.0)


def get_config(scale="small"):
    if scale == "paper":
        config = inverse.published_config(1000000, 16, "aapm_ct/256")
        config.process = {"name": "ve", "sigma_min": 0.01, "sigma_max": 378.0}
        config.denoiser = {"target": "eps"}
        config.loss = {"name": "denoising", "weighting": {"name": "eps"}}
        config.sample = {"solver": "predictor_corrector", "grid": "uniform", "steps": 2000}
        return config
    return inverse.small_config(scale)


VARIANTS = {"volumes": {"part": "volumes"}}


@functools.partial(jax.jit, static_argnums=3)
def total_variation(problem, weight, size, iterations):
    """ADMM with total variation in z alone, from zero."""
    zero = jnp.zeros((len(problem.y), *problem.operator.in_shape), problem.y.dtype)

    def body(carry, _):
        x, split = carry
        return total_variation_step(problem.operator, problem.y, x, split, weight, 0.1, 5, size), None

    return jax.lax.scan(body, (zero, (zero, zero)), None, iterations)[0][0]


def measure(config, key, priors):
    small = config.scale == "small"
    n, steps = (3, 60) if small else (1, 4)
    prior = inverse.fitted_prior(priors["mcg"], (256,), 256)
    truth = jax.jit(phantoms.volumes, static_argnums=(2, 3))(fold(key, 0), jnp.arange(n), DEPTH, SHAPE[0])
    views = radon(SHAPE, VIEWS)
    operator = slices(dense(matrix(views), SHAPE), DEPTH)
    std = 0.01 * jnp.max(jnp.abs(operator.forward(truth)))
    problem = measured(fold(key, 1), operator, Gaussian(std), truth)
    size = curvature(operator.forward, jnp.zeros((1, *operator.in_shape)), 30)[0]

    def mbir(weight, rho, carry=True):
        numbers = {"weight": weight, "rho": rho}
        return inverse.restore(
            fold(key, 2), "diffusion_mbir", prior, PROCESS, problem, numbers, steps=steps, carry=carry
        )[0]

    stacked = lambda x: x.reshape(n, DEPTH * SHAPE[0], *SHAPE[1:])  # one image a volume: its PSNR is the volume's
    quality = lambda x: jnp.mean(psnr(stacked(x), stacked(truth)))
    alone = [total_variation(problem, w, size, 300 if small else 3) for w in WEIGHTS]
    back = views.fbp(problem.y.reshape(n * DEPTH, *views.out_shape)).reshape(truth.shape)
    found = {
        "mbir": mbir(WEIGHT, RHO),
        "slices": mbir(0.0, 0.0),
        "reset": mbir(WEIGHT, RHO, carry=False),
        "tv": max(alone, key=lambda x: float(quality(x))),
        "fbp": back,
    }
    rough = lambda x: jnp.sum(jnp.abs(difference(x)), axis=(1, 2, 3, 4))
    norm = lambda y: jnp.sqrt(jnp.sum(y**2, axis=tuple(range(1, y.ndim))))
    metrics = {}
    for name, x in found.items():
        metrics |= {
            f"psnr_{name}": quality(x),
            f"tvz_{name}": jnp.mean(rough(x) / rough(truth)),
            f"residual_{name}": jnp.mean(norm(problem.y - operator.forward(x)) / norm(problem.y)),
        }
    return metrics


def _mean(table, metric):
    return table["volumes"][metric].mean()


CLAIMS = {
    "a_slices": (
        "PSNR at least 4 dB above slice by slice",
        lambda t: _mean(t, "psnr_mbir") >= _mean(t, "psnr_slices") + 4,
    ),
    "a_tv": (
        "PSNR at least 1 dB above total variation alone at its best lambda",
        lambda t: _mean(t, "psnr_mbir") >= _mean(t, "psnr_tv") + 1,
    ),
    "b_coherent": (
        "total variation along z at most 3 times the truth's, above 10 times slice by slice; residual at most 0.03",
        lambda t: _mean(t, "tvz_mbir") <= 3 and _mean(t, "tvz_slices") > 10 and _mean(t, "residual_mbir") <= 0.03,
    ),
    "c_reset": (
        "variables reset at each step lose at least 0.5 dB and add at least 0.4 of the truth's total variation",
        lambda t: (
            _mean(t, "psnr_reset") <= _mean(t, "psnr_mbir") - 0.5
            and _mean(t, "tvz_reset") >= _mean(t, "tvz_mbir") + 0.4
        ),
    ),
}
