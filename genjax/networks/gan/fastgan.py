"""FastGAN: skip-layer excitation in the generator, a discriminator that must also reconstruct (2101.04775).

Any square image whose size is 4 to 7 times a power of two, 16 at least. All convolutions are normalized by
their spectral norm and have no bias; `glu` halves channels, so convolutions before it give twice as many.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.core.keys import normal, per_sample
from genjax.core.numerics import mean_except_batch
from genjax.core.types import Critique
from genjax.networks.blocks import downsample, upsample
from genjax.networks.conditioning import check_cond
from genjax.networks.gan.layers import INITS, CondInput, beside
from genjax.networks.gan.norms import Norm
from genjax.networks.gan.r3gan import square, stages
from genjax.networks.gan.spectral import SpectralConv, normalized

INIT = INITS["normal"]  # N(0, 0.02^2)
WIDTHS = (16, 8, 4, 2, 2, 1, 1 / 2, 1 / 4, 1 / 8)  # times the base width, from 4x4 to 1024x1024
LARGEST = 256  # size of the discriminator's first map


def glu(x):
    """The first half of the channels times the sigmoid of the second."""
    a, b = jnp.split(x, 2, axis=-1)
    return a * jax.nn.sigmoid(b)


def leaky(x):
    """LeakyReLU of slope 0.2."""
    return jax.nn.leaky_relu(x, 0.2)


def resized(x, size):
    """x [B, H, W, C] at another size by the nearest pixel; itself where it has that size."""
    return x if x.shape[1] == size else jax.image.resize(x, (x.shape[0], size, size, x.shape[-1]), "nearest")


def quadrants(x, index):
    """A quarter [B, H / 2, W / 2, C] of each x [B, H, W, C]: `index` [B] is 0 to 3, rows first."""
    h, w = x.shape[1] // 2, x.shape[2] // 2
    parts = [x[:, i : i + h, j : j + w] for i in (0, h) for j in (0, w)]
    return sum(jnp.where((index == i)[:, None, None, None], part, 0) for i, part in enumerate(parts))


def _conv(module, features, size=3, strides=1, padding="SAME", name=None):
    return SpectralConv(
        features, size, module.spectral, strides, padding, False, kernel_init=INIT, dtype=module.dtype, name=name
    )


class SkipLayerExcitation(nn.Module):
    """high [B, H, W, C] times a gate for each channel made of low [B, h, w, c] (eq. 1).

    gate = sigmoid(conv 1x1(swish(conv(average of low to 4x4)))), the first convolution taking all 16 places.
    """

    spectral: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, low, high, train=False):
        while low.shape[1] >= 8 and low.shape[1] % 2 == 0:
            low = downsample(low)
        channels = high.shape[-1]
        h = jax.nn.silu(_conv(self, channels, low.shape[1], padding="VALID", name="look")(low, train))
        return high * jax.nn.sigmoid(_conv(self, channels, 1, name="gate")(h, train))


class GLUBlock(nn.Module):
    """[upsampling,] then `layers` times (convolution, noise, batch norm, GLU); the noise only where `noisy`.

    Noise is one normal number a place (stream "noise") times a learned factor that starts at zero; without a
    stream outside training there is none.
    """

    features: int
    layers: int = 1
    noisy: bool = False
    spectral: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = upsample(x)
        for i in range(self.layers):
            x = _conv(self, 2 * self.features, name=f"conv{i}")(x, train)
            if self.noisy:
                strength = self.param(f"noise{i}", nn.initializers.zeros, (), jnp.float32)
                if self.has_rng("noise") or (train and not self.is_initializing()):
                    noise = normal(self.make_rng("noise"), (*x.shape[:3], 1), jnp.float32)
                    x = x + (strength * noise).astype(x.dtype)
            x = glu(Norm("batch", axis_name=self.axis_name, name=f"norm{i}")(x, train))
        return x


class FastGANGenerator(nn.Module):
    """z [B, L] to x [B, H, H, C] in [-1, 1].

    Resolutions 8, 32, 128, 512 have two noisy layers, the others one. A resolution gates the one `gap`
    doublings above it; the published pairs, 4 to 64 up to 32 to 512, have a gap of 4.

    Fields:
      shape: of a sample; width: the base width, resolutions have `WIDTHS` times as many channels.
      gap: 0 takes 4, or 2 for images below 64.
      spectral: power steps of spectral normalization, 0 for none.
      num_classes, label_dim: of the label, put beside z; see `CondInput`.
      axis_name: mapped axis of batch statistics.
      dtype: of the computation; parameters are float32.
    """

    shape: tuple = ()
    width: int = 64
    gap: int = 0
    spectral: int = 1
    num_classes: int = 0
    label_dim: int = 0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, cond=None, train=False):
        size = square(self.shape)
        base, resolutions = stages(size, (1,), (1,))
        if size < 16 or len(resolutions) > len(WIDTHS):
            raise ValueError(f"shape: expected a size of 16 to {base * 2 ** (len(WIDTHS) - 1)}, got {size}")
        widths = [max(int(self.width * w), 1) for w in WIDTHS[: len(resolutions)]]
        gap = self.gap or (4 if len(resolutions) > 4 else 2)
        rest = {"spectral": self.spectral, "dtype": self.dtype}
        vector = CondInput(self.num_classes, label_dim=self.label_dim, name="cond")(cond, len(z))
        start = beside(z, vector).astype(self.dtype)
        # a transposed convolution of one place, so its kernel is normalized as one
        kernel = self.param("start", INIT, (base, base, start.shape[-1], 2 * widths[0]), jnp.float32)
        kernel = normalized(self, kernel, self.spectral, train, "start_").astype(self.dtype)
        h = jnp.einsum("bl,hwlc->bhwc", start, kernel)
        maps = [glu(Norm("batch", axis_name=self.axis_name, name="start_norm")(h, train))]
        for i in range(1, len(resolutions)):
            long = i % 2 == 1
            block = GLUBlock(widths[i], 2 if long else 1, long, axis_name=self.axis_name, **rest, name=f"block{i}")
            h = block(maps[-1], train)
            if 0 <= i - gap < 4:
                h = SkipLayerExcitation(**rest, name=f"gate{i}")(maps[i - gap], h, train)
            maps.append(h)
        return jnp.tanh(_conv(self, self.shape[-1], name="output")(maps[-1], train)).astype(z.dtype)


class Decoder(nn.Module):
    """A small map [B, h, h, C] to an image [B, H, H, channels] in [-1, 1], H / h a power of two."""

    size: int
    channels: int
    width: int = 32
    spectral: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        i = 0
        while x.shape[1] < self.size:
            features = max(int(self.width * WIDTHS[min(2 + i, len(WIDTHS) - 1)]), 1)
            x = GLUBlock(
                features, spectral=self.spectral, axis_name=self.axis_name, dtype=self.dtype, name=f"block{i}"
            )(x, train)
            i += 1
        return jnp.tanh(_conv(self, self.channels, name="output")(x, train)).astype(jnp.float32)


class DownBlock(nn.Module):
    """Half the size: the mean of a strided path of two convolutions and of a pooled one; or one layer (`plain`)."""

    features: int
    plain: bool = False
    spectral: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        def layer(y, name, *args):
            y = _conv(self, self.features, *args, name=name)(y, train)
            return leaky(Norm("batch", axis_name=self.axis_name, name=f"{name}_norm")(y, train))

        y = layer(x, "down", 4, 2, 1)
        if self.plain:
            return y
        return (layer(y, "conv") + layer(downsample(x), "direct", 1)) / 2


class AEDiscriminator(nn.Module):
    """x [B, H, H, C] to a Critique with patch logits [B, N], and reconstructions of x in `extra`.

    The main branch halves x down to e x e, e from 8 to 15 (from `LARGEST` at most; larger images come in by
    strided convolutions), each map gated by the one three above it; the light branch is plain. Each ends in
    a grid of logits. Decoders then have to rebuild, from the last map the whole image, from a quarter of
    the map before it that quarter of the image, from the light branch's last map the image again:

      extra = {"reconstructions": {"full", "part", "light"}, "targets": the same names}

    all at most 16 times the last map wide; see `reconstruction_error`. The quarter is drawn for each sample (stream
    "noise"), or goes round where there is no stream outside training. `features` is the mean of the last map.

    Fields:
      width: base width, 8 times as many channels at the last map and half as many at each size above.
      decoder: base width of the decoders.
      light: whether the light branch is there.
      spectral, axis_name, dtype: as in the generator.
    """

    width: int = 64
    decoder: int = 32
    light: bool = True
    spectral: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        check_cond(cond)
        size, channels = square(x.shape[1:]), x.shape[-1]
        if size < 16 or size % 2:
            raise ValueError(f"x: expected images of an even size, at least 16, got {size}")
        rest = {"spectral": self.spectral, "axis_name": self.axis_name, "dtype": self.dtype}
        h, i = x.astype(self.dtype), 0
        while h.shape[1] > LARGEST and h.shape[1] % 2 == 0:
            h = _conv(self, self._features(h.shape[1] // 2), 4, 2, 1, name=f"stem{i}")(h, train)
            h = leaky(Norm("batch", axis_name=self.axis_name, name="stem_norm")(h, train) if i else h)
            i += 1
        if not i:
            h = leaky(_conv(self, self._features(size), name="stem")(h, train))
        maps = [h]
        while maps[-1].shape[1] >= 16 and maps[-1].shape[1] % 2 == 0:
            n = len(maps)
            h = DownBlock(self._features(maps[-1].shape[1] // 2), **rest, name=f"block{n}")(maps[-1], train)
            if n >= 3:
                gate = SkipLayerExcitation(self.spectral, self.dtype, name=f"gate{n}")
                h = gate(maps[n - 3], h, train)
            maps.append(h)
        last, before = maps[-1], maps[-2]
        h = _conv(self, max(2 * self._features(8), 1), 1, name="head")(last, train)
        h = leaky(Norm("batch", axis_name=self.axis_name, name="head_norm")(h, train))
        logits = [_conv(self, 1, 4, padding="VALID", name="logits")(h, train)]

        if (train and not self.is_initializing()) or self.has_rng("noise"):
            draw = lambda key: jax.random.randint(key, (), 0, 4)
            index = jax.vmap(draw)(per_sample(self.make_rng("noise"), len(x)))
        else:
            index = jnp.arange(len(x)) % 4
        final = last.shape[1]
        target = final * 2 ** min(len(maps) - 1, 4)  # 128 for images of 128 and above
        quarter = target if target <= size // 2 else size // 2
        whole = resized(x, target)
        decode = lambda at, name: Decoder(at, channels, self.decoder, **rest, name=name)
        rebuilt = {
            "full": decode(target, "decode_full")(last, train),
            "part": decode(quarter, "decode_part")(quadrants(before, index), train),
        }
        targets = {"full": whole, "part": resized(quadrants(x, index), quarter)}
        if self.light:
            h = resized(x, target).astype(self.dtype)
            h = leaky(_conv(self, max(self._features(h.shape[1]), 1), 4, 2, 1, name="light_stem")(h, train))
            n = 0
            while h.shape[1] > final:
                h = DownBlock(self._features(h.shape[1]), True, **rest, name=f"light{n}")(h, train)
                n += 1
            logits.append(_conv(self, 1, 4, padding="VALID", name="light_logits")(h, train))
            rebuilt["light"], targets["light"] = decode(target, "decode_light")(h, train), whole
        flat = jnp.concatenate([v.reshape(len(x), -1) for v in logits], axis=-1).astype(jnp.float32)
        extra = {"reconstructions": rebuilt, "targets": targets}
        return Critique(flat, last.astype(jnp.float32).mean((1, 2)), extra)

    def _features(self, size):
        return max(self.width * 64 // size, 1)


def reconstruction_error(critique):
    """The mean absolute error of each of the reconstructions in a Critique, summed over them, [B].

    The term L_rec of the discriminator's loss, on real images only (eq. 4); the paper measures it by LPIPS.
    """
    rebuilt, targets = critique.extra["reconstructions"], critique.extra["targets"]
    return sum(mean_except_batch(jnp.abs(rebuilt[name] - jax.lax.stop_gradient(targets[name]))) for name in rebuilt)
