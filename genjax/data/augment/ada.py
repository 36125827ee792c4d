"""Adaptive discriminator augmentation: pixel blits, geometry and colour, each with probability p (2006.06676).

A transform is drawn for each sample, and left out with probability 1 - p; as long as p stays below
about 0.85 the law of the images can be told from that of the augmented ones, so nothing leaks into
the generator (section 2.2). Geometry is composed into one 3 x 3 matrix and applied by one anti-aliased
warp, colour into one matrix of channels (appendix B).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax.core.keys import per_sample
from genjax.core.numerics import bcast
from genjax.data.augment.base import Augment, check_probability, controller, only_reals
from genjax.data.augment.warp import affine_warp, shift

TRANSFORMS = {
    # group: the transforms of it, in the order in which they act
    "blit": ("flip", "quarter_turn", "whole_shift"),
    "geometric": ("scale", "rotation", "stretch", "shift"),
    "colour": ("brightness", "contrast", "luma_flip", "hue", "saturation"),
}
NAMES = tuple(name for group in TRANSFORMS.values() for name in group)


def _chosen(transforms):
    """Names of single transforms from names of groups and of transforms."""
    names = set()
    for name in transforms:
        if name not in TRANSFORMS and name not in NAMES:
            raise ValueError(f"transforms: expected names among {[*TRANSFORMS, *NAMES]}, got {name!r}")
        names.update(TRANSFORMS.get(name, (name,)))
    return names


def _scaling(sx, sy):
    return jnp.diag(jnp.stack([sx, sy, jnp.ones_like(sx)]))


def _rotation(angle):
    c, s = jnp.cos(angle), jnp.sin(angle)
    zero, one = jnp.zeros_like(c), jnp.ones_like(c)
    return jnp.stack([c, -s, zero, s, c, zero, zero, zero, one]).reshape(3, 3)


def _translation(tx, ty):
    return jnp.eye(3, dtype=tx.dtype).at[:2, 2].set(jnp.stack([tx, ty]))


class Draws(NamedTuple):
    """All random numbers of one sample: the coin of each transform, and its size."""

    coin: jax.Array  # [13] uniform in [0, 1)
    size: jax.Array  # [13] uniform in [0, 1)
    normal: jax.Array  # [7]


def draws(key):
    """The Draws of one key; together, since each call of a generator costs compile time."""
    u = jax.random.uniform(jax.random.fold_in(key, 1), (2, 13))
    return Draws(u[0], u[1], jax.random.normal(jax.random.fold_in(key, 2), (7,)))


def _either(coin, p, value, neutral):
    """`value` with probability p, else `neutral`."""
    return jnp.where(coin < p, value, neutral)


def _angle(u):
    return (2 * u - 1) * math.pi


def blits(draw, p):
    """One sample's moves (mirror: bool, quarter turns: 0 ... 3, shift: [2] as shares of the sides)."""
    coin, size = draw.coin, draw.size
    mirror = _either(coin[0], p, size[0] < 0.5, False)
    turns = _either(coin[1], p, jnp.floor(4 * size[1]).astype(jnp.int32), 0)
    return mirror, turns, _either(coin[2], p, (2 * size[2:4] - 1) / 8, 0.0)


def blit(x, drawn, p, names):
    """x with pixels moved as they are: mirrored, turned by quarters, shifted by up to an eighth of a side."""
    _, h, w, _ = x.shape
    if "quarter_turn" in names and h != w:
        raise ValueError(f"x: expected square images for 'quarter_turn', got {h} x {w}")
    mirror, turns, share = jax.vmap(lambda draw: blits(draw, p))(drawn)
    if "flip" in names:
        x = jnp.where(bcast(mirror, x), x[:, :, ::-1], x)
    if "quarter_turn" in names:
        x = jnp.where(bcast(turns >= 2, x), x[:, ::-1, ::-1], x)
        x = jnp.where(bcast(turns % 2 == 1, x), jnp.rot90(x, axes=(1, 2)), x)
    if "whole_shift" in names:
        dx, dy = (jnp.round(share[:, i] * n).astype(jnp.int32) for i, n in enumerate((w, h)))
        x = shift(x, dy, dx, mode="reflect")
    return x


