"""The workdir: config, lock, whole writes."""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from tensorboardX.proto.event_pb2 import Event

from genjax.train import logs, workdir


def test_another_config_is_refused_by_its_first_differing_field(tmp_path):
    old = {"seed": 0, "optimizer": {"name": "adam", "learning_rate": 1e-3}, "data": {"size": (8, 8)}}
    workdir.claim(tmp_path, old)
    workdir.claim(tmp_path, {**old, "seed": 1})  # nothing trained yet: free
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
    workdir.claim(tmp_path, old)
    (tmp_path / "checkpoints" / "00000001").mkdir(parents=True)
    workdir.claim(tmp_path, old)  # a tuple equals the list that JSON made of it
    new = {**old, "optimizer": {"name": "adam", "learning_rate": 2e-3}}
    with pytest.raises(ValueError, match=r"another config: optimizer\.learning_rate is 0\.001 there and 0\.002 here"):
        workdir.claim(tmp_path, new)
    with pytest.raises(ValueError, match=r"data\.size is \[8, 8\] there and nothing here"):
        workdir.claim(tmp_path, {k: v for k, v in old.items() if k != "data"})
    with pytest.raises(ValueError, match=r"ema\.name is nothing there and 'constant' here"):
        workdir.claim(tmp_path, {**old, "ema": {"name": "constant"}})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: expected a JSON file"):
        workdir.claim(tmp_path, old)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"expected config\.json beside the checkpoints"):
        workdir.claim(tmp_path, old)


HOLD = """
    import sys, time
    from genjax.train.workdir import lock
    with lock(sys.argv[1]):
        print("held", flush=True)
        time.sleep(60)
"""


def test_lock_of_a_living_process_holds_and_of_a_killed_one_does_not(tmp_path):
    """Would catch a lock file that bars the workdir for ever after a crash."""
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        busy = pytest.raises(ValueError, match=f"workdir: expected one training at a time .* process {holder.pid} on")
        with busy, workdir.lock(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert (tmp_path / "lock").read_text()  # left behind by the dead
    with workdir.lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()
    with workdir.lock(tmp_path):
        pass


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run: expected a directory that can be written to, got"):
        workdir.check_writable(tmp_path / "file" / "run")


def test_read_only_directory(tmp_path, monkeypatch):
    """As on a file system mounted read-only (permissions do not bind the superuser, who may run this test)."""

    def refuse(self, data):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(OSError, match="expected a directory that can be written to, got 'Read-only file system'"):
        workdir.check_writable(tmp_path)


def test_directory_without_room(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    workdir.check_writable(tmp_path, 1000)
    with pytest.raises(OSError, match="expected room for 1,001 bytes, got 1,000 free"):
        workdir.check_writable(tmp_path, 1001)
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_leaves_the_old_file_when_the_write_fails(tmp_path):
    path = tmp_path / "metrics.json"
    workdir.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        workdir.write_json(path, {"a": object()})
    with pytest.raises(OSError, match="full"), workdir.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "full")
    assert json.loads(path.read_text()) == {"a": 1} and os.listdir(tmp_path) == ["metrics.json"]


def crc32c(data):
    """Bit by bit, of the polynomial 0x1EDC6F41 reflected; of b"123456789" it is 0xE3069283."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def read_events(data):
    """The events of a TFRecord file; would catch a wrong length, checksum or order of bytes."""
    assert crc32c(b"123456789") == 0xE3069283
    masked = lambda part: ((crc32c(part) >> 15 | crc32c(part) << 17) + 0xA282EAD8) & 0xFFFFFFFF
    found = []
    while data:
        length = int.from_bytes(data[:8], "little")
        body = data[12 : 12 + length]
        assert int.from_bytes(data[8:12], "little") == masked(data[:8])
        assert int.from_bytes(data[12 + length : 16 + length], "little") == masked(body)
        found.append(Event.FromString(body))
        data = data[16 + length :]
    return found


def test_a_record_that_cannot_be_written_names_the_file(tmp_path, monkeypatch):
    """The system's own words alone, "No space left on device", would not say where."""
    log = logs.Log(tmp_path)

    def refuse(step, values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(log._events, "scalars", refuse)
    with pytest.raises(OSError, match=r"metrics\.jsonl: step 3 could not be written: No space left on device"):
        log.write(3, {"loss": 0.5})
    log.close()


def test_log_writes_json_lines_and_events(tmp_path):
    log = logs.Log(tmp_path)
    log.write(1, {"loss": 0.5})
    log.write(2, {"loss": 0.25})
    log.close()
    assert logs.read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    events = b"".join(p.read_bytes() for p in (tmp_path / "events").iterdir())
    assert events.count(b"loss") == 2
    found = read_events(events)
    assert found[0].file_version == "brain.Event:2" and found[1].session_log.status == 1  # START
    scalars = [(e.step, v.tag, v.simple_value) for e in found[2:] for v in e.summary.value]
    assert scalars == [(1, "loss", 0.5), (2, "loss", 0.25)]
    logs.Log(tmp_path, step=1, events=False)
    assert logs.read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5}]
