"""One mechanism for scale: a named mesh, and a place on it for every array of a training.

The mesh has three axes. `data` and `fsdp` split the batch; `fsdp` also splits parameters, whose pieces
are gathered where they are used (2304.11277, section 3); `tensor` splits the matrices of a
transformer by columns, then by rows, so that a block needs one sum over devices for each of its two
branches (1909.08053, section 3). XLA's partitioner derives the rest from these places, so no recipe knows
of any of it: results are those of one device up to rounding.

A rule is a pair (regular expression, template). The first whose expression is found in a parameter's
path, such as "denoiser/block0/mlp_in/kernel", decides: its template names the mesh axes that split the
last axes of the array, None for none. Parameters without a rule are split along their largest axis
that `fsdp` divides. Optimizer states and averages lie as the parameters that they mirror.
"""

import math
import re
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.core.placement import BATCH_AXES
from genjax.core.trees import path_name
from genjax.core.types import State

AXES = ("data", "fsdp", "tensor")
DEFAULT_RULES = (
    # attention and MLP of transformer blocks: the first matrix by columns, the second by rows
    (r"(attention|cross)/(qkv|q|kv)/kernel$", ("fsdp", "tensor")),
    (r"(attention|cross)/(qkv|q|kv)/bias$", ("tensor",)),
    (r"(attention|cross)/out/kernel$", ("tensor", "fsdp")),
    (r"mlp_in/kernel$", ("fsdp", "tensor")),
    (r"mlp_in/bias$", ("tensor",)),
    (r"mlp_out/kernel$", ("tensor", "fsdp")),
)
PMAP_AXIS = "devices"
MIN_SIZE = 4096  # elements; smaller parameters are whole on every device: to gather them costs more than it saves


def axis_sizes(shape, count):
    """{"data", "fsdp", "tensor"}: sizes of the mesh's axes on `count` devices.

    Args:
      shape: dict of some of the axes; at most one is -1, the rest of the devices. Axes not named have size 1,
        but `data` takes the rest where none does.
      count: number of devices.

    Raises:
      ValueError: an unknown axis, a size that is none, or sizes whose product is not `count`.
    """
    shape = dict(shape or {})
    for name, size in shape.items():
        if name not in AXES:
            raise ValueError(f"mesh: expected axes of {list(AXES)}, got {name!r}")
        if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1):
            raise ValueError(f"mesh.{name}: expected a whole number from 1, or -1 for the rest, got {size!r}")
    if "data" not in shape and -1 not in shape.values():
        shape["data"] = -1
    rest = [name for name, size in shape.items() if size == -1]
    if len(rest) > 1:
        raise ValueError(f"mesh: expected one axis of -1 at most, got {rest}")
    fixed = math.prod(size for size in shape.values() if size != -1)
    if rest:
        if count % fixed:
            raise ValueError(f"mesh: expected axes that divide {count} devices, got {_product(shape)} = {fixed}")
        shape[rest[0]] = count // fixed
    elif fixed != count:
        raise ValueError(f"mesh: expected axes whose product is {count} devices, got {_product(shape)} = {fixed}")
    return {name: shape.get(name, 1) for name in AXES}


def _product(shape):
    return " x ".join(f"{name} {size}" for name, size in shape.items() if size != -1)


