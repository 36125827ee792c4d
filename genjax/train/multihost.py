"""Several processes as one training: each runs the same program on its devices.

JAX finds the others by itself on TPU pods and under SLURM, Kubernetes and Open MPI; elsewhere an address, a
number and an index tell. Whatever is written (metrics, pictures, the workdir's lock) is written by process
0; checkpoints are written by all together, each its pieces.
"""

import contextlib
import os
import subprocess
import sys

import jax
import numpy as np

HEARTBEAT = 20  # seconds without a sign of life after which a process counts as lost
LOST = 70  # exit code of a process that lost another


# The voice of a process: prints the line that comes through the pipe, and one of its own where the process ended
# without any.
VOICE = """
import signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
line = sys.stdin.buffer.read().decode() or sys.argv[1]
if line != sys.argv[2]:
    print(line, file=sys.stderr, flush=True)
"""
SILENCE = "ended"  # the line that is not printed


class Lost(RuntimeError):
    """Another process of the training ended or cannot be reached."""


def initialize(coordinator=None, processes=None, process=None, heartbeat=HEARTBEAT):
    """Joins the processes of a training; before any other use of JAX.

    Args:
      coordinator: "host:port" of process 0; None: JAX's own detection, which then finds all three.
      processes: how many there are.
      process: index of this one.
      heartbeat: seconds after which a silent process counts as lost.

    Raises:
      ValueError: some of the three without the others, numbers out of range, or nothing to detect.
      RuntimeError: the others could not be reached.
    """
    given = {"coordinator": coordinator, "processes": processes, "process-id": process}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < 3:
        raise ValueError(f"--{missing[0]}: expected it beside --coordinator, --processes and --process-id, got none")
    if not missing:
        if processes < 1 or not 0 <= process < processes:
            raise ValueError(f"--process-id: expected 0 to {processes - 1}, got {process}")
        if ":" not in coordinator:
            raise ValueError(f"--coordinator: expected host:port, got {coordinator!r}")
    try:
        jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=heartbeat)
    except ValueError as error:
        raise ValueError(
            "--distributed: expected a TPU pod, SLURM, Kubernetes or Open MPI, or the flags --coordinator, "
            f"--processes and --process-id, found none ({str(error).splitlines()[0]})"
        ) from error


def is_main():
    """Whether this process writes."""
    return jax.process_index() == 0


def meet(name, seconds=600):
    """Waits until all processes are at the point `name`."""
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn()(key=f"genjax.{name}", timeout_ms=1000 * seconds)


def together(program, name):
    """A jitted program whose first run begins in all processes at once, after compiling; as it is for one process.

    Collectives on CPU devices give a latecomer 30 seconds, which compiling on a busy machine may take.
    """
    if jax.process_count() == 1:
        return program
    compiled = []

    def run(*args):
        if not compiled:
            compiled.append(program.lower(*args).compile())
            meet(name)
        return compiled[0](*args)

    return run


def same(value):
    """The whole number `value` of process 0, in all of them."""
    if jax.process_count() == 1:
        return int(value)
    from jax.experimental import multihost_utils

    meet("same")
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def any_of(value):
    """The largest of the processes' whole numbers `value`: what a signal to one of them says to all."""
    if jax.process_count() == 1:
        return int(value)
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def rows_of(sharding, batch_size):
    """(share, shares): the rows of a batch that this process's devices hold are share `share` of `shares` equal ones.

    Raises:
      ValueError: devices whose rows are not one such share.
    """
    spans = [
        index[0].indices(batch_size)[:2] for index in sharding.addressable_devices_indices_map((batch_size,)).values()
    ]
    first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
    size = last - first
    held = {row for start, stop in spans for row in range(start, stop)}
    if len(held) != size or first % size or batch_size % size:
        raise ValueError(
            f"mesh: expected each process to hold one block of a batch of {batch_size}, got rows {sorted(set(spans))}; "
            "let the axes data and fsdp go over the processes first"
        )
    return first // size, batch_size // size


def place(batch, sharding):
    """The global batch of which every process gives its rows, a dict of arrays."""
    return {name: jax.make_array_from_process_local_data(sharding, np.asarray(a)) for name, a in batch.items()}


def explain(error, workdir):
    """The Lost that an error stands for where several processes train: one that comes of JAX's runtime; else None.

    A save that another process left says so in its text alone: the error comes from a thread of Orbax.
    """
    of_runtime = lambda e: isinstance(e, jax.errors.JaxRuntimeError) or "Gloo" in str(e)
    while error is not None and not of_runtime(error):
        error = error.__cause__ or error.__context__
    if jax.process_count() == 1 or error is None:
        return None
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return Lost(f"{_gone(workdir)} ({reason[:200]})")


def _gone(workdir):
    return (
        f"process {jax.process_index()} of {jax.process_count()}: another process ended or cannot be reached; start "
        f"all of them again to go on from the newest checkpoint of {workdir}"
    )


@contextlib.contextmanager
def watched(workdir, code=lambda error: 2):
    """Says once, in our words, why this process ended, and ends it at an error where several processes train.

    The threads of JAX's runtime that find another process gone may abort this one with a message of their own, at any
    moment and with no Python run any more; a small process at the other end of a pipe therefore does the speaking. An
    error ends this process at once, for a regular exit would wait for others that may be gone: with LOST where
    `explain` finds another process behind it, else with code(error). One process alone is left to its errors.
    """
    if jax.process_count() == 1:
        yield
        return
    command = [sys.executable, "-I", "-S", "-c", VOICE, _line(f"aborted; {_gone(workdir)}"), SILENCE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as voice:
        try:
            yield
        except Exception as error:
            lost = explain(error, workdir)
            first = (str(lost or error).strip().splitlines() or [type(error).__name__])[0]
            sys.stdout.flush()
            voice.communicate(_line(first).encode())
            os._exit(LOST if lost else code(error))
        finally:
            voice.communicate(SILENCE.encode())


def _line(message):
    return f"genjax train: error: {message}"
