"""Every posterior sampler on every operator it supports, in one table: docs/restoration.md and its pictures.

  python -m benchmarks.restore_table [--only dps diffpir ...] [--operators radon ...] [--sets shapes] [--assemble]

The prior is a mixture of Gaussians around images of a set, so its denoiser is exact; for linear operators so is the
posterior. Images to restore are those that the prior has not seen. All methods take the same number of steps and the
settings below for every operator and set: nothing is tuned to one. A cell is kept as soon as it is measured, under the
hash of all that decides on it, and is not measured again: the command goes on where it was stopped.
"""

import argparse
import functools
import inspect
import json
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.core.keys import fold
from genjax.inverse import OPERATORS, POSTERIOR_SAMPLERS, Gaussian, measure
from genjax.inverse.operators import is_linear, matrix
from genjax.inverse.sampler import check
from genjax.metrics import content_hash, feature_distance, psnr, ssim
from genjax.oracles import Mixture, posterior
from genjax.processes import gaussian
from genjax.train import pictures
from genjax.train.workdir import write_json

HERE = pathlib.Path(__file__).parent
KEPT, DOCS = HERE / "results" / "restore", HERE.parent / "docs"
STEPS, STD, POINTS, WIDTH = 50, 0.1, 256, 0.15


class Images(NamedTuple):
    """A set of images: their shape, options of `data.load`, and what they are in words."""

    shape: tuple
    options: dict
    words: str


