"""What benchmarks/crash.py measures, in short: trainings that are killed, damaged and starved lose nothing.

Processes of `genjax train`; each test says what it would catch. The harness itself is tested by what it must refuse.
"""

import importlib
import random
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # eight starts of processes: a busy machine takes minutes
STEPS, EVERY = 800, 50


@pytest.fixture(scope="module")
def crash():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield importlib.import_module("benchmarks.crash")
        for name in [n for n in sys.modules if n.split(".")[0] == "benchmarks"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def bench(crash, tmp_path_factory):
    """Trainings of one config, with one that was left alone."""
    folder = tmp_path_factory.mktemp("crash")
    bench = crash.Bench(folder / "runs", STEPS, EVERY, folder / "cache")
    bench.folder.mkdir()
    bench.complete("reference")
    return bench


def test_three_kills_and_an_end_as_if_there_were_none(crash, bench):
    """Two kills fall into saves. Would catch a checkpoint that counts before it is whole, a position in the data
    or a key that is not that of the step, a record lost or written twice."""
    rng = random.Random(0)
    deaths = [crash.kill_once(bench, "killed", 4.0, aimed, rng) for aimed in (True, False, True)]
    assert sum(death["moment"] == "saving" for death in deaths) >= 1, deaths
    bench.complete("killed")
    assert max(death["kept"] for death in deaths) > 0
    arrays, differ, same = bench.differences("killed", "reference")
    assert arrays > 50 and differ == 0 and same


def test_a_full_disk(crash, bench):
    """Would catch an error in pages or without a name, a hang, a checkpoint cut short taken for whole. On a file
    system of its own where the system lets a user mount one, else with writes refused by the kernel."""
    found = crash.in_own_disk(bench, "reference") or crash.full_disk(bench, "reference", own_disk=False)
    assert found["ok"], found
    assert "could not be written" in found["line"]


def test_a_damaged_checkpoint(crash, bench):
    """Would catch a checkpoint read without a look at its hashes, or one that bars its workdir."""
    found = crash.damage(bench, "reference", "bit flipped", random.Random(1))
    assert found["ok"], found


def test_differences_are_seen(bench):
    """One bit of one array, one record of the metrics: a comparison that is always equal would prove nothing."""
    arrays = bench.arrays("reference")
    name = next(n for n in arrays if n.startswith("params/"))
    changed = arrays[name].copy()
    changed.view(np.uint32).flat[0] ^= 1

    class Other(type(bench)):
        def arrays(self, workdir):
            return {**arrays, name: changed} if workdir == "other" else arrays

        def logged(self, workdir):
            return super().logged("reference")[workdir == "other" :]

    other = Other(*bench)
    assert other.differences("other", "reference") == (len(arrays), 1, False)
    assert other.differences("reference", "reference") == (len(arrays), 0, True)
