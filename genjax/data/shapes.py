"""Rendered shapes as a Dataset: photographs, their factors, and paired or unpaired other views."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from genjax.data.spec import choose, in_memory
from genjax.worlds import shapes as world
from genjax.worlds import shapes_views as views

LABELS = {
    # name: (classes, factors -> label of the first object)
    "shape": (world.SHAPES, lambda f: f.shape[:, 0]),
    "color": (world.COLORS, lambda f: f.color[:, 0]),
    "shape_color": (
        tuple(f"{c} {s}" for s in world.SHAPES for c in world.COLORS),
        lambda f: f.shape[:, 0] * len(world.COLORS) + f.color[:, 0],
    ),
}
FIELDS = ("factors", "mask", "segmentation", "box", "depth", "tokens")
_CHUNK = 1024


@partial(jax.jit, static_argnames=("objects", "ranges"))
def _draw(key, indices, objects, ranges):
    return world.draw_factors(key, indices, ranges) if objects == 1 else world.draw_scene(key, indices, objects, ranges)


_view = jax.jit(lambda factors, name, pixels: views.DOMAINS[name](factors, pixels), static_argnums=(1, 2))
_geometry = jax.jit(
    lambda f, pixels: {
        "mask": world.visible(f, pixels),
        "segmentation": world.segmentation(f, pixels),
        "box": world.boxes(f),
        "depth": world.depth_map(f, pixels)[..., None],
    },
    static_argnums=1,
)


def shapes(
    split="train",
    n=None,
    size=16,
    seed=0,
    *,
    objects=1,
    label="shape",
    fields=(),
    domain="photo",
    pair=None,
    paired=True,
    **ranges,
):
    """Rendered shapes; the scene of an index depends on the seed, the split and the index alone.

    Args:
      split: "train" or "test", disjoint scenes.
      n: number of scenes; 10,000 for train and 2,000 for test where None.
      size: width of the images.
      seed: of the scenes.
      objects: 1, or a number up to 4 (or (low, high)) of objects that do not overlap; 32 pixels suit those.
      label: "shape", "color" or "shape_color", of the first object.
      fields: any of "factors" (each factor as "factor_shape", "factor_center", ...), "mask" [H, W, K],
        "segmentation" [H, W], "box" [K, 4], "depth" [H, W, 1], "tokens" (captions).
      domain: view that "x" shows, a name in `genjax.worlds.shapes_views.DOMAINS`.
      pair: another view, given as field "y".
      paired: whether "y" shows the scenes of "x", or others.
      **ranges: options of `genjax.worlds.shapes.Ranges` (shapes, colors, textures, size_range for its
        `size`, center, rotate, background, contrast).

    Raises:
      ValueError: an unknown name or option.
    """
    choose("split", split, ("train", "test"))
    choose("label", label, LABELS)
    for view in (domain,) if pair is None else (domain, pair):
        choose("domain", view, views.DOMAINS)
    fields = (fields,) if isinstance(fields, str) else tuple(fields)
    for name in fields:
        choose("fields", name, FIELDS)
    n = {"train": 10_000, "test": 2_000}[split] if n is None else n
    if n < 1 or size < 8:
        raise ValueError(f"shapes: expected n >= 1 and size >= 8, got n {n} and size {size}")
    if "size_range" in ranges:
        ranges["size"] = ranges.pop("size_range")
    ranges = world.make_ranges(**ranges)
    objects = tuple(objects) if isinstance(objects, list) else objects

    def key_of(role):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), split == "test"), role)

    def chunk(start):
        # the last chunk too has full size, so that one compiled program serves all
        index = jnp.arange(_CHUNK if n > _CHUNK else n) + start
        factors = _draw(key_of(0), index, objects, ranges)
        out = {"x": _view(factors, domain, size), "label": LABELS[label][1](factors)}
        if pair is not None:
            out["y"] = _view(factors if paired else _draw(key_of(1), index, objects, ranges), pair, size)
        if "factors" in fields:
            out |= {f"factor_{name}": leaf for name, leaf in factors._asdict().items()}
        if set(fields) & {"mask", "segmentation", "box", "depth"}:
            geometry = _geometry(factors, size)
            geometry["mask"] = jnp.moveaxis(geometry["mask"], 1, -1)
            out |= {name: geometry[name] for name in fields if name in geometry}
        if "tokens" in fields:
            out["tokens"] = views.captions(factors)
        return {name: np.asarray(leaf) for name, leaf in out.items()}

    parts = [chunk(start) for start in range(0, n, _CHUNK)]
    arrays = {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}
    names = LABELS[label][0]
    return in_memory("shapes", arrays, len(names), class_names=names)
