"""What the commands that train or sample share: the compilation cache, and a model out of a workdir."""

import functools
from pathlib import Path
from typing import Any, NamedTuple


def use_cache():
    """Keeps compiled programs in the cache folder, so that the next run of one compiles nothing."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    from genjax.metrics.features import cache_dir

    folder = str(cache_dir() / "compiled")
    if jax.config.jax_compilation_cache_dir != folder:
        compilation_cache.reset_cache()  # JAX stays with the first folder that the process used
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def stored_config(workdir):
    """The ConfigDict of a workdir.

    Raises:
      ValueError: no such workdir, or one without a config.
    """
    from ml_collections import ConfigDict

    from genjax.train.workdir import read_json

    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise ValueError(f"--workdir: expected a directory that `genjax train` wrote, got {str(workdir)!r}")
    return ConfigDict(read_json(path))


class Model(NamedTuple):
    """A trained model."""

    config: Any
    data: Any  # the training Dataset
    parts: Any  # build.Parts
    state: Any
    step: int


def restore(config, workdir, say=print, mesh=None):
    """The Model of the newest intact checkpoint of a workdir, built by `config`.

    Args:
      mesh: what --mesh says, "data=-1,fsdp=8": the model is split over all devices, and sampled on all of them,
        wherever it was trained. None for one device.

    Raises:
      ValueError: a config that does not fit, or no checkpoint.
    """
    import jax

    from genjax import build
    from genjax.cli.compile import parse_mesh
    from genjax.train import checkpoints
    from genjax.train.sharding import make_layout

    data = build.dataset(config)
    parts = build.parts(config, data.spec)
    directory = Path(workdir) / "checkpoints"
    step = checkpoints.newest_intact(directory, say)
    if step is None:
        raise ValueError(f"--workdir: expected a checkpoint in {directory}, got none that is whole")
    init = functools.partial(parts.algorithm.init, jax.random.key(0))
    placed = mesh and make_layout(parse_mesh(mesh), **build.sharding_rules(config)).state
    like = checkpoints.abstract_like(init, build.feed(config, data).like, {}, sharding=placed)
    state, _ = checkpoints.restore(directory, step, like)
    if parts.algorithm.refresh is not None:  # statistics of a game's generator, for its averaged weights
        state = jax.jit(parts.algorithm.refresh)(jax.random.key(0), state)
    return Model(config, data, parts, state, step)


def check_output(path, *endings):
    """The Path of an output file whose folder can be written.

    Raises:
      ValueError: another ending.
      OSError: the folder cannot be written.
    """
    from genjax.train.workdir import check_writable

    path = Path(path)
    if path.suffix not in endings:
        raise ValueError(f"--out: expected a file that ends in {' or '.join(endings)}, got {str(path)!r}")
    check_writable(path.parent)
    return path
