"""Single-step exponential integrators in log-SNR: DPM-Solver and DPM-Solver++, orders 1 to 3.

With h the step in log(alpha / sigma), k = h in the "data" form and -h in "noise", and m_i the feature
at the inner level r_i h from t (see `forms` for psi, scale and feature):

  order 2   scale psi_0(k) / (2 r1) (m_1 - m_0)        ("midpoint", as published), or
            scale psi_1(k) / r1 (m_1 - m_0)            ("exact": the linear interpolant integrated, 2308.02157)
  order 3   scale psi_1(k) / r2 (m_2 - m_0),
            the inner state at r2 being corrected by scale psi_1(r2 k) r2 / r1 (m_1 - m_0)

are added to the first-order move.
"""

from genjax.core.laws import Normal
from genjax.core.numerics import bcast
from genjax.solvers.base import from_proposal, info_of
from genjax.solvers.forms import check_form, psi
from genjax.solvers.levels import ancestral_levels, choose, level, level_at, move, positive_or
from genjax.solvers.ode import single_step

NO_SIGNAL = -8.0  # log(alpha / sigma) below which eps holds x0 only in its rounding error
RULES = ("midpoint", "exact")


def check_rule(rule):
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {list(RULES)}, got {rule!r}")
    return rule


def _advance(order, form_name, r1, r2, rule):
    """`advance` of `ode.single_step`; `to` may be any Level, s is not used."""
    form = check_form(form_name)
    check_rule(rule)
    sign = 1 if form_name == "data" else -1

    def advance(denoiser, process, pred, at, to, s, keys):
        k = sign * (to.half - at.half)
        m_0 = form.feature(pred)

        def difference(fraction, correction=None):
            t_i, stage = level_at(process, at.half + fraction * (to.half - at.half))
            x_i = move(pred, stage)
            if correction is not None:
                x_i = x_i + bcast(form.scale(at, to, stage) * psi(1, fraction * k) * fraction / r1, m_0) * correction
            return form.feature(denoiser(x_i.astype(m_0.dtype), t_i, key=keys)) - m_0

        def step():
            d_1 = difference(r1)
            if order == 2:
                weight = psi(0, k) / (2 * r1) if rule == "midpoint" else psi(1, k) / r1
                return move(pred, to) + bcast(form.scale(at, to, to) * weight, m_0) * d_1
            d_2 = difference(r2, d_1)
            return move(pred, to) + bcast(form.scale(at, to, to) * psi(1, k) / r2, m_0) * d_2

        if form_name == "data":
            return step()
        return choose(at.half > NO_SIGNAL, step, lambda: move(pred, to))

    return advance


def exponential_single(order=2, form="data", r1=None, r2=2 / 3, rule="midpoint"):
    """Single-step exponential integrator with `order` evaluations a step.

    Args:
      order: 1, 2 or 3.
      form: "data" (DPM-Solver++) or "noise" (DPM-Solver). In "noise" a step from pure noise
        (alpha / sigma < 3e-4) is first order: eps tells nothing of x0 there.
      r1, r2: inner levels as fractions of the step in log-SNR; r1 is 1/2 at order 2 and 1/3 at order 3
        unless given.
      rule: "midpoint" (published) or "exact"; order 2 only.

    Raises:
      ValueError: unknown order, form or rule.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order: expected 1, 2 or 3, got {order!r}")
    if r1 is None:
        r1 = 1 / 2 if order == 2 else 1 / 3
    if order == 1:
        check_form(form)
        return single_step(lambda denoiser, process, pred, at, to, s, keys: move(pred, to), evals=1)
    return single_step(_advance(order, form, r1, r2, rule), evals=order)


def dpmpp_1():
    """DPM-Solver++ of order 1: the DDIM move."""
    return exponential_single(1)


def dpmpp_2s(r1=0.5, rule="midpoint"):
    """DPM-Solver++(2S) (2211.01095, algorithm 1)."""
    return exponential_single(2, "data", r1, rule=rule)


def dpmpp_3s():
    """DPM-Solver++ of order 3, single-step (2211.01095, appendix; the form of 2206.00927, algorithm 2)."""
    return exponential_single(3, "data")


def dpm_solver_2(r1=0.5):
    """DPM-Solver-2 (2206.00927, algorithm 1)."""
    return exponential_single(2, "noise", r1)


def dpm_solver_3():
    """DPM-Solver-3 (2206.00927, algorithm 2)."""
    return exponential_single(3, "noise")


def _ancestral(form, eta):
    advance = _advance(2, form, 0.5, 2 / 3, "midpoint")

    def propose(denoiser, process, state, t, s, keys=None):
        pred = denoiser(state.x, t, key=keys)
        at = level(process, t)
        down, std = ancestral_levels(at, level(process, s), eta)
        inner, _ = ancestral_levels(at, level(process, positive_or(s, t)), eta)
        x = choose(
            s > 0,
            lambda: advance(denoiser, process, pred, at, inner, None, keys),
            lambda: move(pred, down),
        )
        return Normal(x, bcast(std, x)), state.memory, info_of(pred)

    return from_proposal(propose, evals=2)


def dpm2_ancestral(eta=1.0):
    """DPM2 down to a lower level, then noise: k-diffusion's "DPM2 a"."""
    return _ancestral("noise", eta)


def dpmpp_2s_ancestral(eta=1.0):
    """DPM-Solver++(2S) down to a lower level, then noise: "DPM++ 2S a"."""
    return _ancestral("data", eta)
