"""UniPC (2302.04867): a multistep predictor, corrected by the evaluation that the next step needs anyway.

The step from t first corrects the state at t: the last move is made again with the evaluation at t as one
more node of the interpolant (UniC), then the predictor (UniP) goes on to s. One evaluation a step; the
evaluation stays the one at the uncorrected state.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from genjax.core.numerics import bcast
from genjax.core.types import SolverState
from genjax.solvers.base import from_update, info_of
from genjax.solvers.forms import FORMS, lagrange_weights
from genjax.solvers.levels import level
from genjax.solvers.multistep import check_order, empty_history, past_nodes, remember

VARIANTS = ("B1", "B2")


class Memory(NamedTuple):
    history: Any  # past x0, latest first; `order` of them
    base: Any  # [B, ...] first-order part of the last move
    scale: Any  # scalar or [B], alpha at its end


def _two_node_weight(variant, h, node):
    """Weight of the second node where only two are used: B(h) / 2 per unit of theta (there, section 3.3)."""
    b = h if variant == "B1" else -jnp.expm1(-h)
    return b / (2 * node)


def unipc(order=3, variant="B2", final_order=2):
    """UniPC in the data form.

    Args:
      order: of the predictor, 1 to 4; the corrector has one more.
      variant: "B1" (B(h) = h) or "B2" (B(h) = e^h - 1); they differ where two nodes are used.
      final_order: the predictor's order on the step to t_min, after which only the first-order step to 0 is
        left; None for `order`.

    Raises:
      ValueError: unknown order or variant.
    """
    check_order(order)
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {list(VARIANTS)}, got {variant!r}")
    form = FORMS["data"]

    def weights(nodes, h, used):
        """Weights of nodes[1:], `used` (traced) nodes in all being live."""
        out = [jnp.zeros(()) for _ in nodes[1:]]
        for q in range(2, len(nodes) + 1):
            if q == 2:
                new = [_two_node_weight(variant, h, nodes[1])]
            else:
                new = lagrange_weights(nodes[:q], [form.moment(n, h) for n in range(q)])[1:]
            out = [jnp.where(used == q, new[j], w) if j < q - 1 else w for j, w in enumerate(out)]
        return out

    def init(x, t):
        t = jnp.asarray(t, jnp.result_type(float))
        history = empty_history(x, t, order + 1)
        return SolverState(x, Memory(history, jnp.zeros_like(x), jnp.zeros_like(t)))

    def correct(memory, x, m_now, half):
        """The state at the current time with m_now as one more node."""
        history = memory.history
        live = history.count > 0
        last = history.coordinates[0]
        h = jnp.where(live, half - last, 1.0)
        past = [
            jnp.where(history.count > j + 1, (c - last) / h, -1.0 - j) for j, c in enumerate(history.coordinates[1:])
        ]
        used = jnp.minimum(history.count, order) + 1
        m_last = history.features[0]
        values = [m_now, *history.features[1:]]
        corrected = memory.base
        for w, m in zip(weights([0.0, 1.0, *past], h, used), values):
            corrected = corrected + bcast(memory.scale * w, x) * (m - m_last)
        return jnp.where(live, corrected, x)

    def update(denoiser, process, state, t, s, keys):
        pred = denoiser(state.x, t, key=keys)
        memory, m_0 = state.memory, pred.x0
        at, to = level(process, t), level(process, s)
        x = correct(memory, state.x, m_0, at.half)

        live = (to.half < jnp.inf) & (to.half != at.half)
        h = jnp.where(live, to.half - at.half, 1.0)
        # sigma_s / sigma_t x + alpha_s (1 - e^-h) x0, as written for the corrected x
        shrink = jnp.where(live, form.moment(0, h), 1.0)
        base = bcast(to.sigma / at.sigma, x) * x + bcast(to.alpha * shrink, x) * m_0
        nodes = past_nodes(memory.history, at.half, h)[:order]
        used = jnp.where(live, jnp.minimum(memory.history.count + 1, order), 1)
        if final_order is not None:
            used = jnp.where(s <= process.t_min * (1 + 1e-4), jnp.minimum(used, final_order), used)
        x_next = base
        for w, m in zip(weights(nodes, h, used), memory.history.features):
            x_next = x_next + bcast(to.alpha * w, x) * (m - m_0)
        history = remember(memory.history, m_0, at.half)
        return x_next, Memory(history, base, to.alpha), info_of(pred)

    return from_update(update, init)
