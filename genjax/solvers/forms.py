"""What a solver interpolates: the four forms of the probability-flow ODE.

In each form the ODE is linear in one feature of the prediction; a solver that approximates the
feature m by a polynomial in the form's coordinate c and integrates exactly makes

  x_s = alpha_s x0 + sigma_s eps + scale sum_j w_j (m_j - m_0),     w_j = int kernel(theta) L_j(theta),

with m_0 the feature at t, m_j others, theta = (c - c_t) / (c_s - c_t), and L_j the Lagrange polynomials
of the nodes. Only the feature, the coordinate, the scale and the kernel's moments differ:

  data    m = x0,        c = log(alpha/sigma),       exponential (DPM-Solver++, 2211.01095, eq. 8)
  noise   m = eps,       c = log(alpha/sigma),       exponential (DPM-Solver, 2206.00927, eq. 3.4)
  sigma   m = eps,       c = sigma/alpha,            dy/dr = eps with y = x/alpha (EDM, 2206.00364)
  flow    m = eps - x0,  c = sigma/(alpha+sigma),    dz/du = eps - x0 with z = x/(alpha+sigma)

"sigma" is EDM's frame, in which EDM's Heun is the trapezoidal rule; its coordinate diverges where
alpha = 0. "flow" is bounded, and in it a published flow-matching solver is the textbook rule. So "auto" is
"sigma" where alpha = 1 (the ve scale) and "flow" elsewhere. "noise" diverges at alpha = 0 too, and falls back
to first order there.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

SERIES_TERMS = 16


def psi(n, k):
    """k int_0^1 exp(-k (1 - theta)) theta^n dtheta, n a small integer, k any real or +inf.

    psi_0 = 1 - exp(-k), psi_n = 1 - (n / k) psi_{n-1}; by its power series where |k| < 1, as the
    recursion cancels there. Smooth at k = 0, and 1 at k = +inf.
    """
    k = jnp.asarray(k)
    small = jnp.abs(k) < 1
    k_small = jnp.where(small, k, 0.0)
    series = jnp.ones_like(k)
    for j in range(SERIES_TERMS, 0, -1):
        series = 1 - k_small / (n + 1 + j) * series
    k_large = jnp.where(small | jnp.isinf(k), 1.0, k)
    direct = -jnp.expm1(-k_large)
    for j in range(1, n + 1):
        direct = 1 - j / k_large * direct
    return jnp.where(small, k_small / (n + 1) * series, jnp.where(jnp.isinf(k), 1.0, direct))


def lagrange_weights(nodes, moments):
    """Weights of the quadrature that is exact for polynomials through the nodes.

    Args:
      nodes: p distinct numbers or arrays.
      moments: the p integrals of kernel(theta) theta^n, n = 0 ... p - 1.

    Returns:
      p weights, one a node.
    """
    weights = []
    for j, node in enumerate(nodes):
        coefficients, scale = [1.0], 1.0
        for m, other in enumerate(nodes):
            if m != j:
                raised = [0.0, *coefficients]
                lowered = [*coefficients, 0.0]
                coefficients = [a - other * b for a, b in zip(raised, lowered)]
                scale = scale * (node - other)
        weights.append(sum(c * moment for c, moment in zip(coefficients, moments)) / scale)
    return weights


class Form(NamedTuple):
    """One row of the table above. `at` and `to` are Levels of the current and of the next time."""

    feature: Callable  # Prediction -> m
    coordinate: Callable  # Level -> c
    half: Callable  # c -> log(alpha / sigma), the inverse of `coordinate`
    scale: Callable  # (at, to, stage) -> scale of a move that aims at `to` and stops at the Level `stage`
    moment: Callable  # (n, h, eta) -> int kernel theta^n, where h = log(alpha/sigma) at s less that at t


def _flow_coordinate(v):
    return v.sigma / (v.alpha + v.sigma)


FORMS = {
    "data": Form(
        feature=lambda pred: pred.x0,
        coordinate=lambda v: v.half,
        half=lambda c: c,
        scale=lambda at, to, stage: stage.alpha,
        moment=lambda n, h, eta=0.0: psi(n, (1 + eta) * h),
    ),
    "noise": Form(
        feature=lambda pred: pred.eps,
        coordinate=lambda v: v.half,
        half=lambda c: c,
        scale=lambda at, to, stage: stage.sigma,
        moment=lambda n, h, eta=0.0: psi(n, -h),
    ),
    "sigma": Form(
        feature=lambda pred: pred.eps,
        coordinate=lambda v: jnp.exp(-v.half),
        half=lambda c: -jnp.log(c),
        scale=lambda at, to, stage: stage.alpha * (jnp.exp(-to.half) - jnp.exp(-at.half)),
        moment=lambda n, h, eta=0.0: 1 / (n + 1),
    ),
    "flow": Form(
        feature=lambda pred: pred.eps - pred.x0,
        coordinate=_flow_coordinate,
        half=lambda c: jnp.log1p(-c) - jnp.log(c),
        scale=lambda at, to, stage: (stage.alpha + stage.sigma) * (_flow_coordinate(to) - _flow_coordinate(at)),
        moment=lambda n, h, eta=0.0: 1 / (n + 1),
    ),
}
FRAMES = ("auto", "sigma", "flow")


def check_form(name, allowed=("data", "noise")):
    if name not in allowed:
        raise ValueError(f"form: expected one of {list(allowed)}, got {name!r}")
    return FORMS[name]


def check_frame(name):
    if name not in FRAMES:
        raise ValueError(f"frame: expected one of {list(FRAMES)}, got {name!r}")
    return name


def frame_form(name, process):
    """The Form of a frame; "auto" is "sigma" for processes of the ve scale, else "flow"."""
    if name == "auto":
        name = "sigma" if process.scale == "ve" else "flow"
    return FORMS[name]
