"""Parts that all networks share: normalization, resampling, embeddings of numbers, attention, taps."""

from collections.abc import Callable
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genjax.networks.products import dot_general

zeros = nn.initializers.zeros


def xavier(scale=1.0):
    """Uniform with variance scale^2 * 2 / (fan_in + fan_out), the initialization of DDPM++ and EDM."""
    return nn.initializers.variance_scaling(scale**2, "fan_avg", "uniform")


def dense(features, dtype, name=None, *, init=None, use_bias=True):
    """A Dense layer with float32 parameters that computes in `dtype`."""
    options = {"dtype": dtype, "kernel_init": init or xavier(), "dot_general": dot_general}
    return nn.Dense(features, use_bias=use_bias, name=name, **options)


def tap(module, features, name, x, sown="features"):
    """Names an activation: into the dict `features`, and into the one sown as "intermediates"/`sown`; returns x."""
    features[name] = x
    module.sow("intermediates", sown, {name: x}, init_fn=dict, reduce_fn=lambda a, b: a | b)
    return x


def group_norm(x, groups, scale=None, shift=None, eps=1e-5):
    """Group normalization in one pass over the data.

    Per-channel sums give the statistics of the groups in float32, and the normalization together with
    scale and shift becomes one multiply-add a channel: x is read twice and written once.

    Args:
      x: [B, *S, C].
      groups: number of groups of channels, a divisor of C.
      scale, shift: [C] or [B, C], applied after the normalization; None leaves it out.
      eps: added to the variance.
    """
    batch, channels = x.shape[0], x.shape[-1]
    if channels % groups:
        raise ValueError(f"groups: expected a divisor of {channels} channels, got {groups}")
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    spatial = tuple(range(1, x.ndim - 1))

    def group_mean(v):
        v = jnp.mean(v, axis=spatial).reshape(batch, groups, -1)
        return jnp.mean(v, axis=-1, keepdims=True)

    mean = group_mean(wide)
    var = jnp.maximum(group_mean(wide * wide) - mean * mean, 0)
    a = jnp.broadcast_to(jax.lax.rsqrt(var + eps), (batch, groups, channels // groups))
    b = (-mean * a).reshape(batch, channels)
    a = a.reshape(batch, channels)
    if scale is not None:
        scale = jnp.atleast_2d(scale).astype(a.dtype)
        a, b = a * scale, b * scale
    if shift is not None:
        b = b + jnp.atleast_2d(shift).astype(a.dtype)
    a, b = (v.reshape(batch, *(1,) * len(spatial), channels) for v in (a, b))
    return (wide * a + b).astype(x.dtype)


class GroupNorm(nn.Module):
    """`group_norm` with learned `scale` and `bias` [C]; groups of at least `min_channels` channels.

    `scale` and `shift` [B, C] of a condition modulate the normalized values: (1 + scale) y + shift.
    """

    groups: int = 32
    min_channels: int = 4
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x, scale=None, shift=None):
        channels = x.shape[-1]
        groups = max(1, min(self.groups, channels // self.min_channels))
        while channels % groups:
            groups -= 1
        weight = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", zeros, (channels,), jnp.float32)
        if scale is not None:
            scale, bias = (1 + scale) * weight[None], bias[None] * (1 + scale)
            return group_norm(x, groups, scale, bias if shift is None else bias + shift, self.eps)
        return group_norm(x, groups, weight, bias if shift is None else bias[None] + shift, self.eps)


def _down_axis(x, taps, axis):
    # y_o = sum_i f_i x_(2 o + i - low), zeros outside
    length, n = len(taps), x.shape[axis]
    low = (length - 1) // 2
    pads = [(0, 0)] * x.ndim
    pads[axis] = (low, length - 2 - low)
    x = jnp.pad(x, pads)
    return sum(f * jax.lax.slice_in_dim(x, i, i + n - 1, 2, axis) for i, f in enumerate(taps))


def _taps(filter):
    f = np.asarray(filter, np.float64)
    if f.ndim != 1 or len(f) < 2:
        raise ValueError(f"filter: expected at least two taps, got {filter!r}")
    return [float(v) for v in f / f.sum()]


def downsample(x, filter=(1, 1)):
    """x [B, *S, C] at half the resolution, by a separable filter and every second value.

    (1, 1) averages pairs; (1, 2, 1) and (1, 3, 3, 1) are the smoother filters of NCSN++ and EDM
    (2206.00364, app. F). Written as shifted sums: a depthwise convolution is slow in XLA.

    Raises:
      ValueError: an odd size.
    """
    if any(n % 2 for n in x.shape[1:-1]):
        raise ValueError(f"x: expected even sizes to halve, got {x.shape[1:-1]}")
    taps = _taps(filter)
    for axis in range(1, x.ndim - 1):
        x = _down_axis(x, taps, axis)
    return x


def upsample(x, filter=(1, 1)):
    """x [B, *S, C] at twice the resolution: the adjoint of `downsample`, scaled to keep constants.

    (1, 1) repeats values (nearest neighbour); (1, 2, 1) interpolates linearly.
    """
    taps = _taps(filter)
    for axis in range(1, x.ndim - 1):
        if len(taps) == 2 and taps[0] == taps[1]:
            x = jnp.repeat(x, 2, axis=axis)
            continue
        shape = [*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :]]
        like = jax.ShapeDtypeStruct(tuple(shape), x.dtype)
        x = 2 * jax.linear_transpose(lambda v, axis=axis: _down_axis(v, taps, axis), like)(x)[0]
    return x


def check_levels(x, levels):
    """Raises ValueError unless x [B, *S, C] can be halved levels - 1 times."""
    if any(n % 2 ** (levels - 1) for n in x.shape[1:-1]):
        raise ValueError(f"x: expected sizes divisible by {2 ** (levels - 1)} (levels {levels}), got {x.shape}")


def sinusoidal(values, dim, max_period=10000.0, endpoint=False):
    """Cosines and sines of `values` [B] at `dim` / 2 frequencies from 1 to 1 / max_period, [B, dim].

    `endpoint` includes the lowest frequency exactly (DDPM++); DDPM's values run to 1000
    (1706.03762, section 3.5).
    """
    if dim % 2:
        raise ValueError(f"dim: expected an even number, got {dim}")
    half = dim // 2
    exponents = np.arange(half) / max(half - (1 if endpoint else 0), 1)
    angles = values.astype(jnp.float32)[:, None] * jnp.asarray(max_period**-exponents, jnp.float32)[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def positions(sizes, dim):
    """Fixed sine-cosine position embeddings of a grid, [prod(sizes), dim]; each axis takes an equal part."""
    if dim % (2 * len(sizes)):
        raise ValueError(f"dim: expected a multiple of {2 * len(sizes)}, got {dim}")
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    part = dim // len(sizes)
    angles = grid[..., None] * 10000.0 ** (-np.arange(part // 2) / (part / 2))
    table = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    return table.reshape(len(grid), dim).astype(np.float32)


class Fourier(nn.Module):
    """Fourier features sqrt(2) cos(2 pi (f v + phi)) of numbers v [B], [B, dim], of unit variance.

    f ~ N(0, bandwidth^2), phi ~ U(0, 1) (2312.02696, eq. 75), taken at the quantiles of their laws and
    not at random, so the features need no seed. `stored` keeps both as parameters without gradient,
    to hold the draws of a network that was trained elsewhere.
    """

    dim: int
    bandwidth: float = 1.0
    stored: bool = False

    @nn.compact
    def __call__(self, values):
        index = np.arange(self.dim)
        quantiles = [NormalDist().inv_cdf((i + 0.5) / self.dim) for i in range(self.dim)]
        f = np.asarray(self.bandwidth * np.array(quantiles), np.float32)
        phi = np.asarray((index * (np.sqrt(5) - 1) / 2) % 1, np.float32)  # the golden-ratio sequence
        if self.stored:
            f = jax.lax.stop_gradient(self.param("frequencies", lambda _: jnp.asarray(f)))
            phi = jax.lax.stop_gradient(self.param("phases", lambda _: jnp.asarray(phi)))
        angles = 2 * jnp.pi * (values.astype(jnp.float32)[:, None] * f[None] + phi[None])
        return np.sqrt(2).astype(np.float32) * jnp.cos(angles)


class Attention(nn.Module):
    """Multi-head attention of tokens x [B, T, C] over themselves or over `context` [B, L, D]; no residual."""

    heads: int = 1
    dtype: jnp.dtype = jnp.float32
    qkv_bias: bool = True
    qkv_init: Callable = xavier()
    out_init: Callable = zeros

    @nn.compact
    def __call__(self, x, context=None):
        channels = x.shape[-1]
        if channels % self.heads:
            raise ValueError(f"heads: expected a divisor of {channels} channels, got {self.heads}")
        layer = lambda n, name: dense(n, self.dtype, name, init=self.qkv_init, use_bias=self.qkv_bias)
        if context is None:
            q, k, v = jnp.split(layer(3 * channels, "qkv")(x), 3, axis=-1)
        else:
            q = layer(channels, "q")(x)
            k, v = jnp.split(layer(2 * channels, "kv")(context), 2, axis=-1)
        q, k, v = (u.reshape(*u.shape[:-1], self.heads, -1) for u in (q, k, v))
        y = jax.nn.dot_product_attention(q, k, v)
        return dense(channels, self.dtype, "out", init=self.out_init)(y.reshape(x.shape))
