"""From the start of `genjax train` on digits to its first record in metrics.jsonl, with and without compiled programs.

  python -m benchmarks.start [--repeats 3] [--profile]

Every figure is of a fresh process in a fresh workdir. Cold: nothing compiled is kept. Warm: the same
training was started once before (the compilation cache of the CLI). The first record is that of the first
step, which comes alone. Processor time stands beside the wall clock, for a machine that does other
work: most of a start runs on one core, so on two idle cores the wall clock is at most about that.

`--profile` also says where the time of a start goes: the stages of the command, measured inside its process.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = f"{ROOT / 'experiments' / 'diffusion' / 'edm_digits.py'}"
GOALS = {"cold": 15, "warm": 6}
PROFILE = """
import json, os, sys, time
marks, began, cpu = [], time.perf_counter(), os.times()
def mark(name):
    now = os.times()
    marks.append((name, time.perf_counter() - began, now.user + now.system - cpu.user - cpu.system))
def after(module, function, name):
    inner = getattr(module, function)
    def timed(*args, **kwargs):
        value = inner(*args, **kwargs)
        mark(name)
        return value
    setattr(module, function, timed)
import jax, flax, optax
mark("import jax, flax, optax")
import orbax.checkpoint
mark("import orbax")
from genjax import build
from genjax.cli import main, runtime
from genjax.train import checkpoints, logs, loop
mark("import genjax")
after(build, "dataset", "data")
after(build, "parts", "objects of the config")
after(build, "feed", "data onto the device")
after(loop, "check_traces", "trace by shape")
after(loop, "start", "initial state")
after(loop, "make_dispatch", "checkpoint writer, log")
after(logs.Progress, "run", "first steps, with compiling")
class Done(Exception):
    pass
write = logs.Log.write
def last(self, step, metrics):
    write(self, step, metrics)
    mark("first record")
    print(json.dumps(marks), flush=True)
    os._exit(0)
logs.Log.write = last
main.main(sys.argv[1:])
"""


def command(workdir):
    return ["train", f"--config={CONFIG}", f"--workdir={workdir}", "--quiet"]


def environment(cache):
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "GENJAX_CACHE": str(cache)}


def used(pid):
    """Seconds of processor time that a living process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(folder, cache):
    """(wall-clock seconds, processor seconds) from the start of a training to its first record."""
    workdir = pathlib.Path(tempfile.mkdtemp(dir=folder))
    record = workdir / "metrics.jsonl"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "genjax.cli.main", *command(workdir)],
        env=environment(cache),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (record.exists() and record.stat().st_size):
            if process.poll() is not None:
                raise RuntimeError(f"the training ended with {process.returncode}")
            time.sleep(0.005)
        return time.perf_counter() - began, used(process.pid)
    finally:
        process.kill()
        process.wait()


def stages(folder, cache):
    """[(stage, wall-clock seconds, processor seconds)] of one start, in its order."""
    workdir = pathlib.Path(tempfile.mkdtemp(dir=folder))
    argv = [sys.executable, "-c", PROFILE, *command(workdir)]
    done = subprocess.run(argv, env=environment(cache), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    marks = json.loads(done.stdout.splitlines()[-1])
    before = [("", 0.0, 0.0), *marks]
    return [(name, wall - b[1], cpu - b[2]) for (name, wall, cpu), b in zip(marks, before)]


def measure(repeats, profile):
    """{"cold", "warm": [(wall, processor), ...]} and, with `profile`, {"cold", "warm": stages}."""
    found, where = {"cold": [], "warm": []}, {}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(repeats):
            cache = pathlib.Path(folder) / f"cache{i}"
            for kind in found:
                found[kind].append(start(folder, cache))
                print(kind, found[kind][-1], file=sys.stderr, flush=True)
        if profile:
            where = {kind: stages(folder, pathlib.Path(folder) / "profiled") for kind in found}
    return found, where


def report(found, where):
    middle = {kind: [statistics.median(column) for column in zip(*rows)] for kind, rows in found.items()}
    lines = [f"Medians of {len(found['cold'])} starts.", "", "| start | wall clock, s | processor, s | least wall, s |"]
    lines.append("| --- | --- | --- | --- |")
    for kind, (wall, cpu) in middle.items():
        lines.append(f"| {kind} | {wall:.2f} | {cpu:.2f} | {min(found[kind])[0]:.2f} |")
    if where:
        lines += [
            "",
            "| stage | cold: wall, s | processor, s | warm: wall, s | processor, s |",
            "| --- | --- | --- | --- | --- |",
        ]
        for (name, *cold), (_, *warm) in zip(where["cold"], where["warm"]):
            lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in (*cold, *warm)) + " |")
    lines.append("")
    for kind, goal in GOALS.items():
        wall, cpu = middle[kind]
        lines.append(f"- {kind} start to the first record, s: {wall:.2f} (goal: at most {goal})")
        lines.append(f"- {kind} start to the first record, s of processor time: {cpu:.2f} (goal: at most {goal})")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    print("# Start\n\n" + report(*measure(args.repeats, args.profile)))


if __name__ == "__main__":
    main()
