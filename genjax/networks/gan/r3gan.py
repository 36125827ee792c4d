"""R3GAN's generator and discriminator: residual networks of grouped convolutions without normalization.

From 2501.05441, section 4: a residual block is

  x + W3 act(W2 * act(W1 x + b1) + b2),

W1 widening by `expansion`, W2 a grouped 3x3 convolution, W3 narrowing and zero at first; biases stand
only before the LeakyReLU. The others start at gain / sqrt(fan_in) times L^(-1/4) for L blocks (Fixup with
three layers a branch), and a change of resolution is a linear filter and, where the width changes, a
1x1 convolution. The two ends are learned bases at the smallest resolution: the generator starts from a
map of each channel scaled by a linear function of z, the discriminator ends with the inner product of
each channel with such a map.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from genjax.core.types import Critique
from genjax.networks.conditioning import check_cond
from genjax.networks.convolution import Conv
from genjax.networks.gan.equalized import SLOPE, leaky
from genjax.networks.gan.grouped import grouped_conv
from genjax.networks.gan.heads import make_head, reads_label
from genjax.networks.gan.layers import beside, one_hot, split_label
from genjax.networks.gan.resample import down, up

GAIN = math.sqrt(2 / (1 + SLOPE**2))

# Widths and groups from 4x4 up, of the released presets; `blocks` 2 and `expansion` 2 in all. Some have classes.
R3GAN_PRESETS = {
    "cifar10": {"widths": (768,) * 4, "groups": (96,) * 4},
    "ffhq64": {"widths": (768,) * 4 + (384,), "groups": (96,) * 4 + (48,)},
    "ffhq256": {"widths": (768,) * 4 + (384, 192, 96), "groups": (96,) * 4 + (48, 24, 12)},
    "imagenet32": {"widths": (1536,) * 4, "groups": (96,) * 4},
    "imagenet64": {"widths": (1536,) * 5, "groups": (96,) * 5},
}


def stages(size, widths, groups):
    """(smallest size, [(width, groups)] from it up) of a network for images of `size`.

    The size is halved as long as it is even and stays at least 4; so 28 goes down to 7 and 8 to 4.

    Raises:
      ValueError: as many widths as there are resolutions are expected, or a single one for all of them.
    """
    base, n = size, 1
    while base % 2 == 0 and base >= 8:
        base, n = base // 2, n + 1
    if base > 7 or base < 2:
        raise ValueError(f"shape: expected a size of 4 to 7 times a power of two, or 2 or 3, got {size}")
    widths, groups = (tuple(v) * (n if len(tuple(v)) == 1 else 1) for v in (widths, groups))
    for name, values in (("widths", widths), ("groups", groups)):
        if len(values) != n:
            raise ValueError(f"{name}: expected 1 or {n} entries for size {size}, got {len(values)}")
    return base, list(zip(widths, groups))


def square(shape):
    """The side of a square image shape (H, H, C)."""
    if len(shape) != 3 or shape[0] != shape[1]:
        raise ValueError(f"shape: expected a square image (H, H, C), got {tuple(shape)}")
    return shape[0]


def scaled_normal(gain=1.0):
    """Normal with standard deviation gain / sqrt(fan_in), fan_in being all axes but the last."""
    return lambda key, shape, dtype: nn.initializers.normal(gain / math.sqrt(math.prod(shape[:-1])))(key, shape, dtype)


class ResNeXtBlock(nn.Module):
    """The residual block on x [B, H, W, C]; `depth` is the number L of blocks in the whole network."""

    groups: int
    depth: int
    expansion: int = 2
    size: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        wide = width * self.expansion
        init = scaled_normal(GAIN * self.depth**-0.25)

        def biased(y, name):
            bias = self.param(name, nn.initializers.zeros, (wide,), jnp.float32)
            return leaky(y + bias.astype(self.dtype)[None, None, None])

        pointwise = lambda n, kernel, name: Conv(n, 1, use_bias=False, kernel_init=kernel, dtype=self.dtype, name=name)
        y = biased(pointwise(wide, init, "expand")(x), "bias0")
        if wide % self.groups:
            raise ValueError(f"groups: expected a divisor of {wide} channels, got {self.groups}")
        kernel = self.param("kernel", init, (self.size, self.size, wide // self.groups, wide), jnp.float32)
        y = biased(grouped_conv(y, kernel.astype(self.dtype), self.groups), "bias1")
        return x + pointwise(width, nn.initializers.zeros, "project")(y)


class R3Generator(nn.Module):
    """z [B, L] to x [B, H, H, C], nothing after the last 1x1 convolution.

    Fields:
      shape: of a sample, a square image.
      widths, groups: channels and groups of the blocks at each resolution from the smallest up; one entry
        stands for all of them.
      blocks, expansion: blocks a resolution, and the factor of their inner width.
      num_classes: of the label, whose linear embedding of size `label_dim` goes beside z; null is zeros.
      dtype: of the computation; parameters are float32.
    """

    shape: tuple = ()
    widths: tuple = (128,)
    groups: tuple = (16,)
    blocks: int = 2
    expansion: int = 2
    num_classes: int = 0
    label_dim: int = 64
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, cond=None, train=False):
        base, levels = stages(square(self.shape), self.widths, self.groups)
        cond = check_cond(cond, num_classes=self.num_classes)
        if self.num_classes:
            label = one_hot(cond.get("label"), self.num_classes, z.shape[0])
            z = beside(z, nn.Dense(self.label_dim, use_bias=False, kernel_init=scaled_normal(), name="label")(label))
        width = levels[0][0]
        maps = self.param("basis", nn.initializers.normal(1.0), (base, base, width), jnp.float32)
        linear = nn.Dense(width, use_bias=False, kernel_init=scaled_normal(), dtype=self.dtype, name="linear")
        h = maps.astype(self.dtype)[None] * linear(z)[:, None, None]
        depth = self.blocks * len(levels)
        layer = lambda n, name: Conv(n, 1, use_bias=False, kernel_init=scaled_normal(), dtype=self.dtype, name=name)
        for i, (width, groups) in enumerate(levels):
            if i:
                h = layer(width, f"change{i}")(h) if h.shape[-1] != width else h
                h = up(h)
            for j in range(self.blocks):
                h = ResNeXtBlock(groups, depth, self.expansion, dtype=self.dtype, name=f"block{i}_{j}")(h)
        return layer(self.shape[-1], "output")(h).astype(z.dtype)


class R3Discriminator(nn.Module):
    """x [B, H, H, C] to a Critique; `features` are the inner products with the last maps.

    logits = <W f, e_y> with classes, w f without, both without bias; a null label takes the mean of the
    classes. Another `head` of the toolkit's can be named instead.

    Fields: head, a name or group in `HEADS`, "" for the paper's; the others as in the generator, widths and
    groups from the smallest resolution up too.
    """

    widths: tuple = (128,)
    groups: tuple = (16,)
    blocks: int = 2
    expansion: int = 2
    head: Any = ""
    num_classes: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        base, levels = stages(square(x.shape[1:]), self.widths, self.groups)
        head = make_head(self.head, self.num_classes) if self.head else None
        if head is not None and not reads_label(self.head) and self.num_classes:
            raise ValueError(f"head: expected one that reads the label, as num_classes is set, got {self.head!r}")
        label, _ = split_label(cond, self.num_classes)
        depth = self.blocks * len(levels)
        layer = lambda n, name: Conv(n, 1, use_bias=False, kernel_init=scaled_normal(), dtype=self.dtype, name=name)
        h = layer(levels[-1][0], "input")(x.astype(self.dtype))
        for i, (width, groups) in reversed(list(enumerate(levels))):
            if i < len(levels) - 1:
                h = down(h)
                h = layer(width, f"change{i}")(h) if h.shape[-1] != width else h
            for j in range(self.blocks):
                h = ResNeXtBlock(groups, depth, self.expansion, dtype=self.dtype, name=f"block{i}_{j}")(h)
        maps = self.param("basis", nn.initializers.normal(1 / base), (base, base, h.shape[-1]), jnp.float32)
        f = jnp.einsum("bhwc,hwc->bc", h.astype(jnp.float32), maps)
        if head is not None:
            return head(f, label, train)
        dense = lambda n, gain, name: nn.Dense(n, use_bias=False, kernel_init=scaled_normal(gain), name=name)
        if not self.num_classes:
            return Critique(dense(1, 1.0, "linear")(f)[:, 0], f)
        dim = levels[0][0]
        rows = one_hot(label, self.num_classes, len(f))
        rows = jnp.where(rows.sum(-1, keepdims=True) == 0, 1 / self.num_classes, rows)
        e = dense(dim, 1 / math.sqrt(dim), "label")(rows)
        return Critique(jnp.sum(dense(dim, 1.0, "linear")(f) * e, axis=-1), f)
