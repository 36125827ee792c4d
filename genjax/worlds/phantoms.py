"""Phantoms of tomography: grey ellipses inside an ellipse, as single slices and as volumes that change along z.

An ellipse covers a pixel by clip(1/2 - d, 0, 1), d about its signed distance in pixels. Values are in [-1, 1],
outside is -1. Coordinates are in [-1, 1] over the image.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

INNER = 5  # ellipses inside the outer one, at most


class Ellipses(NamedTuple):
    """N phantoms of K ellipses, painted in order; the first is the outer one."""

    opacity: Any  # [N, K] in [0, 1]
    center: Any  # [N, K, 2] (x, y)
    axes: Any  # [N, K, 2] half axes
    angle: Any  # [N, K] radians
    value: Any  # [N, K] in [-1, 1]


def draw(key, indices, inner=(2, INNER)):
    """`Ellipses`; phantom i depends on `key` and `indices[i]` alone.

    Args:
      key: one typed key.
      indices: [N] ints.
      inner: least and most ellipses inside the outer one, at most `INNER`.
    """
    low, high = inner
    if not 0 <= low <= high <= INNER:
        raise ValueError(f"inner: expected 0 <= low <= high <= {INNER}, got {inner}")

    def one(index):
        keys = jax.random.split(jax.random.fold_in(key, index), 8)
        outer = {
            "opacity": jnp.ones(1),
            "center": jax.random.uniform(keys[0], (1, 2), minval=-0.08, maxval=0.08),
            "axes": jax.random.uniform(keys[1], (1, 2), minval=0.7, maxval=0.88),
            "angle": jnp.zeros(1),
            "value": jax.random.uniform(keys[2], (1,), minval=-0.5, maxval=-0.2),
        }
        radius = 0.5 * jnp.sqrt(jax.random.uniform(keys[3], (INNER, 1)))
        way = jax.random.normal(keys[4], (INNER, 2))
        shape = jax.random.uniform(keys[5], (2, INNER, 2))
        inside = {
            "opacity": (jnp.arange(INNER) < jax.random.randint(keys[6], (), low, high + 1)).astype(jnp.float32),
            "center": radius * way / jnp.linalg.norm(way, axis=1, keepdims=True),
            "axes": 0.1 + 0.25 * shape[0],
            "angle": jnp.pi * shape[1, :, 0],
            "value": 2 * jax.random.uniform(keys[7], (INNER,)) - 1,
        }
        return Ellipses(**{name: jnp.concatenate([outer[name], inside[name]]) for name in outer})

    return jax.vmap(one)(jnp.asarray(indices))


def render(ellipses, pixels):
    """Images [N, H, W, 1] in [-1, 1] of `Ellipses`; pixels is the width, static."""
    at = (2 * jnp.arange(pixels) + 1) / pixels - 1
    x, y = (a[None] for a in jnp.meshgrid(at, at, indexing="xy"))

    def paint(image, ellipse):
        opacity, center, axes, angle, value = (jnp.expand_dims(a, (-1, -2)) for a in _split(ellipse))
        dx, dy = x - center[0], y - center[1]
        c, s = jnp.cos(angle), jnp.sin(angle)
        p, q = c * dx + s * dy, c * dy - s * dx
        # |f| / |grad f| of f = |(p / a, q / b)| - 1: the distance to first order
        f = jnp.sqrt((p / axes[0]) ** 2 + (q / axes[1]) ** 2 + 1e-12)
        slope = jnp.sqrt((p / axes[0] ** 2) ** 2 + (q / axes[1] ** 2) ** 2 + 1e-12) / f
        cover = opacity * jnp.clip(0.5 - (f - 1) / slope * pixels / 2, 0, 1)
        return image + cover * (value - image), None

    start = jnp.full((ellipses.angle.shape[0], pixels, pixels), -1.0)
    return jax.lax.scan(paint, start, jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), ellipses))[0][..., None]


def _split(ellipse):
    """Fields of one ellipse of each phantom: [N], or [2, N] for centers and axes."""
    opacity, center, axes, angle, value = ellipse
    return opacity, center.T, axes.T, angle, value


def slices(key, indices, pixels, inner=(2, INNER)):
    """Independent slices [N, H, W, 1]."""
    return render(draw(key, indices, inner), pixels)


def volumes(key, indices, depth, pixels, inner=(2, INNER)):
    """Volumes [N, Z, H, W, 1] whose ellipses move from one random set to another along z, by a cosine ramp."""
    indices = jnp.asarray(indices)
    first, last = (draw(jax.random.fold_in(key, i), indices, inner) for i in (0, 1))
    weight = (1 - jnp.cos(jnp.pi * jnp.arange(depth) / max(depth - 1, 1))) / 2

    def at(w):
        return render(jax.tree.map(lambda a, b: (1 - w) * a + w * b, first, last), pixels)

    return jnp.swapaxes(jax.lax.map(at, weight), 0, 1)


def textured(key, indices, depth, pixels, amplitude=0.35):
    """`volumes` with stripes inside the body that drift along z: nothing that slices of plain ellipses have.

    Args:
      amplitude: of the stripes; values are cut to [-1, 1].
    """
    indices = jnp.asarray(indices)
    plain = volumes(key, indices, depth, pixels)

    def stripes(index):
        angle, period, phase = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, 2), index), (3,))
        at = (2 * jnp.arange(pixels) + 1) / pixels - 1
        across = jnp.cos(2 * jnp.pi * angle) * at[None] + jnp.sin(2 * jnp.pi * angle) * at[:, None]
        turns = across[None] / (0.4 + 0.3 * period) + phase + 0.5 * jnp.arange(depth)[:, None, None] / depth
        return jnp.sin(2 * jnp.pi * turns)[..., None]

    body = (plain > -0.99).astype(plain.dtype)
    return jnp.clip(plain + amplitude * body * jax.vmap(stripes)(indices), -1, 1)
