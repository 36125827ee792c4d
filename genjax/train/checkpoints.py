"""Checkpoints: written in the background by Orbax, whole or absent, and checked before use.

A checkpoint is a directory `checkpoints/00000500` with

  state/          arrays by name ("params/denoiser/Dense_0/kernel"), sharded, written by Orbax
  meta/           JSON: config, step, seed, position in the data, library versions, shapes
  manifest.json   SHA-256 of every file of the two

Orbax writes into a temporary directory and renames it when all is there. The manifest is written
just before that, so a directory without one was cut short, and a file that was truncated or changed
later is found by its hash: such a checkpoint is set aside and the one before it is used.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import warnings
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp

ITEMS = ("state", "meta")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions():
    """Versions of the libraries that a training depends on."""
    return {name: metadata.version(name) for name in LIBRARIES}


def is_key(x):
    """Whether x (array or shape) is made of typed random keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def to_arrays(tree):
    """A pytree of arrays, or of shapes, as {path: array}; random keys become their raw data."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
        if is_key(leaf):
            leaf = _key_data_shape(leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else jax.random.key_data(leaf)
        arrays[jax.tree_util.keystr(path, simple=True, separator="/")] = leaf
    return arrays


def _key_data_shape(leaf):
    data = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=leaf.sharding)


def _key_impl(leaf):
    found = []  # `key_impl` takes arrays and tracers, not shapes
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)
    return found[0]


def from_arrays(arrays, like):
    """The inverse of `to_arrays`: `like` gives structure and kinds of keys."""
    leaves, treedef = jax.tree_util.tree_flatten(like)
    values = []
    for value, leaf in zip(arrays.values(), leaves, strict=True):
        key = hasattr(leaf, "dtype") and is_key(leaf)
        values.append(jax.random.wrap_key_data(value, impl=_key_impl(leaf)) if key else value)
    return treedef.unflatten(values)


def shapes_of(arrays):
    """{path: [shape, dtype name]} as JSON values."""
    return {name: [list(a.shape), str(a.dtype)] for name, a in arrays.items()}


def check_shapes(saved, wanted, where):
    """Raises ValueError naming the first array that differs between two results of `shapes_of`."""
    for name in [*wanted, *saved]:
        old, new = (f"{t[name][1]}{t[name][0]}" if name in t else "nothing" for t in (saved, wanted))
        if old != new:
            raise ValueError(f"{where}: expected {name} as {new} (by the config), got {old}")


def digest(path):
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(directory):
    """{relative path: SHA-256} of every file of the items of one checkpoint."""
    files = sorted(p for item in ITEMS for p in (directory / item).rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): digest(p) for p in files}


def damage(directory):
    """What is wrong with a checkpoint, in words, or None."""
    manifest = directory / "manifest.json"
    if not manifest.exists():
        return "manifest.json is missing"
    try:
        wanted = json.loads(manifest.read_text())
    except ValueError:
        return "manifest.json is not readable"
    found = digests(directory)
    for name, value in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != value:
            return f"{name} is not what was written"
    return None


def _steps(directory):
    """Steps of the committed checkpoints, ascending."""
    return sorted(int(p.name) for p in directory.glob("*") if p.name.isdigit() and p.is_dir())


def newest_intact(directory, say=print):
    """The newest step whose checkpoint is whole, or None.

    Args:
      directory: the directory of all checkpoints.
      say: is told, in one line, of each newer checkpoint that is damaged. None to be silent.
    """
    directory = Path(directory)
    for step in reversed(_steps(directory)):
        fault = damage(directory / f"{step:08d}")
        if fault is None:
            return step
        if say:
            say(f"checkpoint {directory / f'{step:08d}'} is damaged ({fault}); using the one before it")
    return None


def set_aside(directory, after):
    """Renames checkpoints of steps later than `after` (-1: all) to NAME.damaged, out of the way of new ones."""
    directory = Path(directory)
    for step in _steps(directory):
        if step > after:
            path, n = directory / f"{step:08d}", 0
            while (target := directory / f"{step:08d}.damaged{n or ''}").exists():
                n += 1
            path.rename(target)


def abstract_like(make_state, *args, sharding=None):
    """Shapes of `make_state(*args)` without computing it.

    `sharding` places them: one sharding, or a function from the shapes to a pytree of shardings; the first
    device by default.
    """
    shapes = jax.eval_shape(make_state, *args)
    if not callable(sharding):
        one = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        sharding = lambda shapes: jax.tree.map(lambda _: one, shapes)
    place = lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding)
    return jax.tree.map(place, shapes, sharding(shapes))


def restore(directory, step, like):
    """The state and the JSON metadata of one checkpoint.

    Args:
      directory: the directory of all checkpoints.
      step: one that `newest_intact` returned.
      like: pytree of shapes with shardings (`abstract_like`), built from the config.

    Raises:
      ValueError: the checkpoint's arrays are not those of `like`.
    """
    import orbax.checkpoint as ocp

    path = Path(directory).resolve() / f"{step:08d}"
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(*ITEMS)) as reader:
        meta = reader.restore(path, ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        wanted = to_arrays(like)
        check_shapes(meta["shapes"], shapes_of(wanted), f"checkpoint {path}")
        arrays = reader.restore(path, ocp.args.Composite(state=ocp.args.StandardRestore(wanted))).state
    return from_arrays({name: arrays[name] for name in wanted}, like), meta


class Writer:
    """Writes checkpoints in the background and keeps the newest.

    Use as a context manager: leaving it waits for what is being written.

    Args:
      directory: the directory of all checkpoints.
      keep: number of newest checkpoints kept.
      keep_every: also keep every checkpoint whose step is a multiple of this; None for none.
    """

    def __init__(self, directory, keep=2, keep_every=None):
        import orbax.checkpoint as ocp  # takes a quarter of the time of importing the toolkit

        self.directory = Path(directory).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every,
            step_format_fixed_length=8,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=ITEMS)
        self._saved = self._manager.latest_step()

    def _write_manifest(self):
        # Called when all files of the newest checkpoint are there, before its directory is renamed.
        if jax.process_index() == 0:
            name = f"{self._saving:08d}"
            path = next(p for p in self.directory.glob(f"{name}*") if p.name == name or "tmp" in p.name)
            (path / "manifest.json").write_text(json.dumps(digests(path), indent=1))

    def save(self, step, state, meta):
        """Starts to write `state` at `step`; returns when it is safe to overwrite (or donate) its buffers.

        Does nothing where this step was the last saved. Raises OSError where an earlier write failed, or where
        there is no room.
        """
        if step == self._saved:
            return
        self.wait()
        arrays = to_arrays(state)
        needed, free = sum(a.nbytes for a in arrays.values()), shutil.disk_usage(self.directory).free
        if free < needed:
            raise _write_error(self.directory, step, f"expected room for {needed:,} bytes, got {free:,} free")
        meta = {**meta, "step": step, "versions": versions(), "shapes": shapes_of(arrays)}
        self._saving = step
        import orbax.checkpoint as ocp

        items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta))
        try:
            self._manager.save(step, args=items)
        except Exception as error:
            raise _write_error(self.directory, step, error) from error
        self._saved = step

    def wait(self):
        """Waits until all is written. Raises OSError where a write failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise _write_error(self.directory, self._saving, error) from error

    def newest(self):
        """The newest step on disk, or None."""
        return max(_steps(self.directory), default=None)

    def __enter__(self):
        self._loud_again = _hush()
        return self

    def __exit__(self, kind, error, trace):
        failed = kind is not None and issubclass(kind, OSError)
        try:
            if kind is None:
                self.wait()
        except OSError:
            failed = True
            raise
        finally:
            self._manager.close()
            if not failed:  # threads that gave up a write go on talking until the process ends
                self._loud_again()


