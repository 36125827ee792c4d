"""Magnitude-preserving layers: each keeps unit variance in expectation (EDM2, 2312.02696)."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.convolution import conv
from genjax.networks.products import matmul

WEIGHT = "mp_kernel"  # name of the parameters that `force_normalize` rescales


def normalize(x, axis, eps=1e-4):
    """x / (eps + root mean square of x over `axis`), statistics in float32 (eq. 46 and 53).

    The gradient at x = 0 is finite.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.mean(wide * wide, axis=axis, keepdims=True)
    zero = square == 0
    rms = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))
    return (wide / (eps + rms)).astype(x.dtype)


def mp_silu(x):
    """SiLU scaled to unit variance for normal input (eq. 81)."""
    return jax.nn.silu(x) / 0.596


def mp_sum(a, b, t=0.5):
    """((1 - t) a + t b) / sqrt((1 - t)^2 + t^2) (eq. 88)."""
    return ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a, b, t=0.5):
    """Concatenation on the last axis in which b makes up the part t whatever the widths (eq. 103)."""
    na, nb = a.shape[-1], b.shape[-1]
    c = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return jnp.concatenate([c / math.sqrt(na) * (1 - t) * a, c / math.sqrt(nb) * t * b], axis=-1)


def force_normalize(params):
    """`params` with every magnitude-preserving weight rescaled to unit RMS for each output (eq. 66).

    Applied after each update of the optimizer. Gains and all other parameters pass unchanged.
    """

    def rescale(path, w):
        named = getattr(path[-1], "key", None) == WEIGHT
        return normalize(w, tuple(range(w.ndim - 1))) if named else w

    return jax.tree_util.tree_map_with_path(rescale, params)


def _weight(module, shape, gain, dtype):
    # Normalized in the forward pass too, which makes the gradient orthogonal to the stored weight (eq. 47).
    w = module.param(WEIGHT, nn.initializers.normal(1.0), shape, jnp.float32)
    w = normalize(w, tuple(range(w.ndim - 1)))
    return (w * (gain / math.sqrt(math.prod(shape[:-1])))).astype(dtype)


class MPDense(nn.Module):
    """x [..., C] times a weight normalized for each output, no bias; `gain` scales the result."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, gain=1.0):
        return matmul(x.astype(self.dtype), _weight(self, (x.shape[-1], self.features), gain, self.dtype))


class MPConv(nn.Module):
    """Convolution of x [B, *S, C] with a kernel normalized for each output channel, no bias."""

    features: int
    size: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, gain=1.0):
        shape = (*(self.size,) * (x.ndim - 2), x.shape[-1], self.features)
        return conv(x.astype(self.dtype), _weight(self, shape, gain, self.dtype))


class MPAttention(nn.Module):
    """Cosine attention of tokens x [B, T, C] over themselves: q, k and v have unit RMS in each head."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        qkv = MPDense(3 * x.shape[-1], self.dtype, name="qkv")(x)
        qkv = qkv.reshape(*x.shape[:-1], 3, self.heads, x.shape[-1] // self.heads)
        q, k, v = (normalize(u, -1) for u in jnp.moveaxis(qkv, -3, 0))
        y = jax.nn.dot_product_attention(q, k, v)
        return MPDense(x.shape[-1], self.dtype, name="out")(y.reshape(x.shape))
