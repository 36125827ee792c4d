"""Adaptive integration of the probability-flow ODE by diffrax.

The coordinates are those of `likelihood`: w = x / sqrt(alpha^2 + sigma^2) against log(alpha / sigma), where the
ODE is smooth and bounded for every process.
"""

import diffrax
import jax
import jax.numpy as jnp

from genjax.core.denoiser import bind_cond
from genjax.core.numerics import sum_except_batch
from genjax.solvers.likelihood import flow_field


def worst_sample(error):
    """Root mean square of a sample's scaled error, the largest over the batch; leaves [B, ...]."""
    leaves = jax.tree.leaves(error)
    squares = sum(sum_except_batch(e**2) for e in leaves)
    return jnp.sqrt(jnp.max(squares / sum(e[0].size for e in leaves)))


def _solve(rate, state, start, stop, rtol, atol, method, max_steps):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: rate(y, t)),
        method,
        start,
        stop,
        None,
        state,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol, norm=worst_sample),
        saveat=diffrax.SaveAt(t1=True),
        max_steps=max_steps,
    )


def integrate_adaptive(rtol=1e-5, atol=1e-5, method=None, max_steps=4096):
    """`integrate` for `likelihood.log_likelihood`; only the ends of the grid count."""

    def integrate(rate, state, halves):
        solution = _solve(rate, state, halves[0], halves[-1], rtol, atol, method or diffrax.Dopri5(), max_steps)
        return jax.tree.map(lambda y: y[0], solution.ys)

    return integrate


def sample_adaptive(denoiser, process, x, t, s, cond=None, *, rtol=1e-5, atol=1e-5, method=None, max_steps=4096):
    """Solves the probability-flow ODE from t to s with steps chosen by the local error.

    The batch shares its steps, which the worst sample decides: with another batch a sample changes by no
    more than the tolerance allows.

    Args:
      denoiser: Denoiser.
      process: Gaussian process.
      x: [B, ...] state at t.
      t, s: scalar times > 0, up or down; go to 0 by one denoiser call at the end, `denoiser(x, s).x0`.
      cond: condition.
      rtol, atol: tolerances of the normalized state w.
      method: a diffrax solver, Dormand-Prince 5(4) unless given.
      max_steps: raises an error beyond.

    Returns:
      (x at s, number of denoiser evaluations).

    Raises:
      ValueError: a time that is 0 (checked where concrete).
    """
    for name, value in (("t", t), ("s", s)):
        if not isinstance(value, jax.core.Tracer) and not (jnp.ndim(value) == 0 and value > 0):
            raise ValueError(f"{name}: expected a scalar time > 0, got {value}")
    if cond is not None:
        denoiser = bind_cond(denoiser, cond)
    method = method or diffrax.Dopri5()

    def norm(t):
        return jnp.sqrt(process.alpha(t) ** 2 + process.sigma(t) ** 2)

    field = flow_field(denoiser, process)
    start, stop = (process.log_snr(u) / 2 for u in (t, s))
    solution = _solve(field, x / norm(t).astype(x.dtype), start, stop, rtol, atol, method, max_steps)
    order_evals = method.tableau.num_stages - (1 if method.tableau.fsal else 0) if hasattr(method, "tableau") else 1
    evals = solution.stats["num_steps"] * order_evals + 1
    return (solution.ys[0] * norm(s)).astype(x.dtype), evals
