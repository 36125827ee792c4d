"""Losses: (key, models, batch) -> ([B], aux), with one value a sample; weightings, time samplers, the exact bound."""

from genjax.losses.contrastive import nt_xent
from genjax.losses.denoising import denoising, with_uncertainty
from genjax.losses.elbo import Bound, chain_bound, continuous_bound
from genjax.losses.guided import guided_denoising
from genjax.losses.guides import feature_reading, knowledge_transfer, noisy_classification
from genjax.losses.times import SPREADS, TIME_SAMPLERS, TimeSampler
from genjax.losses.variational import hybrid, variational
from genjax.losses.weightings import WEIGHTINGS

LOSSES = {
    # "denoising": (process, times, weighting, ...); the others: (process, steps, times, ...)
    "denoising": denoising,
    "variational": variational,
    "hybrid": hybrid,
    "guided_denoising": guided_denoising,
}

__all__ = [
    "LOSSES",
    "SPREADS",
    "TIME_SAMPLERS",
    "WEIGHTINGS",
    "Bound",
    "TimeSampler",
    "chain_bound",
    "continuous_bound",
    "denoising",
    "feature_reading",
    "guided_denoising",
    "hybrid",
    "knowledge_transfer",
    "noisy_classification",
    "nt_xent",
    "variational",
    "with_uncertainty",
]
