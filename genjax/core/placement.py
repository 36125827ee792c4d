"""Where a batch lies while a program runs over a mesh.

XLA's partitioner places what a program computes by what it knows of its arguments. Of two operands that are split
over the same devices, the batch along one axis and a parameter along another, it may keep the parameter's place and
gather the batch; and what is drawn from a key has no place at all. So the batch is pinned where networks and draws
make it, and large parameters where they are used. Code says `across_batch(x)` and `gathered(w)` and knows of no mesh:
the one in whose context it is traced counts.
"""

import contextlib
import math

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

BATCH_AXES = ("data", "fsdp")


def mesh_context(mesh):
    """A context in which `across_batch` knows `mesh`; nothing for None or a mesh of one device."""
    if mesh is None or mesh.size == 1:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def _batch_axes(mesh):
    """The mesh's axes that split a batch, those left to XLA's partitioner."""
    kinds = dict(zip(mesh.axis_names, mesh.axis_types))
    return tuple(axis for axis in BATCH_AXES if kinds.get(axis) == AxisType.Auto)


def across_batch(x):
    """`x` [B, ...], its batch split over the mesh axes of `BATCH_AXES`; `x` itself without a mesh.

    Other axes stay where XLA puts them, a gradient is pinned as its value is, and a batch that does not divide
    into that many parts is left alone.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = _batch_axes(mesh)
    parts = math.prod(mesh.shape[axis] for axis in axes)
    if parts == 1 or x.shape[0] % parts:
        return x
    return jax.lax.with_sharding_constraint(x, P(axes, *[P.UNCONSTRAINED] * (x.ndim - 1)))


def gathered(w):
    """The parameter `w`, in one piece on every device where it is used, so that its gradient is summed over devices.

    `w` itself without a mesh, and where the axis "tensor" splits products.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not _batch_axes(mesh) or mesh.shape.get("tensor", 1) > 1:
        return w
    return jax.lax.with_sharding_constraint(w, P())
