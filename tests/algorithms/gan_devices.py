"""Trains one small game in every layout of four simulated devices; run by test_gan_devices.py in its own process.

Usage: python gan_devices.py OUT.npz.
"""

import os
import sys

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from ml_collections import ConfigDict

from genjax import build
from genjax.train import loop
from genjax.train.generation import draw

LAYOUTS = {
    # name: (config.mesh, config.parallel, number of devices)
    "one": (None, "mesh", 1),
    "data": ({"data": 4}, "mesh", 4),
    "fsdp": ({"fsdp": 4, "data": -1}, "mesh", 4),
    "pmap": (None, "pmap", 4),
}


def make_config(mesh, parallel):
    """A game whose losses, penalties and networks couple the samples of a batch, with two critic updates a step."""
    network = {"name": "mlp", "width": 32, "depth": 1}
    config = ConfigDict(
        {
            "data": {"name": "digits_vector"},
            "generator": {**network, "norm": "batch"},
            "discriminator": {**network, "spectral": 1, "head": "contrastive", "minibatch": 2},
            "latent": {"name": "normal", "dim": 4},
            "loss": {"name": "re_acgan", "base": "relativistic_average"},
            "penalties": {"dragan": {"weight": 0.1, "every": 2}, "lecam": 0.1, "max_gp": 0.01},
            "g_penalties": {"path_length": 0.1},
            "algorithm": {"name": "gan", "cond": ("label",), "n_critic": 2, "fake_labels": "uniform"},
            "augment": {"name": "instance_noise", "std": 0.1, "steps": 10},
            "optimizer": {"name": "sgd", "learning_rate": 1e-2, "momentum": 0.5},
            "ema": {"name": "constant", "decay": 0.9},
            "parallel": parallel,
            "train": {"steps": 3, "batch_size": 8, "steps_per_call": 1, "log_every": 1, "checkpoint_every": 0},
        }
    )
    if parallel == "mesh":
        config.sharding = {"min_size": 64}
    if mesh:
        config.mesh = mesh
    return config


def run(name):
    mesh, parallel, devices = LAYOUTS[name]
    config = make_config(mesh, parallel)
    layout = build.layout(config, jax.devices()[:devices])
    data = build.dataset(config)
    algorithm = build.algorithm(config, data.spec)
    feed, plan = build.feed(config, data, layout), build.plan(config)
    losses = []
    note = lambda step, metrics: losses.append([metrics[k] for k in sorted(metrics)])
    state = loop.fit(algorithm, feed, plan.steps, steps_per_call=1, layout=layout, report=note)
    leaves = jax.tree.leaves((state.params, state.ema, state.extra))
    floats = [np.asarray(v, np.float32).ravel() for v in leaves if v.dtype == np.float32]
    labels = {"label": np.arange(8) % 10}
    samples = draw(algorithm, jax.random.key(5), state, 8, labels, chunk=8)
    return {f"{name}/metrics": np.array(losses), f"{name}/state": np.concatenate(floats), f"{name}/samples": samples}


if __name__ == "__main__":
    found = {}
    for name in LAYOUTS:
        found.update(run(name))
    np.savez(sys.argv[1], **found)
