"""What a training will need on chips that are not here: compiled ahead of time, by shape, on any machine.

The train step and the sampler are the ones that a training runs, with their arrays placed by the same Layout;
XLA's compiler for the chip says what memory they take. The estimate of the time is a bound, not a measurement:

  compute  operations / peak of the matrix units
  memory   bytes that the program reads and writes / bandwidth of the chip's memory
  network  bytes that a chip sends / bandwidth of its links, all in use

The step takes at least the longest of the three, and their sum where nothing overlaps.
"""

import importlib.util
import os
import re
from typing import Any, NamedTuple

import jax

from genjax.core.keys import sample_keys
from genjax.core.placement import mesh_context
from genjax.train.collectives import collectives, summary
from genjax.train.flops import count
from genjax.train.sharding import bytes_of

OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm")
TOO_MUCH_AT_WORK = re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT])\) exceeds")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
TOPOLOGY = re.compile(r"^(v\w+):(\d+(?:x\d+){1,2})$")


class Chip(NamedTuple):
    """Published figures of one chip."""

    flops: float  # peak operations a second, bfloat16
    hbm: float  # bytes of memory
    bandwidth: float  # bytes a second of that memory
    links: float  # bytes a second that it sends to other chips, all links together
    config: str = "default"  # compiler's name of the chip as one device


# Google Cloud's documentation of TPU versions; its "Gbps" of links are one way
CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1228e9, 2400e9 / 8, "megacore"),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 1600e9 / 8),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 4800e9 / 8),
    "v6e": Chip(918e12, 32 * 2**30, 1638e9, 3200e9 / 8),
}


class Program(NamedTuple):
    """One compiled program, a chip's share."""

    memory: dict  # what -> bytes
    flops: float  # of all chips together
    traffic: float  # bytes read and written; a loop's body counts once
    collectives: dict  # kind -> (runs, bytes of the arrays, bytes sent)
    chips: int
    fits: bool = True  # by the compiler's own account; where not, only the peak is known beside what was given

    @property
    def sent(self):
        """Bytes that one chip sends."""
        return sum(sent for _, _, sent in self.collectives.values())


def topology_devices(name):
    """(devices, Chip) of a TPU slice such as "v5e:16x16", which need not exist here.

    Raises:
      ValueError: an unknown chip, a shape that no slice has, or a missing compiler.
    """
    match = TOPOLOGY.match(name)
    if not match or match.group(1) not in CHIPS:
        raise ValueError(f"--topology: expected CHIP:AxB or CHIP:AxBxC with a chip of {sorted(CHIPS)}, got {name!r}")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no cloud machine to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # and no chip to take from another process
    _check_library()
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(
            topology_name=name, platform="tpu", chip_config_name=CHIPS[match.group(1)].config
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"--topology: the compiler knows no slice {name!r}: {reason[:200]}") from error
    return list(found.devices), CHIPS[match.group(1)]


def _check_library():
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "--topology: expected the package libtpu, the compiler for TPUs (pip install 'genjax-toolkit[slice]'), "
            "got none"
        )


def _placed(shapes, shardings):
    place = lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding)
    return jax.tree.map(place, shapes, shardings)


def _program(lowered, named, flops, chips):
    """The Program of a lowered function; `named` says what its arguments are."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        whole, temporary = (pattern.search(str(error)) for pattern in (OUT_OF_MEMORY, TOO_MUCH_AT_WORK))
        if not (whole or temporary):
            raise
        value, unit = (whole or temporary).groups()
        peak = float(value) * UNITS[unit] + (0 if whole else sum(named.values()))
        return Program({**named, "peak": peak}, flops, 0.0, {}, chips, fits=False)
    stats = compiled.memory_analysis()
    rest = stats.argument_size_in_bytes - sum(named.values())
    memory = {
        **named,
        "padding and other arguments" if named else "weights and other arguments": max(rest, 0),
        "results": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "activations": stats.temp_size_in_bytes,
        "program": stats.generated_code_size_in_bytes,
    }
    kept = stats.argument_size_in_bytes - stats.alias_size_in_bytes
    peak = kept + stats.output_size_in_bytes + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
    cost = compiled.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    traffic = float(cost.get("bytes accessed", 0.0))
    return Program({**memory, "peak": peak}, flops, traffic, summary(collectives(compiled.as_text(), chips)), chips)


def state_shapes(algorithm, like):
    """Shapes of the State for batches like `like`."""
    return jax.eval_shape(lambda batch: algorithm.init(jax.random.key(0), batch, {}), like)


def compile_step(algorithm, layout, like) -> Program:
    """The train step, donated state and all, for a batch of shapes `like`."""
    shapes = state_shapes(algorithm, like)
    shardings = layout.state(shapes)
    state, batch = _placed(shapes, shardings), _placed(like, jax.tree.map(lambda _: layout.batch, like))

    def step(seed, state, batch):
        with mesh_context(layout.mesh):
            return algorithm.step(jax.random.fold_in(jax.random.key(seed), state.step), state, batch)

    out = (shardings, layout.replicated)
    seed = jax.ShapeDtypeStruct((), "int32", sharding=layout.replicated)
    jitted = jax.jit(step, donate_argnums=1, out_shardings=out)
    parts = {"parameters": "params", "optimizer": "opt", "averages": "ema", "other state": "extra"}
    named = {what: bytes_of(getattr(shapes, f), getattr(shardings, f)) for what, f in parts.items()}
    named["batch"] = bytes_of(like, jax.tree.map(lambda _: layout.batch, like))
    flops = count(step, jax.ShapeDtypeStruct((), "int32"), shapes, like)
    return _program(jitted.lower(seed, state, batch), named, flops, layout.mesh.size)


def compile_sampler(algorithm, layout, like, n, cond=None) -> Program:
    """The sampler of n samples.

    Args:
      cond: dict of shapes [n, ...], or None.
    """
    shapes = state_shapes(algorithm, like)
    shardings = layout.state(shapes)
    split = layout.batch if n % layout.parts == 0 else layout.replicated
    if cond is not None:
        cond = _placed(cond, jax.tree.map(lambda _: split, cond))

    def sample(seed, state, cond):
        keys = jax.lax.with_sharding_constraint(sample_keys(jax.random.key(seed), n), split)
        with mesh_context(layout.mesh):
            return algorithm.sample(keys, state, n, cond)

    seed = jax.ShapeDtypeStruct((), "int32", sharding=layout.replicated)
    lowered = jax.jit(sample, out_shardings=split).lower(seed, _placed(shapes, shardings), cond)
    plain: Any = lambda seed, state, cond: algorithm.sample(sample_keys(jax.random.key(seed), n), state, n, cond)
    flops = count(plain, jax.ShapeDtypeStruct((), "int32"), shapes, cond)
    return _program(lowered, {}, flops, layout.mesh.size)


class Estimate(NamedTuple):
    """Seconds of one run of a Program."""

    compute: float
    memory: float
    network: float

    @property
    def least(self):
        return max(self)

    @property
    def most(self):
        return sum(self)


def estimate(program, chip) -> Estimate:
    """The Estimate of a Program on `program.chips` chips."""
    return Estimate(
        program.flops / program.chips / chip.flops, program.traffic / chip.bandwidth, program.sent / chip.links
    )
