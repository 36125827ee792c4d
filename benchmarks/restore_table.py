"""Every posterior sampler on every operator it supports, in one table: docs/restoration.md and its pictures.

  python -m benchmarks.restore_table [--only dps diffpir ...] [--operators radon ...] [--assemble]

The prior is a mixture of Gaussians around digits, so its denoiser is exact; for linear operators so is the posterior.
Images to restore are digits that the prior has not seen. All methods take the same number of steps and the settings
below for every operator: nothing is tuned to one. A cell is kept as soon as it is measured, under the hash of all that
decides on it, and is not measured again: the command goes on where it was stopped.
"""

import argparse
import functools
import json
import pathlib
import time

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
STEPS, STD, POINTS, WIDTH, SHAPE = 50, 0.1, 256, 0.15, (8, 8, 1)
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


def prior():
    """The Mixture."""
    points = data.load("digits").arrays["x"][:POINTS]
    return Mixture(jnp.asarray(points), jnp.full(POINTS, WIDTH), jnp.zeros(POINTS))


def problem(operator, images):
    """(measurement of held-out digits, the digits)."""
    truth = jnp.asarray(data.load("digits", split="test").arrays["x"][:images])
    return measure(jax.random.key(0), OPERATORS[operator](SHAPE, **PROBLEMS[operator]), Gaussian(STD), truth), truth


@functools.cache
def exact(operator, images):
    """The exact Posterior of each measurement, for linear operators."""
    m, _ = problem(operator, images)
    dense = matrix(m.operator)
    law = jax.jit(lambda y: posterior(prior(), dense, y, STD))
    return [law(y.reshape(-1)) for y in m.y]


def supported(operator, method):
    """Whether the operator has what the method needs."""
    m, truth = problem(operator, 1)
    if method == REFERENCE:
        return is_linear(m.operator)
    try:
        check(method, POSTERIOR_SAMPLERS[method](**METHODS[method]).needs, None, m, truth)
    except ValueError:
        return False
    return True


def draw(operator, method, images, draws, steps):
    """(x [images, draws, H, W, C], evaluations, processor seconds of a run without compiling)."""
    if method == REFERENCE:
        laws = exact(operator, images)
        return np.stack([law.sample(fold(jax.random.key(1), i), draws) for i, law in enumerate(laws)]), 0, 0.0
    m, _ = problem(operator, images)
    process, sampler = gaussian.vp(), POSTERIOR_SAMPLERS[method](**METHODS[method], steps=steps)

    def program(key, prior, m):
        like = jnp.zeros((m.y.shape[0], *SHAPE), m.y.dtype)
        return sampler(key, prior.denoiser(process), process, m, like)

    arguments = jax.random.key(1), prior(), m._replace(y=jnp.repeat(m.y, draws, axis=0))
    compiled = jax.jit(program).lower(*arguments).compile()
    began = time.process_time()
    x = np.asarray(compiled(*arguments))
    return x.reshape(images, draws, *SHAPE), sampler.nfe, time.process_time() - began


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


def cell(operator, method, extractor, images=8, draws=32, steps=STEPS):
    """The figures of a method on an operator, and what the first image became; None where it is not finite."""
    x, nfe, seconds = draw(operator, method, images, draws, steps)
    m, truth = problem(operator, images)
    found = {"nfe": nfe, "seconds": seconds, "finite": bool(np.isfinite(x).all())}
    if not found["finite"]:
        return found
    if is_linear(m.operator):
        found["mean"], found["covariance"] = distance(x, exact(operator, images))
    x = np.clip(x, -1, 1)
    estimate, one = jnp.asarray(x.mean(1)), jnp.asarray(x[:, 0])
    found |= {
        "psnr": float(psnr(estimate, truth).mean()),
        "psnr_draw": float(psnr(one, truth).mean()),
        "ssim": float(ssim(estimate, truth, window=7).mean()),
        "features": float(feature_distance(extractor, estimate, truth).mean()),
    }
    shown = {"estimate": estimate[0], "draw": one[0], "spread": x[0].std(0)}
    return found | {"shown": {name: np.round(np.asarray(a, float), 4).tolist() for name, a in shown.items()}}


def place(operator, method, folder=KEPT):
    """Where a cell is kept: by all that decides on it but the code."""
    said = (PROBLEMS[operator], METHODS.get(method), STEPS, STD, POINTS, WIDTH, SHAPE)
    return pathlib.Path(folder) / f"{operator}-{method.replace(' ', '_')}-{content_hash(said)[:8]}.json"


