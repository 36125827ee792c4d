"""Training recipes: factories of `core.types.Algorithm`."""

from genjax.algorithms.diffusion import diffusion, gaussian_sampler, trained_denoiser
from genjax.algorithms.games import LATENTS
from genjax.algorithms.gan import gan, trained_generator
from genjax.algorithms.glo import glo
from genjax.algorithms.semi_supervised import with_labelled
from genjax.algorithms.supervised import supervised

ALGORITHMS = {"diffusion": diffusion, "gan": gan, "glo": glo}

__all__ = [
    "ALGORITHMS",
    "LATENTS",
    "diffusion",
    "gan",
    "gaussian_sampler",
    "glo",
    "supervised",
    "trained_denoiser",
    "trained_generator",
    "with_labelled",
]
