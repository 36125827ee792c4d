"""Residual multi-layer perceptron for vectors, 2-D toys and flattened small images."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.blocks import dense, tap, zeros
from genjax.networks.conditioning import NoiseCond, cond_of


class MLP(nn.Module):
    """Residual MLP that maps x [B, ...] to an array of the same shape, modulated by noise and condition.

    Each block adds W2 silu((1 + a) W1 h + b), with a and b read from the embedding of noise and
    condition. Nothing is normalized unless `norm`: the length of the input tells the noise level,
    which a network that is blind to it must read (2502.13129). The output starts at zero.

    Fields:
      width, depth: of the residual blocks.
      out_channels: size of the last axis of the output; None takes that of x.
      norm: layer normalization inside the blocks (never of the raw input).
      noise_features, bandwidth: see `NoiseFeatures`.
      num_classes, embedding_dim: conditions taken.
      dtype: of the computation; parameters are float32.
    """

    width: int = 128
    depth: int = 3
    out_channels: int | None = None
    norm: bool = False
    dropout: float = 0.0
    noise_features: str = "fourier"
    bandwidth: float = 1.0
    num_classes: int = 0
    embedding_dim: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False, return_features=False):
        cond = cond_of(self, cond)
        features = {}
        emb = NoiseCond(
            self.width,
            self.width // 2 * 2,
            self.noise_features,
            self.bandwidth,
            self.num_classes,
            self.embedding_dim,
            dtype=self.dtype,
            name="embed",
        )(noise, cond)
        h = dense(self.width, self.dtype, "input")(x.reshape(x.shape[0], -1).astype(self.dtype))
        for i in range(self.depth):
            y = nn.LayerNorm(dtype=self.dtype, name=f"norm{i}")(h) if self.norm else h
            y = dense(self.width, self.dtype, f"block{i}_in")(y)
            scale, shift = jnp.split(dense(2 * self.width, self.dtype, f"block{i}_cond")(emb), 2, axis=-1)
            y = jax.nn.silu((1 + scale) * y + shift)
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            h = tap(self, features, f"block{i}", h + dense(self.width, self.dtype, f"block{i}_out")(y))
        shape = (*x.shape[:-1], self.out_channels or x.shape[-1])
        out = dense(math.prod(shape[1:]), self.dtype, "output", init=zeros)(jax.nn.silu(h))
        out = out.reshape(shape).astype(x.dtype)
        return (out, features) if return_features else out