def geometry(draw, p, size, names):
    """One sample's matrix from output to input positions (column, row, 1), in pixels from the center.

    Each transform acts on the image after those before it, so its inverse is multiplied from the right.
    """
    coin, normal = draw.coin[3:8], draw.normal
    inverse = jnp.eye(3)
    if "scale" in names:
        s = _either(coin[0], p, jnp.exp2(0.2 * normal[0]), 1.0)
        inverse = inverse @ _scaling(1 / s, 1 / s)
    # a turn before the stretch and one after it, so that at least one of the two comes with probability p
    half = 1 - jnp.sqrt(jnp.clip(1 - p, 0, 1))
    if "rotation" in names:
        inverse = inverse @ _rotation(_either(coin[1], half, _angle(draw.size[4]), 0.0))
    if "stretch" in names:
        s = _either(coin[2], p, jnp.exp2(0.2 * normal[1]), 1.0)
        inverse = inverse @ _scaling(1 / s, s)
    if "rotation" in names:
        inverse = inverse @ _rotation(_either(coin[3], half, _angle(draw.size[5]), 0.0))
    if "shift" in names:
        t = _either(coin[4], p, normal[2:4] / 8, 0.0) * jnp.asarray(size[::-1], jnp.float32)
        inverse = inverse @ _translation(-t[0], -t[1])
    return inverse


def colour(draw, p, channels, names):
    """One sample's map of the channels, (matrix [C, C], offset [C]); grey is the axis (1, ..., 1)."""
    coin, normal = draw.coin[8:13], draw.normal[4:7]
    eye = jnp.eye(channels)
    grey = jnp.full((channels, channels), 1 / channels)  # the projection onto grey
    linear, offset = eye, jnp.zeros((channels,))
    if "brightness" in names:
        offset = offset + _either(coin[0], p, 0.2 * normal[0], 0.0)
    if "contrast" in names:
        c = _either(coin[1], p, jnp.exp2(0.5 * normal[1]), 1.0)
        linear, offset = c * linear, c * offset
    if "luma_flip" in names:
        mirror = eye - 2 * grey * _either(coin[2], p, jnp.where(draw.size[6] < 0.5, 1.0, 0.0), 0.0)
        linear, offset = mirror @ linear, mirror @ offset
    if "hue" in names and channels == 3:
        theta = _either(coin[3], p, _angle(draw.size[7]), 0.0)
        cross = jnp.asarray([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        turn = grey + jnp.cos(theta) * (eye - grey) + jnp.sin(theta) * cross  # Rodrigues, around grey
        turn = jnp.where(theta == 0, eye, turn)
        linear, offset = turn @ linear, turn @ offset
    if "saturation" in names and channels > 1:
        s = _either(coin[4], p, jnp.exp2(normal[2]), 1.0)
        pull = eye + (s - 1) * (eye - grey)
        linear, offset = pull @ linear, pull @ offset
    return linear, offset


def ada_augment(keys, x, p=0.0, *, transforms=("blit", "geometric", "colour")):
    """x through the pipeline of 2006.06676 (figure 16), every transform with probability p.

    Args:
      keys: one key or keys [B].
      x: [B, H, W, C] in [-1, 1]; any number of channels (hue turns need three).
      p: probability in [0, 1], may be traced; at 0 each image comes back as it was, to the bit.
      transforms: names of groups ("blit", "geometric", "colour") and of single transforms (`NAMES`).

    Returns:
      [B, H, W, C], differentiable in x.

    Raises:
      ValueError: an unknown transform, p outside [0, 1], or quarter turns of images that are not square.
    """
    check_probability("p", p)
    names = _chosen(transforms)
    batch, h, w, channels = x.shape
    drawn = jax.vmap(draws)(per_sample(keys, batch))
    y = blit(x, drawn, p, names) if names & {*TRANSFORMS["blit"]} else x
    if names & {*TRANSFORMS["geometric"]}:
        inverse = jax.vmap(lambda draw: geometry(draw, p, (h, w), names))(drawn)
        moved = jnp.any(inverse != jnp.eye(3)[None], axis=(1, 2))
        y = jnp.where(bcast(moved, y), affine_warp(y, inverse), y)
    if names & {*TRANSFORMS["colour"]}:
        linear, offset = jax.vmap(lambda draw: colour(draw, p, channels, names))(drawn)
        changed = jnp.any(linear != jnp.eye(channels)[None], axis=(1, 2)) | jnp.any(offset != 0, axis=1)
        painted = jnp.einsum("bhwc,bdc->bhwd", y, linear.astype(y.dtype)) + offset.astype(y.dtype)[:, None, None]
        y = jnp.where(bcast(changed, x), painted, y)
    return y


def ada(
    target=0.6,
    kimg=500.0,
    interval=4,
    p=0.0,
    *,
    p_max=1.0,
    transforms=("blit", "geometric", "colour"),
    axis_name=None,
):
    """The adaptive Augment: `ada_augment` with p under a `controller`, whose arguments it takes."""
    _chosen(transforms)
    init, update = controller(target, kimg, interval, p, p_max=p_max, axis_name=axis_name)

    def apply(keys, x, state):
        return ada_augment(keys, x, state.p, transforms=transforms)

    return Augment(apply, init, update, only_reals)
