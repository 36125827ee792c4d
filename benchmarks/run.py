"""Runs the benchmarks and writes benchmarks/RESULTS.md.

  python -m benchmarks.run [--only train_step imports ...] [--assemble]

Each benchmark runs in a process of its own; what it prints is kept in benchmarks/results/<name>.md with the
command, the date, the machine and the versions. RESULTS.md is made of all that is kept there, so that one
benchmark can be measured again alone; with --assemble nothing is run. Lines of the form

  statement: value (goal: at most limit)

anywhere in a result are gathered into the table of goals at its head, a missed one with how much is missing.
"""

import argparse
import datetime
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
BENCHMARKS = {
    # module name: title
    "train_step": "Train step",
    "sampler": "Sampler",
    "imports": "Imports",
    "networks": "Networks",
    "convolution": "Convolution",
    "solvers": "Solvers",
    "crash": "Crashes",
    "start": "Start",
    "seeds": "Seeds",
    "guidance_cost": "Cost of guidance",
    "restore_speed": "Restoration",
    "torch_networks": "Networks beside PyTorch",
    "gan_speed": "GAN steps beside PyTorch",
    "other_toolkits": "Other JAX toolkits",
    "compile_table": "Train steps compiled ahead of time",
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "k-diffusion", "diffusers", "flaxdiff", "diffuse-jax")
GOAL = re.compile(r"^(.*\S)\s*:?\s+([-+\d.]+(?:e[-+]?\d+)?) \(goal:?(?: at most)? ([\d.]+)\)", re.MULTILINE)


def versions():
    """Installed packages that matter, as "name version, ..."."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def processor():
    """The processor's model as the system names it."""
    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def stamp(name, load):
    """How a result came about."""
    date = datetime.datetime.now(datetime.UTC).date()
    machine = f"{os.cpu_count()} cores of {processor()}, load {load:.1f} at the start"
    return f"`python -m benchmarks.{name}`, {date}, {machine}. {versions()}."


def piece(name, text, how):
    """The Markdown kept of one benchmark: title, how it came about, what it printed (as it is if not Markdown)."""
    text = text.strip()
    if text.startswith("# "):
        text = text.split("\n", 1)[1].strip()
    elif "| ---" not in text:
        text = f"```\n{text}\n```"
    return f"# {BENCHMARKS[name]}\n\n{how}\n\n{text}\n"


def goals(text):
    """[(statement, value, limit)] of the lines that state a goal."""
    found = []
    for statement, value, limit in GOAL.findall(text):
        statement = re.split(r"(?<=[.;]) ", statement.lstrip("- "))[-1]
        found.append((statement.rstrip(":"), float(value), float(limit)))
    return found


def verdict(value, limit):
    if value <= limit:
        return "met"
    return f"missed by {value / limit - 1:.1%}" if limit else f"missed by {value:g}"


def assemble(pieces):
    """RESULTS.md of {name: kept Markdown}."""
    rows = ["| benchmark | measured | value | goal, at most | verdict |", "| --- | --- | --- | --- | --- |"]
    for name, text in pieces.items():
        for statement, value, limit in goals(text):
            rows.append(f"| {BENCHMARKS[name]} | {statement} | {value:g} | {limit:g} | {verdict(value, limit)} |")
    deeper = [re.sub(r"^#", "##", text, flags=re.MULTILINE).strip() for text in pieces.values()]
    head = "# Benchmarks\n\nMade by `python -m benchmarks.run` (see README.md); not edited by hand."
    return "\n\n".join([head, "## Goals", "\n".join(rows), *deeper]) + "\n"


def run(name):
    """What one benchmark prints; its messages go to the terminal."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE.parent).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(BENCHMARKS), choices=list(BENCHMARKS))
    parser.add_argument("--assemble", action="store_true", help="write RESULTS.md of what was kept, run nothing")
    options = parser.parse_args()
    kept = HERE / "results"
    kept.mkdir(exist_ok=True)
    for name in () if options.assemble else options.only:
        print(f"{name} ...", flush=True)
        how = stamp(name, os.getloadavg()[0])
        (kept / f"{name}.md").write_text(piece(name, run(name), how))
    pieces = {name: (kept / f"{name}.md").read_text() for name in BENCHMARKS if (kept / f"{name}.md").exists()}
    (HERE / "RESULTS.md").write_text(assemble(pieces))


if __name__ == "__main__":
    main()
