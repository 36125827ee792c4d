"""Inverses without a learned prior: what a posterior sampler has to beat."""

import jax
import jax.numpy as jnp

from genjax.inverse.linear import conjugate_gradients, curvature


def tikhonov(operator, y, weights, steps=200):
    """argmin_x |y - A x|^2 / |A|^2 + sum_i weights[i] |D_i x|^2, D_i the difference of neighbours along axis i.

    A measurement divides its noise by the least singular values in a pseudo-inverse; here smoothness stands in for
    what is measured badly. Solved by conjugate gradients from zero, each sample for itself.

    Args:
      operator: linear, with `adjoint` and `in_shape`.
      y: [B, ...].
      weights: one for each axis of `in_shape`, >= 0; may be traced.
      steps: of conjugate gradients, static.

    Returns:
      [B, *in_shape].

    Raises:
      ValueError: the number of weights is not that of the axes.

    Reference: Tikhonov (1963).
    """
    weights = jnp.asarray(weights, y.dtype)
    if weights.shape != (len(operator.in_shape),):
        raise ValueError(f"weights: expected {len(operator.in_shape)}, one an axis, got shape {weights.shape}")
    zero = jnp.zeros((y.shape[0], *operator.in_shape), y.dtype)
    size = curvature(operator.forward, zero[:1], 30)[0]

    def energy(x):  # of the differences; its gradient is linear in x
        return sum(0.5 * w * jnp.sum(jnp.diff(x, axis=i + 1) ** 2) for i, w in enumerate(weights))

    apply = lambda x: operator.adjoint(operator.forward(x)) / size + jax.grad(energy)(x)
    return conjugate_gradients(apply, operator.adjoint(y) / size, zero, steps)
