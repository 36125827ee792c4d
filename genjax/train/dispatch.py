"""The one program of a training: many steps of any recipe, over a mesh or under pmap.

Both forms run the same loop around the same `Algorithm.step`. Over a mesh the batch is one array that XLA
splits; under pmap each device takes its rows, and the recipe, made with the axis' name, averages
gradients and knows the place of its samples in the whole batch.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.core.keys import sample_keys
from genjax.core.placement import mesh_context
from genjax.train.sharding import PMAP_AXIS, as_layout


def traced_once(step):
    """`step`, whose second trace for the same shapes is taken from the first: JAX remembers it by the function."""
    return jax.jit(step, inline=True)


def _many(step, batch_of, key, state, count, mesh=None):
    """(state after `count` steps, sums of the metrics); `batch_of(i)` is batch i."""
    step = traced_once(step)

    def one(state, batch):
        with mesh_context(mesh):
            state, metrics = step(jax.random.fold_in(key, state.step), state, batch)
        return state, jax.tree.map(lambda m: jnp.asarray(m, jnp.float32), metrics)

    def body(i, carry):
        state, sums = carry
        state, metrics = one(state, batch_of(i))
        return state, jax.tree.map(jnp.add, sums, metrics)

    shapes = jax.eval_shape(lambda s: one(s, batch_of(0))[1], state)
    zeros = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
    return jax.lax.fori_loop(0, count, body, (state, zeros))


def make_dispatch(step, layout=None, shardings=None, resident=True):
    """The program that trains for many steps.

    Args:
      step: `Algorithm.step`.
      layout: a Layout, or a mesh with an axis "data"; every batch is split over it.
      shardings: of the state, a pytree like it; None for whole on every device.
      resident: whether `arrays` hold all examples, out of which `indices` pick; otherwise they are one batch.

    Returns:
      dispatch(key, state, arrays, indices [K, B], count) -> (state, sums of the metrics over `count` steps),
      count <= K. The state is donated.
    """
    layout = as_layout(layout)
    if layout.axis_name:
        return _pmapped(step, layout, resident)

    def dispatch(key, state, arrays, indices, count):
        def batch_of(i):
            if not resident:
                return arrays
            index = jax.lax.with_sharding_constraint(indices[i], layout.batch)
            return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a[index], layout.batch), arrays)

        return _many(step, batch_of, key, state, count, layout.mesh)

    out = (layout.replicated if shardings is None else shardings, layout.replicated)
    return jax.jit(dispatch, donate_argnums=1, out_shardings=out)


def _pmapped(step, layout, resident):
    parts = layout.parts

    def dispatch(place, key, state, arrays, indices, count):
        def batch_of(i):
            if not resident:
                return arrays
            size = indices.shape[1] // parts
            index = jax.lax.dynamic_slice_in_dim(indices[i], place * size, size)
            return jax.tree.map(lambda a: a[index], arrays)

        return _many(step, batch_of, key, state, count)

    axes, devices = (0, None, None, None if resident else 0, None, None), list(layout.mesh.devices.ravel())
    mapped = jax.pmap(dispatch, PMAP_AXIS, in_axes=axes, out_axes=None, donate_argnums=2, devices=devices)

    def call(key, state, arrays, indices, count):
        if not resident:
            arrays = jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), arrays)
        return mapped(jnp.arange(parts), key, state, arrays, indices, count)

    return call


def trace_step(algorithm, layout, shapes, batch):
    """Shapes of the State after one step, as the training will run it: nothing is compiled."""
    once = traced_once(algorithm.step)
    step = lambda state, batch: once(jax.random.key(0), state, batch)[0]
    if layout is None or not layout.axis_name:
        with mesh_context(layout and layout.mesh):
            return jax.eval_shape(step, shapes, batch)
    split = lambda b: jax.tree.map(lambda a: a.reshape(layout.parts, -1, *a.shape[1:]), b)
    mapped = jax.vmap(step, (None, 0), axis_name=layout.axis_name)
    after = jax.eval_shape(lambda state, batch: mapped(state, split(batch)), shapes, batch)
    one = lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype)
    return jax.tree.map(one, after)


def layout_of(state):
    """The mesh that a State lies on, None where it lies on one device."""
    for leaf in jax.tree.leaves(state):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            return sharding.mesh
    return None


@functools.lru_cache(maxsize=32)
def make_sampler(algorithm, n, mesh=None):
    """`sample(key, first, state, cond) -> [n, ...]`, compiled: samples first ... first + n - 1, each by its own key.

    The last ones made are kept: for equal arguments it is the same program, traced and compiled once.

    Args:
      algorithm: an Algorithm whose `sample` takes keys [B].
      n: samples a call.
      mesh: over all of whose devices samples are split where they divide n, and parameters stay where they
        are; under pmap's mesh (one axis of its name) the calls are pmapped. None for one device.
    """
    if mesh is None:

        def sampler(key, first, state, cond):
            return algorithm.sample(sample_keys(key, n, first), state, n, cond)

        return jax.jit(sampler)
    parts = mesh.size
    if mesh.axis_names == (PMAP_AXIS,) and n % parts == 0:
        return _pmapped_sampler(algorithm, n, list(mesh.devices.ravel()))
    names = tuple(name for name in mesh.axis_names if name != "tensor")
    rows = 1
    for name in names:
        rows *= mesh.shape[name]
    split = NamedSharding(mesh, P(names) if n % rows == 0 else P())

    def sample(key, first, state, cond):
        place = lambda a: jax.lax.with_sharding_constraint(a, split)
        keys = place(sample_keys(key, n, first))
        with mesh_context(mesh):
            return algorithm.sample(keys, state, n, jax.tree.map(place, cond))

    return jax.jit(sample, out_shardings=NamedSharding(mesh, P()))


def _pmapped_sampler(algorithm, n, devices):
    size = n // len(devices)

    def part(first, key, state, cond):
        return algorithm.sample(sample_keys(key, size, first), state, size, cond)

    mapped = jax.pmap(part, PMAP_AXIS, in_axes=(0, None, None, 0), devices=devices)

    def sample(key, first, state, cond):
        cond = jax.tree.map(lambda c: jnp.asarray(c).reshape(len(devices), size, *c.shape[1:]), cond)
        x = mapped(first + size * jnp.arange(len(devices)), key, state, cond)
        return x.reshape(n, *x.shape[2:])

    return sample
