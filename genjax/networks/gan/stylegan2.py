"""StyleGAN2's generator: a mapping of latents to styles, and synthesis by modulated convolutions (1912.04958).

A style s [B, C] scales the input channels of a convolution, whose outputs are then divided by the
standard deviation that the scaled kernel gives them (eq. 1 to 3):

  y_o = sum_i s_i (k_io * x_i) / sqrt(sum_(i, a) (s_i k_aio)^2 + eps).

Written so, x is scaled before and y after one convolution that all samples share: the same numbers as a
kernel for each sample, without the grouped convolution over the batch, which is slow everywhere.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.core import collectives
from genjax.core.keys import fold, normal, per_sample, uniform
from genjax.networks.conditioning import check_cond
from genjax.networks.convolution import conv
from genjax.networks.gan.equalized import EqualDense, equalized, leaky, pixel_norm
from genjax.networks.gan.layers import doublings, one_hot
from genjax.networks.gan.resample import conv_up, up

BASE = 4
ROOT2 = math.sqrt(2)
W_AVG = "w_avg"  # the collection with the running mean of the styles
STYLEGAN2_PRESETS = {
    # fields of generator and discriminator; config F has twice the channels of config E from 64x64 up
    "config_e": {"channels": 16384, "width": 512},
    "config_f": {"channels": 32768, "width": 512},
}


def modulated_conv(x, kernel, styles, demodulate=True, move=conv, eps=1e-8):
    """The convolution `move(x, kernel)` with input channels scaled by styles [B, C] (eq. 1), demodulated (eq. 3).

    Args:
      x: [B, H, W, C], of the dtype to compute in.
      kernel: [K, K, C, O] and styles: [B, C], float32.
      demodulate: divide each output by its expected standard deviation for independent unit inputs.
      move: (x, kernel) -> y, linear in x: `conv`, `conv_up`.
    """
    y = move(x * styles.astype(x.dtype)[:, None, None], kernel.astype(x.dtype))
    if not demodulate:
        return y
    power = (styles**2) @ jnp.sum(kernel**2, axis=(0, 1))
    return y * jax.lax.rsqrt(power + eps).astype(y.dtype)[:, None, None]


class Mapping(nn.Module):
    """Latents [B, L] or None, and labels [B] or None, to w [B, features].

    Both are brought to unit mean square first. `layers` dense layers with LeakyReLU learn at `multiplier`
    times the common rate.
    """

    features: int = 512
    layers: int = 8
    multiplier: float = 0.01
    num_classes: int = 0

    @nn.compact
    def __call__(self, z, label=None):
        parts = [] if z is None else [pixel_norm(z.astype(jnp.float32))]
        if self.num_classes:
            rows = one_hot(label, self.num_classes, len(label) if z is None else len(z))
            parts.append(pixel_norm(EqualDense(self.features, name="label")(rows)))
        h = jnp.concatenate(parts, axis=-1)
        for i in range(self.layers):
            h = leaky(EqualDense(self.features, multiplier=self.multiplier, name=f"layer{i}")(h), ROOT2)
        return h


class StyleLayer(nn.Module):
    """Modulated 3x3 convolution of x [B, H, W, C] by w [B, D], noise, bias, LeakyReLU; `grow` doubles the size.

    The noise is one normal number a place, shared by the channels, times a learned factor that starts at
    zero; `noise` is "random" (stream "noise", one a sample; the constant one where there is no stream and
    no training), "constant" (fixed numbers, by `index`) or "none".
    """

    features: int
    index: int
    grow: bool = False
    noise: str = "random"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, w, train=False):
        styles = EqualDense(x.shape[-1], bias=1.0, name="style")(w)
        kernel = equalized(self, (3, 3, x.shape[-1], self.features))
        y = modulated_conv(x.astype(self.dtype), kernel, styles, move=conv_up if self.grow else conv)
        if self.noise != "none":
            strength = self.param("noise_strength", nn.initializers.zeros, (), jnp.float32)
            y = y + (strength * self._noise(y.shape, train)).astype(y.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return leaky(y + bias.astype(y.dtype)[None, None, None], ROOT2)

    def _noise(self, shape, train):
        if self.noise == "random" and (self.has_rng("noise") or (train and not self.is_initializing())):
            return normal(self.make_rng("noise"), (*shape[:3], 1), jnp.float32)
        return jax.random.normal(jax.random.key(self.index), (1, *shape[1:3], 1), jnp.float32)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution of x [B, H, W, C] by w [B, D] to `features` channels, not demodulated; float32."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, w):
        styles = EqualDense(x.shape[-1], bias=1.0, name="style")(w)
        kernel = equalized(self, (1, 1, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        y = modulated_conv(x.astype(self.dtype), kernel, styles, demodulate=False)
        return y.astype(jnp.float32) + bias[None, None, None]


class Synthesis(nn.Module):
    """Styles ws [B, N, D], one a layer, to x [B, H, H, C]: the sum of the images that all resolutions add (skip).

    N = 2 n + 2 for n doublings from 4x4; a resolution's image shares its style with the next layer.
    """

    shape: tuple = ()
    channels: int = 32768
    width: int = 512
    noise: str = "random"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ws, train=False):
        n = doublings(self.shape, BASE)
        widths = [min(self.channels // (BASE * 2**i), self.width) for i in range(n + 1)]
        layer = lambda i, index, grow=False: StyleLayer(
            widths[i], index, grow, self.noise, self.dtype, name=f"up{i}" if grow else f"conv{i}"
        )
        rgb = lambda i: ToRGB(self.shape[-1], self.dtype, name=f"rgb{i}")
        start = self.param("constant", nn.initializers.normal(1.0), (BASE, BASE, widths[0]), jnp.float32)
        h = jnp.broadcast_to(start.astype(self.dtype)[None], (ws.shape[0], *start.shape))
        h = layer(0, 0)(h, ws[:, 0], train)
        x = rgb(0)(h, ws[:, 1])
        for i in range(1, n + 1):
            h = layer(i, 2 * i - 1, True)(h, ws[:, 2 * i - 1], train)
            h = layer(i, 2 * i)(h, ws[:, 2 * i], train)
            x = up(x) + rgb(i)(h, ws[:, 2 * i + 1])
        return x


class StyleGAN2Generator(nn.Module):
    """z [B, L] to x [B, H, H, C] through styles; also `styles(z, ...)` and `synthesize(ws, train)` apart, for
    path lengths, truncation and editing in W.

    While training, w's running mean goes to the collection "w_avg", and with probability `mixing` the
    layers from a random one on take the styles of another latent (stream "noise").

    Fields:
      shape: of a sample, a square image of size 4 times a power of two.
      style: size of w.
      layers, multiplier: of the mapping.
      channels, width: a resolution has min(channels / size, width) channels.
      noise: "random", "constant" or "none", see `StyleLayer`.
      mixing: probability of style mixing.
      decay: of the running mean of w.
      num_classes: of the label, which goes through the mapping.
      axis_name: mapped axis over which the batch is spread.
      dtype: of the synthesis; parameters, mapping and images are float32.
    """

    shape: tuple = ()
    style: int = 512
    layers: int = 8
    multiplier: float = 0.01
    channels: int = 32768
    width: int = 512
    noise: str = "random"
    mixing: float = 0.9
    decay: float = 0.995
    num_classes: int = 0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        if self.noise not in ("random", "constant", "none"):
            raise ValueError(f"noise: expected 'random', 'constant' or 'none', got {self.noise!r}")
        self.count = 2 * doublings(self.shape, BASE) + 2
        self.mapping = Mapping(self.style, self.layers, self.multiplier, self.num_classes)
        self.synthesis = Synthesis(self.shape, self.channels, self.width, self.noise, self.dtype)
        self.average = self.variable(W_AVG, "w", jnp.zeros, (self.style,), jnp.float32)

    def styles(self, z, cond=None, train=False, psi=1.0, cutoff=None):
        """Styles [B, N, D] of latents z [B, L], drawn towards the mean: w_avg + psi (w - w_avg) in the layers
        below `cutoff` (all where None); 1 leaves them, and psi may be traced."""
        label = check_cond(cond, num_classes=self.num_classes).get("label")
        w = self.mapping(z, label)
        fixed = self.is_initializing() or not self.is_mutable_collection(W_AVG)
        if train and not fixed:
            mean = collectives.mean(jax.lax.stop_gradient(w), 0, self.axis_name)
            self.average.value = self.decay * self.average.value + (1 - self.decay) * mean
        ws = jnp.broadcast_to(w[:, None], (w.shape[0], self.count, w.shape[1]))
        if train and self.mixing and not self.is_initializing():
            keys = per_sample(self.make_rng("noise"), len(z))
            other = self.mapping(normal(fold(keys, 1), z.shape, z.dtype), label)
            u = uniform(fold(keys, 2), (len(z), 2), jnp.float32)
            first = 1 + jnp.floor(u[:, 0] * (self.count - 1)).astype(jnp.int32)  # 1 ... N - 1
            first = jnp.where(u[:, 1] < self.mixing, first, self.count)
            own = jnp.arange(self.count)[None] < first[:, None]
            ws = jnp.where(own[..., None], ws, other[:, None])
        if not (isinstance(psi, (int, float)) and psi == 1):
            mean = self.average.value[None, None]
            drawn = mean + psi * (ws - mean)
            below = jnp.arange(self.count) < (self.count if cutoff is None else cutoff)
            ws = jnp.where(below[None, :, None], drawn, ws)
        return ws

    def synthesize(self, ws, train=False):
        """Images of styles ws [B, N, D]."""
        return self.synthesis(ws, train)

    def __call__(self, z, cond=None, train=False, psi=1.0, cutoff=None):
        return self.synthesize(self.styles(z, cond, train, psi, cutoff), train).astype(z.dtype)
