"""Solving Inverse Problems with Latent Diffusion Models via Hard Data Consistency (arXiv 2307.08123).

    genjax reproduce resample

A prior of latents: an autoencoder of digits with 24 of them (trained) and the exact denoiser of Gaussian kernels
(0.45 wide, unit variance) on those of the training set. At every 12th of 100 DDIM steps the clean latent is fitted to
the measurement (50 steps of Adam) and mixed with the sample by stochastic resampling. Tasks on 32 held-out digits,
noise 0.02: half of the pixels, averages of 2x2, a nonlinear blur. The scale of the latent gradient is tuned on other
images, for latent DPS and for ReSample alike. Rules fixed before the runs, means over seeds:

A. PSNR at least 1 dB above latent DPS on the average of tasks and at most 0.7 below on each; on average at least 0.3
   dB above a plain fit of the latent from their mean (400 steps of Adam).
B. The residual |y - A(x)| / |n| is at most 0.6 of latent DPS's on every task.
C. Against noising the fitted latent afresh (gamma = 1e6): at most 0.2 dB below on average, and the latents of 16
   draws of an image vary less. (That the resampling is the product of two Gaussians is a test of the toolkit.)

What failed. A: 0.5 dB above latent DPS on average (0.1 on pixels, 0.9 on averages, 0.6 on the blur), not 1, and above
it on each. The rule stems from a trial in which latent DPS had the published scale of 0.5; here it is tuned, and takes
0.8 to 1. Hard consistency shows in the residual, 0.37 to 0.58 of DPS's; on pixels both are far above the noise (2.9 and
6.1 of it) as the autoencoder's own error is.

`get_config("paper")`: the latent U-Net of LDM for faces (64x64x3 latents of a prepared set), settings `PUBLISHED`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.algorithms.supervised import supervised
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.cli import runner_guidance as guides
from genjax.cli import runner_inverse as inverse
from genjax.core.keys import fold
from genjax.core.numerics import mean_except_batch
from genjax.inverse import POSTERIOR_SAMPLERS, Gaussian
from genjax.inverse import measure as measured
from genjax.inverse.latent import descend
from genjax.inverse.operators import nonlinear_blur, random, super_resolution
from genjax.losses.autoencoding import negative_elbo
from genjax.networks import linen_net
from genjax.networks.vae import MLPVariational
from genjax.oracles.kernel import kernel
from genjax.processes import gaussian

PAPER = {
    "number": 162,
    "title": "Solving Inverse Problems with Latent Diffusion Models via Hard Data Consistency",
    "year": 2024,
    "arxiv": "2307.08123",
    "family": "inverse",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3
LATENT, STD = 24, 0.02
CODER = MLPVariational(shape=(64,), latent=LATENT, width=160, depth=1)
SCALES = (0.5, 1.0, 2.0)
HARD = {"every": 12, "inner_steps": 50, "rates": (2e-2, 2e-2)}
PUBLISHED = {"scale": 0.5, "gamma": 40.0, "every": 10, "steps": 500, "rates": (1e-2, 5e-3)}
PROCESS = gaussian.vp()
TASKS = {
    "inpaint": random(inverse.SHAPE, 0.5),
    "sr": super_resolution(inverse.SHAPE),
    "blur": nonlinear_blur(inverse.SHAPE, 4.0),
}


def get_config(scale="small"):
    if scale == "paper":
        config = inverse.published_config(635000, 96, "celeb_a_hq_latents")
        config.network = {
            "name": "unet",
            "channels": 224,
            "multipliers": (1, 2, 3, 4),
            "num_blocks": 2,
            "attention": (32, 16, 8),
            "head_channels": 32,
            "decoder_attention": "all",
            "skip_scale": 1.0,
            "noise_features": "positional",
        }
        config.denoiser.learned_variance = False
        config.loss = {"name": "denoising", "time_sampler": {"name": "discrete", "steps": 1000}}
        config.sample = {"solver": "ddim", "grid": "uniform", "steps": 500}
        return config
    return inverse.small_config(scale)


VARIANTS = {"tasks": {"part": "tasks"}}


@struct.dataclass
class Coder:
    """An autoencoder whose latents have mean 0 and variance 1 on the training set, and their kernels as a prior."""

    params: Any
    mean: Any = 0.0
    scale: Any = 1.0

    def encode(self, x):
        """Images or vectors -> latents [B, 24]."""
        x = x.reshape(len(x), -1)
        mean = CODER.apply({"params": self.params}, x, jnp.zeros((len(x), LATENT)))[1]
        return (mean - jnp.atleast_2d(self.mean)) / jnp.atleast_2d(self.scale)

    def decode(self, z):
        """Latents -> images [B, 8, 8, 1]."""
        x = CODER.apply(
            {"params": self.params}, z * jnp.atleast_2d(self.scale) + jnp.atleast_2d(self.mean), method="decode"
        )
        return x.reshape(-1, *inverse.SHAPE)


def train(config, key, priors):
    steps = 2500 if config.scale == "small" else 20
    algorithm = supervised(
        linen_net(CODER),
        negative_elbo(LATENT, std=0.1),
        guides.optimizer(steps, decay=0.0),
        inputs=lambda batch: (batch["x"], jnp.zeros((1, LATENT))),
        name="autoencoder",
    )
    return run.fit(algorithm, {"x": digits.training()}, key, steps, 128)[-1][1].params["autoencoder"]


@functools.partial(jax.jit, static_argnums=(0, 1))
def restore(name, settings, key, coder, points, measurement, numbers):
    """(x, latents) of a latent method."""
    method = POSTERIOR_SAMPLERS[name](coder.encode, coder.decode, **dict(settings), **numbers)
    like = jnp.zeros((len(measurement.y), *inverse.SHAPE))
    denoiser = kernel(points, 0.45, chunk=len(points)).denoiser(PROCESS)
    x, extra = method.detail(key, denoiser, PROCESS, measurement, like)
    return x, extra["z"]


@functools.partial(jax.jit, static_argnums=2)
def fitted(coder, measurement, iterations):
    """x of a latent fitted by Adam from the mean of latents."""
    loss = lambda z: mean_except_batch((measurement.y - measurement.operator.forward(coder.decode(z))) ** 2)
    z = jnp.zeros((len(measurement.y), LATENT))
    return coder.decode(descend(loss, z, iterations, 2e-2, measurement.noise.std**2))


def measure(config, key, priors):
    small = config.scale == "small"
    n, steps = (32, 100) if small else (2, 12)
    coder = Coder(jax.tree.map(jnp.asarray, priors["resample"]))
    z = coder.encode(jnp.asarray(digits.training()))
    coder = coder.replace(mean=z.mean(0), scale=z.std(0))
    points = coder.encode(jnp.asarray(digits.training()))
    test, tuning, _ = inverse.images(fold(key, 0), n)
    metrics = {"psnr_coder": inverse.mean_psnr(coder.decode(coder.encode(test)), test)}
    hard = tuple(sorted({"steps": steps, "grid": "uniform", **HARD, **({} if small else {"every": 3})}.items()))
    soft = (("eta", 0.0), ("grid", "uniform"), ("steps", steps))

    for task, operator in TASKS.items():
        problem, other = (measured(fold(key, 1 + i), operator, Gaussian(STD), x) for i, x in enumerate((test, tuning)))
        dps = lambda k, p, s: restore("latent_dps", soft, k, coder, points, p, {"scale": jnp.asarray(s)})

        def hard_restore(k, p, s, gamma=40.0):
            numbers = {"scale": jnp.asarray(s), "gamma": jnp.asarray(gamma)}
            return restore("resample", hard, k, coder, points, p, numbers)

        def tuned(method, other=other):
            return inverse.best(SCALES, lambda s: inverse.mean_psnr(method(fold(key, 3), other, s)[0], tuning))

        scale, scale_dps = tuned(hard_restore), tuned(dps)
        found = {
            "resample": hard_restore(fold(key, 4), problem, scale)[0],
            "renoised": hard_restore(fold(key, 4), problem, scale, 1e6)[0],
            "dps": dps(fold(key, 4), problem, scale_dps)[0],
            "fit": fitted(coder, problem, 400 if small else 4),
        }
        for name, x in found.items():
            metrics[f"psnr_{task}_{name}"] = inverse.mean_psnr(x, test)
            metrics[f"residual_{task}_{name}"] = np.sqrt(inverse.residual(problem, x)) / STD
        metrics |= {f"scale_{task}": scale, f"scale_{task}_dps": scale_dps}
        same = problem._replace(y=jnp.repeat(problem.y[:2], n // 2, axis=0))
        for name, gamma in (("resample", 40.0), ("renoised", 1e6)):
            z = hard_restore(fold(key, 5), same, scale, gamma)[1].reshape(2, n // 2, LATENT)
            metrics[f"variance_{task}_{name}"] = jnp.mean(jnp.var(z, axis=1))
    return metrics


def _gaps(table, metric, name, other):
    """Differences by task, means over seeds."""
    row = table["tasks"]
    return np.array([row[f"{metric}_{task}_{name}"].mean() - row[f"{metric}_{task}_{other}"].mean() for task in TASKS])


CLAIMS = {
    "a_dps": (
        "PSNR at least 1 dB above latent DPS on the average of tasks, at most 0.7 dB below on each",
        lambda t: _gaps(t, "psnr", "resample", "dps").mean() >= 1 and _gaps(t, "psnr", "resample", "dps").min() >= -0.7,
    ),
    "a_fit": (
        "PSNR on average at least 0.3 dB above a plain fit of the latent",
        lambda t: _gaps(t, "psnr", "resample", "fit").mean() >= 0.3,
    ),
    "b_residual": (
        "the residual is at most 0.6 of latent DPS's on every task",
        lambda t: all(
            t["tasks"][f"residual_{task}_resample"].mean() <= 0.6 * t["tasks"][f"residual_{task}_dps"].mean()
            for task in TASKS
        ),
    ),
    "c_resampling": (
        "against plain noising at most 0.2 dB below on average, and draws of an image vary less on every task",
        lambda t: (
            _gaps(t, "psnr", "resample", "renoised").mean() >= -0.2
            and (_gaps(t, "variance", "resample", "renoised") < 0).all()
        ),
    ),
}
