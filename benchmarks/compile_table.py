"""Published networks on TPU slices that need not exist: memory, communication and a bound of the step time.

Run: `python benchmarks/compile_table.py` (needs the compiler, `pip install 'genjax-toolkit[slice]'`; many minutes
and gigabytes a network). `--only=dit_xl_2 --chips=8` for a part. Writes benchmarks/results/compile_table.json as it
goes, and benchmarks/results/compile_table.md.

Every step is the real one: bf16 computation, Adam, one average of the weights, dropping of labels; the same
number of samples a chip on every slice, so the batch grows with it.
"""

import argparse
import json
import pathlib
import time

from ml_collections import ConfigDict

from genjax import build
from genjax.cli.compile import batch_like, record, size
from genjax.data import DataSpec
from genjax.networks import edm2, transformer, unet
from genjax.train import plan_ahead
from genjax.train.sharding import make_layout

OUT = pathlib.Path(__file__).parent / "results"
SLICES = {8: "2x4", 64: "8x8", 256: "16x16"}
LAYOUTS = {"data": lambda chips: {"data": chips}, "fsdp": lambda chips: {"data": max(1, chips // 64), "fsdp": -1}}
EPS = {"target": "eps", "scale_input": False}
EDM = {"target": "edm", "sigma_data": 0.5}
CASES = {
    # name: (title, shape, network, process, denoiser, loss, samples a chip)
    "dit_xl_2": (
        "DiT-XL/2, 256 px latents",
        (32, 32, 4),
        {"name": "dit", **{k: v for k, v in transformer.PRESETS["dit_xl_2"][1].items() if k != "out_channels"}},
        {"name": "ddpm", "steps": 1000, "betas": "linear"},
        {**EPS, "learned_variance": True},
        {"name": "hybrid", "time_sampler": {"name": "discrete", "steps": 1000}, "steps": 1000},
        32,
    ),
    "edm2_s": (
        "EDM2-S, 64 px latents",
        (64, 64, 4),
        {"name": "edm2_unet", **edm2.PRESETS["edm2_s"]},
        {"name": "edm"},
        EDM,
        {"time_sampler": {"name": "log_normal"}, "weighting": {"name": "edm"}},
        8,
    ),
    "adm_64": (
        "ADM, 64 px",
        (64, 64, 3),
        {"name": "unet", **unet.PRESETS["adm_imagenet64"]},
        {"name": "edm"},
        EDM,
        {"time_sampler": {"name": "log_normal"}, "weighting": {"name": "edm"}},
        8,
    ),
}


def config_of(name, chips, remat):
    _, _, network, process, denoiser, loss, share = CASES[name]
    return ConfigDict(
        {
            "data": {"name": "digits"},  # its place: the shape is given
            "process": process,
            "network": {**{k: v for k, v in network.items() if k != "num_classes"}, "remat": remat},
            "denoiser": denoiser,
            "loss": loss,
            "algorithm": {"name": "diffusion", "cond": ("label",), "label_drop": 0.1},
            "optimizer": {"name": "adam", "learning_rate": 1e-4},
            "ema": {"name": "constant", "decay": 0.9999},
            "precision": "bfloat16",
            "train": {"batch_size": share * chips},
            "sample": {"solver": "heun", "steps": 18},
        }
    )


def measure(name, chip_name, chips, layout_name, remat):
    devices, chip = plan_ahead.topology_devices(f"{chip_name}:{SLICES[chips]}")
    spec = DataSpec(CASES[name][1], 1000, fields=("x", "label"))
    config = config_of(name, chips, remat)
    layout = make_layout(LAYOUTS[layout_name](chips), devices=devices)
    like = batch_like(spec, config.train.batch_size)
    began = time.monotonic()
    program = plan_ahead.compile_step(build.algorithm(config, spec), layout, like)
    return {**record(program, chip), "compile_seconds": time.monotonic() - began, "remat": remat}


def table(found):
    lines = [
        "# Train steps compiled ahead of time",
        "",
        "Made by `python benchmarks/compile_table.py` on a machine without a TPU; see there for the settings. Memory",
        "is a chip's. The step takes at least the longest of the times for matrix products, memory and network, and at",
        "most their sum, at the chip's published peaks: a bound, not a measurement. `util` is the share of the peak.",
        "",
        "| network | chip | chips | batch | layout | recomputes | parameters | optimizer | averages | activations "
        "| peak | fits | TFLOP a step | sent a chip | step, ms | util | compile |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, row in found.items():
        name, chip, chips, layout = key.split("/")
        m, s = row["memory"], row["seconds"]
        sent = sum(c["sent"] for c in row["collectives"].values())
        times = f"{s['least'] * 1e3:.0f} ... {s['most'] * 1e3:.0f}"
        util = f"{s['compute'] / s['least']:.0%} ... {s['compute'] / s['most']:.0%}"
        if not row["fits"]:
            times = util = "-"
        cells = [CASES[name][0], chip, chips, CASES[name][6] * int(chips), layout, "yes" if row["remat"] else "no"]
        cells += [size(m[what]) for what in ("parameters", "optimizer", "averages")]
        cells += [
            size(m["activations"]) if "activations" in m else "-",
            size(m["peak"]),
            "yes" if row["fits"] else "no",
        ]
        cells += [f"{row['operations'] / 1e12:.1f}", size(sent) if row["fits"] else "-", times, util]
        cells.append(f"{row['compile_seconds']:.0f} s")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--chips", default=",".join(map(str, SLICES)))
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--chip", default="v5e")
    parser.add_argument("--no-remat", action="store_true", help="keep the blocks' activations for the backward pass")
    args = parser.parse_args()
    path = OUT / "compile_table.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    OUT.mkdir(exist_ok=True)
    for name in args.only.split(","):
        for chips in map(int, args.chips.split(",")):
            for layout in args.layouts.split(","):
                key = f"{name}/{args.chip}/{chips}/{layout}"
                found[key] = measure(name, args.chip, chips, layout, not args.no_remat)
                print(key, json.dumps(found[key]), flush=True)
                path.write_text(json.dumps(found, indent=1) + "\n")
                (OUT / "compile_table.md").write_text(table(found))


if __name__ == "__main__":
    main()
