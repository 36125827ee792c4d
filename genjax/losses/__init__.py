"""Losses: (key, models, batch) -> ([B], aux), with one value a sample."""

from genjax.losses.denoising import denoising
from genjax.losses.variational import hybrid, variational

LOSSES = {
    # "denoising": (process, times, weighting, ...); the others: (process, steps, times, ...)
    "denoising": denoising,
    "variational": variational,
    "hybrid": hybrid,
}