def kept(folder=KEPT):
    """{operator: {method: figures}} of the cells that are there."""
    found = {}
    for operator in PROBLEMS:
        for method in (REFERENCE, *METHODS):
            path = place(operator, method, folder)
            if path.exists():
                found.setdefault(operator, {})[method] = json.loads(path.read_text())
    return found


def missing(folder=KEPT):
    """(operator, method) of the cells that could be measured and are not there."""
    pairs = [(o, m) for o in PROBLEMS for m in (REFERENCE, *METHODS)]
    return [(o, m) for o, m in pairs if not place(o, m, folder).exists() and supported(o, m)]


def rows(cells):
    """Markdown rows of one operator; a dash where a figure is not defined."""
    lines = ["| method | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |"]
    lines.append("| --- |" + " ---: |" * len(COLUMNS))
    for method, figures in cells.items():
        values = [format(figures[name], form) if name in figures else "-" for name, (_, form) in COLUMNS.items()]
        lines.append(f"| {method} | " + (" | ".join(values) if figures["finite"] else "diverged" + " |" * 7) + " |")
    return lines


def picture(operator, cells):
    """One row a method: estimate, a draw, spread (white is 0.8), beside truth and measurement."""
    m, truth = problem(operator, 1)
    shown = {name: c["shown"] for name, c in cells.items() if c["finite"]}
    column = lambda name: np.asarray([s[name] for s in shown.values()])
    same = lambda x: np.broadcast_to(np.asarray(x), (len(shown), *SHAPE))
    columns = {
        "truth": (same(truth), -1, 1),
        "measured": (same(m.operator.x_init(m.y)), -1, 1),
        "estimate": (column("estimate"), -1, 1),
        "a draw": (column("draw"), -1, 1),
        "std": (column("spread"), 0, 0.8),
    }
    return pictures.columns_of(columns, list(shown))


def page(found, images, waiting=()):
    """docs/restoration.md of {operator: {method: figures}}.

    Args:
      images: operator -> link to its picture.
      waiting: (operator, method) of cells that are missing.
    """
    lines = [
        "# Restoration: methods by operators",
        "",
        "Made by `python -m benchmarks.restore_table`; not edited by hand.",
        "",
        f"Prior: a mixture of {POINTS} Gaussians of standard deviation {WIDTH} around digits, its exact denoiser; "
        f"noise {STD}; {STEPS} steps; held-out digits, PSNR, SSIM and squared distance of features (of a classifier of "
        "digits, scaled to length 1) of the mean over draws. The error of the mean is in standard deviations of the "
        "exact posterior, that of the covariance relative in Frobenius norm: the row of exact draws shows what is left "
        "of either for so few draws. Seconds are the processor's, one core, all draws, without compiling. One setting "
        "a method for all operators: what is written in `benchmarks/restore_table.py`; no method is tuned.",
        "",
        "A method is left out where the operator lacks what it needs (`PosteriorSampler.needs`). Not here, as they "
        "restore something else: " + "; ".join(f"{name} ({what})" for name, what in OTHERS.items()) + ".",
    ]
    rest = {operator: [method for o, method in waiting if o == operator] for operator, _ in waiting}
    if rest:
        said = (f"{o} ({', '.join(methods)})" if o in found else f"{o} (all)" for o, methods in rest.items())
        lines += ["", "Supported and not measured yet: " + "; ".join(said) + "."]
    for operator, cells in found.items():
        said = ", ".join(f"{key} {value}" for key, value in PROBLEMS[operator].items())
        lines += ["", f"## {operator}" + (f" ({said})" if said else ""), "", *rows(cells), "", images[operator]]
    return "\n".join(lines) + "\n"


def assemble(folder=KEPT, docs=DOCS):
    """Writes the page and the pictures of what is kept."""
    found, links = kept(folder), {}
    (docs / "images").mkdir(parents=True, exist_ok=True)
    for operator, cells in found.items():
        pictures.save(docs / "images" / f"restore_{operator}.png", picture(operator, cells))
        links[operator] = f"![{operator}](images/restore_{operator}.png)"
    (docs / "restoration.md").write_text(page(found, links, missing(folder)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[REFERENCE, *METHODS], choices=[REFERENCE, *METHODS])
    parser.add_argument("--operators", nargs="*", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--assemble", action="store_true", help="write the page of what was kept, run nothing")
    options = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    extractor = data.extractor(data.load("digits"), data.load("digits", split="test"))
    for operator, method in () if options.assemble else missing():
        if method in options.only and operator in options.operators:
            print(f"{operator} {method}", flush=True)
            write_json(place(operator, method), cell(operator, method, extractor), indent=None)
    assemble()


if __name__ == "__main__":
    main()
