"""Exact answers: data laws whose denoiser, score, density and posteriors are closed forms."""

from genjax.oracles.categorical import TokenTable, random_table, token_table
from genjax.oracles.expected import bayes_error, bayes_error_quadrature
from genjax.oracles.gaussian import FullMixture, GaussianData, gaussian_data
from genjax.oracles.kernel import Kernel, kernel
from genjax.oracles.mixture import Mixture, grid, random_mixture, ring
from genjax.oracles.posterior import (
    Posterior,
    Weighted,
    grid_posterior,
    importance_posterior,
    posterior,
    posterior_denoiser,
)

__all__ = [
    "FullMixture",
    "GaussianData",
    "Kernel",
    "Mixture",
    "Posterior",
    "TokenTable",
    "Weighted",
    "bayes_error",
    "bayes_error_quadrature",
    "gaussian_data",
    "grid",
    "grid_posterior",
    "importance_posterior",
    "kernel",
    "posterior",
    "posterior_denoiser",
    "random_mixture",
    "random_table",
    "ring",
    "token_table",
]
