"""Products of activations and kernels as products of two matrices.

XLA:CPU multiplies matrices as they lie in memory. With an operand of more axes, the gradient of a kernel sums over
several of them; it then transposes that operand as part of whatever made it, which takes longer than the product:
train steps of R3GAN cost a fifth less so.
"""

import math

from jax import lax


def matmul(x, kernel):
    """x [..., C] times kernel [C, O]: [..., O]."""
    y = x.reshape(-1, x.shape[-1]) @ kernel
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def kernel_gradient(x, g, wide=None):
    """The sum of x_c g_o over all but the last axis of x [..., C] and g [..., O]: [C, O]."""
    n = math.prod(x.shape[:-1])
    x, g = x.reshape(n, -1), g.reshape(n, -1)
    return lax.dot_general(x, g, (((0,), (0,)), ((), ())), preferred_element_type=wide)


def dot_general(x, kernel, dimensions, **options):
    """`lax.dot_general` for Flax's dense layers: x [..., C] and kernel [C, O] of any rank but 2 as matrices."""
    if dimensions != (((x.ndim - 1,), (0,)), ((), ())) or kernel.ndim != 2:
        return lax.dot_general(x, kernel, dimensions, **options)
    y = lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])
