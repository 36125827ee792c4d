"""Trains small networks in every layout of eight simulated devices; run by test_layouts.py in a process of its own.

Usage: python eight_devices.py OUT.npz WORKDIR. Writes losses and samples of each layout, and facts of the shards.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from ml_collections import ConfigDict

from genjax import build
from genjax.cli import runtime
from genjax.cli.main import main as cli
from genjax.train import checkpoints, loop, plan_ahead
from genjax.train.generation import draw
from genjax.train.logs import read_metrics
from genjax.train.sharding import make_layout

STEPS, BATCH, SAMPLES = 5, 16, 16
LAYOUTS = {
    # name: (network, config.mesh, config.parallel, number of devices)
    "one": ("mlp", None, "mesh", 1),
    "data": ("mlp", {"data": 8}, "mesh", 8),
    "fsdp": ("mlp", {"fsdp": 8, "data": -1}, "mesh", 8),
    "pmap": ("mlp", None, "pmap", 8),
    "dit_one": ("dit", None, "mesh", 1),
    "dit_tensor": ("dit", {"data": 2, "fsdp": 2, "tensor": 2}, "mesh", 8),
}
COMMANDS = {"command_one": [], "command_mesh": ["--mesh=data=2,fsdp=4"]}
NETWORKS = {
    "mlp": {"name": "mlp", "width": 32, "depth": 1},
    "dit": {"name": "dit", "dim": 16, "depth": 1, "heads": 2, "patch": 4, "noise_dim": 16},
}


def make_config(network="mlp"):
    return ConfigDict(
        {
            "data": {"name": "digits" if network == "dit" else "digits_vector"},
            "process": {"name": "edm", "sigma_min": 0.5},  # so that the last step leaves noise to compare
            "network": NETWORKS[network],
            "denoiser": {"target": "edm", "sigma_data": 0.75},
            "loss": {"time_sampler": {"name": "log_normal"}, "weighting": {"name": "edm"}},
            "algorithm": {"name": "diffusion", "cond": ("label",), "label_drop": 0.2},
            "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip": 1.0},
            "ema": {"name": "constant", "decay": 0.9},
            "sharding": {"min_size": 64},
            "train": {
                "steps": STEPS,
                "batch_size": BATCH,
                "steps_per_call": 1,
                "log_every": 1,
                "checkpoint_every": 2,
            },
            "eval": {"draws": 2},
            "sample": {"solver": "ddpm", "steps": 2, "cfg_scale": 1.5},
        }
    )


def configured(network, mesh, parallel):
    config = make_config(network)
    if mesh:
        config.mesh = mesh
    if parallel == "pmap":
        del config.sharding
    config.parallel = parallel
    return config


def train(config, devices, workdir, steps=STEPS):
    """(state, algorithm): trained to `steps` from where the workdir stands."""
    data = build.dataset(config)
    layout = build.layout(config, jax.devices()[:devices])
    algorithm, plan = build.algorithm(config, data.spec), build.plan(config)._replace(steps=steps)
    feed = build.feed(config, data, layout)
    state, _ = loop.train(algorithm, feed, plan, workdir, config.to_dict(), layout=layout, stream=None)
    return state, algorithm


def pieces(state):
    """{path: [shape, shape of a device's piece]} of the whole state."""
    arrays = checkpoints.to_arrays(state)
    return {name: [list(a.shape), list(a.sharding.shard_shape(a.shape))] for name, a in arrays.items()}


def sent():
    """{layout: bytes that a device sends in one step of a game of grouped convolutions}."""
    player = {"name": "r3gan", "widths": (32,), "groups": (4,), "blocks": 1}
    game = {"generator": player, "discriminator": player, "latent": {"name": "normal", "dim": 16}}
    config = ConfigDict(
        {
            "data": {"name": "digits"},
            "loss": {"name": "relativistic_pairing"},
            "algorithm": {"name": "gan"},
            "optimizer": {"name": "adam", "learning_rate": 1e-4},
            "train": {"batch_size": 64},
            **game,
        }
    )
    spec = build.dataset(config).spec
    algorithm, batch = build.algorithm(config, spec), {"x": jax.ShapeDtypeStruct((64, *spec.shape), "float32")}
    layouts = {"data": make_layout({"data": 8}), "fsdp": make_layout({"fsdp": 8}, min_size=64)}
    return {name: plan_ahead.compile_step(algorithm, layout, batch).sent for name, layout in layouts.items()}


def main(out, folder):
    folder, found, facts = Path(folder), {}, {}
    label = {"label": np.arange(SAMPLES, dtype=np.int32) % 10}
    for name, (*how, devices) in LAYOUTS.items():
        began = time.monotonic()
        state, algorithm = train(configured(*how), devices, folder / name)
        found[f"{name}/loss"] = [r["loss"] for r in read_metrics(folder / name / "metrics.jsonl")]
        found[f"{name}/samples"] = draw(algorithm, jax.random.key(1), state, SAMPLES, label)
        found[f"{name}/params"] = np.concatenate([np.ravel(p) for p in jax.tree.leaves(state.params)])
        facts[name] = pieces(state)
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    # cut after two steps in one layout, gone on with in another, on fewer devices
    train(configured(*LAYOUTS["fsdp"][:3]), 8, folder / "moved", steps=2)
    state, _ = train(configured("mlp", {"data": 2, "fsdp": 2}, "mesh"), 4, folder / "moved")
    found["moved/loss"] = [r["loss"] for r in read_metrics(folder / "moved" / "metrics.jsonl")]
    found["moved/params"] = np.concatenate([np.ravel(p) for p in jax.tree.leaves(state.params)])
    facts["moved"] = pieces(state)
    # what was trained under FSDP is sampled by the commands: on one device, and split over eight in another mesh
    os.environ["GENJAX_CACHE"] = str(folder / "cache")
    for name, flags in COMMANDS.items():
        argv = [f"--workdir={folder / 'fsdp'}", *flags]
        assert cli(["sample", *argv, f"--num={SAMPLES}", f"--out={folder / 'drawn.npz'}"]) == 0
        found[f"{name}/drawn"] = np.load(folder / "drawn.npz")["x"]
        measured = ["--num=64", "--metrics=sliced_w2", f"--out={folder / 'metrics.json'}"]
        assert cli(["evaluate", *argv, *measured]) == 0
        found[f"{name}/metrics"] = list(json.loads((folder / "metrics.json").read_text())["metrics"].values())
        mesh = flags[0].removeprefix("--mesh=") if flags else None
        model = runtime.restore(runtime.stored_config(folder / "fsdp"), folder / "fsdp", mesh=mesh)
        facts[name] = pieces(model.state)
    facts["sent"] = sent()
    np.savez(out, facts=json.dumps(facts), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
