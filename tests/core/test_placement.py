"""What pins a batch to a mesh, in traced programs: no devices are needed."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType

from genjax.core.placement import across_batch, gathered, mesh_context
from genjax.networks import conv
from genjax.train.sharding import make_mesh

AUTO = (AxisType.Auto,) * 3
MESH = AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"), AUTO)


def pins(function, *args, mesh=MESH):
    """The partitions that the traced program asks for, as text."""
    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.make_jaxpr(function)(*args)
    return [str(e.params["sharding"].spec) for e in program.eqns if e.primitive.name == "sharding_constraint"]


def test_the_batch_alone_is_pinned():
    (spec,) = pins(across_batch, jnp.ones((16, 3, 2)))
    assert spec.count("UNCONSTRAINED") == 2 and "('data', 'fsdp')" in spec
    keys = jax.random.split(jax.random.key(0), 8)
    assert len(pins(across_batch, keys)) == 1
    # a gradient is pinned as its value is
    assert len(pins(jax.grad(lambda x: jnp.sum(across_batch(x) ** 2)), jnp.ones((8, 3)))) == 2


def test_a_convolution_takes_whole_kernels_to_its_share_of_the_batch():
    x, k = jnp.ones((16, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    split = AbstractMesh((2, 4, 1), MESH.axis_names, AUTO)
    before, whole, after = pins(conv, x, k, mesh=split)
    assert before == after and "('data', 'fsdp')" in before and whole == str(jax.sharding.PartitionSpec())
    assert not pins(gathered, k)  # the axis "tensor" has its own ways


@pytest.mark.parametrize("mesh", [MESH, AbstractMesh((1, 1, 16), MESH.axis_names, AUTO)], ids=("indivisible", "tensor"))
def test_what_cannot_be_split_is_left_alone(mesh):
    assert not pins(across_batch, jnp.ones((4, 3)), mesh=mesh)


def test_without_a_mesh():
    x = jnp.ones((4, 3))
    with mesh_context(None), mesh_context(make_mesh({"data": 1}, jax.devices()[:1])):
        assert across_batch(x) is x and gathered(x) is x


def test_inside_a_mapped_function():
    # each device has its own rows there, and there is nothing to place
    mesh = AbstractMesh((2, 4, 2), MESH.axis_names, (AxisType.Manual,) * 3)
    assert not pins(across_batch, jnp.ones((16, 3)), mesh=mesh)
