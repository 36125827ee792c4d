"""StyleGAN2's residual discriminator (1912.04958, section 4.1)."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from genjax.core.types import Critique
from genjax.networks.conditioning import check_cond
from genjax.networks.gan.equalized import EqualConv, EqualDense, leaky
from genjax.networks.gan.heads import make_head, reads_label
from genjax.networks.gan.layers import doublings, minibatch_stddev, split_label
from genjax.networks.gan.stylegan2 import BASE, ROOT2, Mapping


class ResidualBlock(nn.Module):
    """x [B, H, W, C] to [B, H / 2, W / 2, features]: (branch + linear skip) / sqrt(2), both filtered."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        skip = EqualConv(self.features, 1, use_bias=False, resample=-1, dtype=self.dtype, name="skip")(x)
        y = leaky(EqualConv(x.shape[-1], dtype=self.dtype, name="conv0")(x), ROOT2)
        y = leaky(EqualConv(self.features, resample=-1, dtype=self.dtype, name="conv1")(y), ROOT2)
        return (y + skip) * jnp.asarray(1 / ROOT2, y.dtype)


class StyleGAN2Discriminator(nn.Module):
    """x [B, H, H, C] to a Critique; `features` is the last hidden layer.

    With classes, logits = <W f, m(y)> / sqrt(C), m being a mapping network of the label (2006.06676); another
    `head` of the toolkit's can be named instead.

    Fields:
      channels, width: a resolution has min(channels / size, width) channels.
      group: examples a group of the minibatch standard deviation, 0 for none; stddev: its features.
      layers, multiplier: of the label's mapping.
      head: name or group in `HEADS`, "" for the paper's.
      num_classes, axis_name, dtype: as in the generator.
    """

    channels: int = 32768
    width: int = 512
    group: int = 4
    stddev: int = 1
    layers: int = 8
    multiplier: float = 0.01
    head: Any = ""
    num_classes: int = 0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        n = doublings(x.shape[1:], BASE, "x")
        widths = [min(self.channels // (BASE * 2**i), self.width) for i in range(n + 1)]
        head = make_head(self.head, self.num_classes) if self.head else None
        label = None
        if head is None or reads_label(self.head):
            label = split_label(cond, self.num_classes)[0]
        else:
            check_cond(cond, num_classes=self.num_classes)
        h = leaky(EqualConv(widths[-1], 1, dtype=self.dtype, name="input")(x), ROOT2)
        for i in range(n, 0, -1):
            h = ResidualBlock(widths[i - 1], self.dtype, name=f"block{i}")(h)
        if self.group:
            h = minibatch_stddev(h, self.group, self.stddev, axis_name=self.axis_name)
        h = leaky(EqualConv(widths[0], dtype=self.dtype, name="conv")(h), ROOT2)
        f = leaky(EqualDense(widths[0], dtype=self.dtype, name="dense")(h.reshape(len(h), -1)), ROOT2)
        f = f.astype(jnp.float32)
        if head is not None:
            return head(f, label, train)
        if not self.num_classes:
            return Critique(EqualDense(1, name="linear")(f)[:, 0], f)
        label = jnp.full((len(x),), -1) if label is None else label
        m = Mapping(widths[0], self.layers, self.multiplier, self.num_classes, name="label")(None, label)
        return Critique(jnp.sum(EqualDense(widths[0], name="linear")(f) * m, axis=-1) / math.sqrt(widths[0]), f)
