"""Minority guidance (2301.12334): data that the prior reconstructs badly are rare; guide towards them.

l(x0; t) = E d(x0, x0(x_t)), x_t ~ q(x_t | x0): the posterior mean from a noisy x_t leans to the majority, so l is
large for the minority. Its quantiles are classes for a classifier of noisy x, used by `classifier`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.keys import fold, per_sample
from genjax.core.numerics import mean_except_batch


def squared_error(a, b):
    """Mean squared difference of each sample, [B]."""
    return mean_except_batch((a - b) ** 2)


def minority_score(keys, denoiser, process, x0, t, draws=5, distance=squared_error, cond=None):
    """l(x0; t) [B] (2301.12334, eq. 7), an average of `draws` corruptions.

    Args:
      keys: one key or [B].
      x0: [B, ...].
      t: level; about 0.6 t_max in the paper. Too small it measures texture, too large nothing.
      distance: (x0, estimate) -> [B].
    """
    if draws < 1:
        raise ValueError(f"draws: expected at least 1, got {draws!r}")
    keys = per_sample(keys, x0.shape[0])

    def once(total, i):
        here = fold(keys, i)
        x, _ = process.corrupt(fold(here, 1), x0, t)
        return total + distance(x0, denoiser(x, t, cond, fold(here, 0)).x0), None

    total, _ = jax.lax.scan(once, jnp.zeros(x0.shape[0]), jnp.arange(draws))
    return total / draws


def quantile_labels(scores, bins):
    """Which of `bins` equal shares each score is in, int32 [N]; bins - 1 holds the largest.

    Raises:
      ValueError: fewer scores than bins, or fewer than 2 bins.
    """
    scores = np.asarray(scores)
    if not 2 <= bins <= len(scores):
        raise ValueError(f"bins: expected from 2 to {len(scores)} (the scores), got {bins}")
    rank = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
    return (rank * bins // len(scores)).astype(np.int32)
