"""What the experiments on inverse problems share: priors, problems with known answers, and runs of any method.

A prior is a pytree with `denoiser(process) -> Denoiser`: the exact ones of `oracles`, or `Trained`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from ml_collections import ConfigDict, FrozenConfigDict

from genjax import build
from genjax.algorithms.diffusion import trained_denoiser
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.cli import runner_guidance as guides
from genjax.core.types import Measurement
from genjax.data import DataSpec
from genjax.inverse import POSTERIOR_SAMPLERS, Gaussian
from genjax.inverse.operators import dense
from genjax.metrics import sliced_wasserstein2
from genjax.metrics.image import psnr
from genjax.oracles.mixture import Mixture
from genjax.oracles.posterior import posterior

SHAPE = (8, 8, 1)  # of a digit as an image
PRIOR_RATE = 2e-3  # learning rate of the priors


# ---- configs


def prior_config(scale, steps=4000, **groups):
    """The digits' prior: an MLP under EDM's preconditioning, so that it serves every Gaussian process."""
    return digits.base_config(
        scale,
        steps,
        **{
            "process": {"name": "vp"},
            "denoiser": {"target": "edm", "sigma_data": 0.75},
            "loss": {
                "name": "denoising",
                "time_sampler": {"name": "log_normal", "mean": -0.8, "std": 1.6},
                "weighting": {"name": "edm", "sigma_data": 0.75},
            },
            **groups,
        },
    )


def digits_config(scale):
    """The config of the digits' prior that the experiment `dps` trains and others use: 256 wide, at `PRIOR_RATE`.

    128 wide at rate 1e-3 it had not learned enough in as many steps: the mean squared error of x0 on held-out digits
    was .101 at sigma / alpha = 0.8, now .085, where `digit_mixture` has .080.
    """
    config = prior_config(scale)
    config.optimizer.learning_rate = PRIOR_RATE
    if scale == "small":
        config.network.width = 256
    return config


def small_config(scale, **fields):
    """The config of an experiment whose priors are exact or another's; `fields` at the top."""
    config = prior_config(scale)
    config.update(ConfigDict(fields))
    return config


def published_config(steps, batch_size, data_set="celeb_a_hq/256", **network):
    """ADM at 256x256 with linear betas and a learned variance, as the released priors of restoration have it.

    Args:
      network: fields that differ from the FFHQ model of 2209.14687 (128 channels, one block a level, attention at 16).
    """
    config = guides.adm_config(
        steps,
        batch_size,
        data_set=data_set,
        process={"name": "ddpm", "steps": 1000},
        network={
            "name": "unet",
            "channels": 128,
            "multipliers": (1, 1, 2, 2, 4, 4),
            "num_blocks": 1,
            "attention": (16,),
            "head_channels": 64,
            "decoder_attention": "all",
            "skip_scale": 1.0,
            "attention_init": 1.0,
            "noise_features": "positional",
            **network,
        },
    )
    config.sample.steps = 1000
    return config


# ---- priors


@struct.dataclass
class Trained:
    """A trained diffusion model as a prior, under any Gaussian process where its network takes the log-SNR.

    Attributes:
      state: State.
      config, spec: of the training.
    """

    state: Any
    config: Any = struct.field(pytree_node=False)
    spec: DataSpec = struct.field(pytree_node=False)

    def denoiser(self, process):
        """The Denoiser of the averaged weights."""
        net, average = build.network(self.config, self.spec), build.ema(self.config)
        return trained_denoiser(net, build.denoiser(self.config, process), self.state, average)


def trained(config, state, spec=None):
    """`Trained` from a config (fields of the runner left out) and the State that `train` returned."""
    model = FrozenConfigDict(run.model_config(config))
    return Trained(jax.tree.map(jnp.asarray, state), model, digits.spec() if spec is None else spec)


def digits_prior(priors, scale):
    """The prior that the experiment `dps` trains; vectors and images of the digits alike."""
    return trained(digits_config(scale), priors["dps"])