# Shapes that fill 8 pixels, upright, so that eye and classifier tell them apart.
LARGE = {
    "n": 4096,
    "size": 8,
    "size_range": (0.28, 0.34),
    "center": (0.4, 0.6),
    "rotate": False,
    "label": "shape_color",
}
SETS = {
    "digits": Images((8, 8, 1), {}, "handwritten digits"),
    "shapes": Images((8, 8, 3), LARGE, "rendered shapes in colour"),
}
PROBLEMS = {
    # operator: settings
    "inpaint_box": {"size": 0.5},
    "super_resolution": {"factor": 2},
    "blur": {"std": 1.0},
    "compressed_sensing": {"fraction": 0.25},
    "radon": {"views": 4},
    "hdr": {"gain": 2.0},
    "nonlinear_blur": {"length": 3.0},
    "phase_retrieval": {},
}
METHODS = {
    # sampler: settings beside the steps
    "sdedit": {},
    "projection": {},
    "repaint": {"times": 2},
    "mcg": {},
    "dps": {"scale": 1.0},
    "pigdm": {"data_std": 0.6},
    "tmpd": {"cg_steps": 8},
    "ddrm": {},
    "ddnm": {},
    "ddnm_plus": {},
    "diffpir": {},
    "red_diff": {},
    "daps": {"ode_steps": 2, "inner_steps": 20, "data_std": 0.6},
    "smc": {"particles": 4, "data_std": 0.6},
    "gdp": {"scale": 0.3},
}
# Numbers above that are meant for operators of norm 1, and the power of a larger norm that carries them over: so these
# methods do the same if y, A and the noise are all multiplied by a number, as the others do by themselves.
CARRIED = {"mcg": ("scale", -1), "dps": ("scale", -1), "gdp": ("scale", -2), "red_diff": ("strength", 2)}
# What the others restore is no single image under a prior of images.
OTHERS = {
    "joint": "signal and structured noise",
    "diffusion_mbir": "volumes",
    "latent_dps": "images by a prior of latents",
    "resample": "images by a prior of latents",
    "p2l": "images by a prior of latents with prompts",
    "deep_prior": "images by a network that is tuned along the way",
    "ddfm": "two pictures of one scene",
}
NOTES = (
    "Methods that project onto the data (projection, repaint, mcg, ddnm) apply the pseudo-inverse to noisy data: where "
    "it is ill-conditioned, as that of a blur, it multiplies the noise and they fail.",
    "ddnm_plus counts the noise of the data as fresh in every step, but it is the same in all: where singular values "
    "are small, as those of a blur, it adds up. Tried with data measured anew in every step, it does not.",
    "sdedit sees the data in its start alone.",
    "Methods that correct what the operator sees alone (projection, repaint, ddrm, ddnm, ddnm_plus, diffpir, red_diff, "
    "daps) decide on a large hole at levels where the data around it, noised as much, say little yet, and what they "
    "draw need not fit them; a gradient through the denoiser (mcg, dps, pigdm, tmpd, smc) reaches into the hole. "
    "This is reasoned, not measured, and does not say why gdp, which has no such gradient, does well.",
    "The images are no draws of the prior, so a method may have a higher PSNR than the mean of the exact posterior.",
    "phase_retrieval cannot tell an image from itself turned by half a turn, or shifted where it is dark at the edge: "
    "the mean over draws then mixes them.",
)
REFERENCE = "exact posterior"
COLUMNS = {
    # figure: (heading, format)
    "mean": ("error of the mean", ".3f"),
    "covariance": ("of the covariance", ".3f"),
    "psnr": ("PSNR", ".2f"),
    "psnr_draw": ("of a draw", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "features": ("features", ".3f"),
    "nfe": ("evaluations", "d"),
    "seconds": ("seconds", ".2f"),
}
OVERVIEWS = {
    # figure: (words, format, what is best)
    "psnr": ("PSNR", ".1f", max),
    "mean": ("Error of the mean", ".2f", min),
}


@functools.cache
def load(name, split):
    """The Dataset of a set's name."""
    return data.load(name, split=split, **SETS[name].options)


def prior(name):
    """The Mixture."""
    points = load(name, "train").arrays["x"][:POINTS]
    return Mixture(jnp.asarray(points), jnp.full(POINTS, WIDTH), jnp.zeros(POINTS))


def operator_of(name, operator):
    """The operator of PROBLEMS on a set's images."""
    return OPERATORS[operator](SETS[name].shape, **PROBLEMS[operator])


@functools.cache
def problem(name, operator, images):
    """(measurement of held-out images, the images)."""
    truth = jnp.asarray(load(name, "test").arrays["x"][:images])
    return measure(jax.random.key(0), operator_of(name, operator), Gaussian(STD), truth), truth


@functools.lru_cache(1)
def exact(name, operator, images):
    """The exact Posterior of each measurement, for linear operators."""
    m, _ = problem(name, operator, images)
    law = jax.jit(lambda prior, dense, y: posterior(prior, dense, y, STD))
    return [law(prior(name), matrix(m.operator), y.reshape(-1)) for y in m.y]


@functools.cache
def norm(name, operator):
    """The largest singular value of a linear operator, where it is above 1; else 1."""
    made = operator_of(name, operator)
    return max(1.0, round(float(np.linalg.norm(matrix(made), 2)), 2)) if is_linear(made) else 1.0


def settings(name, operator, method):
    """The METHODS entry as it is used on an operator (`CARRIED`); None for the reference."""
    found = METHODS.get(method)
    if method not in CARRIED or norm(name, operator) == 1:
        return found
    field, power = CARRIED[method]
    sampler = inspect.signature(POSTERIOR_SAMPLERS[method]).parameters
    return found | {field: round(found.get(field, sampler[field].default) * norm(name, operator) ** power, 6)}


def supported(name, operator, method):
    """Whether the operator has what the method needs."""
    m, truth = problem(name, operator, 1)
    if method == REFERENCE:
        return is_linear(m.operator)
    try:
        check(method, POSTERIOR_SAMPLERS[method](**METHODS[method]).needs, None, m, truth)
    except ValueError:
        return False
    return True


def draw(name, operator, method, images, draws, steps):
    """(x [images, draws, H, W, C], evaluations, processor seconds of a run without compiling)."""
    if method == REFERENCE:
        laws = exact(name, operator, images)
        return np.stack([law.sample(fold(jax.random.key(1), i), draws) for i, law in enumerate(laws)]), 0, 0.0
    m, truth = problem(name, operator, images)
    process, sampler = gaussian.vp(), POSTERIOR_SAMPLERS[method](**settings(name, operator, method), steps=steps)

    def program(key, prior, m):
        like = jnp.zeros((m.y.shape[0], *truth.shape[1:]), m.y.dtype)
        return sampler(key, prior.denoiser(process), process, m, like)

    arguments = jax.random.key(1), prior(name), m._replace(y=jnp.repeat(m.y, draws, axis=0))
    compiled = jax.jit(program).lower(*arguments).compile()
    began = time.process_time()
    x = np.asarray(compiled(*arguments))
    return x.reshape(images, draws, *truth.shape[1:]), sampler.nfe, time.process_time() - began


def distance(x, laws):
    """(error of the mean over the posterior's standard deviation, relative error of the mean covariance)."""
    flat = np.asarray(x, np.float64).reshape(*x.shape[:2], -1)
    covariances = [np.asarray(law.covariance(), np.float64) for law in laws]
    gaps = [
        np.linalg.norm(x.mean(0) - np.asarray(law.mean()).reshape(-1)) / np.sqrt(np.trace(c))
        for x, law, c in zip(flat, laws, covariances)
    ]
    drawn, wanted = np.mean([np.cov(x.T) for x in flat], axis=0), np.mean(covariances, axis=0)
    return float(np.mean(gaps)), float(np.linalg.norm(drawn - wanted) / np.linalg.norm(wanted))


def cell(name, operator, method, extractor, images=8, draws=32, steps=STEPS):
    """The figures of a method on an operator, and what the first image became; few where that is not finite."""
    x, nfe, seconds = draw(name, operator, method, images, draws, steps)
    m, truth = problem(name, operator, images)
    found = {"nfe": nfe, "seconds": seconds, "finite": bool(np.isfinite(x).all())}
    if not found["finite"]:
        return found
    if is_linear(m.operator):
        found["mean"], found["covariance"] = distance(x, exact(name, operator, images))
    x = np.clip(x, -1, 1)
    estimate, one = jnp.asarray(x.mean(1)), jnp.asarray(x[:, 0])
    found |= {
        "psnr": float(psnr(estimate, truth).mean()),
        "psnr_draw": float(psnr(one, truth).mean()),
        "ssim": float(ssim(estimate, truth, window=7).mean()),
        "features": float(feature_distance(extractor, estimate, truth).mean()),
    }
    shown = {"estimate": estimate[0], "draw": one[0], "spread": x[0].std(0)}
    return found | {"shown": {row: np.round(np.asarray(a, float), 4).tolist() for row, a in shown.items()}}


def place(name, operator, method, folder=KEPT):
    """Where a cell is kept: by all that decides on it but the code."""
    shape, options, _ = SETS[name]
    said = (PROBLEMS[operator], settings(name, operator, method), STEPS, STD, POINTS, WIDTH, shape)
    said += tuple(sorted(options.items()))
    return pathlib.Path(folder) / f"{name}-{operator}-{method.replace(' ', '_')}-{content_hash(said)[:8]}.json"


def cells():
    """(set, operator, method) of all that could be measured, in the page's order."""
    every = ((n, o, m) for n in SETS for o in PROBLEMS for m in (REFERENCE, *METHODS))
    return [(n, o, m) for n, o, m in every if supported(n, o, m)]


def missing(folder=KEPT):
    """Those of `cells` that are not there."""
    return [c for c in cells() if not place(*c, folder).exists()]


def kept(folder=KEPT):
    """{set: {operator: {method: figures, or None where they are not there yet}}} of all `cells`."""
    found = {}
    for name, operator, method in cells():
        path = place(name, operator, method, folder)
        figures = json.loads(path.read_text()) if path.exists() else None
        found.setdefault(name, {}).setdefault(operator, {})[method] = figures
    return found


def measured(found):
    """The part of {method: figures or None} that is there."""
    return {method: figures for method, figures in found.items() if figures is not None}


def rows(found):
    """Markdown rows of one operator's part of `kept`; a dash where a figure is not defined."""
    lines = ["| method | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |"]
    lines.append("| --- |" + " ---: |" * len(COLUMNS))
    for method, figures in measured(found).items():
        values = [format(figures[name], form) if name in figures else "-" for name, (_, form) in COLUMNS.items()]
        lines.append(f"| {method} | " + (" | ".join(values) if figures["finite"] else "diverged" + " |" * 7) + " |")
    return lines


def overview(found, figure, form, better):
    """Markdown rows of one figure in one set's part of `kept`, the best one bold; operators that have it alone."""
    found = {o: methods for o, methods in found.items() if figure != "mean" or REFERENCE in methods}
    lines = ["| method | " + " | ".join(found) + " |", "| --- |" + " ---: |" * len(found)]
    value = lambda figures: figures[figure] if figures and figures["finite"] else None
    tried = {o: [value(figures) for m, figures in methods.items() if m in METHODS] for o, methods in found.items()}
    best = {o: better((v for v in values if v is not None), default=None) for o, values in tried.items()}

    def shown(operator, method):
        if method not in found[operator]:
            return "-"
        figures = found[operator][method]
        if value(figures) is None:
            return "..." if figures is None else "diverged"
        bold = "**" if method in METHODS and value(figures) == best[operator] else ""
        return f"{bold}{value(figures):{form}}{bold}"

    for method in (REFERENCE, *METHODS):
        lines.append(f"| {method} | " + " | ".join(shown(operator, method) for operator in found) + " |")
    return lines


def picture(name, operator, found):
    """A column a method, rows its estimate, a draw, the spread of draws (white is 0.8); before them truth and y."""
    m, truth = problem(name, operator, 1)
    white = np.ones(truth.shape[1:])
    columns = {"truth": [truth[0], white, white], "measured": [m.operator.x_init(m.y)[0], white, white]}
    for method, figures in measured(found).items():
        if figures["finite"]:
            estimate, one, spread = (np.asarray(figures["shown"][row]) for row in ("estimate", "draw", "spread"))
            columns["exact" if method == REFERENCE else method] = [estimate, one, spread / 0.4 - 1]
    return pictures.columns_of({title: (np.stack(x), -1, 1) for title, x in columns.items()}, ["mean", "a draw", "std"])


def page(found, images):
    """docs/restoration.md of what `kept` gives.

    Args:
      images: (set, operator) -> link to its picture.
    """
    lines = [
        "# Restoration: methods by operators",
        "",
        "Made by `python -m benchmarks.restore_table`; not edited by hand.",
        "",
        "Sets: " + "; ".join(f"{name} ({s.words}, {' x '.join(map(str, s.shape))})" for name, s in SETS.items()) + ". "
        f"Prior: a mixture of {POINTS} Gaussians of standard deviation {WIDTH} around images of the set, its exact "
        f"denoiser; noise {STD}; {STEPS} steps. Held-out images are restored; PSNR, SSIM and squared distance of "
        "features (of a classifier of the set, scaled to length 1) are of the mean over draws. One setting a method "
        "for all operators and sets: what is written in `benchmarks/restore_table.py`; no method is tuned. Step sizes "
        f"and weights that are meant for operators of norm 1 ({', '.join(CARRIED)}) are carried over to larger norms.",
        "",
        "A method is left out where the operator lacks what it needs (`PosteriorSampler.needs`). Not here, as they "
        "restore something else: " + "; ".join(f"{name} ({what})" for name, what in OTHERS.items()) + ".",
        "",
        "What lies in the nature of the methods and of the problems:",
        "",
        *(f"- {note}" for note in NOTES),
        "",
        "## Overview",
        "",
        "The best method's figure is bold; - where the operator lacks what the method needs, ... where a cell is not "
        "measured yet. The error of the mean over draws is in standard deviations of the exact posterior; the row of "
        "exact draws shows what so few draws leave of it.",
    ]
    for name, operators in found.items():
        for figure, (words, form, better) in OVERVIEWS.items():
            lines += ["", f"### {words}: {name}", "", *overview(operators, figure, form, better)]
    lines += [
        "",
        "In the tables below the error of the covariance is relative, in Frobenius norm. Seconds are the processor's, "
        "one core, all draws, without compiling. Pictures are of the first image; measured: what the operator starts "
        "from, given the data; std: of draws, white is 0.8.",
    ]
    for name, operators in found.items():
        lines += ["", f"## {name[0].upper()}{name[1:]}"]
        for operator, methods in operators.items():
            if measured(methods):
                said = ", ".join(f"{key} {value}" for key, value in PROBLEMS[operator].items())
                lines += ["", f"### {operator}, {name}" + (f" ({said})" if said else ""), "", *rows(methods)]
                lines += ["", images[name, operator]]
    return "\n".join(lines) + "\n"


def assemble(folder=KEPT, docs=DOCS):
    """Writes the page and the pictures of what is kept."""
    found, links = kept(folder), {}
    (docs / "images").mkdir(parents=True, exist_ok=True)
    for name, operators in found.items():
        for operator, methods in operators.items():
            if measured(methods):
                file = f"restore_{name}_{operator}.png"
                pictures.save(docs / "images" / file, picture(name, operator, methods))
                links[name, operator] = f"![{operator}, {name}](images/{file})"
    (docs / "restoration.md").write_text(page(found, links))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[REFERENCE, *METHODS], choices=[REFERENCE, *METHODS])
    parser.add_argument("--operators", nargs="*", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--assemble", action="store_true", help="write the page of what was kept, run nothing")
    options = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    extractor = functools.cache(lambda name: data.extractor(load(name, "train"), load(name, "test")))
    for name, operator, method in () if options.assemble else missing():
        if method in options.only and operator in options.operators and name in options.sets:
            print(f"{name} {operator} {method}", flush=True)
            found = cell(name, operator, method, extractor(name))
            write_json(place(name, operator, method), found, indent=None)
    assemble()


if __name__ == "__main__":
    main()
