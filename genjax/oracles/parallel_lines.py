"""Two laws on parallel lines of the plane: (0, U) and (theta, U) with U ~ U[0, 1] (1701.07875, example 1).

Distances of the two in closed form: only the Wasserstein distance says how far theta is from 0.
"""

import jax.numpy as jnp
import numpy as np


def points(theta, u):
    """(theta, u) as [B, 2] for u [B, 1]."""
    return jnp.concatenate([jnp.broadcast_to(theta, u.shape), u], axis=-1)


def wasserstein1(theta):
    """|theta|."""
    return float(np.abs(theta))


def jensen_shannon(theta):
    """log 2 in nats where theta is not 0."""
    return float(np.log(2)) if theta else 0.0


def kullback_leibler(theta):
    """Infinite, both ways, where theta is not 0."""
    return float("inf") if theta else 0.0


def total_variation(theta):
    """1 where theta is not 0."""
    return 1.0 if theta else 0.0