def make_mesh(shape=None, devices=None):
    """The mesh of `axis_sizes` over `devices`, all devices of all processes by default.

    Neighbours along `tensor`, then `fsdp`, are nearest in the machine.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = axis_sizes(shape, len(devices))
    kinds = (AxisType.Auto,) * len(AXES)  # explicit axes fail in convolutions with split parameters
    return jax.make_mesh(tuple(sizes.values()), AXES, kinds, devices=devices)


def check_rules(rules):
    """Raises ValueError, with the rule, for one that is no (regular expression, template of mesh axes)."""
    for rule in rules:
        if not (isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)):
            raise ValueError(f"sharding.rules: expected pairs (regular expression, axes), got {rule!r}")
        pattern, template = rule
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"sharding.rules: expected a regular expression, got {pattern!r}: {error}") from None
        if not isinstance(template, tuple | list):
            raise ValueError(f"sharding.rules: expected a tuple of mesh axes for {pattern!r}, got {template!r}")
        named = [name for entry in template for name in _names(entry)]
        for name in named:
            if name not in AXES or named.count(name) > 1:
                raise ValueError(
                    f"sharding.rules: expected each of {list(AXES)} once at most for {pattern!r}, got {template!r}"
                )


def _names(entry):
    """Mesh axes in one entry of a template."""
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _fitted(template, path, shape, sizes, strict):
    """The PartitionSpec of a template on an array; where an axis does not divide, an error if `strict`, else None."""
    if len(template) > len(shape):
        if strict:
            raise ValueError(f"sharding.rules: expected at most {len(shape)} axes for {path} {shape}, got {template!r}")
        return P()
    entries = [None] * (len(shape) - len(template)) + list(template)
    for i, entry in enumerate(entries):
        parts = math.prod(sizes[name] for name in _names(entry))
        if shape[i] % parts:
            if strict:
                raise ValueError(
                    f"sharding.rules: expected axis {i} of {path} to be a multiple of {parts} ({entry!r}), got {shape}"
                )
            entries[i] = None
    return P(*(tuple(e) if isinstance(e, list) else e for e in entries))


def default_spec(shape, sizes, min_size=MIN_SIZE):
    """The PartitionSpec that splits the largest axis that `fsdp` divides (the last of equals); P() for small arrays."""
    if math.prod(shape) < min_size or sizes["fsdp"] == 1:
        return P()
    fits = [i for i, n in enumerate(shape) if n % sizes["fsdp"] == 0]
    if not fits:
        return P()
    best = max(fits, key=lambda i: (shape[i], i))
    return P(*(("fsdp" if i == best else None) for i in range(len(shape))))


def param_spec(path, shape, sizes, rules=(), min_size=MIN_SIZE):
    """The PartitionSpec of one parameter: by the given rules, the transformers' own, or `default_spec`.

    Raises:
      ValueError: a given rule that the array's shape does not fit.
    """
    for pattern, template in rules:
        if re.search(pattern, path):
            return _fitted(template, path, shape, sizes, strict=True)
    if math.prod(shape) >= min_size or sizes["tensor"] > 1:
        for pattern, template in DEFAULT_RULES:
            if re.search(pattern, path):
                return _fitted(template, path, shape, sizes, strict=False)
    return default_spec(shape, sizes, min_size)


class _Mirrors:
    """Finds the parameter that an array of an optimizer state or an average stands for.

    It is the one of the same shape whose path has the longest end in common; of several (two networks with
    layers of one name) the one whose network is named in the array's path.
    """

    def __init__(self, specs):
        self.by_end = {}
        for path, (shape, spec) in specs.items():
            parts = path.split("/")
            for i in range(len(parts)):
                self.by_end.setdefault("/".join(parts[i:]), []).append((parts, shape, spec))

    def find(self, path, shape):
        parts = path.split("/")
        for i in range(len(parts)):
            found = [entry for entry in self.by_end.get("/".join(parts[i:]), ()) if entry[1] == shape]
            if found:
                return max(found, key=lambda entry: entry[0][0] in parts)[2]
        return None


def state_specs(shapes, sizes, rules=(), min_size=MIN_SIZE):
    """PartitionSpecs of a State, or of any other pytree, whose leaves then all count as parameters.

    Args:
      shapes: pytree of arrays or shapes.
      sizes: {"data", "fsdp", "tensor"} -> size.
      rules, min_size: see the module.
    """
    check_rules(rules)
    whole = not isinstance(shapes, State)
    params = shapes if whole else (shapes.params, shapes.frozen)
    specs = {}

    def of(path, leaf):
        name = path_name(path if whole else path[1:])
        spec = param_spec(name, tuple(leaf.shape), sizes, rules, min_size)
        specs.setdefault(name, (tuple(leaf.shape), spec))
        return spec

    placed = jax.tree_util.tree_map_with_path(of, params)
    if whole:
        return placed
    mirrors = _Mirrors(specs)

    def mirrored(path, leaf):
        spec = mirrors.find(path_name(path), tuple(leaf.shape))
        return P() if spec is None else spec

    rest = {name: getattr(shapes, name) for name in ("step", "opt", "ema", "extra")}
    rest = jax.tree_util.tree_map_with_path(mirrored, rest)
    return State(params=placed[0], frozen=placed[1], **rest)


class Layout(NamedTuple):
    """Where a training runs and how its arrays lie there.

    With `axis_name` the training runs under `jax.pmap` on the mesh's devices: parameters are whole on each,
    and the recipe averages gradients over the axis of that name.
    """

    mesh: Mesh
    rules: tuple = ()
    min_size: int = MIN_SIZE
    axis_name: str | None = None

    @property
    def replicated(self):
        """The sharding of what is whole on every device."""
        return NamedSharding(self.mesh, P())

    @property
    def batch(self):
        """The sharding of a batch [B, ...]."""
        return NamedSharding(self.mesh, P(PMAP_AXIS) if self.axis_name else P(BATCH_AXES))

    @property
    def parts(self):
        """Into how many parts a batch is split."""
        return self.mesh.size if self.axis_name else self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def state(self, shapes):
        """The shardings of a State, a pytree like `shapes`."""
        if self.axis_name:
            return jax.tree.map(lambda _: self.replicated, shapes)
        specs = state_specs(shapes, dict(self.mesh.shape), self.rules, self.min_size)
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), specs, is_leaf=lambda s: isinstance(s, P))


def make_layout(mesh=None, rules=(), min_size=MIN_SIZE, parallel="mesh", devices=None):
    """The Layout of a config's groups mesh, sharding and parallel.

    Args:
      mesh: dict of axis sizes, or None for all devices along `data`.
      rules, min_size: see the module.
      parallel: "mesh" (`jax.jit` over the mesh) or "pmap".
      devices: all devices of all processes by default.

    Raises:
      ValueError: what `axis_sizes` and `check_rules` raise; a mesh or rules beside "pmap", or "pmap" over several
        processes.
    """
    if parallel not in ("mesh", "pmap"):
        raise ValueError(f"parallel: expected 'mesh' or 'pmap', got {parallel!r}")
    if min_size < 1:
        raise ValueError(f"sharding.min_size: expected at least 1, got {min_size}")
    check_rules(rules)
    if parallel == "mesh":
        return Layout(make_mesh(mesh, devices), tuple(rules), min_size)
    if rules or any(size not in (1, -1) for name, size in (mesh or {}).items() if name != "data"):
        raise ValueError("parallel: expected 'mesh' where parameters are split, got 'pmap'")
    if jax.process_count() > 1:
        raise ValueError(f"parallel: expected 'mesh' for {jax.process_count()} processes, got 'pmap'")
    devices = list(jax.devices() if devices is None else devices)
    data = axis_sizes(mesh, len(devices))["data"]
    if data != len(devices):
        raise ValueError(f"mesh.data: expected all {len(devices)} devices under pmap, got {data}")
    mesh = jax.make_mesh((data,), (PMAP_AXIS,), (AxisType.Auto,), devices=devices)
    return Layout(mesh, axis_name=PMAP_AXIS)


def as_layout(layout):
    """A Layout from one, from a mesh of named axes, or from None (all devices along `data`).

    Raises:
      ValueError: a mesh without the axis "data".
    """
    if layout is None or isinstance(layout, Layout):
        return make_layout() if layout is None else layout
    if "data" not in layout.shape:
        raise ValueError(f"mesh: expected the axis 'data', got {layout.axis_names}")
    sizes = {name: layout.shape.get(name, 1) for name in AXES}
    kinds = (AxisType.Auto,) * len(AXES)
    return Layout(Mesh(layout.devices.reshape(tuple(sizes.values())), AXES, axis_types=kinds))


def bytes_of(shapes, shardings):
    """Bytes of a pytree on one device."""
    sizes = jax.tree.map(_bytes, shapes, shardings)
    return sum(jax.tree.leaves(sizes))


def _bytes(leaf: Any, sharding):
    dtype = leaf.dtype
    item = 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else dtype.itemsize
    return math.prod(sharding.shard_shape(tuple(leaf.shape))) * item
