"""Runge-Kutta solvers of the probability-flow ODE in a linear frame.

In the frame "sigma" the ODE of every Gaussian process is dy/dr = eps with y = x / alpha and
r = sigma / alpha (2206.00364, eq. 1 with s = 1 / alpha taken out); in "flow" it is dz/du = eps - x0
(see `forms`). A tableau in one of them is the published sampler: Heun in "sigma" is EDM's, Heun
in "flow" that of flow-matching code. Euler is the same in both: the DDIM move.
"""

from genjax.core.numerics import bcast
from genjax.solvers.base import from_update, info_of
from genjax.solvers.forms import check_frame, frame_form
from genjax.solvers.levels import level, level_at, move, positive_or, skip_at_zero

RK4 = (((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))
KUTTA3 = (((0.5,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6))


def _correction(differences, weights, scale, x):
    """scale sum_j w_j (m_j - m_0), 0 where there is nothing to add."""
    total = sum(bcast(w, x) * d for w, d in zip(weights, differences))
    return bcast(scale, x) * total


def single_step(advance, evals):
    """A deterministic Solver from `advance`, first order on the step to s = 0.

    Args:
      advance: (denoiser, process, pred, at, to, s, keys) -> x at the Level `to` of time s > 0.
      evals: denoiser evaluations, the one that gave `pred` included.
    """

    def update(denoiser, process, state, t, s, keys):
        pred = denoiser(state.x, t, key=keys)
        s_safe = positive_or(s, t)

        def step():
            return advance(denoiser, process, pred, level(process, t), level(process, s_safe), s_safe, keys)

        x = skip_at_zero(s, step, lambda: move(pred, level(process, s))) if evals > 1 else move(pred, level(process, s))
        return x, state.memory, info_of(pred)

    return from_update(update, evals=evals)


def runge_kutta(tableau=RK4, frame="auto"):
    """An explicit Runge-Kutta method in a linear frame.

    Args:
      tableau: (rows, b): the rows of the matrix below the diagonal, and the final weights. Entries may
        be traced numbers.
      frame: "sigma", "flow", or "auto" (sigma for processes of the ve scale, else flow).

    Raises:
      ValueError: unknown frame, or a tableau whose shapes do not fit.
    """
    check_frame(frame)
    rows, b = tableau
    if [len(row) for row in rows] != list(range(1, len(rows) + 1)) or len(b) != len(rows) + 1:
        raise ValueError(f"tableau: expected rows of 1, 2, ... entries and one weight more than rows, got {tableau}")

    def advance(denoiser, process, pred, at, to, s, keys):
        form = frame_form(frame, process)
        start = form.coordinate(at)
        span = form.coordinate(to) - start
        m_0, differences = form.feature(pred), []
        for row in rows:
            c = sum(row)
            at_end = isinstance(c, float) and c == 1.0
            t_i, stage = (s, to) if at_end else level_at(process, form.half(start + c * span))
            x_i = move(pred, stage)
            if differences:
                x_i = x_i + _correction(differences, row[1:], form.scale(at, to, stage), x_i)
            differences.append(form.feature(denoiser(x_i.astype(m_0.dtype), t_i, key=keys)) - m_0)
        return move(pred, to) + _correction(differences, b[1:], form.scale(at, to, to), m_0)

    return single_step(advance, evals=len(b))


def euler():
    """Euler's method in any linear frame, first order: the same move as `ddim(0)`."""

    def advance(denoiser, process, pred, at, to, s, keys):
        return move(pred, to)

    return single_step(advance, evals=1)


def second_order(alpha=1.0, frame="auto"):
    """The two-evaluation family of EDM (2206.00364, table 1 and appendix C), evaluated `alpha` of the way.

    alpha = 1 is Heun's method, 1/2 the midpoint rule, 2/3 Ralston's.
    """
    if isinstance(alpha, int):
        alpha = float(alpha)
    return runge_kutta((((alpha,),), (1 - 1 / (2 * alpha), 1 / (2 * alpha))), frame)


def heun(frame="auto"):
    """Heun's method (EDM, 2206.00364, algorithm 1; algorithm 2 under `transforms.churn`)."""
    return second_order(1.0, frame)


def midpoint(frame="auto"):
    """The midpoint rule in a linear frame, second order."""
    return second_order(0.5, frame)


def ralston(frame="auto"):
    """Ralston's method: of the family, the least error bound."""
    return second_order(2 / 3, frame)


def rk3(frame="auto"):
    """Kutta's third-order method."""
    return runge_kutta(KUTTA3, frame)


def rk4(frame="auto"):
    """The classical fourth-order method."""
    return runge_kutta(RK4, frame)


def dpm2(frame="auto"):
    """DPM2: a midpoint step whose inner level is the geometric mean of the outer two, second order.

    In the frame "sigma" the same as DPM-Solver-2 (2206.00927, algorithm 1) at r1 = 1/2.
    """
    check_frame(frame)

    def advance(denoiser, process, pred, at, to, s, keys):
        form = frame_form(frame, process)
        t_mid, mid = level_at(process, (at.half + to.half) / 2)
        m_0 = form.feature(pred)
        m_mid = form.feature(denoiser(move(pred, mid).astype(m_0.dtype), t_mid, key=keys))
        return move(pred, to) + bcast(form.scale(at, to, to), m_0) * (m_mid - m_0)

    return single_step(advance, evals=2)
