"""What importing costs: `import genjax`, every public name, `genjax --help`.

  python -m benchmarks.imports [--repeats 9]

Every figure is a median over fresh processes, which take turns. Wall-clock time is from before the import to
after it (for the command, of the whole process); beside it stands the process's CPU time, which a busy
machine disturbs less. Modules lie compiled on disk, as after a first import.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

BASE = "import jax, flax, optax"
TOUCH = "import genjax\nfor name in genjax.__all__: getattr(genjax, name)"
MEASURED = {
    # name: statements that are timed
    "import genjax": "import genjax",
    BASE: BASE,
    "every public name": TOUCH,
}
PROBE = """
import sys, time, os
wall, cpu = time.perf_counter(), os.times()
{statements}
now = os.times()
found = time.perf_counter() - wall, now.user + now.system - cpu.user - cpu.system
import json
print(json.dumps([*found, "jax" in sys.modules]))
"""
COMMAND = [sys.executable, "-c", "from genjax.cli.main import main; main()", "--help"]
LAZY_GOAL, TOUCH_GOAL, HELP_GOAL = 0.1, 0.5, 0.7


def imported(statements):
    """(wall-clock seconds, CPU seconds, whether jax was imported) of statements in a fresh process."""
    probe = PROBE.format(statements=statements)
    return json.loads(subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True).stdout)


def ran(command):
    """(wall-clock seconds, CPU seconds) of a command, from start to end of its process."""
    wall, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - wall, cpu


def measure(repeats):
    """name -> (median wall, median CPU) seconds, and whether `import genjax` imports jax."""
    times, lazy = {name: [] for name in (*MEASURED, "genjax --help")}, True
    for turn in range(repeats + 1):
        for name, statements in MEASURED.items():
            wall, cpu, jax = imported(statements)
            lazy = lazy and not (jax and name == "import genjax")
            times[name].append((wall, cpu))
        times["genjax --help"].append(ran(COMMAND))
        if not turn:  # the first round warms the disk
            times = {name: [] for name in times}
    return {name: [statistics.median(column) for column in zip(*rows)] for name, rows in times.items()}, lazy


def report(medians, lazy):
    lines = ["| what | wall clock, s | CPU, s |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {wall:.3f} | {cpu:.3f} |" for name, (wall, cpu) in medians.items()]
    over = [a - b for a, b in zip(medians["every public name"], medians[BASE])]
    lines += [f"| every public name over `{BASE}` | {over[0]:.3f} | {over[1]:.3f} |", ""]
    for what, (wall, cpu), goal in (
        ("`import genjax`", medians["import genjax"], LAZY_GOAL),
        (f"every public name over `{BASE}`", over, TOUCH_GOAL),
        ("`genjax --help`", medians["genjax --help"], HELP_GOAL),
    ):
        lines.append(f"- {what}, s: {wall:.3f} (goal: at most {goal})")
        lines.append(f"- {what}, s of CPU: {cpu:.3f} (goal: at most {goal})")
    lines.append(f"- modules of jax that `import genjax` imports: {0 if lazy else 1} (goal: at most 0)")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    print("# Imports\n\n" + report(*measure(parser.parse_args().repeats)))


if __name__ == "__main__":
    main()
