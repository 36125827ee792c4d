"""`genjax reproduce`: measures papers' claims and writes what came out.

For every experiment named: each variant with each seed is measured (or found in the cache), the
table is printed with mean and spread, each claim with its verdict and the figures its rule read,
and `results/SLUG.json` and `results/SLUG.png` are written. `--smoke` runs a few steps of everything
with two seeds, judges every claim, and writes nothing.

Where an experiment's own code fails, the other measurements and experiments go on; those that were made are
kept for the next run, the failure is told in one line with its variant and seed (GENJAX_TRACEBACK=1 shows where
it came from), no result is written and the exit code is 1.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from genjax.cli import papers, runtime
from genjax.cli import runner_report as report
from genjax.cli.runner import ExperimentError, Runner, default_cache, failing, source_files

SMOKE_SEEDS = 2  # as few as show a rule that takes its figures for single numbers


def add_arguments(parser):
    parser.add_argument("slugs", nargs="*", metavar="SLUG", help="experiments to run (see `genjax papers`)")
    parser.add_argument("--family", help="all experiments of one family")
    parser.add_argument("--all", action="store_true", help="all experiments")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: what the experiment says, at least 3)")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything; writes no result")
    parser.add_argument("--results", type=Path, help="folder of the results (default: results/)")
    parser.add_argument("--cache", type=Path, help="folder of cached measurements (default: $GENJAX_CACHE)")


def run(args):
    """Runs the command. Returns the exit code: 0 where everything ran, whatever the verdicts.

    Raises:
      ExperimentError: an experiment failed, after the others have run.
      ValueError: an unknown name or a number of seeds below 1.
      OSError: the results' folder cannot be written (found before anything is measured).
    """
    experiments = papers.find_experiments()
    chosen = papers.select(experiments, args.slugs, args.family, args.all)
    if args.seeds is not None and args.seeds < 1:
        raise ValueError(f"seeds: expected at least 1, got {args.seeds}")
    results = Path(args.results or papers.results_root())
    runtime.use_cache()
    if args.smoke:
        runner = Runner(experiments, cache=None, scale="smoke")
    else:
        check_writable(results)
        runner = Runner(experiments, cache=args.cache or default_cache())
    verdicts, failed = {}, []
    for experiment in chosen:
        try:
            outcome = reproduce(runner, experiment, seeds=args.seeds, results=None if args.smoke else results)
            verdicts[experiment.slug] = "ran" if args.smoke else outcome["verdict"]
        except ExperimentError as error:
            failed.append(error)
            verdicts[experiment.slug] = f"failed: {error}"
    if len(chosen) > 1:
        for slug, verdict in verdicts.items():
            print(f"{slug:24} {verdict}")
    if failed:
        raise first_of(failed, "experiments")
    return 0


def first_of(errors, what):
    """The first of some ExperimentErrors, saying how many more `what` there are."""
    more = f" (and {len(errors) - 1} more {what} failed)" if errors[1:] else ""
    error = ExperimentError(f"{errors[0]}{more}")
    error.__cause__ = errors[0].__cause__
    return error


def check_writable(folder):
    """Raises OSError, in one line, unless files can be made in `folder` (made where it is missing)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"results: expected a folder that can be written, got {str(folder)!r} ({error.strerror})"
        ) from None


def reproduce(runner, experiment, *, seeds=None, results=None, say=print):
    """Measures one experiment and judges its claims.

    Args:
      runner: a `Runner`.
      experiment: an `Experiment` of its catalogue.
      seeds: number of seeds; None for the experiment's own (`SEEDS`, else 3; two where the scale is "smoke").
      results: folder for SLUG.json and SLUG.png, None to write nothing.
      say: takes each line of the report.

    Returns:
      The content of the result file.

    Raises:
      ExperimentError: its code failed somewhere. Everything else was measured first, and is in the cache.
    """
    slug, module, smoke = experiment.slug, runner.module(experiment.slug), runner.scale == "smoke"
    if seeds is None:
        seeds = SMOKE_SEEDS if smoke else getattr(module, "SEEDS", 3)
    source, files = runner.source(slug), source_files(*runner.roots(slug))
    if results is not None and report.git_state(files)["dirty"]:
        say("warning: code that this run uses is not committed; a result to be committed needs a clean tree")
    say(f"{experiment.paper['number']:03d} {slug}: {experiment.paper['title']}")
    with failing(slug, ValueError):
        priors = runner.priors(slug)
    measured = {variant: {} for variant in module.VARIANTS}
    trainings = {}  # hash -> seconds, each counted once
    seconds, fresh, begun = 0.0, 0, time.perf_counter()
    total, done, failed = len(measured) * seeds, 0, []
    for seed in range(seeds):
        for variant in measured:
            done += 1
            try:
                measurement, cached = runner.measure(slug, variant, seed, priors)
            except ExperimentError as error:
                failed.append(error)
                say(f"  [{done}/{total}] FAILED {error}")
                continue
            fresh += not cached
            seconds += measurement.seconds
            if measurement.training is not None:
                trainings[measurement.training] = runner.training_seconds(slug, measurement.training)
            for metric, value in measurement.metrics.items():
                measured[variant].setdefault(metric, []).append(value)
            left = (time.perf_counter() - begun) / max(fresh, 1) * (total - done)
            state = "cached" if cached else f"{measurement.seconds:.1f} s, about {left:.0f} s left"
            say(f"  [{done}/{total}] {variant}, seed {seed}: {state}")
    report.print_table(measured, say)
    if failed:
        raise first_of(failed, "measurements")
    for variant, row in measured.items():
        short = [m for m, values in row.items() if len(values) != seeds]
        if short:
            raise ExperimentError(f"{slug}: {variant!r}: metrics {short} are not measured with every seed")
    with failing(slug, ExperimentError):
        judged = report.judge(module.CLAIMS, measured)
    if smoke:
        say(f"  {len(judged)} claims can be judged; a smoke run has no verdict")
    else:
        report.print_claims(judged, say)
        say(f"  {slug}: {report.verdict(judged)}, {seconds + sum(trainings.values()):.0f} s")
    git = report.git_state(files)
    if git["dirty"] is False and source_files(*runner.roots(slug)) != files:
        git["dirty"] = True  # the code changed under the run
    hashes = {"source": source, "priors": {name: p.hash for name, p in priors.items()}}
    seconds += sum(trainings.values())
    content = report.result(experiment, list(range(seeds)), module.VARIANTS, measured, judged, seconds, hashes, git)
    if results is not None:
        with failing(f"{slug}: figure", path=experiment.path):
            draw(module, measured, judged, results / f"{slug}.png", experiment)
        report.write_result(results / f"{slug}.json", content)
    return content


def draw(module, measured, judged, path, experiment):
    """The experiment's own `figure(table, path)`, or the default one."""
    if hasattr(module, "figure"):
        table = {v: {m: np.asarray(x) for m, x in row.items()} for v, row in measured.items()}
        module.figure(table, path)
    else:
        title = f"{experiment.paper['title']} (arXiv {experiment.paper['arxiv']})"
        report.default_figure(measured, judged, path, title)
