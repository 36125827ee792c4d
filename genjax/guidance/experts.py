"""Guides made of several experts, each for a range of noise levels (PPAP, 2212.05973)."""

import jax
import jax.numpy as jnp
import numpy as np


def stack_experts(trees):
    """One tree with a leading axis N from the N experts' trees of one structure."""
    if not trees:
        raise ValueError("trees: expected at least one expert, got none")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def equal_ranges(count, low=0.0, high=1.0):
    """Inner edges [count - 1] of `count` equal ranges of [low, high]."""
    if count < 1:
        raise ValueError(f"count: expected at least 1 range, got {count!r}")
    return np.linspace(low, high, count + 1)[1:-1].astype(np.float32)


def expert_bank(make, experts, edges):
    """(x, t) -> the output of the expert of t's range; an edge belongs to the lower one.

    With a scalar t one expert runs, its parameters looked up; with t [B] each sample runs its own.

    Args:
      make: parameters (or adapters) of one expert -> guide (x [B, ...], t) -> array [B, ...].
      experts: their tree, stacked along a leading axis N (`stack_experts`).
      edges: [N - 1] rising times between the ranges.

    Raises:
      ValueError: another number of edges, or edges that do not rise.
    """
    count, edges = len(jax.tree.leaves(experts)[0]), np.asarray(edges)
    if edges.shape != (count - 1,) or np.any(np.diff(edges) <= 0):
        raise ValueError(f"edges: expected {count - 1} rising times, got {edges.tolist()}")

    def pick(n):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[n], experts)

    def bank(x, t):
        n = jnp.searchsorted(jnp.asarray(edges), jnp.asarray(t), side="left")
        if jnp.ndim(t) == 0:
            return make(pick(n))(x, t)
        return jax.vmap(lambda n, x, t: make(pick(n))(x[None], t[None])[0])(n, x, jnp.asarray(t))

    return bank
