"""All penalties by name.

PENALTIES: name -> constructor of a critic's penalty, G_PENALTIES: of a generator's; see `penalties_gradient` for
what one is and is given. `Penalty(r1(), weight=0.1, every=16)` puts one into a game.
"""

from genjax.losses.penalties_gradient import (
    Memory,
    Penalty,
    coherency,
    dragan,
    gradient_penalty,
    max_gp,
    r1,
    r1_r2,
    r2,
    witness,
    zero_centred,
)
from genjax.losses.penalties_memory import historical_averaging, lecam, path_length
from genjax.losses.penalties_plain import (
    clip_weights,
    consistency,
    drift,
    l2,
    latent_consistency,
    latent_diversity,
    orthogonal,
    output_l2,
    reconstruction,
)

OF_WEIGHTS = {"orthogonal": orthogonal, "l2": l2, "historical_averaging": historical_averaging}
PENALTIES = {
    "gradient_penalty": gradient_penalty,
    "zero_centred": zero_centred,
    "dragan": dragan,
    "max_gp": max_gp,
    "r1": r1,
    "r2": r2,
    "r1_r2": r1_r2,
    "witness": witness,
    "coherency": coherency,
    "drift": drift,
    "consistency": consistency,
    "latent_consistency": latent_consistency,
    "lecam": lecam,
    "reconstruction": reconstruction,
    "output_l2": output_l2,
    **OF_WEIGHTS,
}
G_PENALTIES = {"path_length": path_length, "latent_diversity": latent_diversity, **OF_WEIGHTS}

__all__ = ["G_PENALTIES", "PENALTIES", "Memory", "Penalty", "clip_weights", *PENALTIES, *G_PENALTIES]
