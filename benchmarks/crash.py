"""Trainings that are killed, stopped, damaged and starved of room: what is lost.

  python -m benchmarks.crash [--kills 20] [--aimed 8] [--seed 0]

Every training is a process of `genjax train` on digits. The same training, left alone, is the reference: what was
ended and started again must end in its arrays (parameters, optimizer, average, step), bit for bit, and in its
metrics, record for record.

  kills         SIGKILL at moments drawn at random after the start of the process; for some of them after a save
                began, so that several fall into one whatever the speed of the machine
  SIGTERM       saves, says so, exits with 75; goes on
  damage        the newest checkpoint truncated, or one bit of it flipped: named, the one before is used
  full disk     no room is left while a training runs: one line, exit code 2, the last good checkpoint stays
  refused write the same, but the system refuses a write in the middle of a save (limit on the size of a file)
  divergence    an example that overflows: exit code 1, the last good checkpoint is named and stays
  two at once   a second training in the workdir is refused while the first goes on

The full disk is a small file system of this benchmark's own, left out where the system lets a user mount none (it
takes user namespaces). Prints Markdown and writes results/crash.json.
"""

import argparse
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.crash_bench import ROOT, Bench, Life, wait_for
from genjax.cli.train import UNFINISHED

SAVE = 0.05  # seconds: a kill aimed at a save falls within this time of the save's beginning
LIMIT = 100_000  # bytes of a file where writes are refused: more than a log takes, less than a checkpoint
DISK = 24  # MB of the file system that fills up


def kill_once(bench, name, span, aimed, rng):
    """Starts the training, kills it, and says when: a dict for the record.

    Args:
      span: seconds after the start within which the kill falls.
      aimed: wait for the beginning of a save first, the second to eighth.
    """
    life, began = Life(bench, name), time.monotonic()
    process = bench.start(name)
    try:
        if aimed:
            seen, wanted = {None}, rng.randint(2, 8)
            wait_for(lambda: len(seen) > wanted or seen.add(life.saves()), process)
            time.sleep(rng.uniform(0, SAVE))
        else:
            moment = began + rng.uniform(0, span)
            wait_for(lambda: time.monotonic() > moment, process)
        ended = process.poll()
        process.kill()
    finally:
        process.kill()
        process.wait()
    if ended is not None:
        text = bench.log(name).read_text()
        raise RuntimeError(f"the training ended with {ended} before it was killed; give it more steps: {text[-1500:]}")
    return {
        "aimed": aimed,
        "seconds": round(time.monotonic() - began, 3),
        "moment": "saving" if life.saves() else "training" if life.trains() else "starting",
        "from": life.step,
        "kept": bench.newest(name),
    }


def first_steps(bench, name):
    """Seconds from the start of the process to its first record; the process is killed."""
    began, known = time.monotonic(), len(bench.logged(name))
    process = bench.start(name)
    try:
        if not wait_for(lambda: len(bench.logged(name)) > known, process):
            raise RuntimeError(bench.log(name).read_text()[-2000:])
        return time.monotonic() - began
    finally:
        process.kill()
        process.wait()


def kills(bench, reference, count, aimed, rng):
    """`count` kills, each followed by a start, `aimed` of them into saves; then the training ends."""
    startup = first_steps(bench, "warm")
    order = [i < aimed for i in range(count)]
    rng.shuffle(order)
    deaths = [kill_once(bench, "killed", 2 * startup, aim, rng) for aim in order]
    bench.complete("killed")
    arrays, differ, same = bench.differences("killed", reference)
    moments = [death["moment"] for death in deaths]
    return {
        "kills": count,
        **{moment: moments.count(moment) for moment in ("saving", "training", "starting")},
        "startup": startup,
        "arrays": arrays,
        "differ": differ,
        "same metrics": same,
        "deaths": deaths,
    }


