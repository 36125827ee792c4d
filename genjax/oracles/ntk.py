"""Neural tangent kernels of infinitely wide ReLU networks, and of finite ones at their weights.

A network with weights and biases N(0, 1) and layers h <- (sw / sqrt(fan_in)) W h + sb b has, at infinite width,

  S_0 = sw^2 x.x' / d + sb^2,   T_0 = S_0,   and with c = S / sqrt(S(x, x) S(x', x')), a = arccos c, at each ReLU layer
  S' = sw^2 sqrt(S(x, x) S(x', x')) / (2 pi) (sin a + (pi - a) cos a) + sb^2,
  T' = S' + T sw^2 (pi - a) / (2 pi)

(1806.07572; arc-cosine kernels). T is positively homogeneous in x where sb = 0; elsewhere it is smooth but for a kink
at x = x', where a gradient is taken with a held at its maximum's 0.
"""

import jax
import jax.numpy as jnp

from genjax.core.numerics import safe_div, safe_sqrt


def ntk_relu(depth=2, weight_std=2**0.5, bias_std=1.0, last_bias=False):
    """The kernel x [N, d], y [M, d] -> [N, M] of a network of `depth` ReLU layers (depth + 1 dense ones).

    Args:
      weight_std, bias_std: sw, sb.
      last_bias: whether the last dense layer has a bias.
    """
    if depth < 1:
        raise ValueError(f"depth: expected at least 1 ReLU layer, got {depth}")
    if not (weight_std > 0 and bias_std >= 0):
        raise ValueError(f"weight_std: expected weight_std > 0 and bias_std >= 0, got {weight_std} and {bias_std}")
    w, b = weight_std**2, bias_std**2

    def kernel(x, y):
        dim = x.shape[-1]
        inner = w * (x @ y.T) / dim + b
        size_x = w * jnp.sum(x * x, axis=-1)[:, None] / dim + b
        size_y = w * jnp.sum(y * y, axis=-1)[None] / dim + b
        tangent = inner
        edge = 1 - 8 * jnp.finfo(inner.dtype).eps
        for layer in range(depth):
            bias = b if layer < depth - 1 or last_bias else 0.0
            norm = safe_sqrt(size_x * size_y)
            cosine = safe_div(inner, norm)
            # at the ends of its range the angle is a constant: arccos has no slope there, the kernel's own is finite
            inside = jnp.abs(cosine) < edge
            angle = jnp.arccos(jnp.where(inside, cosine, 0.0))
            angle = jnp.where(inside, angle, jnp.where(cosine > 0, 0.0, jnp.pi))
            inner = w * norm / (2 * jnp.pi) * (jnp.sin(angle) + (jnp.pi - angle) * jnp.cos(angle)) + bias
            tangent = inner + tangent * w * (jnp.pi - angle) / (2 * jnp.pi)
            size_x, size_y = w / 2 * size_x + bias, w / 2 * size_y + bias
        return tangent

    return kernel


def empirical_ntk(fn, params, x):
    """sum_p df(x_i)/dp df(x_j)/dp, [N, N], of `fn` (params, x [N, d]) -> [N] at `params`."""
    gradients = jax.vmap(lambda row: jax.grad(lambda p: fn(p, row[None])[0])(params))(x)
    flat = [g.reshape(len(x), -1) for g in jax.tree.leaves(gradients)]
    return sum(g @ g.T for g in flat)
