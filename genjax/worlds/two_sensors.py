"""Scenes seen by two sensors: a visible camera under uneven light, and an infrared one; and the scene well lit.

Three discs on a striped texture. The visible camera sees the first two, and half of the scene lies in the dark; the
infrared one sees the last two, which are warm, before a smooth background. Images are grey, in [-1, 1].
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genjax.worlds.shapes import pixel_grid

OBJECTS = ("cool", "warm", "hidden")  # seen by: the visible camera, both, the infrared one


class Scene(NamedTuple):
    """N scenes; images [N, H, W, 1] in [-1, 1], masks [N, H, W, 3] the share of a pixel that an object covers."""

    clean: Any
    visible: Any
    infrared: Any
    masks: Any


def scenes(key, indices, pixels):
    """`Scene`s; scene i depends on `key` and `indices[i]` alone.

    Args:
      pixels: width, static.
    """

    def one(index):
        keys = jax.random.split(jax.random.fold_in(key, index), 8)
        at = pixel_grid(pixels)
        quarter = jax.random.permutation(keys[0], 4)[:3]
        corner = jnp.stack([quarter % 2, quarter // 2], axis=-1) * 0.5
        size = jax.random.uniform(keys[1], (3,), minval=0.12, maxval=0.18)
        center = corner + 0.25 + jax.random.uniform(keys[2], (3, 2), minval=-0.05, maxval=0.05)
        distance = jnp.linalg.norm(at[:, :, None] - center[None, None], axis=-1) - size[None, None]
        masks = jnp.clip(0.5 - distance * pixels, 0, 1)

        angle, phase = jax.random.uniform(keys[3], (2,), maxval=2 * jnp.pi)
        period = jax.random.uniform(keys[4], minval=0.25, maxval=0.5)
        way = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        stripes = 0.35 + 0.15 * jnp.sin(2 * jnp.pi * (at @ way) / period + phase)
        turn = jax.random.uniform(keys[5], maxval=2 * jnp.pi)
        across = (at - 0.5) @ jnp.stack([jnp.cos(turn), jnp.sin(turn)])
        light = 0.35 + 0.65 * jax.nn.sigmoid(12 * across)
        tilt = jax.random.uniform(keys[6], (2,), minval=-0.1, maxval=0.1)
        haze = 0.25 + (at - 0.5) @ tilt

        def painted(ground, shown):
            cover = jnp.sum(masks * jnp.asarray(shown)[None, None], axis=-1)
            return ground + cover * (0.9 - ground)

        images = [painted(stripes, (1.0, 1.0, 1.0)), light * painted(stripes, (1.0, 1.0, 0.0))]
        images.append(painted(haze, (0.0, 1.0, 1.0)))
        return Scene(*(2 * image[..., None] - 1 for image in images), masks)

    return jax.vmap(one)(jnp.asarray(indices))
