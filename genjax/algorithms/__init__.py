"""Training recipes: factories of `core.types.Algorithm`."""

from genjax.algorithms.diffusion import diffusion

ALGORITHMS = {"diffusion": diffusion}
