"""The directory of one training: its lock, its config, and writes that are whole or absent.

config.json     what is trained; a training with another config is refused
lock            held while a training runs
checkpoints/    see `genjax.train.checkpoints`
metrics.jsonl   see `genjax.train.logs`
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
from pathlib import Path

MISSING = object()
PLACEMENT = ("mesh", "sharding", "parallel")  # where a training runs is not what is trained


@contextlib.contextmanager
def atomic_path(path):
    """A temporary path beside `path`, moved onto it when the block ends well, removed when it fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value, indent=2):
    """Writes `value` as JSON, whole or not at all; on one line where `indent` is None."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent) + "\n")


def read_json(path):
    """The JSON value in the file `path`.

    Raises:
      ValueError: the file is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected a JSON file, got {error}") from None


def check_writable(directory, size=0):
    """Makes `directory` and proves that a file can be written there.

    Args:
      directory: path, made with its parents.
      size: bytes that are about to be written.

    Raises:
      OSError: it cannot be made or written, or has less than `size` bytes left.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.{os.getpid()}"
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(
            error.errno, f"{directory}: expected a directory that can be written to, got {reason!r}"
        ) from error
    free = shutil.disk_usage(directory).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{directory}: expected room for {size:,} bytes, got {free:,} free")


@contextlib.contextmanager
def lock(workdir):
    """Holds the workdir for this training.

    The lock is the kernel's: it falls with the process that holds it, however that ends, so the file
    that a dead training left behind never bars the next one.

    Raises:
      ValueError: another training holds it.
    """
    path = Path(workdir) / "lock"
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise ValueError(f"workdir: expected one training at a time in {workdir}, got {owner} at work") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # the file stays: to remove it would let a third training lock a new one


def flatten(config, prefix=""):
    """A nested dict as {"a.b.c": value}; lists are values."""
    flat = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, dict) and value else {name: value})
    return flat


def first_difference(old, new):
    """(field, old value, new value) of the first field in which two nested dicts differ, or None."""
    old, new = flatten(old), flatten(new)
    for name in [*new, *(n for n in old if n not in new)]:
        a, b = old.get(name, MISSING), new.get(name, MISSING)
        if a is MISSING or b is MISSING or a != b:
            return name, a, b
    return None


def claim(workdir, config):
    """Writes the config of a new training, or checks that an old one is the same.

    Args:
      workdir: path of an existing directory. One without checkpoints is free for any config.
      config: nested dict of JSON values. The groups in PLACEMENT may differ from those of an old one.

    Raises:
      ValueError: the workdir holds another config (the first differing field is named), or
        checkpoints without a config.
    """
    path, checkpoints = Path(workdir) / "config.json", Path(workdir) / "checkpoints"
    if not (checkpoints.is_dir() and any(checkpoints.iterdir())):
        write_json(path, config)
        return
    if not path.exists():
        raise ValueError(f"workdir: expected config.json beside the checkpoints in {workdir}, got none")
    config = json.loads(json.dumps(config))  # tuples become lists, as in the file
    trained = lambda config: {name: group for name, group in config.items() if name not in PLACEMENT}
    difference = first_difference(trained(read_json(path)), trained(config))
    if difference:
        name, old, new = difference
        old, new = ("nothing" if v is MISSING else repr(v) for v in (old, new))
        raise ValueError(
            f"workdir: {workdir} holds another config: {name} is {old} there and {new} here; give another workdir"
        )
