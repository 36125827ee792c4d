"""A set whose manifold is known: anti-aliased triangles, and the distance of any image from it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax.data.spec import choose, in_memory
from genjax.inverse.generator import invert_generator, nearest_starts
from genjax.worlds.triangles import random_triangles, render, shrunk

BANK = 4000  # triangles among which a descent's starts are sought


def triangles(split="train", num=4000, size=16, radius=(0.3, 0.9), seed=0):
    """`num` images [size, size, 1] in [-1, 1], with their "vertices" [3, 2].

    Args:
      split: "train", "test" or "all", each drawn anew.
      num: number of images.
      size: pixels along each side.
      radius: least and largest radius of the triangles, in half widths of the image.
      seed: of the draw.
    """
    choose("split", split, ("train", "test", "all"))
    if num < 1:
        raise ValueError(f"num: expected at least 1, got {num}")
    rng = np.random.default_rng([seed, {"train": 0, "test": 1, "all": 2}[split]])
    vertices = random_triangles(rng, num, tuple(radius))
    x = np.clip(np.asarray(render(jnp.asarray(vertices), size)), -1, 1)
    return in_memory("triangles", {"x": x, "vertices": vertices})


def distance_to_triangles(x, largest=None, *, steps=150, restarts=4, seed=0):
    """Euclidean distance of images x [N, H, H, 1] from the manifold of triangles, in units of values in [0, 1], [N].

    Found by descent on the vertices from the nearest of a bank of random triangles, so from above.

    Args:
      largest: only triangles whose vertices lie within this distance of their mean; None for all.
      steps, restarts: of the descent.
      seed: of the bank.
    """
    size = x.shape[1]
    radius = (0.2, 0.95) if largest is None else (0.5 * largest, largest)
    points = jnp.asarray(random_triangles(np.random.default_rng(seed), BANK, radius))
    project = None if largest is None else (lambda v: shrunk(v, largest))

    @jax.jit
    def run(x):
        starts = nearest_starts(x, render(points, size), points, restarts)
        apart = lambda made, goal: jnp.sum((made - goal) ** 2, axis=(1, 2, 3)) / 4  # values in [0, 1] are half as far
        make = lambda v: render(v, size)
        options = {"optimizer": optax.adam(0.01), "steps": steps, "starts": starts, "project": project}
        return jnp.sqrt(invert_generator(None, make, x, None, apart, **options)[1])

    return np.asarray(run(jnp.asarray(x)))