def sigterm(bench, reference):
    """A polite end in the middle."""
    process = bench.start("stopped")
    wait_for(lambda: bench.logged("stopped"), process)
    process.send_signal(signal.SIGTERM)
    code, text = bench.finish("stopped", process)
    found = re.search(r"SIGTERM: saved step (\d+) of", text)
    at = int(found[1]) if found else None
    saved = at is not None and bench.newest("stopped") == at < bench.steps
    resumed = f"at step {at}" in bench.complete("stopped")
    _, differ, _ = bench.differences("stopped", reference)  # a record more is written where it stopped
    ok = code == UNFINISHED and saved and resumed and not differ
    return {"code": code, "saved at": at, "differ": differ, "ok": ok}


def damage(bench, reference, how, rng):
    """The newest checkpoint of a finished training is harmed; it is trained again from the one before."""
    name = how
    shutil.copytree(bench.workdir(reference), bench.workdir(name))
    newest = bench.checkpoints(name) / f"{bench.steps:08d}"
    files = [p for item in ("state", "meta") for p in (newest / item).rglob("*") if p.is_file() and p.stat().st_size]
    if how == "truncated":
        victim = max(files, key=lambda p: p.stat().st_size)
        os.truncate(victim, rng.randrange(victim.stat().st_size))
    else:
        victim = rng.choice(sorted(files))
        data, bit = bytearray(victim.read_bytes()), rng.randrange(8 * victim.stat().st_size)
        data[bit // 8] ^= 1 << bit % 8
        victim.write_bytes(data)
    text = bench.complete(name)
    said = f"checkpoint {newest} is damaged" in text and str(victim.relative_to(newest)) in text
    resumed = f"at step {bench.steps - bench.every}" in text
    _, differ, _ = bench.differences(name, reference)
    ok = said and resumed and not differ and newest.with_name(f"{newest.name}.damaged").is_dir()
    return {"file": str(victim.relative_to(newest)), "named": said, "resumed": resumed, "differ": differ, "ok": ok}


def fill(folder, leave=65536):
    """Fills the file system of `folder` but for `leave` bytes; the file that does it."""
    ballast = folder / "ballast"
    free = shutil.disk_usage(folder).free - leave
    with open(ballast, "wb") as file:
        for _ in range(free // 4096):
            file.write(b"\1" * 4096)
    return ballast


def full_disk(bench, reference, own_disk):
    """After the first checkpoints no room is left, or writes are refused: an end with one line; then room again.

    Args:
      own_disk: the bench's folder is a file system that may be filled; otherwise the process is limited to
        small files, which the kernel enforces write by write.
    """
    process = bench.start("full")
    wait_for(lambda: bench.newest("full"), process)
    if own_disk:
        ballast = fill(bench.folder)
    else:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    code, text = bench.finish("full", process)
    if own_disk:
        ballast.unlink()
    errors = [line for line in text.splitlines() if line.startswith("genjax train: error:")]
    kept = bench.newest("full")
    resumed = f"at step {kept}" in bench.complete("full")
    _, differ, same = bench.differences("full", reference)
    ok = code == 2 and len(errors) == 1 and 0 < kept < bench.steps and resumed and not differ and same
    line = (errors or [text[-500:]])[0].replace(str(bench.folder), "...")
    return {"code": code, "line": line, "kept": kept, "differ": differ, "ok": ok}


def in_own_disk(bench, reference):
    """`full_disk` on a file system made for it; None where the system lets a user mount none."""
    folder = bench.folder / "disk"
    folder.mkdir()
    mount = f'mount -t tmpfs -o size={DISK}m tmpfs "$0" && exec "$@"'
    scene = [sys.executable, "-m", "benchmarks.crash", "--full-disk", str(folder), str(bench.folder / reference)]
    sizes = [f"--short={bench.steps}", f"--every={bench.every}", f"--cache={bench.cache}"]
    inside = ["unshare", "-rm", "sh", "-c", mount, str(folder)]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        return None
    done = subprocess.run([*inside, *scene, *sizes], capture_output=True, text=True, cwd=ROOT, env=bench.environment())
    if done.returncode:
        raise RuntimeError(f"the full disk: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def divergence(bench):
    """A data set with one example that overflows float32, met in a step known beforehand."""
    from genjax import data
    from genjax.train.feed import device_feed

    digits = data.load("digits_vector", split="train").arrays
    batch, late = 32, 40
    _, order = device_feed({"x": digits["x"]}, batch).take(0, late)
    order = np.asarray(order)
    seen = [set(order[:i].ravel()) for i in (late - 1, late)]
    victim = min(seen[1] - seen[0])
    poisoned = digits["x"].copy()
    poisoned[victim] = 1e30
    path = bench.folder / "poisoned.npz"
    np.savez(path, train_x=poisoned, train_label=digits["label"])
    data_flag = f"--config.data={{'name': 'npz', 'path': '{path}', 'range': (-1e31, 1e31)}}"
    often = ("--config.train.checkpoint_every=10", "--config.train.log_every=10")
    code, text = bench.run("diverged", data_flag, *often)
    errors = [line for line in text.splitlines() if line.startswith("genjax train: error:")]
    kept = bench.newest("diverged")
    good = kept and all(np.isfinite(a).all() for a in bench.arrays("diverged").values() if a.dtype.kind == "f")
    named = bool(errors) and f"the checkpoint of step {kept} is kept" in errors[0]
    ok = code == 1 and len(errors) == 1 and named and bool(good) and kept == (late - 1) // 10 * 10
    return {"code": code, "line": (errors or [text[-500:]])[0], "met in step": late, "kept": kept, "ok": ok}


def two_at_once(bench, reference):
    """A second training in the workdir of one that is at work."""
    first = bench.start("both")
    try:
        wait_for(lambda: bench.logged("both"), first)
        first.send_signal(signal.SIGSTOP)  # so that it cannot end before the second one has looked
        second = subprocess.run(first.args, capture_output=True, text=True, cwd=ROOT, env=bench.environment())
        alive = first.poll() is None
        first.send_signal(signal.SIGCONT)
        code, _ = bench.finish("both", first)
    finally:
        first.kill()
        first.wait()
    line = second.stderr.strip().splitlines()[-1].replace(str(bench.folder), "...")
    refused = second.returncode == 2 and f"process {first.pid} on" in line and "one training at a time" in line
    _, differ, same = bench.differences("both", reference)
    ok = refused and alive and code == 0 and not differ and same
    return {"code": second.returncode, "line": line, "differ": differ, "ok": ok}


def measure(folder, count, aimed, steps, short, every, seed):
    """All of it: a dict for results/crash.json."""
    rng, began = random.Random(seed), time.monotonic()
    found = {"steps": steps, "short": short, "every": every, "seed": seed}
    long, brief = (folder / name for name in ("long", "brief"))
    long, brief = Bench(long, steps, every, folder / "cache"), Bench(brief, short, every, folder / "cache")
    for bench in (brief, long):
        bench.folder.mkdir()
        start = time.monotonic()
        bench.complete("reference")
        found[f"seconds of {bench.steps} steps alone"] = time.monotonic() - start
    scenes = {
        "kills": lambda: kills(long, "reference", count, aimed, rng),
        "SIGTERM": lambda: sigterm(brief, "reference"),
        "truncated": lambda: damage(brief, "reference", "truncated", rng),
        "bit flipped": lambda: damage(brief, "reference", "bit flipped", rng),
        "full disk": lambda: in_own_disk(brief, "reference"),
        "refused write": lambda: full_disk(brief, "reference", own_disk=False),
        "divergence": lambda: divergence(brief),
        "two at once": lambda: two_at_once(brief, "reference"),
    }
    for name, scene in scenes.items():
        found[name] = scene()
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    found["seconds"] = time.monotonic() - began
    return found


def report(found):
    k = found["kills"]
    lines = [
        f"Kills in a training of {found['steps']} steps, the rest in one of {found['short']}; a checkpoint every "
        f"{found['every']} steps; seed {found['seed']} of the moments; {found['seconds']:.0f} s in all.",
        "",
        "| kill | aimed at a save | s after the start | while | went on from | newest whole checkpoint after |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for i, death in enumerate(k["deaths"]):
        cells = [i + 1, "yes" if death["aimed"] else "no", f"{death['seconds']:.2f}"]
        lines.append(f"| {' | '.join(map(str, [*cells, death['moment'], death['from'], death['kept']]))} |")
    lines += [
        "",
        f"{k['kills']} kills: {k['saving']} while a checkpoint was being written, {k['training']} in training, "
        f"{k['starting']} before the first new record. Of {k['arrays']} arrays at the end (parameters, optimizer, "
        f"average, step) {k['differ']} differ from the uninterrupted run's by a bit; metrics.jsonl is "
        f"{'the same, record for record' if k['same metrics'] else 'not the same'}.",
        "",
        "| harm | what happened | as it should |",
        "| --- | --- | --- |",
    ]
    s, t, f = found["SIGTERM"], found["truncated"], found["bit flipped"]
    rows = {
        "SIGTERM": f"saved step {s['saved at']}, exit code {s['code']}; {s['differ']} arrays differ at the end",
        "newest checkpoint truncated": f"{t['file']} named, the one before used; {t['differ']} arrays differ",
        "one bit flipped": f"{f['file']} named, the one before used; {f['differ']} arrays differ",
    }
    for name, title in (("full disk", "full disk"), ("refused write", "a write refused in the middle of a save")):
        if (d := found[name]) is not None:
            ends = f"step {d['kept']} kept, {d['differ']} arrays differ at the end"
            rows[title] = f"exit code {d['code']}, `{d['line']}`; {ends}"
    n, b = found["divergence"], found["two at once"]
    rows[f"overflow in step {n['met in step']}"] = f"exit code {n['code']}, `{n['line']}`"
    rows["a second training in the workdir"] = f"exit code {b['code']}, `{b['line']}`"
    ok = [found[name]["ok"] for name in list(found)[list(found).index("SIGTERM") :] if isinstance(found[name], dict)]
    lines += [f"| {what} | {how} | {'yes' if good else 'NO'} |" for (what, how), good in zip(rows.items(), ok)]
    lines += [
        "",
        f"- arrays that differ after {k['kills']} kills, {k['saving']} of them in a save: "
        f"{k['differ']} (goal: at most 0)",
        f"- other harms that did not end as they should, of {len(ok)}: {ok.count(False)} (goal: at most 0)",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--aimed", type=int, default=8, help="kills that wait for the beginning of a save")
    parser.add_argument("--steps", type=int, default=40_000, help="of the training that is killed")
    parser.add_argument("--short", type=int, default=4_000, help="steps of the training for the rest")
    parser.add_argument("--every", type=int, default=200, help="steps from checkpoint to checkpoint")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--full-disk", nargs=2, help=argparse.SUPPRESS)  # folder and reference: this scene alone
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.full_disk:
        folder, reference = map(pathlib.Path, args.full_disk)
        bench = Bench(folder, args.short, args.every, pathlib.Path(args.cache))
        print(json.dumps(full_disk(bench, reference, own_disk=True)))
        return
    with tempfile.TemporaryDirectory() as folder:
        numbers = (args.kills, args.aimed, args.steps, args.short, args.every, args.seed)
        found = measure(pathlib.Path(folder), *numbers)
    out = pathlib.Path(__file__).parent / "results" / "crash.json"
    out.write_text(json.dumps(found, indent=1) + "\n")
    print("# Crashes\n\n" + report(found))


if __name__ == "__main__":
    main()
