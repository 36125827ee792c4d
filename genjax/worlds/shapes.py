"""Rendered shapes: small images whose every factor is known.

A scene is up to K coloured objects over a grey, perhaps textured, background. Objects are signed
distance fields; the share of a pixel that an object covers is taken as clip(1/2 - distance, 0, 1)
with the distance in pixels, so edges are anti-aliased and the image changes smoothly with the factors.

Objects are coloured and backgrounds grey, always. The coverage of an object is then a linear
function of a pixel's chroma whatever lies behind it, which makes exact readers possible
(`genjax.worlds.shapes_reader`).

Coordinates: x to the right and y down, in [0, 1] of the image's width; sizes in the same unit.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SHAPES = ("disk", "square", "triangle", "cross")
COLORS = ("red", "yellow", "green", "cyan", "blue", "magenta")
TEXTURES = ("plain", "stripes", "checker")
PERIODS = np.array([0, np.pi / 2, 2 * np.pi / 3, np.pi / 2], np.float32)  # of the angle; a disk has none

_STRONG, _WEAK = 0.9, 0.15
PALETTE = np.array(  # RGB in [0, 1], hues 60 degrees apart
    [[_STRONG if on == "1" else _WEAK for on in bits] for bits in ("100", "110", "010", "011", "001", "101")],
    np.float32,
)
CELLS = 6  # texture cells across the image


class Factors(NamedTuple):
    """N scenes of K objects, objects ordered by depth or not."""

    present: Any  # [N, K] bool
    shape: Any  # [N, K] int32, index in SHAPES
    color: Any  # [N, K] int32, index in COLORS
    center: Any  # [N, K, 2] (x, y)
    size: Any  # [N, K] radius of the disk of equal area: all shapes of one size have one area
    angle: Any  # [N, K] radians, in [0, PERIODS[shape])
    depth: Any  # [N, K] in (0, 1); the smaller is nearer and hides what is behind
    background: Any  # [N] grey level in [0, 1]
    texture: Any  # [N] int32, index in TEXTURES
    contrast: Any  # [N] of the texture: grey levels are background +- contrast / 2
    phase: Any  # [N, 2] of the texture, in [0, 1)


class Ranges(NamedTuple):
    """Where factors are drawn from; all independent and uniform.

    The defaults keep every object inside the image at every angle.
    """

    shapes: tuple = SHAPES
    colors: tuple = COLORS
    textures: tuple = ("plain",)
    size: tuple = (0.14, 0.2)
    center: tuple = (0.35, 0.65)
    rotate: bool = True
    background: tuple = (0.0, 0.4)
    contrast: float = 0.2


DEFAULT = Ranges()


def make_ranges(**options):
    """`Ranges` from keyword options.

    Raises:
      ValueError: an unknown option, shape, colour or texture, or an interval that is empty or
        reaches outside [0, 1].
    """
    unknown = sorted(set(options) - set(Ranges._fields))
    if unknown:
        raise ValueError(f"shapes: unknown option {unknown[0]!r}, expected one of {sorted(Ranges._fields)}")
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    ranges = Ranges(**options)
    for field, names in (("shapes", SHAPES), ("colors", COLORS), ("textures", TEXTURES)):
        values = getattr(ranges, field)
        if isinstance(values, str) or not values or any(v not in names for v in values):
            raise ValueError(f"{field}: expected some of {names}, got {values!r}")
    for field in ("size", "center", "background"):
        low, high = getattr(ranges, field)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"{field}: expected 0 <= low <= high <= 1, got {(low, high)}")
    if not 0 <= ranges.contrast <= 1:
        raise ValueError(f"contrast: expected a number in [0, 1], got {ranges.contrast}")
    return ranges


def _choice(key, names, all_names):
    return jax.random.choice(key, jnp.array([all_names.index(n) for n in names], jnp.int32))


def _draw_object(key, ranges):
    keys = jax.random.split(key, 6)
    shape = _choice(keys[0], ranges.shapes, SHAPES)
    turn = jax.random.uniform(keys[4]) if ranges.rotate else 0.0
    return {
        "present": jnp.array(True),
        "shape": shape,
        "color": _choice(keys[1], ranges.colors, COLORS),
        "center": jax.random.uniform(keys[2], (2,), minval=ranges.center[0], maxval=ranges.center[1]),
        "size": jax.random.uniform(keys[3], minval=ranges.size[0], maxval=ranges.size[1]),
        "angle": turn * jnp.asarray(PERIODS)[shape],
        "depth": jax.random.uniform(keys[5], minval=0.1, maxval=0.9),
    }


def _draw_background(key, ranges):
    keys = jax.random.split(key, 3)
    texture = _choice(keys[1], ranges.textures, TEXTURES)
    return {
        "background": jax.random.uniform(keys[0], minval=ranges.background[0], maxval=ranges.background[1]),
        "texture": texture,
        "contrast": jnp.where(texture > 0, ranges.contrast, 0.0),
        "phase": jax.random.uniform(keys[2], (2,)),
    }


def draw_factors(key, indices, ranges=DEFAULT):
    """Factors of one object each; scene i depends on `key` and `indices[i]` alone.

    Args:
      key: one typed key.
      indices: [N] ints.
      ranges: a `Ranges`.

    Returns:
      Factors with K = 1.
    """

    def one(index):
        inner, outer = jax.random.split(jax.random.fold_in(key, index))
        objects = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], _draw_object(inner, ranges))
        return Factors(**objects, **_draw_background(outer, ranges))

    return jax.vmap(one)(jnp.asarray(indices))


def draw_scene(key, indices, objects=2, ranges=DEFAULT):
    """Factors of scenes with 1 to 4 objects of different colours that do not overlap.

    Each object keeps to a quarter of the image of its own: its size is drawn in (0.09, 0.13) and its
    centre where it stays inside, whatever `ranges.size` and `ranges.center` say.

    Args:
      key: one typed key.
      indices: [N] ints; scene i depends on `key` and `indices[i]` alone.
      objects: K, a number, or (low, high): K = high objects of which a uniform number is present.
      ranges: a `Ranges` with at least K colours.
    """
    low, high = (objects, objects) if isinstance(objects, int) else objects
    if not 1 <= low <= high <= 4:
        raise ValueError(f"objects: expected 1 to 4, got {objects}")
    if len(ranges.colors) < high:
        raise ValueError(f"colors: expected at least {high} for scenes of {high} objects, got {ranges.colors}")

    def one(index):
        keys = jax.random.split(jax.random.fold_in(key, index), 6)
        drawn = jax.vmap(lambda k: _draw_object(k, ranges))(jax.random.split(keys[0], high))
        size = jax.random.uniform(keys[1], (high,), minval=0.09, maxval=0.13)
        quarter = jax.random.permutation(keys[2], 4)[:high]
        corner = jnp.stack([quarter % 2, quarter // 2], axis=-1) * 0.5
        reach = (1.56 * size + 0.01)[:, None]  # a triangle's corner, and some air
        center = corner + reach + jax.random.uniform(keys[3], (high, 2)) * (0.5 - 2 * reach)
        choices = jnp.array([COLORS.index(c) for c in ranges.colors], jnp.int32)
        drawn |= {
            "present": jnp.arange(high) < jax.random.randint(keys[4], (), low, high + 1),
            "size": size,
            "center": center,
            "color": jax.random.permutation(keys[5], choices)[:high],
        }
        return Factors(**drawn, **_draw_background(jax.random.fold_in(keys[0], 1), ranges))

    return jax.vmap(one)(jnp.asarray(indices))


def _polygon_corners(shape):
    """Corners (x, y) of a shape of size 1, angle 0."""
    if shape == 1:
        h = np.sqrt(np.pi) / 2
        return np.array([[-h, -h], [h, -h], [h, h], [-h, h]])
    if shape == 2:
        r = np.sqrt(np.pi / (3 * np.sqrt(3) / 4))  # circumradius of the triangle of area pi
        a = np.pi * np.array([-0.5, 1 / 6, 5 / 6])
        return r * np.stack([np.cos(a), np.sin(a)], axis=-1)
    w = np.sqrt(np.pi / 20)  # half an arm's width; arms are three times as long
    x = np.array([-1, 1, 1, 3, 3, 1, 1, -1, -1, -3, -3, -1])
    y = np.array([-3, -3, -1, -1, 1, 1, 3, 3, 1, 1, -1, -1])
    return w * np.stack([x, y], axis=-1)


# [4, 12, 2] corners of shapes of size 1, padded by repetition; a disk has none
CORNERS = np.stack([np.zeros((12, 2))] + [np.resize(_polygon_corners(s), (12, 2)) for s in (1, 2, 3)])


def _root(square):
    """Square root with gradient 0 at 0."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _disk(p):
    return _root(jnp.sum(p * p, axis=-1)) - 1


