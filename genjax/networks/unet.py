"""The U-Net of DDPM++ and ADM (2011.13456, 2105.05233) in the form that EDM gave both (2206.00364, app. F)."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.blocks import Attention, GroupNorm, check_levels, dense, downsample, tap, upsample, xavier, zeros
from genjax.networks.conditioning import NoiseCond, concat_image, cond_of, context_of
from genjax.networks.convolution import Conv


class UNetBlock(nn.Module):
    """Residual block with optional resampling, conditioning, self- and cross-attention.

      h = conv(silu(norm(resample(x)))), modulated by the embedding,
      y = (skip(resample(x)) + conv(dropout(silu(norm(h))))) * skip_scale.

    The second convolution and the outputs of the attention start at zero.
    """

    channels: int
    resample: str = "keep"  # "keep", "up" or "down"
    filter: tuple = (1, 1)
    resample_proj: bool = False  # a 1x1 convolution on the skip of a resampling block
    scale_shift: bool = True  # the embedding scales and shifts after the norm; else it is added before
    heads: int = 0  # 0: no attention
    dropout: float = 0.0
    skip_scale: float = 1.0
    attention_init: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, emb, context=None, train=False):
        resample = {
            "keep": lambda v: v,
            "up": lambda v: upsample(v, self.filter),
            "down": lambda v: downsample(v, self.filter),
        }[self.resample]
        skip = resample(x)
        h = resample(jax.nn.silu(GroupNorm(name="norm0")(x)))
        h = Conv(self.channels, dtype=self.dtype, name="conv0")(h)
        if self.scale_shift:
            scale, shift = jnp.split(dense(2 * self.channels, self.dtype, "affine")(emb), 2, axis=-1)
            h = GroupNorm(name="norm1")(h, scale, shift)
        else:
            shift = dense(self.channels, self.dtype, "affine")(emb)
            h = GroupNorm(name="norm1")(h + shift.reshape(h.shape[0], *(1,) * (h.ndim - 2), -1))
        h = nn.Dropout(self.dropout, deterministic=not train)(jax.nn.silu(h))
        h = Conv(self.channels, dtype=self.dtype, kernel_init=zeros, name="conv1")(h)
        if x.shape[-1] != self.channels or (self.resample != "keep" and self.resample_proj):
            skip = Conv(self.channels, 1, dtype=self.dtype, name="skip")(skip)
        x = (skip + h) * self.skip_scale
        if self.heads:
            flat = (x.shape[0], -1, self.channels)
            init = xavier(self.attention_init)
            attend = Attention(self.heads, self.dtype, qkv_init=init, name="attention")
            y = attend(GroupNorm(name="norm2")(x).reshape(flat))
            x = (x + y.reshape(x.shape)) * self.skip_scale
            if context is not None:
                attend = Attention(self.heads, self.dtype, qkv_init=init, name="cross")
                y = attend(GroupNorm(name="norm3")(x).reshape(flat), context)
                x = (x + y.reshape(x.shape)) * self.skip_scale
        return x


class UNet(nn.Module):
    """U-Net on x [B, *S, C], one to three spatial axes, each divisible by 2^(levels - 1).

    The defaults are a network for 8x8 digits. `PRESETS` holds the published ones.

    Fields:
      out_channels: None takes those of x; twice those of x for a learned variance.
      channels, multipliers, num_blocks: width, its factor at each level, blocks a level.
      attention: sizes of the first spatial axis at which blocks attend; the middle always does.
      heads, head_channels: number of heads, or None and the channels of one.
      decoder_attention: "all" blocks of a level attend in the decoder (ADM), or the "last" (DDPM++).
      scale_shift, filter, resample_proj, skip_scale, attention_init: see `UNetBlock`.
      noise_features, bandwidth: see `NoiseFeatures`. late_cond: see `NoiseCond.late`.
      num_classes, embedding_dim, vocab or token_dim (cross-attention), image_channels: conditions taken.
      remat: recompute the blocks' activations in the backward pass.
      dtype: of the computation; parameters are float32.
    """

    out_channels: int | None = None
    channels: int = 16
    multipliers: tuple = (1, 2)
    num_blocks: int = 1
    attention: tuple = (4,)
    heads: int | None = None
    head_channels: int = 32
    decoder_attention: str = "last"
    scale_shift: bool = True
    filter: tuple = (1, 1)
    resample_proj: bool = False
    skip_scale: float = math.sqrt(0.5)
    attention_init: float = math.sqrt(0.2)
    dropout: float = 0.0
    embedding_multiplier: int = 4
    noise_features: str = "fourier"
    bandwidth: float = 1.0
    late_cond: bool = True
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
        levels = len(self.multipliers)
        check_levels(x, levels)
        if self.decoder_attention not in ("all", "last"):
            raise ValueError(f"decoder_attention: expected 'all' or 'last', got {self.decoder_attention!r}")
        cond = cond_of(self, cond)
        features = {}
        emb = NoiseCond(
            self.channels * self.embedding_multiplier,
            self.channels,
            self.noise_features,
            self.bandwidth,
            self.num_classes,
            self.embedding_dim,
            self.late_cond,
            self.dtype,
            name="embed",
        )(noise, cond)
        context = context_of(self, cond, emb.shape[-1], x.shape[0])
        block_type = nn.remat(UNetBlock, static_argnums=(4,)) if self.remat else UNetBlock

        def block(name, h, channels, attend=False, resample="keep"):
            heads = (self.heads or max(1, channels // self.head_channels)) if attend else 0
            module = block_type(
                channels,
                resample,
                tuple(self.filter),
                self.resample_proj,
                self.scale_shift,
                heads,
                self.dropout,
                self.skip_scale,
                self.attention_init,
                self.dtype,
                name=name,
            )
            return tap(self, features, name, module(h, emb, context, train))

        h = concat_image(x, cond, self.image_channels).astype(self.dtype)
        h = tap(self, features, "input", Conv(self.channels, dtype=self.dtype, name="input")(h))
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            size = x.shape[1] >> level
            if level:
                h = block(f"down{size}", h, h.shape[-1], resample="down")
                skips.append(h)
            for i in range(self.num_blocks):
                h = block(f"enc{size}_{i}", h, self.channels * multiplier, size in self.attention)
                skips.append(h)
        h = block("middle0", h, h.shape[-1], True)
        h = block("middle1", h, h.shape[-1])
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            size = x.shape[1] >> level
            if level < levels - 1:
                h = block(f"up{size}", h, h.shape[-1], resample="up")
            for i in range(self.num_blocks + 1):
                attend = size in self.attention and (self.decoder_attention == "all" or i == self.num_blocks)
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(f"dec{size}_{i}", h, self.channels * multiplier, attend)
        h = jax.nn.silu(GroupNorm(name="norm")(h))
        out = Conv(self.out_channels or x.shape[-1], dtype=self.dtype, kernel_init=zeros, name="output")(h)
        out = out.astype(x.dtype)
        return (out, features) if return_features else out


PRESETS = {
    # name: fields of the published networks
    "ddpmpp_cifar": {  # EDM's DDPM++ for CIFAR-10, 55.7M parameters
        "channels": 128,
        "multipliers": (2, 2, 2),
        "num_blocks": 4,
        "attention": (16,),
        "heads": 1,
        "scale_shift": False,
        "resample_proj": True,
        "dropout": 0.13,
        "noise_features": "positional",
        "late_cond": False,
    },
    "adm_imagenet64": {  # ADM for ImageNet at 64x64, 296M parameters
        "channels": 192,
        "multipliers": (1, 2, 3, 4),
        "num_blocks": 3,
        "attention": (32, 16, 8),
        "head_channels": 64,
        "decoder_attention": "all",
        "skip_scale": 1.0,
        "attention_init": 1.0,
        "dropout": 0.1,
        "noise_features": "positional",
        "num_classes": 1000,
    },
}
