"""Anti-aliased triangles: images with a manifold that is known, six numbers each (after 1711.10337, section 5.3)."""

import jax.numpy as jnp
import numpy as np

from genjax.core.numerics import safe_norm


def render(vertices, size=16):
    """Light triangles on dark ground, [B, size, size, 1] in [-1, 1]; differentiable almost everywhere.

    A pixel's cover is the product over the three edges of how far its centre lies inside, from 0 half a pixel outside
    to 1 half a pixel inside.

    Args:
      vertices: [B, 3, 2] as (row, column), counter-clockwise or not; the image is the square [-1, 1]^2.
      size: pixels along each side.
    """
    at = (jnp.arange(size) + 0.5) * 2 / size - 1
    grid = jnp.stack(jnp.meshgrid(at, at, indexing="ij"), axis=-1).reshape(1, -1, 2)
    cover, turn = 1.0, 0.0
    edges = [(vertices[:, i], vertices[:, (i + 1) % 3]) for i in range(3)]
    cross = lambda a, b: a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    turn = jnp.sign(cross(edges[0][1] - edges[0][0], edges[1][1] - edges[1][0]))
    for start, end in edges:
        along = end - start
        inside = turn[:, None] * cross(along[:, None], grid - start[:, None])
        length = jnp.maximum(safe_norm(along, axis=-1), 1e-6)
        cover = cover * jnp.clip(inside / length[:, None] * size / 2 + 0.5, 0.0, 1.0)
    return 2 * cover.reshape(-1, size, size, 1) - 1


def random_triangles(rng, n, radius=(0.3, 0.9)):
    """Vertices [n, 3, 2] within the image: one in each third of a circle, at least 40 degrees apart, any rotation.

    Args:
      rng: a NumPy Generator.
      radius: least and largest radius of the circle, in (0, 1); its centre is uniform where it fits.
    """
    low, high = radius
    if not 0 < low <= high < 1:
        raise ValueError(f"radius: expected 0 < low <= high < 1, got {radius}")
    r = rng.uniform(low, high, (n, 1))
    angle = rng.uniform(0, 2 * np.pi, (n, 1)) + np.arange(3) * 2 * np.pi / 3
    angle = angle + rng.uniform(-1, 1, (n, 3)) * np.deg2rad(40)
    center = rng.uniform(-1, 1, (n, 1, 2)) * (1 - r)[:, :, None]
    corner = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return (center + r[:, :, None] * corner).astype(np.float32)


def shrunk(vertices, radius):
    """Triangles [B, 3, 2] no vertex of which is further than `radius` from their mean: those larger are scaled."""
    center = jnp.mean(vertices, axis=1, keepdims=True)
    far = jnp.max(safe_norm(vertices - center, axis=-1), axis=1)
    return center + (vertices - center) * jnp.minimum(1.0, radius / jnp.maximum(far, 1e-6))[:, None, None]