def _box(p, half_x, half_y):
    x, y = jnp.abs(p[..., 0]) - half_x, jnp.abs(p[..., 1]) - half_y
    outside = _root(jnp.maximum(x, 0) ** 2 + jnp.maximum(y, 0) ** 2)
    return outside + jnp.minimum(jnp.maximum(x, y), 0)


def _square(p):
    half = float(np.sqrt(np.pi) / 2)
    return _box(p, half, half)


def _triangle(p):
    corners = _polygon_corners(2)
    nearest, inside = jnp.inf, True
    for a, b in zip(corners, np.roll(corners, -1, axis=0)):
        (ex, ey), x, y = b - a, p[..., 0] - float(a[0]), p[..., 1] - float(a[1])
        ex, ey = float(ex), float(ey)
        along = jnp.clip((x * ex + y * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = jnp.minimum(nearest, (x - along * ex) ** 2 + (y - along * ey) ** 2)
        inside &= ex * y - ey * x > 0
    return jnp.where(inside, -_root(nearest), _root(nearest))


def _cross(p):
    arm = float(np.sqrt(np.pi / 20))
    return jnp.minimum(_box(p, 3 * arm, arm), _box(p, arm, 3 * arm))


DISTANCES = (_disk, _square, _triangle, _cross)  # of points [..., 2] to the shapes of size 1 (area pi)


def pixel_grid(pixels):
    """Centres (x, y) of the pixels of a square image, [H, W, 2]."""
    at = (jnp.arange(pixels) + 0.5) / pixels
    return jnp.stack(jnp.meshgrid(at, at, indexing="xy"), axis=-1)


def distance_field(shape, center, size, angle, pixels):
    """Signed distance in pixels to shape number `shape` (static), negative inside: [..., H, W].

    Args:
      shape: index in SHAPES, a Python int.
      center: [..., 2]; size, angle: [...].
      pixels: width of the image.
    """
    d = pixel_grid(pixels).reshape((1,) * jnp.ndim(size) + (pixels, pixels, 2)) - center[..., None, None, :]
    c, s, size = (u[..., None, None] for u in (jnp.cos(angle), jnp.sin(angle), size))
    turned = jnp.stack([c * d[..., 0] + s * d[..., 1], c * d[..., 1] - s * d[..., 0]], axis=-1)
    return DISTANCES[shape](turned / size[..., None]) * size * pixels


def fields(factors, pixels):
    """Signed distance in pixels to each object, [N, K, H, W]."""
    every = [distance_field(i, factors.center, factors.size, factors.angle, pixels) for i in range(len(SHAPES))]
    pick = [(factors.shape == i)[..., None, None] for i in range(len(SHAPES))]
    return jnp.select(pick, every)


def coverage(factors, pixels):
    """Share of each pixel that each object covers, hidden parts included, [N, K, H, W] in [0, 1]."""
    return jnp.clip(0.5 - fields(factors, pixels), 0, 1) * factors.present[..., None, None]


def visible(factors, pixels):
    """Share of each pixel in which each object is seen, [N, K, H, W]; with the background's they sum to 1."""
    cover = coverage(factors, pixels)
    nearer = factors.depth[:, None, :] < factors.depth[:, :, None]  # [N, k, j]: j is in front of k
    in_front = jnp.where(nearer[..., None, None], 1 - cover[:, None], 1)
    return cover * jnp.prod(in_front, axis=2)


def background_image(factors, pixels):
    """Grey levels of the background in [0, 1], [N, H, W]."""
    cell = pixel_grid(pixels)[None] * CELLS / 2 + factors.phase[:, None, None, :]
    on = jnp.floor(cell * 2).astype(jnp.int32)
    stripes, checker = on[..., 0] % 2, (on[..., 0] + on[..., 1]) % 2
    sign = jnp.stack([jnp.full_like(stripes, 0.5, jnp.float32), stripes, checker], axis=1)
    pick = jnp.take_along_axis(sign, factors.texture[:, None, None, None], axis=1)[:, 0] - 0.5
    return jnp.clip(factors.background[:, None, None] + factors.contrast[:, None, None] * pick, 0, 1)


def render(factors, pixels):
    """The photograph of the scenes: [N, pixels, pixels, 3] in [-1, 1]."""
    seen = visible(factors, pixels)
    color = jnp.asarray(PALETTE)[factors.color]  # [N, K, 3]
    ground = background_image(factors, pixels) * (1 - seen.sum(axis=1))
    return 2 * (jnp.einsum("nkhw,nkc->nhwc", seen, color) + ground[..., None]) - 1


def boxes(factors):
    """Bounding boxes (x0, y0, x1, y1) of the whole objects, [N, K, 4]; zeros where absent."""
    corners = jnp.asarray(CORNERS, factors.size.dtype)[factors.shape]  # [N, K, 12, 2]
    c, s = jnp.cos(factors.angle)[..., None], jnp.sin(factors.angle)[..., None]
    x, y = corners[..., 0], corners[..., 1]
    turned = jnp.stack([c * x - s * y, s * x + c * y], axis=-1)
    disk = (factors.shape == 0)[..., None]
    low = jnp.where(disk, -1.0, turned.min(axis=2)) * factors.size[..., None] + factors.center
    high = jnp.where(disk, 1.0, turned.max(axis=2)) * factors.size[..., None] + factors.center
    return jnp.concatenate([low, high], axis=-1) * factors.present[..., None]


def _owner(factors, pixels):
    """One-hot of what fills most of each pixel, background first, [N, 1 + K, H, W]."""
    seen = visible(factors, pixels)
    parts = jnp.concatenate([1 - seen.sum(axis=1, keepdims=True), seen], axis=1)
    return jax.nn.one_hot(parts.argmax(axis=1), parts.shape[1], axis=1)


def segmentation(factors, pixels):
    """Class of what fills most of each pixel: 0 background, 1 + index in SHAPES; int32 [N, H, W]."""
    classes = jnp.concatenate([jnp.zeros_like(factors.shape[:, :1]), factors.shape + 1], axis=1)
    return jnp.einsum("nkhw,nk->nhw", _owner(factors, pixels).astype(jnp.int32), classes)


def depth_map(factors, pixels):
    """Depth of what fills most of each pixel, [N, H, W] in (0, 1]; the background lies at 1."""
    depths = jnp.concatenate([jnp.ones_like(factors.depth[:, :1]), factors.depth], axis=1)
    return jnp.einsum("nkhw,nk->nhw", _owner(factors, pixels), depths)
