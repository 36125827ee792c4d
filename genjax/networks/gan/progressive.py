"""Progressive growing: networks that hold all resolutions, run up to one of them (1710.10196).

`stage` i works at resolution 4 * 2^i and is static, one compile a stage; `alpha` in [0, 1] fades the
newest resolution in and is traced. Parameters are the same tree at every stage: `module.clone(stage=2)`.

  generator      x = (1 - alpha) up(rgb_(i-1)(h_(i-1))) + alpha rgb_i(h_i)
  discriminator  h = (1 - alpha) from_(i-1)(down(x)) + alpha block_i(from_i(x))

with up the nearest neighbour and down the mean of 2x2, for the reals too (`faded`).
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genjax.core.types import Critique
from genjax.networks.blocks import downsample, upsample
from genjax.networks.conditioning import check_cond
from genjax.networks.gan.equalized import EqualConv, EqualDense, leaky, pixel_norm
from genjax.networks.gan.heads import make_head, reads_label
from genjax.networks.gan.layers import beside, doublings, minibatch_stddev, one_hot, split_label

BASE = 4


def progressive_schedule(nimg, last, stable=800_000, fade=800_000):
    """(stage, alpha) after `nimg` real images, stage 0 being shown for `stable` of them (section 3, appendix A.1).

    Then come, for each further stage up to `last`, `fade` images with alpha from 0 to 1 and `stable` with
    alpha = 1. A number gives numbers, a traced `nimg` gives traced ones.

    Raises:
      ValueError: last below 0, or stable or fade below 1.
    """
    for name, value, least in (("last", last, 0), ("stable", stable, 1), ("fade", fade, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    known = isinstance(nimg, (int, float, np.integer, np.floating))
    lib = np if known else jnp
    phase = nimg // (stable + fade)
    into = nimg - phase * (stable + fade)
    fading = into >= stable
    stage = lib.where(fading, phase + 1, phase)
    alpha = lib.where(fading & (stage <= last), (into - stable) / fade, 1.0)
    stage = lib.minimum(stage, last)
    return (int(stage), float(alpha)) if known else (stage.astype(jnp.int32), alpha.astype(jnp.float32))


def faded(x, stage, alpha=1.0):
    """Real images x [B, H, H, C] as stage `stage` sees them: brought to its resolution, the finest detail by alpha.

    Raises:
      ValueError: a size that is not 4 times a power of two, or smaller than the stage's.
    """
    last = doublings(x.shape[1:], BASE) if x.shape[1] != BASE else 0
    check_stage(stage, last)
    for _ in range(last - stage):
        x = downsample(x)
    return x if stage == 0 else mix(upsample(downsample(x)), x, alpha)


def check_stage(stage, last):
    """Raises ValueError unless 0 <= stage <= last."""
    if not 0 <= stage <= last:
        raise ValueError(f"stage: expected 0 to {last}, got {stage}")


def mix(a, b, alpha):
    """(1 - alpha) a + alpha b in the dtype of b."""
    alpha = jnp.asarray(alpha, b.dtype)
    return (1 - alpha) * a + alpha * b


def levels(shape, stage, widths, channels, width):
    """(stage, last stage, channels of each resolution) of a network for images of `shape`."""
    last = doublings(shape, BASE)
    stage = last if stage is None else stage
    check_stage(stage, last)
    if widths and len(widths) != last + 1:
        raise ValueError(f"widths: expected {last + 1} entries for size {shape[0]}, got {len(widths)}")
    return stage, last, tuple(widths) or tuple(min(channels // (BASE * 2**i), width) for i in range(last + 1))


class ProgressiveGenerator(nn.Module):
    """z [B, L] to x [B, 4 * 2^stage, 4 * 2^stage, C], linear output.

    Each resolution: twice (convolution, LeakyReLU, pixel norm); z too is normalized to length sqrt(L).

    Fields:
      shape: of a sample at the last stage, a square image of size 4 times a power of two.
      stage: the resolution to run up to, None for the last.
      channels, width: a resolution has min(channels / size, width) channels; widths: said one by one instead.
      norm: pixel norm; plain: no equalized learning rate (see `equalized`).
      num_classes: of the label, put one-hot beside z.
      dtype: of the computation; parameters are float32.
    """

    shape: tuple = ()
    stage: int | None = None
    channels: int = 16384
    width: int = 512
    widths: tuple = ()
    norm: bool = True
    plain: bool = False
    num_classes: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, cond=None, train=False, alpha=1.0):
        stage, last, widths = levels(self.shape, self.stage, self.widths, self.channels, self.width)
        cond = check_cond(cond, num_classes=self.num_classes)
        if self.num_classes:
            z = beside(z, one_hot(cond.get("label"), self.num_classes, z.shape[0]))
        rest = {"plain": self.plain, "dtype": self.dtype}
        act = lambda h: pixel_norm(leaky(h)) if self.norm else leaky(h)
        layer = lambda i, name: EqualConv(widths[i], gain=math.sqrt(2), **rest, name=name)
        h = pixel_norm(z) if self.norm else z
        # the gain over 4 stands for the 16 places that share a kernel in the published code
        h = EqualDense(widths[0] * BASE**2, gain=math.sqrt(2) / 4, bias=None, **rest, name="dense")(h)
        bias = self.param("bias", nn.initializers.zeros, (widths[0],), jnp.float32)
        h = act(h.reshape(-1, BASE, BASE, widths[0]) + bias.astype(self.dtype)[None, None, None])
        h = act(layer(0, "conv0")(h))
        maps = [h]
        for i in range(1, (last if self.is_initializing() else stage) + 1):
            h = act(layer(i, f"up{i}")(upsample(h)))
            h = act(layer(i, f"conv{i}")(h))
            maps.append(h)
        to_rgb = [EqualConv(self.shape[-1], 1, **rest, name=f"rgb{i}") for i in range(len(maps))]
        if self.is_initializing():
            for h, rgb in zip(maps, to_rgb):
                rgb(h)
        x = to_rgb[stage](maps[stage])
        if stage:
            x = mix(upsample(to_rgb[stage - 1](maps[stage - 1])), x, alpha)
        return x.astype(z.dtype)


class ProgressiveDiscriminator(nn.Module):
    """x [B, 4 * 2^stage, 4 * 2^stage, C] to a Critique; `features` is the last dense layer but one.

    Fields:
      shape: of a sample at the last stage; stage, channels, width, widths, plain: as in the generator.
      group: examples a group of the minibatch standard deviation before the last convolution, 0 for none.
      head: name or group in `HEADS`, "" for the paper's linear layer with equalized learning rate.
      num_classes: of the label, for heads that read it.
      axis_name: mapped axis over which the batch is spread.
      dtype: of the computation; parameters are float32.
    """

    shape: tuple = ()
    stage: int | None = None
    channels: int = 16384
    width: int = 512
    widths: tuple = ()
    plain: bool = False
    group: int = 4
    head: Any = ""
    num_classes: int = 0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False, alpha=1.0):
        stage, last, widths = levels(self.shape, self.stage, self.widths, self.channels, self.width)
        size = (BASE * 2**stage,) * 2 + (self.shape[-1],)
        if x.shape[1:] != size:
            raise ValueError(f"x: expected images of shape {size} at stage {stage}, got {x.shape[1:]}")
        head = make_head(self.head, self.num_classes) if self.head else None
        label = split_label(cond, self.num_classes)[0] if self.head and reads_label(self.head) else None
        if label is None:
            check_cond(cond, num_classes=self.num_classes)
        rest = {"plain": self.plain, "dtype": self.dtype}
        gain = math.sqrt(2)
        layer = lambda n, name, size=3: EqualConv(n, size, gain=gain, **rest, name=name)
        here = range((last if self.is_initializing() else stage) + 1)
        from_rgb = [layer(widths[i], f"rgb{i}", 1) for i in here]
        blocks = [(layer(widths[i], f"conv{i}"), layer(widths[i - 1], f"down{i}")) for i in here if i]
        into = lambda i, x: leaky(from_rgb[i](x))
        block = lambda i, h: downsample(leaky(blocks[i - 1][1](leaky(blocks[i - 1][0](h)))))
        if self.is_initializing():  # parameters of every resolution, whichever this one is
            for i in here:
                h = into(i, jnp.zeros((1, BASE * 2**i, BASE * 2**i, self.shape[-1]), self.dtype))
                h = block(i, h) if i else h
        h = into(stage, x)
        for i in range(stage, 0, -1):
            h = block(i, h)
            if i == stage:
                h = mix(into(i - 1, downsample(x.astype(self.dtype))), h, alpha)
        if self.group:
            h = minibatch_stddev(h, self.group, axis_name=self.axis_name)
        h = leaky(layer(widths[0], "conv0")(h)).reshape(x.shape[0], -1)
        f = leaky(EqualDense(widths[0], gain=gain, **rest, name="dense")(h)).astype(jnp.float32)
        if head is not None:
            return head(f, label, train)
        return Critique(EqualDense(1, plain=self.plain, name="linear")(f)[:, 0], f)
