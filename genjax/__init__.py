"""genjax: generative modeling in JAX and Flax, as pure functions over pytrees.

Importing this package costs nothing, JAX included, until a name is used: rooms (`genjax.solvers`) and
the names below are imported when they are first touched. See docs/architecture.md for the vocabulary.

  core         types, the prediction solve, keys, numerics
  worlds       rendered scenes with known factors
  processes    forward corruptions: Gaussian families, discrete, bridges, augmented
  networks     MLP, U-Net, transformers, EDM2, classifiers
  oracles      exact denoisers, scores and densities of data with closed forms
  solvers      samplers, time grids, likelihood
  metrics      Frechet distance and its kin, exact distances on toys, image quality
  losses       denoising losses, weightings, time samplers, the variational bound
  guidance     (Denoiser, Process) -> Denoiser
  inverse      measurements: operators, noises, posterior samplers
  data         toys, digits, folders, npz, TFDS
  algorithms   training recipes
  train        loop, checkpoints, averages, optimizers, evaluation
  build        configs to objects
"""

import importlib

ROOMS = (
    "algorithms",
    "build",
    "core",
    "data",
    "guidance",
    "inverse",
    "losses",
    "metrics",
    "networks",
    "oracles",
    "processes",
    "solvers",
    "train",
    "worlds",
)
NAMES = {
    # name: module that defines it
    "Algorithm": "genjax.core.types",
    "Gaussian": "genjax.processes.gaussian",
    "Measurement": "genjax.core.types",
    "OPERATORS": "genjax.inverse",
    "POSTERIOR_SAMPLERS": "genjax.inverse",
    "PosteriorSampler": "genjax.inverse",
    "Net": "genjax.core.types",
    "Prediction": "genjax.core.types",
    "Solver": "genjax.core.types",
    "State": "genjax.core.types",
    "denoising": "genjax.losses.denoising",
    "diffusion": "genjax.algorithms.diffusion",
    "fit": "genjax.train.loop",
    "gaussian_sampler": "genjax.algorithms.diffusion",
    "generate": "genjax.solvers.base",
    "linen_net": "genjax.networks.net",
    "load": "genjax.data",
    "make_denoiser": "genjax.core.denoiser",
    "measure": "genjax.inverse",
    "posterior": "genjax.oracles",
    "sample": "genjax.solvers.base",
    "sample_keys": "genjax.core.keys",
    "trained_denoiser": "genjax.algorithms.diffusion",
}
__all__ = [*NAMES, *ROOMS]


def __getattr__(name):
    if name in ROOMS:
        return importlib.import_module(f"genjax.{name}")
    if name in NAMES:
        return getattr(importlib.import_module(NAMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("genjax-toolkit")
    raise AttributeError(f"module 'genjax' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
