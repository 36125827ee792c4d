"""Trainings in processes of their own, and what they leave on the disk: for benchmarks/crash.py and its test."""

import os
import pathlib
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = f"{ROOT / 'experiments' / 'diffusion' / 'edm_digits.py'}:smoke"
PATIENCE = 300  # seconds for anything that must happen


class Bench(NamedTuple):
    """Where trainings of one config run."""

    folder: pathlib.Path
    steps: int
    every: int  # steps from checkpoint to checkpoint
    cache: pathlib.Path  # of compiled programs, so that a start takes seconds

    def workdir(self, name):
        return self.folder / name

    def log(self, name):
        """What a process prints, kept outside the folder, whose disk may be full."""
        return self.cache.with_name(f"{self.folder.name}-{name}.log")

    def checkpoints(self, name):
        return self.folder / name / "checkpoints"

    def start(self, name, *more):
        """A training process in the workdir `name`."""
        train = {"steps": self.steps, "checkpoint_every": self.every, "log_every": self.every}
        flags = [f"--config.train.{key}={value}" for key, value in train.items()]
        command = [sys.executable, "-m", "genjax.cli.main", "train", f"--config={CONFIG}"]
        command += [f"--workdir={self.workdir(name)}", *flags, *more]
        with open(self.log(name), "w") as log:  # a pipe that nobody reads would stop the training
            return subprocess.Popen(command, stdout=log, stderr=log, env=self.environment(), cwd=ROOT)

    def environment(self):
        return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "GENJAX_CACHE": str(self.cache)}

    def finish(self, name, process):
        """(exit code, what it printed) of a process that ends by itself."""
        try:
            code = process.wait(PATIENCE)
        finally:
            process.kill()
        return code, self.log(name).read_text()

    def run(self, name, *more):
        return self.finish(name, self.start(name, *more))

    def complete(self, name):
        """Trains to the end; its messages.

        Raises:
          RuntimeError: it did not end well.
        """
        code, text = self.run(name)
        if code:
            raise RuntimeError(f"the training in {name} ended with {code}: {text[-2000:]}")
        return text

    def newest(self, name):
        """The newest whole checkpoint, 0 for none."""
        from genjax.train import checkpoints

        return checkpoints.newest_intact(self.checkpoints(name), None) or 0

    def logged(self, name):
        from genjax.train.logs import read_metrics

        return read_metrics(self.workdir(name) / "metrics.jsonl")

    def arrays(self, name):
        """{path: array} of the newest checkpoint."""
        from genjax.cli import runtime
        from genjax.train.checkpoints import to_arrays

        workdir = self.workdir(name)
        state = runtime.restore(runtime.stored_config(workdir), workdir).state
        return {path: np.asarray(array) for path, array in to_arrays(state).items()}

    def differences(self, name, reference):
        """(arrays, differing arrays, whether every record of the metrics is the same) of two trainings."""
        a, b = self.arrays(name), self.arrays(reference)
        same = lambda x, y: x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        differ = [path for path in {*a, *b} if path not in a or path not in b or not same(a[path], b[path])]
        return len(b), len(differ), self.logged(name) == self.logged(reference)


def wait_for(condition, process, seconds=PATIENCE):
    """Waits until `condition()` holds or the process ends; whether it holds."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return bool(condition())
        if time.monotonic() > end:
            raise RuntimeError(f"nothing happened within {seconds} s")
        time.sleep(0.001)
    return True


class Life:
    """What a process started in the workdir `name` has done; made before its start."""

    def __init__(self, bench, name):
        self.directory, self.metrics = bench.checkpoints(name), bench.workdir(name) / "metrics.jsonl"
        self.bench, self.name, self.step, self.file = bench, name, bench.newest(name), self._inode()

    def _inode(self):
        return self.metrics.stat().st_ino if self.metrics.exists() else None

    def trains(self):
        """Whether it has written a record of its own: its start puts a new file in place of the old one."""
        return self._inode() != self.file and any(r["step"] > self.step for r in self.bench.logged(self.name))

    def saves(self):
        """The checkpoint that it is writing, or None. What an earlier one left unfinished is gone once it trains."""
        return next((path.name for path in self.directory.glob("*tmp*")), None) if self.trains() else None
