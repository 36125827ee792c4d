"""The one linear solve behind every prediction type.

A network predicts  f = c x0 + d eps;  the state is  x = alpha x0 + sigma eps.
Two equations, two unknowns:

  x0 = (sigma f - d x) / (c sigma - d alpha),   eps = (c x - alpha f) / (c sigma - d alpha).

Each prediction type is a pair (c, d) in `TARGETS`. Every conversion goes through the pair
(x0, eps); there are no pairwise converters.
"""

import jax.numpy as jnp

from genjax.core.numerics import bcast, safe_div
from genjax.core.types import Prediction


def _edm(process, t, sigma_data):
    # EDM (2206.00364, eq. 7-8) for any scaling: F = (x0 - c_skip x) / c_out has unit variance.
    a, s = process.alpha(t), process.sigma(t)
    total = a * a * sigma_data**2 + s * s
    # with c_skip = a sd^2 / total, c_out = s sd / sqrt(total)
    root = jnp.sqrt(total)
    return s / (sigma_data * root), -a * sigma_data / root


TARGETS = {
    # name: (process, t, sigma_data) -> (c, d), each shaped like t
    "x0": lambda p, t, sd: (jnp.ones_like(p.sigma(t)), jnp.zeros_like(p.sigma(t))),
    "eps": lambda p, t, sd: (jnp.zeros_like(p.sigma(t)), jnp.ones_like(p.sigma(t))),
    "v": lambda p, t, sd: (-p.sigma(t), p.alpha(t)),  # 2202.00512
    "score": lambda p, t, sd: (jnp.zeros_like(p.sigma(t)), -safe_div(1.0, p.sigma(t))),
    "velocity": lambda p, t, sd: p.velocity_coefficients(t),  # d alpha/dt, d sigma/dt
    "edm": _edm,
}


def target_coefficients(name, process, t, sigma_data=1.0):
    """The pair (c, d) of prediction type `name` at time t.

    Raises:
      ValueError: unknown name.
    """
    if name not in TARGETS:
        raise ValueError(f"target: expected one of {sorted(TARGETS)}, got {name!r}")
    return TARGETS[name](process, t, sigma_data)


def solve(f, x, c, d, alpha, sigma):
    """The Prediction (x0, eps) from f = c x0 + d eps and x = alpha x0 + sigma eps.

    Args:
      f, x: [B, ...].
      c, d, alpha, sigma: scalars, [B], or arrays of x's rank.

    Where the two equations are dependent (eps-prediction at alpha = 0; x0, score and velocity at
    sigma = 0) the pair is not determined and zeros are returned.
    """
    c, d, alpha, sigma = (bcast(u, x) for u in (c, d, alpha, sigma))
    det = c * sigma - d * alpha
    return Prediction(x0=safe_div(sigma * f - d * x, det), eps=safe_div(c * x - alpha * f, det))


def predict(name, f, x, process, t, sigma_data=1.0):
    """The Prediction from a network output f of type `name` at (x, t)."""
    c, d = target_coefficients(name, process, t, sigma_data)
    return solve(f, x, c, d, process.alpha(t), process.sigma(t))


def with_x0(pred, x0, x, process, t):
    """`pred` with another x0 and the eps that fits x: eps = (x - alpha x0) / sigma.

    Use `pred._replace(x0=...)` to keep eps instead; methods differ, and say which.
    """
    alpha, sigma = bcast(process.alpha(t), x), bcast(process.sigma(t), x)
    return pred._replace(x0=x0, eps=safe_div(x - alpha * x0, sigma))


def with_eps(pred, eps, x, process, t):
    """`pred` with another eps and the x0 that fits x: x0 = (x - sigma eps) / alpha."""
    alpha, sigma = bcast(process.alpha(t), x), bcast(process.sigma(t), x)
    return pred._replace(eps=eps, x0=safe_div(x - sigma * eps, alpha))


def clip_x0(low=-1.0, high=1.0):
    """Guidance that clips x0 to [low, high] and recomputes eps; for data of known range."""

    def guidance(denoiser, process):
        def clipped(x, t, cond=None, key=None):
            pred = denoiser(x, t, cond, key)
            return with_x0(pred, jnp.clip(pred.x0, low, high), x, process, t)

        return clipped

    return guidance
