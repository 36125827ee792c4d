"""Real processes on this machine train together: the numbers of one process, and a loud end when one is killed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.cli.train import UNFINISHED
from genjax.train import checkpoints, multihost
from genjax.train.logs import read_metrics

SCRIPT = Path(__file__).with_name("processes.py")
ROOT = SCRIPT.parents[2]
CONFIG = f"{ROOT / 'experiments/diffusion/edm_digits.py'}:smoke"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(*argv, **env):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **env}
    return subprocess.Popen(
        [sys.executable, *map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env
    )


def finish(processes, seconds):
    """[(return code, stderr)]; none outlives the test."""
    try:
        errors = [p.communicate(timeout=seconds)[1] for p in processes]
        return [(p.returncode, error) for p, error in zip(processes, errors)]
    finally:
        for p in processes:
            p.kill()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Workdirs of the same training by one and by two processes, its parameters split over both (FSDP)."""
    folders = {}
    for count in (1, 2):
        folders[count], port = tmp_path_factory.mktemp(f"by{count}"), free_port()
        processes = [start(SCRIPT, folders[count], i, count, port) for i in range(count)]
        for code, error in finish(processes, 150):
            assert code == 0, error[-3000:]
    return folders


def test_two_processes_give_the_losses_of_one(runs):
    """Would catch a share of the data, or a key, that depends on the process."""
    one, two = ([r["loss"] for r in read_metrics(runs[n] / "metrics.jsonl")] for n in (1, 2))
    assert len(one) == 6 and len(set(one)) == 6
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_two_processes_draw_the_samples_of_one(runs):
    expected = np.load(runs[1] / "samples.0.npy")
    assert expected.std() > 0.1
    for process in (0, 1):
        np.testing.assert_allclose(np.load(runs[2] / f"samples.{process}.npy"), expected, rtol=0, atol=1e-5)


def test_each_process_reads_its_share_once(runs):
    """6 batches of 16: 96 examples by one process, 48 by each of two."""
    assert [(runs[1] / "read.0").read_text()] == ["96"]
    assert [(runs[2] / f"read.{i}").read_text() for i in range(2)] == ["48", "48"]


