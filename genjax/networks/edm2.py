"""The magnitude-preserving networks of EDM2 (2312.02696, configuration G): U-Net, MLP and uncertainty head."""

import math

import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.blocks import Fourier, check_levels, downsample, tap, upsample, zeros
from genjax.networks.conditioning import concat_image, cond_of, labels_of
from genjax.networks.magnitude import MPAttention, MPConv, MPDense, mp_cat, mp_silu, mp_sum, normalize


class MPEmbedding(nn.Module):
    """The embedding [B, dim] of noise and class: mp_silu(mp_sum(noise, label, 1/2)).

    A class is a one-hot vector over num_classes + 1 entries, the last for the null label, times
    sqrt(num_classes).
    """

    dim: int
    features: int
    num_classes: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, noise, cond):
        emb = MPDense(self.dim, self.dtype, name="linear")(Fourier(self.features, name="noise")(noise))
        if self.num_classes:
            label = labels_of(cond, noise.shape[0])
            index = jnp.where(label < 0, self.num_classes, label)
            one_hot = (index[:, None] == jnp.arange(self.num_classes + 1)[None]).astype(self.dtype)
            label = MPDense(self.dim, self.dtype, name="label")(one_hot * math.sqrt(self.num_classes))
            emb = mp_sum(emb, label)
        return mp_silu(emb)


class MPBlock(nn.Module):
    """Encoder ("enc") or decoder ("dec") block (figure 21).

    Encoder: resample, 1x1 skip, pixel norm, then the residual branch; decoder: the 1x1 skip stands
    beside the branch. The embedding multiplies the branch by 1 + gain * linear(emb), the gain 0 at start.
    """

    channels: int
    flavor: str = "enc"
    resample: str = "keep"  # "keep", "up" or "down"
    heads: int = 0  # 0: no attention
    dropout: float = 0.0
    balance: float = 0.3  # of each branch against the main path
    clip: float = 256.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, emb, train=False):
        x = {"keep": lambda v: v, "up": upsample, "down": downsample}[self.resample](x)
        skip = MPConv(self.channels, 1, self.dtype, name="skip") if x.shape[-1] != self.channels else lambda v: v
        if self.flavor == "enc":
            x = normalize(skip(x), -1)
        y = MPConv(self.channels, 3, self.dtype, name="conv0")(mp_silu(x))
        gain = self.param("emb_gain", zeros, (), jnp.float32)
        scale = 1 + MPDense(self.channels, self.dtype, name="emb")(emb, gain)
        y = mp_silu(y * scale.reshape(scale.shape[0], *(1,) * (x.ndim - 2), -1))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = MPConv(self.channels, 3, self.dtype, name="conv1")(y)
        x = mp_sum(x if self.flavor == "enc" else skip(x), y, self.balance)
        if self.heads:
            y = MPAttention(self.heads, self.dtype, name="attention")(x.reshape(x.shape[0], -1, self.channels))
            x = mp_sum(x, y.reshape(x.shape), self.balance)
        return jnp.clip(x, -self.clip, self.clip)


