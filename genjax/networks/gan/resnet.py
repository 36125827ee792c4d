"""Residual generator and discriminator of WGAN-GP (1704.00028, appendix F) and SNGAN (1802.05957, appendix B.4).

With self-attention they are SAGAN's (1805.08318). Published forms:

  SNGAN 32      ResNetGenerator(width=256); ResNetDiscriminator(width=128, spectral=1)
  SNGAN 48      width=64, multipliers (8, 4, 2, 1); width=64, multipliers (1, 2, 4, 8, 16), downs=4
  WGAN-GP 32    ResNetGenerator(width=128); ResNetDiscriminator(width=128, spectral=0, pool="mean")
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.blocks import downsample, upsample
from genjax.networks.gan.heads import critic_input, make_head
from genjax.networks.gan.layers import (
    ACTIVATIONS,
    INITS,
    CondInput,
    MinibatchDiscrimination,
    SelfAttention,
    beside,
    check_output,
    doublings,
    minibatch_stddev,
    named,
    squash,
    with_reference,
)
from genjax.networks.gan.norms import Norm
from genjax.networks.gan.spectral import SpectralConv, SpectralDense

POOLS = {
    "sum": lambda h: h.sum(axis=(1, 2)),
    "mean": lambda h: h.mean(axis=(1, 2)),
    "flatten": lambda h: h.reshape(h.shape[0], -1),
}


class UpBlock(nn.Module):
    """norm, act, (up), conv, norm, act, conv, beside a shortcut that is 1x1 where size or width changes."""

    features: int
    up: bool = True
    activation: str = "relu"
    norm: str = "batch"
    reference: int = 0
    spectral: int = 0
    kernel_init: str = "xavier"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False, cond=None):
        act, init = ACTIVATIONS[self.activation], named(INITS, self.kernel_init, "kernel_init")

        def conv(h, size, name):
            return SpectralConv(self.features, size, self.spectral, kernel_init=init, dtype=self.dtype, name=name)(
                h, train
            )

        def norm(h, name):
            return Norm(
                self.norm,
                axis_name=self.axis_name,
                reference=self.reference,
                spectral=self.spectral,
                cond_init=init if self.spectral else nn.initializers.zeros,
                dtype=self.dtype,
                name=name,
            )(h, train, cond)

        grow = upsample if self.up else lambda h: h
        h = conv(grow(act(norm(x, "norm0"))), 3, "conv0")
        h = conv(act(norm(h, "norm1")), 3, "conv1")
        skip = grow(x)
        if self.up or x.shape[-1] != self.features:
            skip = grow(conv(x, 1, "skip"))  # a 1x1 convolution commutes with the repetition of pixels
        return skip + h


class DownBlock(nn.Module):
    """(norm, act), conv, norm, act, conv, (mean 2x2), beside a shortcut that is 1x1 where size or width changes.

    `first` leaves out what stands before the first convolution; `hidden` is the width between the two.
    """

    features: int
    hidden: int
    down: bool = True
    first: bool = False
    activation: str = "relu"
    norm: str = "none"
    spectral: int = 0
    kernel_init: str = "xavier"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        act, init = ACTIVATIONS[self.activation], named(INITS, self.kernel_init, "kernel_init")

        def conv(h, features, size, name):
            return SpectralConv(features, size, self.spectral, kernel_init=init, dtype=self.dtype, name=name)(h, train)

        norm = lambda h, name: Norm(self.norm, axis_name=self.axis_name, name=name)(h, train)
        shrink = downsample if self.down else lambda h: h
        h = x if self.first else act(norm(x, "norm0"))
        h = conv(h, self.hidden, 3, "conv0")
        h = shrink(conv(act(norm(h, "norm1")), self.features, 3, "conv1"))
        skip = shrink(x)
        if self.down or x.shape[-1] != self.features:
            skip = conv(skip, self.features, 1, "skip")  # commutes with the mean, and costs a quarter after it
        return skip + h


def smallest(size):
    """The size from 4 to 7 (or an odd one) that doubles to `size`."""
    while size % 2 == 0 and size >= 8:
        size //= 2
    return size


class ResNetGenerator(nn.Module):
    """z [B, L] to x [B, H, H, C]: a dense layer, one `UpBlock` a doubling, norm, activation, convolution.

    Fields:
      shape: of a sample, size base * 2^n.
      width, multipliers: channels after the dense layer and after each block, n + 1 factors; () means ones.
      base: size after the dense layer; 0 takes the one from 4 to 7 that doubles to the shape.
      activation, norm, reference, kernel_init, spectral, output, dtype, axis_name: as in `DCGANGenerator`.
      attention: sizes after whose block stands `SelfAttention`.
      num_classes, embedding_dim, label_dim: the condition, as a vector.
      condition: "norm" modulates every norm by that vector, "input" puts it beside z.
      remat: recompute the blocks in the backward pass, for memory.
    """

    shape: tuple = ()
    width: int = 256
    multipliers: tuple = ()
    base: int = 0
    activation: str = "relu"
    norm: str = "batch"
    reference: int = 64
    attention: tuple = ()
    output: str = "tanh"
    spectral: int = 0
    kernel_init: str = "xavier"
    num_classes: int = 0
    embedding_dim: int = 0
    label_dim: int = 0
    condition: str = "norm"
    axis_name: str | None = None
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, cond=None, train=False):
        base = self.base or smallest((*self.shape, 0)[0])
        n = doublings(self.shape, base)
        factors = factors_of(self.multipliers, n + 1)
        act, init = named(ACTIVATIONS, self.activation, "activation"), named(INITS, self.kernel_init, "kernel_init")
        check_output(self.output)
        if self.condition not in ("norm", "input"):
            raise ValueError(f"condition: expected 'norm' or 'input', got {self.condition!r}")
        if self.condition == "norm" and self.norm == "none" and (self.num_classes or self.embedding_dim):
            raise ValueError("condition: expected 'input' for a generator without norm, got 'norm'")
        rows = self.reference if self.norm == "virtual" else 0
        z, cond = with_reference(self, z, cond, rows, self.num_classes)
        vector = CondInput(self.num_classes, self.embedding_dim, self.label_dim, name="cond")(cond, z.shape[0])
        at_input, at_norm = (vector, None) if self.condition == "input" else (None, vector)
        block = nn.remat(UpBlock, static_argnums=(2,)) if self.remat else UpBlock
        options = {"kernel_init": init, "dtype": self.dtype}

        h = SpectralDense(base**2 * factors[0] * self.width, self.spectral, **options, name="input")(
            beside(z, at_input), train
        )
        h = h.reshape(-1, base, base, factors[0] * self.width)
        for i, factor in enumerate(factors[1:]):
            h = block(
                factor * self.width,
                activation=self.activation,
                norm=self.norm,
                reference=rows,
                spectral=self.spectral,
                kernel_init=self.kernel_init,
                axis_name=self.axis_name,
                dtype=self.dtype,
                name=f"block{i}",
            )(h, train, at_norm)
            if h.shape[1] in self.attention:
                h = SelfAttention(self.spectral, self.kernel_init, self.dtype, name=f"attention{i}")(h, train)
        h = act(Norm(self.norm, axis_name=self.axis_name, reference=rows, name="norm")(h, train))
        x = SpectralConv(self.shape[-1], 3, self.spectral, **options, name="output")(h, train)
        return squash(x[rows:].astype(z.dtype), self.output)


def factors_of(multipliers, count):
    """`multipliers`, ones where it is empty; ValueError where there are not `count`."""
    factors = tuple(multipliers) or (1,) * count
    if len(factors) != count:
        raise ValueError(f"multipliers: expected {count} for this size, got {len(factors)}")
    return factors


class ResNetDiscriminator(nn.Module):
    """x [B, H, H, C] to a Critique by `DownBlock`s, an activation, pooling and a head.

    Fields:
      width, multipliers: channels after each block; () means four blocks of `width`, the published form at 32.
      downs: how many of the blocks, the first ones, halve the size; 0 halves down to 8 or once.
      stem: a 3x3 convolution to `width` before the blocks; else the first block takes x as it is.
      wide: the width between a block's convolutions is that of its output (BigGAN), else that of its input.
      pool: "sum" (SNGAN), "mean" (WGAN-GP) or "flatten".
      attention: sizes after whose first block stands `SelfAttention`.
      stddev: examples a group of `minibatch_stddev` before the pooling, 0 for none.
      minibatch: kernels of minibatch discrimination before the head, 0 for none.
      activation, norm, spectral, kernel_init, head, num_classes, embedding_dim, label_dim, axis_name, dtype:
        as in `DCGANDiscriminator`.
      remat: recompute the blocks in the backward pass, for memory.
    """

    width: int = 128
    multipliers: tuple = ()
    downs: int = 0
    stem: bool = False
    wide: bool = False
    pool: str = "sum"
    activation: str = "relu"
    norm: str = "none"
    attention: tuple = ()
    stddev: int = 0
    minibatch: int = 0
    spectral: int = 1
    kernel_init: str = "xavier"
    head: Any = None
    num_classes: int = 0
    embedding_dim: int = 0
    label_dim: int = 0
    axis_name: str | None = None
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        factors = tuple(self.multipliers) or (1,) * 4
        downs = self.downs or default_downs(x.shape[1:])
        if downs > len(factors) or x.shape[1] % 2**downs or x.shape[2] % 2**downs:
            raise ValueError(
                f"downs: expected at most {len(factors)}, the number of blocks, and a size {x.shape[1:3]} that "
                f"halves so often, got {downs}"
            )
        act = named(ACTIVATIONS, self.activation, "activation")
        options = {"kernel_init": named(INITS, self.kernel_init, "kernel_init"), "dtype": self.dtype}
        pool = named(POOLS, self.pool, "pool")
        head = make_head(self.head, self.num_classes, self.spectral, self.kernel_init)
        label, vector = critic_input(self, cond, x.shape[0])
        block = nn.remat(DownBlock, static_argnums=(2,)) if self.remat else DownBlock
        h, attended = beside(x, vector).astype(self.dtype), set()
        if self.stem:
            h = SpectralConv(self.width, 3, self.spectral, **options, name="stem")(h, train)
        for i, factor in enumerate(factors):
            first = i == 0 and not self.stem
            features = factor * self.width
            h = block(
                features,
                features if self.wide or first else h.shape[-1],
                down=i < downs,
                first=first,
                activation=self.activation,
                norm=self.norm,
                spectral=self.spectral,
                kernel_init=self.kernel_init,
                axis_name=self.axis_name,
                dtype=self.dtype,
                name=f"block{i}",
            )(h, train)
            if h.shape[1] in self.attention and h.shape[1] not in attended:
                attended.add(h.shape[1])
                h = SelfAttention(self.spectral, self.kernel_init, self.dtype, name=f"attention{i}")(h, train)
        h = act(h)
        if self.stddev:
            h = minibatch_stddev(h, self.stddev, axis_name=self.axis_name)
        f = pool(h.astype(jnp.float32))
        if self.minibatch:
            f = MinibatchDiscrimination(self.minibatch, axis_name=self.axis_name, name="minibatch")(f)
        return head(f, label, train)


def default_downs(shape):
    """Halvings down to 8x8, at least one."""
    if len(shape) != 3 or shape[0] != shape[1]:
        raise ValueError(f"x: expected square images [B, H, H, C], got {(None, *shape)}")
    n, size = 0, shape[0]
    while size > 8 and size % 2 == 0:
        n, size = n + 1, size // 2
    return max(n, 1)