def test_everything_is_written_once(runs):
    """Metrics of one process, and checkpoints whole although each process wrote its pieces."""
    assert [r["step"] for r in read_metrics(runs[2] / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert len(list((runs[2] / "events").iterdir())) == 1
    for step in (3, 6):
        assert checkpoints.damage(runs[2] / "checkpoints" / f"{step:08d}") is None


def _train(workdir, cache, *flags):
    flags = [f"--workdir={workdir}", *flags]
    flags_of_xla = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    env = {"GENJAX_CACHE": str(cache), "XLA_FLAGS": flags_of_xla}
    return start("-m", "genjax.cli.main", "train", f"--config={CONFIG}", *flags, **env)


def _wait(condition, seconds, processes=()):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        assert all(p.poll() is None for p in processes), [p.communicate() for p in processes if p.poll() is not None]
        time.sleep(0.1)


def test_a_killed_process_ends_the_other_and_the_next_start_resumes(tmp_path):
    workdir, cache = tmp_path / "run", tmp_path / "cache"
    endless = ["--config.train.steps=500000", "--config.train.checkpoint_every=20"]
    flags = [*endless, f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    processes = [_train(workdir, cache, *flags, f"--process-id={i}") for i in range(2)]
    saved = lambda: checkpoints.newest_intact(workdir / "checkpoints", None) if workdir.exists() else None
    try:
        _wait(saved, 120, processes)
        processes[1].send_signal(signal.SIGKILL)
        began = time.monotonic()
        (code, error), _ = finish(processes, 60)
    finally:
        for p in processes:
            p.kill()
    assert time.monotonic() - began < 60 and code == multihost.LOST, error[-3000:]
    message = (
        r"^genjax train: error: process 0 of 2: another process ended or cannot be reached; start all of them again"
    )
    assert re.search(message, error, re.MULTILINE), error[-3000:]
    kept = saved()
    alone = _train(workdir, cache, *endless)  # one process, on which the checkpoint of two is placed anew
    try:
        _wait(lambda: (saved() or 0) > kept, 120, [alone])
        alone.send_signal(signal.SIGTERM)
        ((code, error),) = finish([alone], 60)
    finally:
        alone.kill()
    assert code == UNFINISHED and f"resumed {workdir} at step {kept}" in error, error[-3000:]
    assert json.loads((workdir / "config.json").read_text())["train"]["steps"] == 500000


FOUR = ("--config.train.steps=60", "--config.train.checkpoint_every=5", "--config.train.log_every=5")
FOUR += ("--config.mesh={'data': -1, 'fsdp': 2}", "--config.sharding={'min_size': 64}", "--quiet")


def _four(workdir, cache):
    """Four processes of one training, each with one device."""
    flags = [*FOUR, f"--coordinator=127.0.0.1:{free_port()}", "--processes=4"]
    return [_train(workdir, cache, *flags, f"--process-id={i}") for i in range(4)]


def _lose(workdir, cache, victim):
    """Kills process `victim` of four after a new checkpoint; how the others end. Returns the newest step kept."""
    saved = lambda: checkpoints.newest_intact(workdir / "checkpoints", None) or 0
    before, processes = saved(), _four(workdir, cache)
    try:
        _wait(lambda: saved() > before, 240, processes)
        processes[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        ends = finish([p for i, p in enumerate(processes) if i != victim], 60)
    finally:
        for p in processes:
            p.kill()
        processes[victim].communicate()
    assert time.monotonic() - began < 60
    for code, error in ends:
        assert code in (multihost.LOST, -signal.SIGABRT), (code, error[-3000:])
        assert error.count("another process ended or cannot be reached; start all of them again") == 1, error[-3000:]
    return saved()


@pytest.mark.timeout(900)
def test_four_processes_lose_one_then_the_coordinator_and_end_as_one_process(tmp_path):
    """13 starts, two minutes of processor time. Losses of all steps as if one process had trained alone: would
    catch a share of the data, a key or a checkpoint that depends on the number of processes or on who died."""
    workdir, cache = tmp_path / "run", tmp_path / "cache"
    ((code, error),) = finish([_train(tmp_path / "alone", cache, *FOUR[:3], "--quiet")], 240)
    assert code == 0, error[-3000:]
    kept = _lose(workdir, cache, 3)
    assert kept < _lose(workdir, cache, 0) < 60
    for code, error in finish(_four(workdir, cache), 240):
        assert code == 0, error[-3000:]
    four, alone = (read_metrics(folder / "metrics.jsonl") for folder in (workdir, tmp_path / "alone"))
    assert [r["step"] for r in four] == [r["step"] for r in alone] == [1, *range(5, 61, 5)]
    np.testing.assert_allclose([r["loss"] for r in four], [r["loss"] for r in alone], rtol=1e-5)
    assert checkpoints.damage(workdir / "checkpoints" / "00000060") is None


def test_a_process_that_cannot_speak_is_spoken_for(tmp_path):
    """An abort below Python, in which no handler runs, still ends in one line that says what to do, before an error
    of ours or after it; a regular end and a signal that we heed ourselves add nothing."""
    script = """
import os, signal, sys
from genjax.train import multihost
multihost.jax.process_count, multihost.jax.process_index = lambda: 2, lambda: 1
with multihost.watched("runs/digits"):
    {}
"""
    start_of, gone = "genjax train: error: ", "process 1 of 2: another process ended or cannot be reached; start all"
    gone += " of them again to go on from the newest checkpoint of runs/digits"
    aborted, lost = f"{start_of}aborted; {gone}", "raise multihost.jax.errors.JaxRuntimeError('closed')"
    ways = {
        "os.abort()": (-signal.SIGABRT, [aborted]),
        "pass": (0, []),
        "sys.exit(3)": (3, []),
        "os.kill(os.getpid(), signal.SIGKILL)": (-signal.SIGKILL, [aborted]),
        "raise OSError('full')": (2, [f"{start_of}full"]),
        lost: (multihost.LOST, [f"{start_of}{gone} (closed)"]),
        f"os._exit = lambda code: os.abort(); {lost}": (-signal.SIGABRT, [f"{start_of}{gone} (closed)"]),
        f"multihost.explain = lambda *_: os.abort(); {lost}": (-signal.SIGABRT, [aborted]),
    }
    running = [start("-c", script.format(way)) for way in ways]
    for way, (code, error) in zip(ways, finish(running, 60)):
        assert (code, error.splitlines()) == ways[way], way


def test_numbers_that_do_not_fit():
    for flags, message in [
        (("localhost:1", None, None), "--processes: expected it beside --coordinator"),
        (("localhost:1", 2, None), "--process-id: expected it beside"),
        (("localhost:1", 2, 2), "--process-id: expected 0 to 1, got 2"),
        (("localhost", 2, 0), "--coordinator: expected host:port, got 'localhost'"),
    ]:
        with pytest.raises(ValueError, match=message):
            multihost.initialize(*flags)


def test_one_process_holds_all_rows():
    sharding = NamedSharding(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]), P("data"))
    assert multihost.rows_of(sharding, 8) == (0, 1)
    assert multihost.same(5) == multihost.any_of(5) == 5 and multihost.is_main()
    assert multihost.explain(jax.errors.JaxRuntimeError("lost"), "w") is None


def test_a_save_that_another_process_left_is_no_full_disk(monkeypatch):
    monkeypatch.setattr(multihost.jax, "process_count", lambda: 2)
    error = OSError("checkpoint w/00000040: could not be written: UNKNOWN: Gloo AllGather failed: Connection closed")
    assert "another process ended" in str(multihost.explain(error, "w"))
    assert (
        multihost.explain(OSError("checkpoint w/00000040: could not be written: No space left on device"), "w") is None
    )
