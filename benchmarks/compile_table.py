"""Published networks on TPU slices that need not exist: memory, communication and a bound of the step time.

  python -m benchmarks.compile_table [--only dit_xl_2 adm_64] [--chips 8 64] [--layouts data fsdp] [--full] [--again]

Needs the compiler (`pip install 'genjax-toolkit[slice]'`), minutes and gigabytes a row; rows that were measured
are kept in results/compile_table.json and not measured again, so that the table can be filled bit by bit, and printed
without the compiler. Rows are compiled as by `genjax compile --quick`, with --full as a training compiles; the rows
that are there in both forms tell what the difference is. Every step is the real one; the same number of samples a
chip on every slice, so the batch grows with it. All take bf16 computation, Adam and one average of the weights (a
game's: of the generator); diffusion drops labels, games take every lazy penalty into their one program.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import time
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from genjax import build
from genjax.cli.compile import batch_like, hurry, record, size
from genjax.data import DataSpec
from genjax.networks import edm2, transformer, unet
from genjax.networks.gan import R3GAN_PRESETS, STYLEGAN2_PRESETS
from genjax.train import plan_ahead
from genjax.train.sharding import make_layout

OUT = pathlib.Path(__file__).parent / "results"
CHIP = "v5e"
SLICES = {8: "2x4", 64: "8x8", 256: "16x16"}
LAYOUTS = {"data": lambda chips: {"data": chips}, "fsdp": lambda chips: {"data": max(1, chips // 64), "fsdp": -1}}
EPS = {"target": "eps", "scale_input": False}
EDM = {"target": "edm", "sigma_data": 0.5}
EDM_LOSS = {"time_sampler": {"name": "log_normal"}, "weighting": {"name": "edm"}}


class Case(NamedTuple):
    """One row of networks."""

    title: str
    shape: tuple  # of a sample
    classes: int
    share: int  # samples a chip
    config: dict  # groups network, process, denoiser and loss, or generator, discriminator and what their game needs


def _without(preset, *names):
    return {key: value for key, value in preset.items() if key not in names}


DIT = _without(transformer.PRESETS["dit_xl_2"][1], "out_channels", "num_classes")
CASES = {
    "dit_xl_2": Case(
        "DiT-XL/2, 256 px latents",
        (32, 32, 4),
        1000,
        32,
        {
            "network": {"name": "dit", **DIT},
            "process": {"name": "ddpm", "steps": 1000, "betas": "linear"},
            "denoiser": {**EPS, "learned_variance": True},
            "loss": {"name": "hybrid", "time_sampler": {"name": "discrete", "steps": 1000}, "steps": 1000},
        },
    ),
    "edm2_s": Case(
        "EDM2-S, 64 px latents",
        (64, 64, 4),
        1000,
        8,
        {
            "network": {"name": "edm2_unet", **_without(edm2.PRESETS["edm2_s"], "num_classes")},
            "process": {"name": "edm"},
            "denoiser": EDM,
            "loss": EDM_LOSS,
        },
    ),
    "adm_64": Case(
        "ADM, 64 px",
        (64, 64, 3),
        1000,
        8,
        {
            "network": {"name": "unet", **_without(unet.PRESETS["adm_imagenet64"], "num_classes")},
            "process": {"name": "edm"},
            "denoiser": EDM,
            "loss": EDM_LOSS,
        },
    ),
    "stylegan2_256": Case(
        "StyleGAN2, 256 px",
        (256, 256, 3),
        0,
        8,
        {
            "generator": {"name": "stylegan2", "style": 512, "layers": 8, **STYLEGAN2_PRESETS["config_e"]},
            "discriminator": {"name": "stylegan2", **STYLEGAN2_PRESETS["config_e"]},
            "latent": {"name": "normal", "dim": 512},
            "loss": {"name": "non_saturating"},
            "penalties": {"r1": {"weight": 1.0, "every": 16}},
            "g_penalties": {"path_length": {"of": "style", "weight": 2.0, "every": 4}},
        },
    ),
    "r3gan_64": Case(
        "R3GAN, 64 px",
        (64, 64, 3),
        1000,
        8,
        {
            "generator": {"name": "r3gan", **R3GAN_PRESETS["imagenet64"]},
            "discriminator": {"name": "r3gan", **R3GAN_PRESETS["imagenet64"]},
            "latent": {"name": "normal", "dim": 64},
            "loss": {"name": "relativistic_pairing"},
            "penalties": {"r1_r2": {"weight": 0.5}},
        },
    ),
}


def config_of(case, chips, remat=True):
    """The ConfigDict of a Case on so many chips.

    Args:
      remat: recompute the blocks' activations in the backward pass, where the network can.
    """
    cond = ("label",) if case.classes else ()
    if "network" in case.config:
        groups = {**case.config, "network": {**case.config["network"], "remat": remat}}
        groups |= {"algorithm": {"name": "diffusion", "cond": cond, "label_drop": 0.1}}
        groups |= {"sample": {"solver": "heun", "steps": 18}}
    else:
        groups = {**case.config, "algorithm": {"name": "gan", "cond": cond}}
    return ConfigDict(
        {
            "data": {"name": "digits"},  # its place: the shape is given
            **groups,
            "optimizer": {"name": "adam", "learning_rate": 1e-4},
            "ema": {"name": "constant", "decay": 0.9999},
            "precision": "bfloat16",
            "train": {"batch_size": case.share * chips},
        }
    )


def measure(case, chip_name, chips, layout_name, remat):
    """The row of one Case on one slice."""
    devices, chip = plan_ahead.topology_devices(f"{chip_name}:{SLICES[chips]}")
    spec = DataSpec(case.shape, case.classes, fields=("x", "label") if case.classes else ("x",))
    config = config_of(case, chips, remat)
    layout = make_layout(LAYOUTS[layout_name](chips), **build.sharding_rules(config), devices=devices)
    like = batch_like(spec, config.train.batch_size)
    began, cpu = time.monotonic(), time.process_time()
    program = plan_ahead.compile_step(build.algorithm(config, spec), layout, like)
    row = {**record(program, chip), "batch": config.train.batch_size}
    row["remat"] = remat and "network" in case.config
    row["compile_seconds"], row["compile_cpu"] = time.monotonic() - began, time.process_time() - cpu
    row["date"] = str(datetime.datetime.now(datetime.UTC).date())
    row["versions"] = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}
    return row


def key_of(name, chip, chips, layout, full=False):
    return f"{name}/{chip}/{chips}/{layout}{'/full' if full else ''}"


def beside_full(found):
    """Lines on the rows that were compiled in both forms."""
    both = [key for key in found if f"{key}/full" in found and found[key]["fits"] and found[f"{key}/full"]["fits"]]
    if not both:
        return []
    lines = ["", "Rows compiled at the compiler's least effort, over those of a training:", ""]
    lines += ["| network | chips | layout | peak | memory traffic | sent | compile, CPU s | full, CPU s |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    sent = lambda row: sum(c["sent"] for c in row["collectives"].values())
    figures = (lambda row: row["memory"]["peak"]), (lambda row: row["seconds"]["memory"]), sent
    for key in both:
        (name, _, chips, layout), rows = key.split("/"), (found[key], found[f"{key}/full"])
        pairs = [tuple(map(figure, rows)) for figure in figures]
        cells = [CASES[name].title, chips, layout, *(f"{quick / full:.2f}" if full else "-" for quick, full in pairs)]
        cells += [f"{row['compile_cpu']:.0f}" for row in rows]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def table(found):
    """Markdown of the rows that are there, and a line on those that are not."""
    lines = [
        "Memory is a chip's. The step takes at least the longest of the times for matrix products, memory and network,",
        "and at most their sum, at the chip's published peaks: a bound, not a measurement. `util` is the share of the",
        "peak. Compiled on a machine without a TPU, at the compiler's least effort: a training's program moves more",
        "memory, so that its bounds lie higher (last table).",
        "",
        "| network | chip | chips | batch | layout | recomputes | parameters | optimizer | averages | activations "
        "| peak | fits | TFLOP a step | sent a chip | step, ms | util | compile, CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = [key_of(name, CHIP, chips, layout) for name in CASES for chips in SLICES for layout in LAYOUTS]
    others = [key for key in found if key not in order and not key.endswith("/full")]
    for key in [*(key for key in order if key in found), *others]:
        row, (name, chip, chips, layout) = found[key], key.split("/")
        m, s = row["memory"], row["seconds"]
        sent = sum(c["sent"] for c in row["collectives"].values())
        times = f"{s['least'] * 1e3:.0f} ... {s['most'] * 1e3:.0f}"
        util = f"{s['compute'] / s['least']:.0%} ... {s['compute'] / s['most']:.0%}"
        if not row["fits"]:
            times = util = "-"
        recomputes = "yes" if row["remat"] else "no"
        cells = [CASES[name].title if name in CASES else name, chip, chips, row["batch"], layout, recomputes]
        cells += [size(m[what]) for what in ("parameters", "optimizer", "averages")]
        cells += [size(m["activations"]) if "activations" in m else "-", size(m["peak"])]
        cells += ["yes" if row["fits"] else "no", f"{row['operations'] / 1e12:.1f}"]
        cells += [size(sent) if row["fits"] else "-", times, util, f"{row['compile_cpu']:.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += beside_full(found)
    missing = [key for key in order if key not in found]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    versions = sorted({", ".join(f"{k} {v}" for k, v in row["versions"].items()) for row in found.values()})
    dates = sorted({row["date"] for row in found.values()})
    if found:
        lines += ["", f"Rows of {dates[0]} to {dates[-1]}; {'; '.join(versions)}."]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--chips", nargs="*", type=int, default=list(SLICES), choices=list(SLICES))
    parser.add_argument("--layouts", nargs="*", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--chip", default=CHIP, choices=list(plan_ahead.CHIPS))
    parser.add_argument("--no-remat", action="store_true", help="keep the blocks' activations for the backward pass")
    parser.add_argument("--full", action="store_true", help="compile as a training does; several times as long")
    parser.add_argument("--again", action="store_true", help="measure rows that are there too")
    args = parser.parse_args()
    path = OUT / "compile_table.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    wanted = [(chips, name, layout) for chips in args.chips for name in args.only for layout in args.layouts]
    if not importlib.util.find_spec("libtpu"):
        print("nothing is measured: the compiler is missing (pip install 'genjax-toolkit[slice]')", file=sys.stderr)
        wanted = []
    if not args.full:
        hurry()
    for chips, name, layout in wanted:
        key = key_of(name, args.chip, chips, layout, args.full)
        if key in found and not args.again:
            continue
        row = measure(CASES[name], args.chip, chips, layout, not args.no_remat)
        print(key, json.dumps(row), file=sys.stderr, flush=True)
        found = {**(json.loads(path.read_text()) if path.exists() else {}), key: row}
        path.write_text(json.dumps(found, indent=1) + "\n")
        jax.clear_caches()
    print("# Train steps compiled ahead of time\n\n" + table(found))


if __name__ == "__main__":
    main()
