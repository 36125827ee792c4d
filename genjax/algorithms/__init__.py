"""Training recipes: factories of `core.types.Algorithm`."""

from genjax.algorithms.diffusion import diffusion, gaussian_sampler, trained_denoiser

ALGORITHMS = {"diffusion": diffusion}

__all__ = ["ALGORITHMS", "diffusion", "gaussian_sampler", "trained_denoiser"]
