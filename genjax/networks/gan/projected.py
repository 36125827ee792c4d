"""Discriminators on projected features: a frozen network, fixed random mixing, one small judge a scale (2111.01007)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.core.types import Critique
from genjax.networks.conditioning import check_cond, embed_ids
from genjax.networks.convolution import conv
from genjax.networks.gan.norms import Norm
from genjax.networks.gan.spectral import SpectralConv, SpectralDense

PROJECTOR = "projector"  # collection of the random mixing, never trained
BACKBONE = "backbone"  # collection of the frozen network's variables
MIXINGS = ("none", "channels", "scales")


def classifier_maps(classifier):
    """(variables, x) -> maps, finest first, of a `CNNClassifier`: the last block of each of its levels.

    With `initial=lambda: {"params": trained}` this is the frozen network of a `ProjectedDiscriminator`.
    """

    def maps(variables, x):
        _, sown = classifier.apply(variables, x, mutable=["intermediates"])
        found = sown["intermediates"]["maps"]
        levels = len(classifier.multipliers)
        return [found[f"block{level}_{classifier.num_blocks - 1}"] for level in range(levels)]

    return maps


class RandomConv(nn.Module):
    """A convolution whose kernel and bias are drawn once, U(-1, 1) / sqrt(fan_in), and kept in "projector"."""

    features: int
    size: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        fan = self.size**2 * x.shape[-1]

        def draw(shape):
            return jax.random.uniform(self.make_rng("params"), shape, jnp.float32, -1, 1) * fan**-0.5

        kernel = self.variable(PROJECTOR, "kernel", draw, (self.size, self.size, x.shape[-1], self.features)).value
        bias = self.variable(PROJECTOR, "bias", draw, (self.features,)).value
        return conv(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)[None, None, None]


class RandomProjector(nn.Module):
    """Maps of a feature pyramid, finest first, to as many mixed ones (section 3.2).

    "channels" (CCM): a random 1x1 convolution of each map, to `width`, 2 `width`, 4 `width` ... channels
    from the finest on. "scales" (CSM) then goes from the coarsest map up: add the next map, double the size
    linearly, random convolution to half as many channels (the finest keeps its number); so sizes double.

    Fields: width; mixing, one of `MIXINGS`; size, of CSM's kernels (the paper says 3, the released code has 1); dtype.
    """

    width: int = 64
    mixing: str = "scales"
    size: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps):
        if self.mixing not in MIXINGS:
            raise ValueError(f"mixing: expected one of {list(MIXINGS)}, got {self.mixing!r}")
        if self.mixing == "none":
            return list(maps)
        widths = [self.width * 2**i for i in range(len(maps))]
        maps = [RandomConv(w, dtype=self.dtype, name=f"ccm{i}")(v) for i, (w, v) in enumerate(zip(widths, maps))]
        if self.mixing == "channels":
            return maps
        out, h = [], None
        for i in reversed(range(len(maps))):
            if h is not None and h.shape != maps[i].shape:
                raise ValueError(f"maps: expected sizes halved from map to map, got {[v.shape for v in maps]}")
            h = maps[i] if h is None else h + maps[i]
            h = jax.image.resize(h, (h.shape[0], 2 * h.shape[1], 2 * h.shape[2], h.shape[-1]), "linear")
            h = RandomConv(widths[max(i - 1, 0)], self.size, self.dtype, name=f"csm{i}")(h)
            out.insert(0, h)
        return out


class MapDiscriminator(nn.Module):
    """One map [B, H, W, C] to logits [B, N]: strided convolutions down to `end`, then a 4x4 one; (logits, last map)."""

    channels: int = 4096
    end: int = 8
    spectral: int = 1
    norm: str = "batch"
    num_classes: int = 0
    label_dim: int = 128
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, label=None, train=False):
        layer = lambda n, size, name, **rest: SpectralConv(n, size, self.spectral, dtype=self.dtype, name=name, **rest)
        h, i = x, 0
        while min(h.shape[1:3]) > self.end:
            n = min(max(self.channels // (min(h.shape[1:3]) // 2), 1), 512)
            h = layer(n, 4, f"down{i}", strides=2, padding=1)(h, train)
            h = jax.nn.leaky_relu(Norm(self.norm, axis_name=self.axis_name, name=f"norm{i}")(h, train), 0.2)
            i += 1
        size = min(4, *h.shape[1:3])
        n = 64 if self.num_classes else 1
        y = layer(n, size, "logits", padding="VALID", use_bias=False)(h, train).reshape(len(x), -1, n)
        y = y.astype(jnp.float32)
        if self.num_classes:
            init = nn.initializers.normal(1.0)
            table = self.param("label", init, (self.num_classes + 1, self.label_dim), jnp.float32)
            rows = embed_ids(jnp.full((len(x),), -1) if label is None else label, table)
            m = jax.nn.leaky_relu(SpectralDense(n, self.spectral, name="project")(rows, train), 0.2)
            y = jnp.sum(y * m[:, None], axis=-1, keepdims=True) * n**-0.5
        return y[..., 0], h


class ProjectedDiscriminator(nn.Module):
    """x [B, H, W, C] to a Critique with the logits [B, N] of all places of all scales.

    `features` are the means of the judges' last maps. Neither the frozen network nor the mixing has
    parameters: their numbers are in the collections "backbone" and "projector", part of the network's
    state and never written, while gradients pass through them to x.

    Fields:
      backbone: (variables, x) -> list of maps [B, h, w, c], finest first, each half the size of the one before;
        see `classifier_maps`. It brings x, in [-1, 1], to what it was trained on.
      initial: () -> the variables of the trained network, kept in the state from init on; None for a
        backbone that is a plain function x -> maps.
      width, mixing, mixing_size: see `RandomProjector`.
      scales: how many maps are judged, the finest first; 0 for all.
      channels, end, norm, spectral: see `MapDiscriminator`; channels / size at each size.
      resize: side to which x is brought for the backbone, 0 to leave it.
      num_classes, axis_name, dtype: as in the other discriminators.
    """

    backbone: Callable | None = None
    initial: Callable | None = None
    width: int = 64
    mixing: str = "scales"
    mixing_size: int = 1
    scales: int = 0
    channels: int = 4096
    end: int = 8
    norm: str = "batch"
    spectral: int = 1
    resize: int = 0
    num_classes: int = 0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        if self.backbone is None:
            raise ValueError("backbone: expected a function from images to a list of maps, got None")
        label = check_cond(cond, num_classes=self.num_classes).get("label")
        if self.resize:
            x = jax.image.resize(x, (len(x), self.resize, self.resize, x.shape[-1]), "linear")
        if self.initial is None:
            maps = self.backbone(x)
        else:
            frozen = self.variable(BACKBONE, "variables", self.initial).value
            maps = self.backbone(jax.lax.stop_gradient(frozen), x)
        maps = RandomProjector(self.width, self.mixing, self.mixing_size, self.dtype, name="mix")(list(maps))
        if not 0 <= self.scales <= len(maps):
            raise ValueError(f"scales: expected 0 to {len(maps)}, the number of maps, got {self.scales}")
        logits, features = [], []
        for i, h in enumerate(maps[: self.scales or len(maps)]):
            judge = MapDiscriminator(
                self.channels,
                self.end,
                self.spectral,
                self.norm,
                self.num_classes,
                axis_name=self.axis_name,
                dtype=self.dtype,
                name=f"scale{i}",
            )
            y, last = judge(h, label, train)
            logits.append(y)
            features.append(last.astype(jnp.float32).mean((1, 2)))
        return Critique(jnp.concatenate(logits, axis=-1), jnp.concatenate(features, axis=-1))
