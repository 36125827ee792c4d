"""Exact readers of rendered shapes: from an image back to its factors, for judging samples.

Backgrounds are grey and objects coloured, so at a pixel that a colour c covers by a share m,
chroma(pixel) = m chroma(c), whatever the background. This gives each colour's coverage map
exactly. To it every shape is fitted by Gauss-Newton in (x, y, size, angle); the shape that fits best
is the one read. On clean images of separate objects of different colours the factors come back to
float precision; on generated ones `residual` says how far the object is from any true one.

The reader is a formula, not a trained network: no method can have been trained against it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.worlds.shapes import COLORS, PALETTE, PERIODS, SHAPES, distance_field, pixel_grid

CHROMA = PALETTE - PALETTE.mean(axis=1, keepdims=True)


class Reading(NamedTuple):
    """What is seen in N images, K objects each, the largest first."""

    present: Any  # [N, K] bool
    shape: Any  # [N, K] int32, index in SHAPES
    color: Any  # [N, K] int32, index in COLORS
    center: Any  # [N, K, 2]
    size: Any  # [N, K]
    angle: Any  # [N, K] in [0, PERIODS[shape])
    residual: Any  # [N, K] root mean square misfit of the coverage over the object's own area; 0 is perfect
    background: Any  # [N] median grey level of what no object covers


def color_coverage(images):
    """Share of each pixel that each colour covers, [N, 6, H, W], for images [N, H, W, 3] in [-1, 1]."""
    rgb = (images + 1) / 2
    chroma = rgb - rgb.mean(axis=-1, keepdims=True)
    share = jnp.einsum("nhwc,kc->nkhw", chroma, jnp.asarray(CHROMA)) / float(np.sum(CHROMA[0] ** 2))
    first = share.argmax(axis=1)[:, None] == jnp.arange(len(COLORS))[None, :, None, None]
    return jnp.where(first, jnp.clip(share, 0, 1), 0)


def _fit(shape, cover, center, size, angles, iterations):
    """(parameters [4], mean squared misfit) of the best fit of one shape to a coverage map [H, W]."""
    pixels = cover.shape[0]

    def misfit(p):
        return (jnp.clip(0.5 - distance_field(shape, p[:2], p[2], p[3], pixels), 0, 1) - cover).ravel()

    def with_angle(angle):
        return jnp.concatenate([center, jnp.stack([size, angle])])

    starts = jax.vmap(with_angle)(jnp.asarray(angles, cover.dtype))
    loss = lambda p: jnp.sum(misfit(p) ** 2)
    start = starts[jnp.argmin(jax.vmap(loss)(starts))]

    def step(carry, _):
        # Levenberg-Marquardt; parameters in units of their natural size, a step kept only where it helps
        p, best, damping = carry
        r, jac = misfit(p), jax.jacfwd(misfit)(p)
        scale = jnp.stack([p[2], p[2], p[2], jnp.ones_like(p[2])])
        jac = jac * scale[None]
        normal = jac.T @ jac
        move = jnp.linalg.solve(normal + damping * jnp.eye(4, dtype=p.dtype), jac.T @ r)
        trial = p - scale * jnp.clip(move, -0.3, 0.3)
        trial = trial.at[2].set(jnp.clip(trial[2], 0.5 / pixels, 0.5))
        value = loss(trial)
        better = value < best
        new = (jnp.where(better, trial, p), jnp.where(better, value, best), damping * jnp.where(better, 0.2, 5.0))
        return new, None

    init = (start, loss(start), jnp.asarray(1e-2, cover.dtype))
    (params, best, _), _ = jax.lax.scan(step, init, None, length=iterations)
    return params, best


def _read_map(cover, iterations):
    """Best shape and its parameters for one coverage map [H, W]."""
    area = jnp.maximum(cover.mean(), 1e-6)
    center = jnp.einsum("hw,hwc->c", cover, pixel_grid(cover.shape[0]).astype(cover.dtype)) / (cover.sum() + 1e-6)
    size = jnp.clip(jnp.sqrt(area / np.pi), 0.02, 0.5)
    params, losses = [], []
    for shape in range(len(SHAPES)):
        count = 8 if PERIODS[shape] else 1
        angles = PERIODS[shape] * np.arange(count) / count
        p, loss = _fit(shape, cover, center, size, angles, iterations)
        params.append(p)
        losses.append(loss)
    losses = jnp.stack(losses)
    shape = jnp.argmin(losses).astype(jnp.int32)
    best = jnp.stack(params)[shape]
    period = jnp.asarray(PERIODS)[shape]
    angle = jnp.where(period > 0, jnp.mod(best[3], jnp.where(period > 0, period, 1)), 0)
    return shape, best[:2], best[2], angle, jnp.sqrt(losses[shape] / (area * cover.size))


@partial(jax.jit, static_argnames=("objects", "iterations"))
def read(images, objects=1, min_area=0.01, iterations=12):
    """Reads the factors of images of shapes.

    Args:
      images: [N, H, W, 3] in [-1, 1], H = W.
      objects: K, how many colours to read, those of the largest area first. Two objects of one
        colour are read as one, and hidden parts count as missing: read scenes without overlap.
      min_area: an object is present where its colour covers more than this share of the image.
      iterations: Gauss-Newton steps of the fit.

    Returns:
      Reading.

    Raises:
      ValueError: images of the wrong shape.
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise ValueError(f"images: expected [N, H, H, 3], got {images.shape}")
    if not 1 <= objects <= len(COLORS):
        raise ValueError(f"objects: expected 1 to {len(COLORS)}, got {objects}")
    images = jnp.asarray(images, jnp.result_type(float))
    cover = color_coverage(images)
    area = cover.mean(axis=(2, 3))
    color = jnp.argsort(-area, axis=1)[:, :objects].astype(jnp.int32)
    chosen = jnp.take_along_axis(cover, color[..., None, None], axis=1)
    flat = chosen.reshape(-1, *chosen.shape[2:])
    fitted = jax.lax.map(lambda c: _read_map(c, iterations), flat, batch_size=64)
    shape, center, size, angle, residual = (leaf.reshape(*color.shape, *leaf.shape[1:]) for leaf in fitted)
    open_ground = cover.sum(axis=1) < 0.02
    level = jnp.where(open_ground, (images.mean(axis=-1) + 1) / 2, jnp.nan).reshape(len(images), -1)
    return Reading(
        present=jnp.take_along_axis(area, color, axis=1) > min_area,
        shape=shape,
        color=color,
        center=center,
        size=size,
        angle=angle,
        residual=residual,
        background=jnp.nanmedian(level, axis=1),
    )


def angle_error(angle, true_angle, shape):
    """Smallest turn between two angles of a shape, [..] radians; 0 for disks."""
    period = jnp.asarray(PERIODS)[shape]
    gap = jnp.mod(angle - true_angle, jnp.where(period > 0, period, 1))
    return jnp.where(period > 0, jnp.minimum(gap, period - gap), 0)