def _hush():
    """Drops the pages that threads of Orbax and TensorStore print of an error which `_write_error` tells in a line.

    Returns:
      A function that undoes it.
    """
    loggers, hook = [logging.getLogger(name) for name in ("absl", "asyncio")], sys.unraisablehook

    def no_page(raised):
        if str(raised.exc_value) != "Event loop is closed":
            hook(raised)

    for logger in loggers:
        logger.addFilter(_not_of_a_write)
    sys.unraisablehook = no_page
    warnings.filterwarnings("ignore", "coroutine '.*write_fragment' was never awaited", RuntimeWarning)

    def undo():
        for logger in loggers:
            logger.removeFilter(_not_of_a_write)
        sys.unraisablehook = hook

    return undo


def _not_of_a_write(record):
    """A log filter: no errors of Orbax, and of asyncio none of a write that nobody waited for."""
    text = f"{record.pathname} {record.exc_info and record.exc_info[1]} {record.getMessage()}"
    return record.levelno < logging.ERROR or not ("orbax" in text or "OCDBT" in text)


def _write_error(directory, step, error):
    # Orbax and TensorStore raise many kinds, with many lines; the system's own reason counts, else the first line
    text = str(error).strip() or type(error).__name__
    code = re.search(r"os_error_code='(\d+)'", text)
    reason = os.strerror(int(code[1])) if code else text.splitlines()[0][:300]
    return OSError(f"checkpoint {directory / f'{step:08d}'}: could not be written: {reason}")
