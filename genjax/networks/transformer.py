"""Transformers over image patches: DiT (2212.09748) and U-ViT (2209.12152), of the same blocks."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.blocks import Attention, dense, positions, tap, zeros
from genjax.networks.conditioning import CondVector, NoiseCond, NoiseFeatures, concat_image, cond_of, context_of
from genjax.networks.convolution import Conv


def patchify(x, patch):
    """x [B, *S, C] as tokens [B, prod(S / patch), patch^d C], patches in row-major order.

    Raises:
      ValueError: a size that `patch` does not divide.
    """
    sizes = x.shape[1:-1]
    if any(n % patch for n in sizes):
        raise ValueError(f"patch: expected a divisor of the sizes {sizes}, got {patch}")
    d = len(sizes)
    split = [m for n in sizes for m in (n // patch, patch)]
    x = x.reshape(x.shape[0], *split, x.shape[-1])
    order = (0, *range(1, 2 * d + 1, 2), *range(2, 2 * d + 1, 2), 2 * d + 1)
    return x.transpose(order).reshape(x.shape[0], math.prod(n // patch for n in sizes), -1)


def unpatchify(tokens, sizes, patch):
    """The inverse of `patchify`: [B, L, patch^d C] -> [B, *sizes, C]."""
    d = len(sizes)
    grid = [n // patch for n in sizes]
    x = tokens.reshape(tokens.shape[0], *grid, *[patch] * d, -1)
    order = [0] + [a for i in range(d) for a in (1 + i, 1 + d + i)] + [2 * d + 1]
    return x.transpose(order).reshape(tokens.shape[0], *sizes, -1)


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP on x [B, T, D], each residual.

    With `emb` [B, E], adaLN-zero (2212.09748, section 3.2): the norms have no parameters, six vectors
    of the embedding shift, scale and gate the branches, and all six start at zero, so the block starts
    as the identity. With `context` [B, L, D'], cross-attention stands between, its output zero at start.
    """

    heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, emb=None, context=None, train=False):
        dim = x.shape[-1]
        adaptive = emb is not None
        init = nn.initializers.xavier_uniform()
        parts = [None] * 6
        if adaptive:
            parts = jnp.split(dense(6 * dim, self.dtype, "modulation", init=zeros)(emb)[:, None], 6, axis=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts

        def norm(h, name, shift, scale):
            layer = nn.LayerNorm(
                epsilon=1e-6, use_bias=not adaptive, use_scale=not adaptive, dtype=self.dtype, name=name
            )
            return layer(h) * (1 + scale) + shift if adaptive else layer(h)

        attend = Attention(self.heads, self.dtype, self.qkv_bias, init, init, name="attention")
        y = attend(norm(x, "norm0", shift_a, scale_a))
        x = x + (gate_a * y if adaptive else y)
        if context is not None:
            h = nn.LayerNorm(dtype=self.dtype, name="norm_cross")(x)
            x = x + Attention(self.heads, self.dtype, self.qkv_bias, init, zeros, name="cross")(h, context)
        h = dense(int(dim * self.mlp_ratio), self.dtype, "mlp_in", init=init)(norm(x, "norm1", shift_m, scale_m))
        h = nn.Dropout(self.dropout, deterministic=not train)(jax.nn.gelu(h, approximate=True))
        y = dense(dim, self.dtype, "mlp_out", init=init)(h)
        return x + (gate_m * y if adaptive else y)


class DiT(nn.Module):
    """Diffusion transformer with adaLN-zero on x [B, *S, C]; the output starts at zero.

    The defaults are a network for 8x8 digits. `PRESETS` holds the published ones.

    Fields:
      out_channels: None takes those of x; twice those of x for a learned variance.
      dim, depth, heads, patch, mlp_ratio: sizes.
      noise_dim, noise_features, bandwidth: see `NoiseFeatures`.
      num_classes, embedding_dim, vocab or token_dim (cross-attention), image_channels: conditions taken.
      remat: recompute the blocks' activations in the backward pass.
      dtype: of the computation; parameters are float32.
    """

    out_channels: int | None = None
    dim: int = 64
    depth: int = 4
    heads: int = 2
    patch: int = 2
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    noise_dim: int = 64
    noise_features: str = "fourier"
    bandwidth: float = 1.0
    num_classes: int = 0
    embedding_dim: int = 0
    vocab: int = 0
    token_dim: int = 0
    image_channels: int = 0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False, return_features=False):
        """x [B, *S, C], noise [B], cond dict or None -> [B, *S, out_channels] (, features by name)."""
        cond = cond_of(self, cond)
        features = {}
        emb = NoiseCond(
            self.dim,
            self.noise_dim,
            self.noise_features,
            self.bandwidth,
            self.num_classes,
            self.embedding_dim,
            dtype=self.dtype,
            name="embed",
        )(noise, cond)
        context = context_of(self, cond, self.dim, x.shape[0])
        sizes = x.shape[1:-1]
        h = patchify(concat_image(x, cond, self.image_channels).astype(self.dtype), self.patch)
        h = dense(self.dim, self.dtype, "input")(h)
        h = h + positions([n // self.patch for n in sizes], self.dim)[None].astype(self.dtype)
        block_type = nn.remat(TransformerBlock, static_argnums=(4,)) if self.remat else TransformerBlock
        for i in range(self.depth):
            block = block_type(self.heads, self.mlp_ratio, dropout=self.dropout, dtype=self.dtype, name=f"block{i}")
            h = tap(self, features, f"block{i}", block(h, emb, context, train))
        shift, scale = jnp.split(dense(2 * self.dim, self.dtype, "modulation", init=zeros)(emb)[:, None], 2, axis=-1)
        h = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=self.dtype, name="norm")(h)
        channels = self.out_channels or x.shape[-1]
        h = dense(self.patch ** len(sizes) * channels, self.dtype, "output", init=zeros)(h * (1 + scale) + shift)
        out = unpatchify(h, sizes, self.patch).astype(x.dtype)
        return (out, features) if return_features else out


class UViT(nn.Module):
    """U-ViT on x [B, *S, C]: noise and conditions are tokens beside the patches, with long skips.

    Block i of the second half takes its input joined with the output of block depth - 1 - i of the
    first; a convolution of the image ends the network, zero at start.

    Fields: as `DiT`; `depth` counts all blocks and is odd.
    """

    out_channels: int | None = None
    dim: int = 64
    depth: int = 5
    heads: int = 2
    patch: int = 2
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    noise_features: str = "fourier"
    bandwidth: float = 1.0
    num_classes: int = 0
    embedding_dim: int = 0
    vocab: int = 0
    token_dim: int = 0
    image_channels: int = 0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False, return_features=False):
        """x [B, *S, C], noise [B], cond dict or None -> [B, *S, out_channels] (, features by name)."""
        if self.depth % 2 == 0:
            raise ValueError(f"depth: expected an odd number of blocks, got {self.depth}")
        cond = cond_of(self, cond)
        features, batch, sizes = {}, x.shape[0], x.shape[1:-1]
        tokens = patchify(concat_image(x, cond, self.image_channels).astype(self.dtype), self.patch)
        tokens = [dense(self.dim, self.dtype, "input")(tokens)]
        context = context_of(self, cond, self.dim, batch)
        if context is not None:
            tokens.insert(0, context)
        if self.num_classes or self.embedding_dim:
            vector = CondVector(self.dim, self.num_classes, self.embedding_dim, dtype=self.dtype, name="cond")
            tokens.insert(0, vector(cond, batch)[:, None])
        noise_token = NoiseFeatures(self.dim, self.noise_features, self.bandwidth, name="noise")(noise)
        tokens.insert(0, noise_token[:, None].astype(self.dtype))
        h = jnp.concatenate(tokens, axis=1)
        table = self.param("positions", nn.initializers.normal(0.02), h.shape[1:], jnp.float32)
        h = h + table[None].astype(self.dtype)

        block_type = nn.remat(TransformerBlock, static_argnums=(4,)) if self.remat else TransformerBlock
        half, skips = self.depth // 2, []
        for i in range(self.depth):
            if i > half:
                h = dense(self.dim, self.dtype, f"skip{i}")(jnp.concatenate([h, skips.pop()], axis=-1))
            block = block_type(self.heads, self.mlp_ratio, False, self.dropout, self.dtype, name=f"block{i}")
            h = tap(self, features, f"block{i}", block(h, None, None, train))
            if i < half:
                skips.append(h)
        h = nn.LayerNorm(dtype=self.dtype, name="norm")(h)[:, -math.prod(n // self.patch for n in sizes) :]
        channels = self.out_channels or x.shape[-1]
        h = unpatchify(dense(self.patch ** len(sizes) * channels, self.dtype, "decode")(h), sizes, self.patch)
        out = Conv(channels, dtype=self.dtype, kernel_init=zeros, name="output")(h).astype(x.dtype)
        return (out, features) if return_features else out


PRESETS = {
    # name: (class, fields); dit_xl_2 is for 32x32x4 latents with a learned variance, uvit_s_2 for CIFAR-10
    "dit_xl_2": (
        DiT,
        {
            "out_channels": 8,
            "dim": 1152,
            "depth": 28,
            "heads": 16,
            "noise_dim": 256,
            "noise_features": "positional",
            "num_classes": 1000,
            "dropout": 0.0,
        },
    ),
    "uvit_s_2": (UViT, {"dim": 512, "depth": 13, "heads": 8, "noise_features": "positional"}),
}
