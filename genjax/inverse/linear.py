"""Data steps: the x that a measurement and a guess agree on, and the conjugate gradients behind it.

Every sample is solved for itself: dot products run over its own axes alone.
"""

import jax
import jax.numpy as jnp

from genjax.core.numerics import bcast, safe_div, sum_except_batch


def conjugate_gradients(apply, b, x, steps):
    """`steps` iterations of conjugate gradients on apply(x) = b from x, each sample for itself.

    Args:
      apply: [B, ...] -> [B, ...], symmetric and >= 0, sample by sample.
      b, x: [B, ...].
      steps: static; a sample that has converged stays where it is.

    Reference: Hestenes and Stiefel (1952).
    """
    r = b - apply(x)

    def body(carry, _):
        x, r, p, rr = carry
        ap = apply(p)
        step = safe_div(rr, sum_except_batch(p * ap))
        x, r = x + bcast(step, x) * p, r - bcast(step, r) * ap
        new = sum_except_batch(r * r)
        return (x, r, r + bcast(safe_div(new, rr), p) * p, new), None

    return jax.lax.scan(body, (x, r, r, sum_except_batch(r * r)), None, steps)[0][0]


def gauss_newton(forward, x0, y, rho, steps=20):
    """argmin_x |y - A(x0) - J (x - x0)|^2 + rho |x - x0|^2, J the Jacobian of `forward` at x0.

    For a linear A the minimizer itself of |y - A x|^2 + rho |x - x0|^2.

    Args:
      forward: differentiable, [B, ...] -> [B, ...].
      x0: [B, ...], y: [B, ...].
      rho: scalar or [B].
      steps: of conjugate gradients.
    """
    value, push = jax.linearize(forward, x0)
    pull = jax.linear_transpose(push, x0)
    apply = lambda d: pull(push(d))[0] + bcast(rho, d).astype(d.dtype) * d
    return x0 + conjugate_gradients(apply, pull((y - value).astype(value.dtype))[0], jnp.zeros_like(x0), steps)


def proximal(operator, x0, y, rho, steps=20):
    """argmin_x |y - A(x)|^2 + rho |x - x0|^2: the operator's own `prox` where it has one, else a Gauss-Newton step."""
    if hasattr(operator, "prox"):
        return operator.prox(x0, y, rho).astype(x0.dtype)
    return gauss_newton(operator.forward, x0, y, rho, steps)


def curvature(forward, x, steps=10):
    """The largest eigenvalue of J^T J at x, [B], J the Jacobian of `forward`; by power iteration, from below.

    The start is a fixed vector, so the estimate is a function of the sample alone.
    """
    _, push = jax.linearize(forward, x)
    pull = jax.linear_transpose(push, x)
    first = jax.random.normal(jax.random.key(0), x.shape[1:], x.dtype)
    v = jnp.broadcast_to(first, x.shape)

    def body(v, _):
        w = pull(push(v))[0]
        norm = jnp.sqrt(sum_except_batch(w * w))
        return safe_div(w, bcast(norm, w)), None

    v, _ = jax.lax.scan(body, v, None, steps)
    image = push(v)
    return safe_div(sum_except_batch(image * image), sum_except_batch(v * v))
