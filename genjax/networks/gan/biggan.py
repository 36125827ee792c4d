"""BigGAN and BigGAN-deep (1809.11096, appendix B, tables 4 to 9): conditional residual GANs with attention.

The label is embedded once and shared by all conditional norms. BigGAN cuts z into one chunk for the dense
layer and one a block, put beside the shared embedding; BigGAN-deep gives all of z, beside it, to everything.
Published forms at 128: latent 120 and width 96, latent 128 and width 128 for the deep one.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genjax.networks.blocks import downsample, upsample
from genjax.networks.gan.heads import critic_input, make_head
from genjax.networks.gan.layers import (
    INITS,
    CondInput,
    SelfAttention,
    beside,
    check_output,
    doublings,
    named,
    squash,
)
from genjax.networks.gan.norms import Norm
from genjax.networks.gan.resnet import DownBlock, UpBlock, factors_of
from genjax.networks.gan.spectral import SpectralConv, SpectralDense

G_FACTORS = {64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1), 256: (16, 16, 8, 8, 4, 2, 1)}
G_FACTORS[512] = (16, 16, 8, 8, 4, 2, 1, 1)
D_FACTORS = {64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16), 256: (1, 2, 4, 8, 8, 16, 16)}
D_FACTORS[512] = (1, 1, 2, 4, 8, 8, 16, 16)


class DeepUpBlock(nn.Module):
    """Bottleneck 1x1, 3x3, 3x3, 1x1 of a quarter of the input's width, each after norm and ReLU.

    The shortcut keeps the first channels as they are and drops the rest.
    """

    features: int
    up: bool = False
    spectral: int = 1
    kernel_init: str = "orthogonal"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False, cond=None):
        init = named(INITS, self.kernel_init, "kernel_init")
        if self.features > x.shape[-1]:
            raise ValueError(f"multipliers: expected widths that do not grow, got {self.features} after {x.shape[-1]}")
        width = max(x.shape[-1] // 4, 1)
        grow = upsample if self.up else lambda h: h

        def layer(h, i, features, size):
            h = Norm(
                "batch",
                axis_name=self.axis_name,
                spectral=self.spectral,
                cond_init=init,
                dtype=self.dtype,
                name=f"norm{i}",
            )(h, train, cond)
            h = nn.relu(h)
            conv = SpectralConv(features, size, self.spectral, kernel_init=init, dtype=self.dtype, name=f"conv{i}")
            return conv(grow(h) if i == 1 else h, train)

        h = layer(x, 0, width, 1)
        h = layer(layer(h, 1, width, 3), 2, width, 3)
        return grow(x[..., : self.features]) + layer(h, 3, self.features, 1)


class DeepDownBlock(nn.Module):
    """Bottleneck 1x1, 3x3, 3x3, 1x1 of a quarter of the output's width, each after ReLU.

    The shortcut keeps all channels and adds the missing ones by a 1x1 convolution.
    """

    features: int
    down: bool = False
    spectral: int = 1
    kernel_init: str = "orthogonal"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        init = named(INITS, self.kernel_init, "kernel_init")
        if self.features < x.shape[-1]:
            raise ValueError(f"multipliers: expected widths that do not fall, got {self.features} after {x.shape[-1]}")
        width = max(self.features // 4, 1)
        shrink = downsample if self.down else lambda h: h

        def conv(h, features, size, name):
            return SpectralConv(features, size, self.spectral, kernel_init=init, dtype=self.dtype, name=name)(h, train)

        h = conv(nn.relu(x), width, 1, "conv0")
        h = conv(nn.relu(h), width, 3, "conv1")
        h = conv(nn.relu(h), width, 3, "conv2")
        h = conv(shrink(nn.relu(h)), self.features, 1, "conv3")
        skip = shrink(x)
        if self.features > x.shape[-1]:
            skip = jnp.concatenate([skip, conv(skip, self.features - x.shape[-1], 1, "skip")], axis=-1)
        return skip + h


class BigGANGenerator(nn.Module):
    """z [B, L] to x [B, H, H, C], conditional by the norms.

    Fields:
      shape: of a sample, size 4 * 2^n.
      width, multipliers: channels of the dense layer and of each doubling; () means the published factors
        at 64 and above, and 4 below.
      deep: BigGAN-deep: before each block that doubles stands one that does not, both bottlenecks.
      shared: width of the embedding of the label, which all norms share.
      attention: sizes after whose block stands `SelfAttention`.
      num_classes, embedding_dim: conditions; without any the norms read z alone.
      output, spectral, kernel_init, axis_name, remat, dtype: as in `ResNetGenerator`.
    """

    shape: tuple = ()
    width: int = 96
    multipliers: tuple = ()
    deep: bool = False
    shared: int = 128
    attention: tuple = (64,)
    output: str = "tanh"
    spectral: int = 1
    kernel_init: str = "orthogonal"
    num_classes: int = 0
    embedding_dim: int = 0
    axis_name: str | None = None
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, cond=None, train=False):
        n = doublings(self.shape, 4)
        factors = factors_of(self.multipliers or G_FACTORS.get(self.shape[0], (4,) * (n + 1)), n + 1)
        init = named(INITS, self.kernel_init, "kernel_init")
        check_output(self.output)
        if self.shared < 1:
            raise ValueError(f"shared: expected at least 1, got {self.shared}")
        vector = CondInput(self.num_classes, self.embedding_dim, self.shared, init, name="cond")(cond, z.shape[0])
        z = z.astype(jnp.float32)
        if self.deep:
            chunks = [beside(z, vector)] * (n + 1)
            conds = chunks[1:]
        else:
            if z.shape[-1] <= n:
                raise ValueError(f"z: expected at least {n + 1} numbers, one a chunk, got {z.shape[-1]}")
            chunks = jnp.split(
                z, np.cumsum([len(p) for p in np.array_split(np.arange(z.shape[-1]), n + 1)])[:-1], axis=-1
            )
            conds = [beside(chunk, vector) for chunk in chunks[1:]]
        options = {"kernel_init": init, "dtype": self.dtype}
        shared = {"spectral": self.spectral, "kernel_init": self.kernel_init, "axis_name": self.axis_name}
        shared["dtype"] = self.dtype
        kind = DeepUpBlock if self.deep else UpBlock
        block = nn.remat(kind, static_argnums=(2,)) if self.remat else kind
        h = SpectralDense(16 * factors[0] * self.width, self.spectral, **options, name="input")(chunks[0], train)
        h = h.reshape(-1, 4, 4, factors[0] * self.width)
        for i, factor in enumerate(factors[1:]):
            if self.deep:
                h = block(h.shape[-1], up=False, **shared, name=f"same{i}")(h, train, conds[i])
            h = block(factor * self.width, up=True, **shared, name=f"block{i}")(h, train, conds[i])
            if h.shape[1] in self.attention:
                h = SelfAttention(self.spectral, self.kernel_init, self.dtype, name=f"attention{i}")(h, train)
        h = nn.relu(Norm("batch", axis_name=self.axis_name, name="norm")(h, train))
        x = SpectralConv(self.shape[-1], 3, self.spectral, **options, name="output")(h, train)
        return squash(x.astype(z.dtype), self.output)


class BigGANDiscriminator(nn.Module):
    """x [B, H, H, C] to a Critique; `features` is the sum of the last map over places.

    Fields:
      width, multipliers: channels of each stage; () means the published factors at 64 and above, and 4 below.
      downs: stages that halve the size; 0 takes all but the last (two at 32, one below).
      deep: BigGAN-deep: a stem, and in each stage a block that halves and one that does not.
      attention: sizes after whose stage stands `SelfAttention`.
      head: name or group in `HEADS`; None is "projection", the published one.
      spectral, kernel_init, num_classes, embedding_dim, label_dim, remat, dtype: as in `ResNetDiscriminator`.
    """

    width: int = 96
    multipliers: tuple = ()
    downs: int = 0
    deep: bool = False
    attention: tuple = (64,)
    spectral: int = 1
    kernel_init: str = "orthogonal"
    head: Any = None
    num_classes: int = 0
    embedding_dim: int = 0
    label_dim: int = 0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        n = doublings(x.shape[1:], 4, "x")
        published = x.shape[1] in D_FACTORS
        factors = tuple(self.multipliers) or D_FACTORS.get(x.shape[1], (4,) * (n + 1))
        downs = self.downs or (len(factors) - 1 if published or self.deep else max(n - 1, 1))
        if downs > len(factors) or x.shape[1] % 2**downs:
            raise ValueError(f"downs: expected at most {min(len(factors), n + 2)} for this size, got {downs}")
        kind = self.head or "projection"
        head = make_head(kind, self.num_classes, self.spectral, self.kernel_init)
        label, vector = critic_input(self, cond, x.shape[0], kind)
        h = beside(x, vector).astype(self.dtype)
        h = (self._deep if self.deep else self._plain)(h, factors, downs, train)
        return head(nn.relu(h).astype(jnp.float32).sum(axis=(1, 2)), label, train)

    def _attend(self, h, i, train):
        if h.shape[1] not in self.attention:
            return h
        return SelfAttention(self.spectral, self.kernel_init, self.dtype, name=f"attention{i}")(h, train)

    def _plain(self, h, factors, downs, train):
        block = nn.remat(DownBlock, static_argnums=(2,)) if self.remat else DownBlock
        for i, factor in enumerate(factors):
            features, size = factor * self.width, h.shape[1]
            h = block(
                features,
                features,
                down=i < downs,
                first=i == 0,
                spectral=self.spectral,
                kernel_init=self.kernel_init,
                dtype=self.dtype,
                name=f"block{i}",
            )(h, train)
            h = h if h.shape[1] == size else self._attend(h, i, train)
        return h

    def _deep(self, h, factors, downs, train):
        block = nn.remat(DeepDownBlock, static_argnums=(2,)) if self.remat else DeepDownBlock
        shared = {"spectral": self.spectral, "kernel_init": self.kernel_init, "dtype": self.dtype}
        init = named(INITS, self.kernel_init, "kernel_init")
        stem = SpectralConv(factors[0] * self.width, 3, self.spectral, kernel_init=init, dtype=self.dtype, name="stem")
        h = stem(h, train)
        for i, factor in enumerate(factors[1:]):
            h = block(factor * self.width, down=i < downs, **shared, name=f"block{i}")(h, train)
            h = block(factor * self.width, down=False, **shared, name=f"same{i}")(h, train)
            h = self._attend(h, i, train) if i < downs else h
        return h