class EDM2UNet(nn.Module):
    """Magnitude-preserving U-Net on x [B, *S, C] of unit variance (c_in x); no norms with parameters, no biases.

    Train it with `magnitude.force_normalize` after each update. The output starts at zero through its
    gain. The defaults are a network for 8x8 digits; `PRESETS` holds published ones.

    Fields:
      out_channels: None takes those of x.
      channels, multipliers, num_blocks: width, its factor at each level, blocks a level.
      attention: sizes of the first spatial axis at which blocks attend; the middle always does.
      head_channels: channels of one attention head.
      num_classes, image_channels: conditions taken.
      remat: recompute the blocks' activations in the backward pass.
      dtype: of the computation; parameters are float32.
    """

    out_channels: int | None = None
    channels: int = 16
    multipliers: tuple = (1, 2)
    num_blocks: int = 1
    attention: tuple = (4,)
    head_channels: int = 32
    dropout: float = 0.0
    num_classes: int = 0
    image_channels: int = 0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False, return_features=False):
        """x [B, *S, C], noise [B], cond dict or None -> [B, *S, out_channels] (, features by name)."""
        levels = len(self.multipliers)
        check_levels(x, levels)
        cond = cond_of(self, cond)
        features = {}
        widths = [self.channels * m for m in self.multipliers]
        embed = MPEmbedding(max(widths), widths[0], self.num_classes, self.dtype, name="embed")
        emb = embed(noise, cond)
        block_type = nn.remat(MPBlock, static_argnums=(3,)) if self.remat else MPBlock

        def block(name, h, channels, flavor, attend=False, resample="keep"):
            heads = max(1, channels // self.head_channels) if attend else 0
            module = block_type(channels, flavor, resample, heads, self.dropout, dtype=self.dtype, name=name)
            return tap(self, features, name, module(h, emb, train))

        h = concat_image(x, cond, self.image_channels).astype(self.dtype)
        h = jnp.concatenate([h, jnp.ones_like(h[..., :1])], axis=-1)  # the constant replaces biases
        h = tap(self, features, "input", MPConv(widths[0], 3, self.dtype, name="input")(h))
        skips = [h]
        for level, width in enumerate(widths):
            size = x.shape[1] >> level
            if level:
                h = block(f"down{size}", h, h.shape[-1], "enc", resample="down")
                skips.append(h)
            for i in range(self.num_blocks):
                h = block(f"enc{size}_{i}", h, width, "enc", size in self.attention)
                skips.append(h)
        h = block("middle0", h, h.shape[-1], "dec", True)
        h = block("middle1", h, h.shape[-1], "dec")
        for level, width in reversed(list(enumerate(widths))):
            size = x.shape[1] >> level
            if level < levels - 1:
                h = block(f"up{size}", h, h.shape[-1], "dec", resample="up")
            for i in range(self.num_blocks + 1):
                h = block(f"dec{size}_{i}", mp_cat(h, skips.pop()), width, "dec", size in self.attention)
        gain = self.param("out_gain", zeros, (), jnp.float32)
        out = MPConv(self.out_channels or x.shape[-1], 3, self.dtype, name="output")(h, gain).astype(x.dtype)
        return (out, features) if return_features else out


class MPMLP(nn.Module):
    """Magnitude-preserving residual MLP on x [B, ...] of unit variance; the output starts at zero.

    Fields: `width` and `depth` of the residual blocks; num_classes; dtype of the computation.
    """

    width: int = 128
    depth: int = 3
    out_channels: int | None = None
    num_classes: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False, return_features=False):
        cond = cond_of(self, cond)
        features = {}
        emb = MPEmbedding(self.width, self.width, self.num_classes, self.dtype, name="embed")(noise, cond)
        h = x.reshape(x.shape[0], -1).astype(self.dtype)
        h = jnp.concatenate([h, jnp.ones_like(h[:, :1])], axis=-1)
        h = MPDense(self.width, self.dtype, name="input")(h)
        for i in range(self.depth):
            y = MPDense(self.width, self.dtype, name=f"block{i}_in")(mp_silu(h))
            gain = self.param(f"block{i}_gain", zeros, (), jnp.float32)
            y = mp_silu(y * (1 + MPDense(self.width, self.dtype, name=f"block{i}_emb")(emb, gain)))
            y = MPDense(self.width, self.dtype, name=f"block{i}_out")(y)
            h = tap(self, features, f"block{i}", mp_sum(h, y, 0.3))
        shape = (*x.shape[:-1], self.out_channels or x.shape[-1])
        gain = self.param("out_gain", zeros, (), jnp.float32)
        out = MPDense(math.prod(shape[1:]), self.dtype, name="output")(h, gain).reshape(shape).astype(x.dtype)
        return (out, features) if return_features else out


class Uncertainty(nn.Module):
    """Learned log-variance u [B] of the loss at each noise number [B] (eq. 21); a part of the loss alone.

    The loss is weight / exp(u) * error + u; its minimum over u is the log of the weighted error.
    """

    features: int = 128

    @nn.compact
    def __call__(self, noise, cond=None, train=False):
        return MPDense(1, name="linear")(Fourier(self.features, name="noise")(noise))[:, 0]


PRESETS = {
    # name: fields of the published networks
    "edm2_s": {  # EDM2-S on 64x64x4 latents of ImageNet, 280M parameters
        "channels": 192,
        "multipliers": (1, 2, 3, 4),
        "num_blocks": 3,
        "attention": (16, 8),
        "head_channels": 64,
        "num_classes": 1000,
    },
}
