"""From measurements to a verdict, a table, a JSON file and a picture."""

import importlib.metadata
import json
import math
import os
import platform
import subprocess

import numpy as np

from genjax.cli.papers import clone_root
from genjax.cli.runner import failing, write_atomically

VERSIONS = ("genjax-toolkit", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn")


class Row(dict):
    """Metrics of one variant, name -> array over seeds, that notes which of them a rule reads."""

    def __init__(self, variant, metrics, seen):
        super().__init__(metrics)
        self.variant, self.seen = variant, seen

    def __getitem__(self, metric):
        if metric not in self:
            raise ValueError(f"variant {self.variant!r} has no metric {metric!r}; it has {sorted(self)}")
        if (self.variant, metric) not in self.seen:
            self.seen.append((self.variant, metric))
        return super().__getitem__(metric)

    def items(self):
        return [(k, self[k]) for k in self]

    def values(self):
        return [self[k] for k in self]


class Table(dict):
    """variant -> Row; what the rules of CLAIMS are given."""

    def __init__(self, measured):
        self.seen = []
        arrays = {v: {m: np.asarray(x, np.float64) for m, x in row.items()} for v, row in measured.items()}
        super().__init__({v: Row(v, row, self.seen) for v, row in arrays.items()})

    def __getitem__(self, variant):
        if variant not in self:
            raise ValueError(f"no variant {variant!r}; there are {sorted(self)}")
        return super().__getitem__(variant)


def judge(claims, measured):
    """name -> {statement, verdict, evidence} of every claim; evidence names the metrics that its rule read.

    Raises:
      ExperimentError: a rule raised something, or asks for what was not measured.
    """
    judged = {}
    for name, (statement, rule) in claims.items():
        table = Table(measured)
        with failing(f"CLAIMS[{name!r}]"), np.errstate(all="ignore"):
            holds = bool(rule(table))
        evidence = [
            {"variant": v, "metric": m, "mean": float(table[v][m].mean()), "std": spread(table[v][m])}
            for v, m in list(table.seen)
        ]
        judged[name] = {"statement": statement, "verdict": "holds" if holds else "fails", "evidence": evidence}
    return judged


def spread(values):
    """Standard deviation over seeds (n - 1 in the denominator), 0 for a single seed."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1)) if len(values) > 1 and np.isfinite(values).all() else 0.0


def verdict(judged):
    """ "holds" where there is a claim and every claim holds, else "fails"."""
    return "holds" if judged and all(c["verdict"] == "holds" for c in judged.values()) else "fails"


def number(value):
    return f"{value:.4g}"


def print_table(measured, say):
    """One line a metric of each variant: mean, spread over seeds."""
    for variant, row in measured.items():
        say(f"  {variant}{'' if row else ': nothing measured'}")
        width = max(map(len, row), default=0)
        for metric, values in row.items():
            mean = float(np.mean(values))
            say(f"    {metric:{width}}  {number(mean):>10} +- {number(spread(values)):<10}")


def print_claims(judged, say, most=12):
    for name, claim in judged.items():
        say(f"  {claim['verdict'].upper():6} {name}: {claim['statement']}")
        evidence = claim["evidence"]
        for e in evidence[:most]:
            say(f"           {e['variant']}.{e['metric']} = {number(e['mean'])} +- {number(e['std'])}")
        if len(evidence) > most:
            say(f"           ... and {len(evidence) - most} more figures, in the table")


def git_state(files):
    """{"commit", "dirty"} of the clone: dirty where one of `files` differs from the commit."""
    root = clone_root()

    def git(*args):
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise OSError(done.stderr)
        return done.stdout.strip()

    try:
        if root is None:
            raise OSError
        changed = git("status", "--porcelain", "--ignored", "--", *map(str, files))
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):  # no clone, no git, or files outside the clone
        return {"commit": None, "dirty": None}


def machine():
    import jax

    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
    }


def versions():
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _plain(value):
    """A float as JSON can hold it: "inf", "-inf" and "nan" as strings."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def result(experiment, seeds, overrides, measured, judged, seconds, hashes, git):
    """The content of results/SLUG.json."""
    for claim in judged.values():
        claim["evidence"] = [{**e, "mean": _plain(e["mean"]), "std": _plain(e["std"])} for e in claim["evidence"]]
    return {
        "paper": {"slug": experiment.slug, **experiment.paper},
        "verdict": verdict(judged),
        "claims": judged,
        "seeds": seeds,
        "variants": {
            variant: {
                "overrides": overrides[variant],
                "metrics": {
                    m: {"mean": _plain(np.mean(x)), "std": _plain(spread(x)), "values": [_plain(v) for v in x]}
                    for m, x in row.items()
                },
            }
            for variant, row in measured.items()
        },
        "wall_seconds": round(seconds, 1),
        "hashes": hashes,
        "git": git,
        "versions": versions(),
        "machine": machine(),
    }


def write_result(path, content):
    write_atomically(path, (json.dumps(content, indent=1, default=list, allow_nan=False) + "\n").encode())


def default_figure(measured, judged, path, title, most=14):
    """A panel a claim: the figures that its rule read, a row each; points are seeds, bars their means."""
    from matplotlib.figure import Figure

    claims = {name: claim for name, claim in judged.items() if claim["evidence"]}
    columns = min(2, len(claims)) or 1
    rows = [list(claims)[i : i + columns] for i in range(0, len(claims), columns)]
    lines = lambda name: min(most, len(claims[name]["evidence"]))
    heights = [1.1 + 0.24 * max(map(lines, row)) for row in rows] or [1.0]
    figure = Figure(figsize=(6.4 * columns, sum(heights) + 0.4), layout="constrained")
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for i, row in enumerate(rows):
        for j, name in enumerate(row):
            axis = figure.add_subplot(grid[i, j])
            _claim_panel(axis, measured, claims[name]["evidence"], most)
            color = "C2" if claims[name]["verdict"] == "holds" else "C3"
            axis.set_title(f"{name}: {claims[name]['verdict']}", fontsize=9, color=color, loc="left")
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _claim_panel(axis, measured, evidence, most):
    from matplotlib.ticker import LogLocator, NullFormatter

    shown = evidence[:most]
    values = [np.asarray(measured[e["variant"]][e["metric"]], float) for e in shown]
    values = [v[np.isfinite(v)] for v in values]  # what is infinite is in the table, and nowhere in a picture
    every = np.concatenate([*values, np.zeros(0)])
    for y, points in enumerate(values):
        if len(points):
            axis.plot([points.mean()] * 2, [y - 0.3, y + 0.3], color="0.5", linewidth=2)
        axis.plot(points, np.full(len(points), y), "o", color="C0", markersize=4, alpha=0.7)
    if len(every) and every.min() > 0 and every.max() > 30 * every.min():
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))  # one decade alone would have one label
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(range(len(shown)), [f"{e['variant']}.{e['metric']}" for e in shown], fontsize=7)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", color="0.9")
    if len(evidence) > most:
        axis.set_xlabel(f"and {len(evidence) - most} more figures, in the table", fontsize=7)


def save_figure(figure, path):
    """Writes a matplotlib figure as PNG, atomically."""
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
