"""A critic that is 1-Lipschitz by construction: orthonormal kernels and sorting (1811.05381).

Every kernel W is scaled to norm at most 1 and made nearly orthonormal by Bjorck's iteration

  W <- (1 + b) W - b W W^T W,

which takes a singular value s to (1 + b) s - b s^3: for b = 1/2 it rises towards 1 and never passes it, so the layer
is 1-Lipschitz however few the steps. Sorting pairs of features is 1-Lipschitz and keeps the gradient's norm.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from genjax.core.types import Critique
from genjax.networks.blocks import xavier
from genjax.networks.products import matmul

BETA = 0.5


def bjorck(w, steps=5):
    """A kernel [N, O] of spectral norm at most 1, the nearer to orthonormal the more `steps` (1811.05381, eq. 3).

    First divided by sqrt(|W|_1 |W|_inf), which is no less than the norm.
    """
    dot = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
    size = jnp.abs(w)
    w = w / jnp.sqrt(jnp.max(jnp.sum(size, axis=0)) * jnp.max(jnp.sum(size, axis=1)) + 1e-12)
    for _ in range(steps):
        cube = dot(w, dot(w.T, w)) if w.shape[0] >= w.shape[1] else dot(dot(w, w.T), w)
        w = (1 + BETA) * w - BETA * cube
    return w


def group_sort(x, size=2):
    """Every `size` neighbouring features of x [..., C] in rising order (1811.05381, section 4.2)."""
    if size < 1 or x.shape[-1] % size:
        raise ValueError(f"size: expected a divisor of {x.shape[-1]} features, got {size}")
    groups = x.reshape(*x.shape[:-1], -1, size)
    return jnp.sort(groups, axis=-1).reshape(x.shape)


class OrthonormalDense(nn.Module):
    """A dense layer with the kernel `bjorck(w, steps)`."""

    features: int
    steps: int = 5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        w = self.param("kernel", xavier(), (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        y = matmul(x.astype(self.dtype), bjorck(w, self.steps).astype(self.dtype))
        return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class LipschitzDiscriminator(nn.Module):
    """x [B, *shape] to a Critique whose logit is 1-Lipschitz in x; `features` is the last hidden layer.

    Fields:
      width, depth: of the hidden layers, each followed by sorting in groups of `group`.
      steps: of Bjorck's iteration.
    """

    width: int = 128
    depth: int = 3
    group: int = 2
    steps: int = 5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        h = x.reshape(x.shape[0], -1)
        for i in range(self.depth):
            h = group_sort(OrthonormalDense(self.width, self.steps, self.dtype, name=f"layer{i}")(h), self.group)
        h = h.astype(jnp.float32)
        return Critique(OrthonormalDense(1, self.steps, name="output")(h)[..., 0], h)
