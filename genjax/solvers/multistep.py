"""Multistep solvers: one evaluation a step, the past predictions interpolated.

The feature of a form (see `forms`) is interpolated through the current and the last p - 1 times and
integrated exactly: Adams-Bashforth in the frames "sigma" and "flow", exponential Adams-Bashforth in
"data" (DPM-Solver++ 2M, 3M) and "noise" (DEIS). The first steps use what history there is, and a step to
s = 0 is first order.

The stochastic forms follow dx = ... with the noise multiplied by eta (SDE-DPM-Solver++, 2211.01095, eq. 19):

  x_s = alpha_s x0 + sigma_s (e^{-eta h} eps + sqrt(1 - e^{-2 eta h}) z) + alpha_s sum_j w_j (m_j - m_0),

the kernel of w having k = (1 + eta) h; eta = 1 with no history is ancestral sampling.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from genjax.core.laws import Normal
from genjax.core.numerics import bcast
from genjax.core.types import SolverState
from genjax.solvers.base import from_proposal, from_update, info_of
from genjax.solvers.exponential import check_rule
from genjax.solvers.forms import check_form, check_frame, frame_form, lagrange_weights
from genjax.solvers.levels import level, move

MAX_ORDER = 4


class History(NamedTuple):
    """Memory of a multistep solver, latest first."""

    features: Any  # tuple of p - 1 arrays [B, ...]
    coordinates: Any  # tuple of p - 1 scalars or [B]
    count: Any  # int32 scalar, steps made


def check_order(order, highest=MAX_ORDER):
    if order not in range(1, highest + 1):
        raise ValueError(f"order: expected an integer from 1 to {highest}, got {order!r}")
    return order


def empty_history(x, t, order):
    """History for features like x at times like t."""
    t = jnp.zeros_like(jnp.asarray(t, jnp.result_type(float)))
    return History((jnp.zeros_like(x),) * (order - 1), (t,) * (order - 1), jnp.zeros((), jnp.int32))


def remember(history, feature, coordinate):
    """The history after a step made with `feature` at `coordinate`."""
    features = (feature, *history.features)[: len(history.features)]
    coordinates = (coordinate, *history.coordinates)[: len(history.coordinates)]
    return History(features, coordinates, history.count + 1)


def past_nodes(history, coordinate, span):
    """theta of the current time (0) and of the past ones; distinct dummies where there is no past yet."""
    past = [jnp.where(history.count > j, (c - coordinate) / span, -1.0 - j) for j, c in enumerate(history.coordinates)]
    return [0.0, *past]


def past_weights(nodes, moments, order, rule):
    """Weights w_1 ... w_{p-1} of the differences m_j - m_0 for the order in use (traced), up to len(nodes).

    Args:
      nodes: theta_0 = 0 and those of the past.
      moments: n -> int kernel theta^n.
      order: scalar or [B], 1 ... len(nodes).
      rule: "exact", or "midpoint", the published DPM-Solver++: at order 2 moment_0 / 2 in the place of
        moment_1, at order 3 half of moment_2. The latter is only of second order, but extrapolates
        less and is the better one where steps are large.
    """
    weights = [jnp.zeros(()) for _ in nodes[1:]]
    for q in range(2, len(nodes) + 1):
        m = [moments(n) for n in range(q)]
        if rule == "midpoint" and q == 2:
            m[1] = m[0] / 2
        if rule == "midpoint" and q == 3:
            m[2] = m[2] / 2
        new = lagrange_weights(nodes[:q], m)[1:]
        weights = [jnp.where(order == q, new[j], w) if j < q - 1 else w for j, w in enumerate(weights)]
    return weights


def _multistep(order, form_of, eta, rule, final_order=None):
    """A Solver; `form_of(process)` is the Form, `final_order` bounds the order on the step to t_min."""
    deterministic = isinstance(eta, (int, float)) and eta == 0

    def init(x, t):
        return SolverState(x, empty_history(x, t, order))

    def propose(denoiser, process, state, t, s, keys=None):
        pred = denoiser(state.x, t, key=keys)
        form, history = form_of(process), state.memory
        at, to = level(process, t), level(process, s)
        live = (to.half < jnp.inf) & (to.half != at.half)
        h = jnp.where(live, to.half - at.half, 1.0)
        coordinate = form.coordinate(at)
        span = jnp.where(live, form.coordinate(to) - coordinate, 1.0)
        noisy = eta * jnp.maximum(h, 0.0)

        nodes = past_nodes(history, coordinate, span)
        order_now = jnp.where(live, jnp.minimum(history.count + 1, order), 1)
        if final_order is not None:
            order_now = jnp.where(s <= process.t_min * (1 + 1e-4), jnp.minimum(order_now, final_order), order_now)
        weights = past_weights(nodes, lambda n: form.moment(n, h, noisy), order_now, rule)
        m_0 = form.feature(pred)
        x = move(pred, to, jnp.where(live, jnp.exp(-noisy), 1.0))
        scale = form.scale(at, to, to)
        for w, m in zip(weights, history.features):
            x = x + bcast(scale * w, x) * (m - m_0)
        std = to.sigma * jnp.sqrt(jnp.where(live, -jnp.expm1(-2 * noisy), 0.0))
        return Normal(x, bcast(std, x)), remember(history, m_0, coordinate), info_of(pred)

    def update(denoiser, process, state, t, s, keys):
        law, memory, info = propose(denoiser, process, state, t, s, keys)
        return law.mean, memory, info

    return from_update(update, init) if deterministic else from_proposal(propose, init)


def exponential_multistep(order=3, form="data", eta=0.0, rule="exact", final_order=None):
    """Exponential Adams-Bashforth in log-SNR.

    Args:
      order: 1 to 4.
      form: "data" or "noise".
      eta: amount of noise; 0 the ODE, 1 the reverse SDE ("data" only).
      rule: "exact", or "midpoint" (see `past_weights`).
      final_order: the order on the step to t_min, after which only the first-order step to 0 is left; None
        for `order`.

    Raises:
      ValueError: unknown order, form or rule, or noise in the form "noise".
    """
    check_order(order)
    check_rule(rule)
    chosen = check_form(form)
    if form == "noise" and not (isinstance(eta, (int, float)) and eta == 0):
        raise ValueError(f"eta: expected 0 in the form 'noise', got {eta!r}")
    return _multistep(order, lambda process: chosen, eta, rule, final_order)


def dpmpp_2m(rule="midpoint"):
    """DPM-Solver++(2M) (2211.01095, algorithm 2)."""
    return exponential_multistep(2, "data", rule=rule)


def dpmpp_3m(rule="midpoint", final_order=None):
    """DPM-Solver++(3M), its published weights (see `past_weights`); "exact" is of third order.

    With few steps (say 15) `final_order=2` is better.
    """
    return exponential_multistep(3, "data", rule=rule, final_order=final_order)


def dpmpp_1_sde(eta=1.0):
    """SDE-DPM-Solver++ of order 1; at eta = 1 ancestral sampling."""
    return exponential_multistep(1, "data", eta)


def dpmpp_2m_sde(eta=1.0, rule="midpoint"):
    """SDE-DPM-Solver++(2M) (2211.01095, eq. 19)."""
    return exponential_multistep(2, "data", eta, rule)


def dpmpp_3m_sde(eta=1.0, rule="midpoint"):
    """The form of `dpmpp_2m_sde` with three nodes."""
    return exponential_multistep(3, "data", eta, rule)


def deis(order=3):
    """DEIS (2204.13902): exponential Adams-Bashforth on eps, the polynomial taken in log-SNR."""
    return exponential_multistep(order, "noise")


def lms(order=4, frame="auto"):
    """Linear multistep: Adams-Bashforth in a linear frame, weights exact on any grid (k-diffusion's LMS)."""
    check_order(order)
    check_frame(frame)
    return _multistep(order, lambda process: frame_form(frame, process), 0.0, "exact")
