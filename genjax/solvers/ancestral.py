"""Solvers that draw from (or follow the mean of) the posterior of the process."""

import jax.numpy as jnp

from genjax.solvers.base import from_proposal, from_update, info_of

VARIANCES = {"lower": 0.0, "upper": 1.0}


def ddim(eta=0.0):
    """DDIM (2010.02502, eq. 12): eta = 0 deterministic, eta = 1 ancestral. First order; inverts when s > t.

    eta = 0 given as a Python number needs no keys and has no `propose`.
    """

    def propose(denoiser, process, state, t, s, keys=None):
        pred = denoiser(state.x, t, key=keys)
        return process.posterior(state.x, pred, t, s, eta), state.memory, info_of(pred)

    def update(denoiser, process, state, t, s, keys):
        law, memory, info = propose(denoiser, process, state, t, s, keys)
        return law.mean, memory, info

    return from_update(update) if isinstance(eta, (int, float)) and eta == 0 else from_proposal(propose)


def euler_ancestral(eta=1.0):
    """ "Euler a": Euler down to a lower level, then noise. The same law as `ddim(eta)`, for every process."""
    return ddim(eta)


def ddpm(variance="predicted"):
    """DDPM ancestral sampling (2006.11239, algorithm 2) on any grid.

    Works for every process with a `posterior`, discrete ones included.

    Args:
      variance: "lower" (beta-tilde), "upper" (beta), or "predicted": what the denoiser says in
        `Prediction.v`, lower where it says nothing.

    Raises:
      ValueError: unknown variance.
    """
    if variance != "predicted" and variance not in VARIANCES:
        raise ValueError(f"variance: expected one of {['predicted', *VARIANCES]}, got {variance!r}")

    def propose(denoiser, process, state, t, s, keys=None):
        pred = denoiser(state.x, t, key=keys)
        if variance != "predicted":
            pred = pred._replace(v=jnp.asarray(VARIANCES[variance], state.x.dtype))
        return process.posterior(state.x, pred, t, s, 1.0), state.memory, info_of(pred)

    return from_proposal(propose)
