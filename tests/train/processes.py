"""One process of a training that reads its data from a source; run by test_multihost.py.

Usage: python processes.py WORKDIR INDEX COUNT PORT. Trains 6 steps; writes how many examples it read to
WORKDIR/read.INDEX and its samples to WORKDIR/samples.INDEX.npy.
"""

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from ml_collections import ConfigDict

from genjax import build
from genjax.data.spec import Dataset
from genjax.train import loop, multihost
from genjax.train.generation import draw

CONFIG = {
    "data": {"name": "digits_vector"},
    "process": {"name": "edm", "sigma_min": 0.5},
    "network": {"name": "mlp", "width": 32, "depth": 1},
    "denoiser": {"target": "edm", "sigma_data": 0.75},
    "loss": {"time_sampler": {"name": "log_normal"}, "weighting": {"name": "edm"}},
    "algorithm": {"name": "diffusion", "cond": ("label",), "label_drop": 0.2},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip": 1.0},
    "train": {"steps": 6, "batch_size": 16, "steps_per_call": 1, "log_every": 1, "checkpoint_every": 3},
    "sample": {"solver": "ddpm", "steps": 2},
}


class Source:
    """Digits read one by one, counted."""

    def __init__(self, arrays):
        self.arrays, self.read = arrays, []

    def __len__(self):
        return len(self.arrays["x"])

    def __getitem__(self, i):
        self.read.append(i)
        return {name: a[i] for name, a in self.arrays.items()}


def main(workdir, index, count, port):
    index, count = int(index), int(count)
    if count > 1:
        multihost.initialize(f"127.0.0.1:{port}", count, index)
    config = ConfigDict(CONFIG)
    config.mesh = {"data": 1, "fsdp": -1}
    config.sharding = {"min_size": 64}
    resident = build.dataset(config)
    source = Source(resident.arrays)
    data = Dataset("digits", resident.spec, source=source)
    layout, algorithm, plan = build.layout(config), build.algorithm(config, data.spec), build.plan(config)
    feed = build.feed(config, data, layout)
    state, _ = loop.train(algorithm, feed, plan, workdir, {"of": "the test"}, layout=layout, stream=None)
    label = {"label": np.arange(8, dtype=np.int32)}
    np.save(Path(workdir) / f"samples.{index}.npy", draw(algorithm, jax.random.key(1), state, 8, label))
    (Path(workdir) / f"read.{index}").write_text(str(len(set(source.read[: 6 * 16 // count]))))


if __name__ == "__main__":
    main(*sys.argv[1:])
