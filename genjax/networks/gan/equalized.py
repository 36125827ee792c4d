"""Layers with an equalized learning rate: unit-normal parameters, scaled in the forward pass (1710.10196, section 4.1).

w = v * gain / sqrt(fan_in) with v ~ N(0, 1): an optimizer that ignores the scale of gradients, as Adam
does, then moves all weights at one relative speed.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.convolution import conv
from genjax.networks.gan.resample import conv_down, conv_up
from genjax.networks.products import matmul

SLOPE = 0.2


def leaky(x, gain=1.0):
    """gain * LeakyReLU(x) of slope 0.2; sqrt(2) keeps the variance of normal input, nearly."""
    y = jax.nn.leaky_relu(x, SLOPE)
    return y if gain == 1.0 else y * jnp.asarray(gain, x.dtype)


def pixel_norm(x, eps=1e-8):
    """x [..., C] over the root of its mean square (1710.10196, section 4.2)."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)).astype(x.dtype)


def equalized(module, shape, gain=1.0, multiplier=1.0, plain=False, name="kernel"):
    """The kernel [..., C, O] of a module, float32.

    Args:
      multiplier: of the learning rate: stored values are 1 / multiplier as large, the scale multiplier.
      plain: no scale at run time; the stored values have the size of the others' scaled ones.
    """
    scale = gain / math.sqrt(math.prod(shape[:-1]))
    if plain:
        return module.param(name, nn.initializers.normal(scale), shape, jnp.float32)
    return module.param(name, nn.initializers.normal(1 / multiplier), shape, jnp.float32) * (scale * multiplier)


class EqualDense(nn.Module):
    """x [..., C] to [..., features].

    Fields:
      gain: the standard deviation of the kernel is gain / sqrt(C).
      multiplier: of the learning rate, for the kernel and the bias.
      bias: initial value, None for no bias.
      plain: see `equalized`.
    """

    features: int
    gain: float = 1.0
    multiplier: float = 1.0
    bias: float | None = 0.0
    plain: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        w = equalized(self, (x.shape[-1], self.features), self.gain, self.multiplier, self.plain)
        y = matmul(x.astype(self.dtype), w.astype(self.dtype))
        if self.bias is not None:
            init = nn.initializers.constant(self.bias / self.multiplier)
            bias = self.param("bias", init, (self.features,), jnp.float32) * self.multiplier
            y = y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class EqualConv(nn.Module):
    """Convolution of x [B, H, W, C]; `resample` is 0, 1 for `conv_up` and -1 for `conv_down`.

    Fields: gain, plain as in `EqualDense`; size, of the kernel; padding, of the plain convolution.
    """

    features: int
    size: int = 3
    gain: float = 1.0
    use_bias: bool = True
    plain: bool = False
    resample: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        w = equalized(self, (self.size, self.size, x.shape[-1], self.features), self.gain, plain=self.plain)
        move = {0: conv, 1: conv_up, -1: conv_down}[self.resample]
        y = move(x.astype(self.dtype), w.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None]
        return y
