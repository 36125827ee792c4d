"""Trees of arrays as one array, and parameter trees cut by the names of their paths.

A `Packing` turns a tree of arrays (graph nodes and edges, image and label, the weights of a network)
into the one array that solvers carry, and back. `partition` and `merge` cut a parameter tree in two
by path, for optimizers, adapters and freezing.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Packing(NamedTuple):
    """How the leaves of one tree lie in a vector; static and hashable.

    Leading axes beyond the recorded shapes pass through: a packing of weights also packs a stack of
    weights.
    """

    treedef: Any
    shapes: tuple  # one a leaf, without leading axes
    dtypes: tuple

    @property
    def sizes(self):
        """Number of elements of each leaf."""
        return tuple(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes)

    def pack(self, tree):
        """The leaves side by side: [..., sum(sizes)], in the widest of the leaves' types.

        Raises:
          ValueError: another structure or other shapes than recorded.
        """
        leaves, treedef = jax.tree.flatten(tree)
        if treedef != self.treedef:
            raise ValueError(f"tree: expected the structure {self.treedef}, got {treedef}")
        flat = []
        for leaf, shape, size in zip(leaves, self.shapes, self.sizes, strict=True):
            lead = leaf.shape[: leaf.ndim - len(shape)]
            if leaf.shape[len(lead) :] != shape:
                raise ValueError(f"tree: expected a leaf of shape [..., {shape}], got {leaf.shape}")
            flat.append(leaf.reshape((*lead, size)))
        return jnp.concatenate(flat, axis=-1)

    def unpack(self, vector):
        """The tree of [..., sum(sizes)], each leaf in its own type."""
        if vector.shape[-1] != sum(self.sizes):
            raise ValueError(f"vector: expected a last axis of {sum(self.sizes)}, got {vector.shape[-1]}")
        ends = np.cumsum(self.sizes)[:-1].tolist()
        leaves = [
            part.reshape(part.shape[:-1] + shape).astype(dtype)
            for part, shape, dtype in zip(jnp.split(vector, ends, axis=-1), self.shapes, self.dtypes, strict=True)
        ]
        return jax.tree.unflatten(self.treedef, leaves)


def packing(tree, batch_axes=1):
    """The Packing of a tree of arrays (or of shapes) whose first `batch_axes` axes are shared.

    `batch_axes=0` flattens a whole tree, such as the parameters of a network, to a vector.

    Raises:
      ValueError: no leaves, or leaves with different leading axes.
      TypeError: a leaf of a type that is not floating: encode whole numbers first (one-hot, bits).
    """
    leaves, treedef = jax.tree.flatten(tree)
    if not leaves:
        raise ValueError("tree: expected at least one array, got none")
    leads = {tuple(leaf.shape[:batch_axes]) for leaf in leaves}
    if len(leads) > 1:
        raise ValueError(f"tree: expected leaves with equal leading axes, got {sorted(leads)}")
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"tree: expected leaves of floating types, got {leaf.dtype}")
    shapes = tuple(tuple(leaf.shape[batch_axes:]) for leaf in leaves)
    return Packing(treedef, shapes, tuple(jnp.dtype(leaf.dtype) for leaf in leaves))


def path_name(path):
    """A path of `jax.tree_util` as "a/b/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def path_mask(tree, pattern):
    """A tree of booleans: which paths ("a/b/kernel") contain a match of the regular expression `pattern`."""
    search = re.compile(pattern).search
    return jax.tree_util.tree_map_with_path(lambda path, _: search(path_name(path)) is not None, tree)


def partition(tree, pattern):
    """(selected, rest): the tree twice, None in the place of the leaves that the other one has.

    None is an empty subtree to JAX, so each part can be differentiated, optimized and saved alone.

    Args:
      tree: a parameter tree.
      pattern: regular expression searched in each path, "a/b/kernel".

    Raises:
      ValueError: no path matches.
    """
    mask = path_mask(tree, pattern)
    if not any(jax.tree.leaves(mask)):
        raise ValueError(f"pattern: expected a regular expression that matches a path, got {pattern!r}")
    selected = jax.tree.map(lambda leaf, m: leaf if m else None, tree, mask)
    rest = jax.tree.map(lambda leaf, m: None if m else leaf, tree, mask)
    return selected, rest


def merge(selected, rest):
    """The whole tree from the two parts of `partition`.

    Raises:
      ValueError: a leaf that both parts have.
    """

    def pick(path, a, b):
        if a is not None and b is not None:
            raise ValueError(f"merge: expected each leaf in one part, got {path_name(path)!r} in both")
        return b if a is None else a

    return jax.tree_util.tree_map_with_path(pick, selected, rest, is_leaf=lambda node: node is None)