def fit_prior(key, x, steps, width=128):
    """A prior of arrays x [N, D] in about [-1, 1], trained as that of the digits."""
    spec = DataSpec(x.shape[1:])
    config = prior_config("small", steps)
    config.network.width, config.optimizer.learning_rate = width, PRIOR_RATE
    config.optimizer.schedule.warmup = min(100, steps // 10)
    algorithm = build.algorithm(run.model_config(config), spec)
    return run.fit(algorithm, {"x": np.asarray(x, np.float32)}, key, steps, min(128, len(x)))[-1][1]


def fitted_prior(state, shape, width=128):
    """The prior whose State `fit_prior` returned."""
    config = prior_config("small")
    config.network.width = width
    return trained(config, state, DataSpec(shape))


# ---- problems


def images(key, n, copies=1):
    """Held-out digits: (n to restore, n others to tune on) [n * copies, 8, 8, 1] each, copies adjacent; and labels."""
    x, label = digits.held_out(), guides.held_out_labels()
    rows = np.asarray(jax.random.permutation(key, len(x)))[: 2 * n].reshape(2, n)
    sets = [jnp.asarray(np.repeat(x[r], copies, axis=0).reshape(-1, *SHAPE)) for r in rows]
    return (*sets, np.repeat(label[rows[0]], copies))


def ambiguous(seed, dim=16, seen=6, std=0.15, noise=0.1, odds=0.56):
    """(Mixture, Measurement of one sample, its exact Posterior): two of ten modes agree on what is measured.

    Means are tanh(1.5 n); mode 2 lies within 0.1 of mode 1 on the `seen` coordinates, and y is such that, were
    there no others, mode 1 had the weight `odds`.
    """
    rng = np.random.default_rng(seed)
    means = np.tanh(1.5 * rng.normal(size=(10, dim)))
    way = rng.normal(size=seen)
    way /= np.linalg.norm(way)
    means[2, :seen] = means[1, :seen] - 0.1 * way
    other = noise * rng.normal(size=seen)
    along = np.log(odds / (1 - odds)) * (std**2 + noise**2) / 0.1
    y = (means[1, :seen] + means[2, :seen]) / 2 + along * way + other - (other @ way) * way
    prior = Mixture(jnp.asarray(means, jnp.float32), jnp.full(10, std), jnp.zeros(10))
    operator, y = dense(np.eye(dim)[:seen]), jnp.asarray(y, jnp.float32)
    return prior, Measurement(operator, Gaussian(noise), y[None]), posterior(prior, operator.matrix, y, noise)


def repeat(measurement, n):
    """The measurement of one sample, n times."""
    return measurement._replace(y=jnp.repeat(measurement.y, n, axis=0))


# ---- runs


@functools.cache
def _program(name, settings):
    """One compiled program for all numbers, priors of one kind, measurements of one shape."""

    @jax.jit
    def program(key, prior, process, measurement, numbers):
        method = POSTERIOR_SAMPLERS[name](**dict(settings), **numbers)
        y = measurement.y
        like = jnp.zeros((y.shape[0], *measurement.operator.in_shape), y.dtype)
        return method.detail(key, prior.denoiser(process), process, measurement, like)

    return program


def restore(key, name, prior, process, measurement, numbers=None, **settings):
    """(x, extra) of a posterior sampler.

    Args:
      name: in POSTERIOR_SAMPLERS.
      numbers: settings that may change without compiling again, numbers or trees of them.
      settings: the others, hashable.
    """
    numbers = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), numbers or {})
    return _program(name, tuple(sorted(settings.items())))(key, prior, process, measurement, numbers)


def mean_psnr(x, truth):
    """Mean over images of the PSNR, peak to peak 2, in dB; -100 where x is not finite."""
    value = float(jnp.mean(psnr(jnp.clip(x, -10, 10), truth)))
    return value if np.isfinite(value) else -100.0


def decibels(x, truth):
    """-10 log10 of the mean squared error over everything; -100 where x is not finite."""
    error = float(np.mean((np.asarray(x, np.float64) - np.asarray(truth, np.float64)) ** 2))
    return -10 * np.log10(error) if np.isfinite(error) else -100.0


def best(values, score):
    """The value with the highest score."""
    scores = [score(value) for value in values]
    return values[int(np.argmax(scores))]


def residual(measurement, x):
    """Mean square of y - A(x) over what is measured; 0 counts as measured where the operator has no mask."""
    operator = measurement.operator
    share = float(jnp.mean(operator.support())) if hasattr(operator, "support") else 1.0
    return float(jnp.mean((measurement.y - operator.forward(x)) ** 2)) / share


def distance_to_posterior(x, law, key, num=256):
    """(sliced W2 to draws of an exact Posterior, relative error of the mean, that of the covariance)."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    exact = np.asarray(law.sample(key, len(x))).reshape(len(x), -1)
    mean, cov = np.asarray(law.mean()).reshape(-1), np.asarray(law.covariance())
    return (
        sliced_wasserstein2(x, exact, num),
        np.linalg.norm(x.mean(0) - mean) / np.sqrt(len(mean)),
        np.linalg.norm(np.cov(x.T) - cov) / np.linalg.norm(cov),
    )
