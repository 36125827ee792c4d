"""Low-rank adapters of a parameter tree (2106.09685): a few numbers that are trained in the place of kernels."""

import math

import jax
import jax.numpy as jnp

from genjax.core.trees import path_mask


def lora_init(key, params, rank=4, pattern="kernel$"):
    """Low-rank adapters of a parameter tree: for each matching kernel {"down" [I, rank], "up" [rank, O]}, else None.

    A kernel [..., O] is taken as a matrix [I, O]. `down` is N(0, 1 / rank^2), `up` zero: nothing changes at first.

    Args:
      params: parameter tree.
      rank: >= 1.
      pattern: regular expression of paths, "a/b/kernel"; leaves of fewer than two axes are left out.

    Raises:
      ValueError: rank below 1, or no leaf to adapt.
    """
    if rank < 1:
        raise ValueError(f"rank: expected >= 1, got {rank}")
    mask = path_mask(params, pattern)
    leaves, treedef = jax.tree.flatten(params)
    chosen = [use and leaf.ndim >= 2 for leaf, use in zip(leaves, jax.tree.leaves(mask))]
    if not any(chosen):
        raise ValueError(f"pattern: expected a regular expression that matches a kernel, got {pattern!r}")

    def adapter(i, leaf):
        fan_in, fan_out = math.prod(leaf.shape[:-1]), leaf.shape[-1]
        down = jax.random.normal(jax.random.fold_in(key, i), (fan_in, rank), leaf.dtype) / rank
        return {"down": down, "up": jnp.zeros((rank, fan_out), leaf.dtype)}

    return jax.tree.unflatten(
        treedef, [adapter(i, leaf) if use else None for i, (leaf, use) in enumerate(zip(leaves, chosen))]
    )


def lora_merge(params, adapters, scale=1.0):
    """The parameters with their adapters added: kernel + scale down up."""

    def merge(leaf, adapter):
        return leaf if adapter is None else leaf + scale * (adapter["down"] @ adapter["up"]).reshape(leaf.shape)

    is_adapter = lambda node: node is None or (isinstance(node, dict) and set(node) == {"down", "up"})
    leaves, treedef = jax.tree.flatten(params)
    return jax.tree.unflatten(
        treedef, [merge(*pair) for pair in zip(leaves, jax.tree.leaves(adapters, is_leaf=is_adapter), strict=True)]
    )
