"""Null conditions."""

import jax
import jax.numpy as jnp

NO_CLASS = -1


def null_cond(cond):
    """The condition that says nothing, of the same structure: -1 for integers, 0 for floats, False for booleans."""

    def null(leaf):
        leaf = jnp.asarray(leaf)
        return jnp.full_like(leaf, NO_CLASS if jnp.issubdtype(leaf.dtype, jnp.integer) else 0)

    return jax.tree.map(null, cond)
