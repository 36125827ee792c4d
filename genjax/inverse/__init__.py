"""Inverse problems: operators, noises, and samplers of the posterior of x0 given a measurement.

`OPERATORS`, `NOISES` and `POSTERIOR_SAMPLERS` map the names of configs to constructors.
"""

from genjax.guidance.gradient import likelihood
from genjax.inverse.adaptation import Adaptable, deep_prior, lora_init, lora_merge, with_lora
from genjax.inverse.annealed import daps
from genjax.inverse.blind import color_constancy, exposure, fitted, gdp
from genjax.inverse.fusion import TwoSensors, ddfm, em_step, fused
from genjax.inverse.gradient import (
    dps,
    gradient_step,
    mcg,
    pigdm,
    posterior_gradient,
    pseudo_inverse_guidance,
    tmpd,
)
from genjax.inverse.joint import joint, joint_denoiser
from genjax.inverse.latent import latent_dps, p2l, resample, stochastic_resample
from genjax.inverse.linear import conjugate_gradients, gauss_newton, proximal
from genjax.inverse.measurement import check_measurement, measure
from genjax.inverse.noises import NOISES, Gaussian, Laplace, Poisson, Structured, gaussian_std
from genjax.inverse.operators import OPERATORS
from genjax.inverse.plug_and_play import diffpir, half_quadratic, red_diff
from genjax.inverse.projection import projection, repaint, replace_range, sdedit
from genjax.inverse.regularized import tikhonov
from genjax.inverse.sampler import PosteriorSampler
from genjax.inverse.smc import Particles, smc, twisted
from genjax.inverse.svd import ddnm, ddnm_plus, ddrm, noisy_null_space, null_space, spectral_solver
from genjax.inverse.table import POSTERIOR_SAMPLERS
from genjax.inverse.volume import diffusion_mbir, on_slices, regularized_slices, total_variation_step

__all__ = [
    "NOISES",
    "OPERATORS",
    "POSTERIOR_SAMPLERS",
    "Adaptable",
    "Gaussian",
    "Laplace",
    "Particles",
    "Poisson",
    "PosteriorSampler",
    "Structured",
    "TwoSensors",
    "check_measurement",
    "color_constancy",
    "conjugate_gradients",
    "daps",
    "ddfm",
    "ddnm",
    "ddnm_plus",
    "ddrm",
    "deep_prior",
    "diffpir",
    "diffusion_mbir",
    "dps",
    "em_step",
    "exposure",
    "fitted",
    "fused",
    "gauss_newton",
    "gaussian_std",
    "gdp",
    "gradient_step",
    "half_quadratic",
    "joint",
    "joint_denoiser",
    "latent_dps",
    "likelihood",
    "lora_init",
    "lora_merge",
    "mcg",
    "measure",
    "noisy_null_space",
    "null_space",
    "on_slices",
    "p2l",
    "pigdm",
    "posterior_gradient",
    "projection",
    "proximal",
    "pseudo_inverse_guidance",
    "red_diff",
    "regularized_slices",
    "repaint",
    "replace_range",
    "resample",
    "sdedit",
    "smc",
    "spectral_solver",
    "stochastic_resample",
    "tikhonov",
    "tmpd",
    "total_variation_step",
    "twisted",
    "with_lora",
]
