"""Restoring many images with a trained prior: the problem from names and files, the draws, the figures.

What `genjax restore` does below its command line; every wrong combination is found before anything is compiled.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from genjax import build, guidance
from genjax.algorithms.diffusion import trained_denoiser
from genjax.cli import restoration_files as files
from genjax.construct import construct, lookup
from genjax.core.keys import fold, sample_keys
from genjax.core.types import Measurement
from genjax.data import extractors
from genjax.inverse import NOISES, OPERATORS, POSTERIOR_SAMPLERS, Adaptable, check_measurement, measure, with_lora
from genjax.inverse.operators import given
from genjax.inverse.sampler import check
from genjax.metrics import feature_distance, psnr, raw_pixels, ssim
from genjax.train import pictures

LATENT = ("latent_dps", "p2l", "resample")
ELSEWHERE = {"joint": "a prior of the noise", "ddfm": "two pictures of each scene", "diffusion_mbir": "volumes"}
METHODS = {name: f for name, f in POSTERIOR_SAMPLERS.items() if name not in (*LATENT, *ELSEWHERE)}
NOT_NUMBERS = ("optimizer", "quality")  # arguments that only code can give
NO_IMAGES = ("compressed_sensing", "fourier", "limited_angle", "phase_retrieval", "radon")  # what they measure


def masked(shape, mask=""):
    """Inpainting with a mask from an image file, white where the image is seen."""
    if not mask:
        raise ValueError("mask: expected an image file, white where the image is seen, got none")
    try:
        with Image.open(mask) as image:
            seen = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"mask: {mask} cannot be read as an image ({str(error).splitlines()[0]})") from None
    return given(seen > 127, shape)


CLI_OPERATORS = {**{name: f for name, f in OPERATORS.items() if name != "mixture"}, "inpaint": masked}


class Prior(NamedTuple):
    """A trained denoiser of images in [-1, 1]."""

    shape: tuple  # (H, W, C)
    process: Any
    denoiser: Callable  # (state, cond, adapt) -> Denoiser, or Adaptable where `adapt`
    state: Any
    num_classes: int  # 0 where it is unconditional
    class_names: tuple
    null: bool  # whether it was trained without a class too
    cfg_scale: float


def prior_of(model, cfg_scale=1.0):
    """The Prior of a `runtime.Model`.

    Raises:
      ValueError: a model without a denoiser, of other data than images in [-1, 1], or guidance that it cannot have.
    """
    spec, parts, config = model.data.spec, model.parts, model.config
    process = getattr(parts, "process", None)
    if not hasattr(parts, "denoiser") or not hasattr(process, "log_snr"):
        raise ValueError("--workdir: expected a diffusion model under a Gaussian process, got another kind of model")
    if not pictures.is_image(spec) or tuple(spec.range) != (-1.0, 1.0):
        raise ValueError(f"--workdir: expected a prior of images in [-1, 1], got samples of shape {tuple(spec.shape)}")
    side = round(spec.shape[0] ** 0.5)
    shape = (side, side, 1) if len(spec.shape) == 1 else tuple(spec.shape)
    conditional = build.is_conditional(config)
    if cfg_scale != 1 and not conditional:
        raise ValueError("--cfg-scale: the prior of this workdir is unconditional and takes none")

    def denoiser(state, cond, adapt=False):
        def images(inner):
            """The Denoiser of images of one of samples; particles of a sample share its condition."""

            def flat(x, t, given=None, key=None):
                c = jax.tree.map(lambda a: jnp.repeat(a, x.shape[0] // a.shape[0], axis=0), cond)
                pred = inner(x.reshape(x.shape[0], *spec.shape), t, c, key)
                return pred._replace(x0=pred.x0.reshape(x.shape), eps=pred.eps.reshape(x.shape))

            return flat

        if adapt:
            params = state.params if parts.ema is None else parts.ema.read(state.ema, 0)

            def make(weights):
                changed = state._replace(params={**params, "denoiser": weights})
                return images(trained_denoiser(parts.net, parts.denoise, changed))

            return with_lora(jax.random.key(0), make, params["denoiser"])
        inner = parts.denoiser(state)
        return images(inner if cfg_scale == 1 else guidance.cfg(cfg_scale)(inner, process))

    null = config.get("algorithm", {}).get("label_drop", 0.0) > 0
    classes = spec.num_classes if conditional else 0
    return Prior(shape, process, denoiser, model.state, classes, tuple(spec.class_names), null, cfg_scale)


def _made(table, name, values, field, *given, hidden=()):
    """table[name](*given, **values), checked."""
    lookup(table, name, field)
    if "name" in values:
        raise ValueError(f"{field}.name: unknown key; the name is what {field} says")
    return construct(table, {"name": name, **values}, field, *given, hidden=hidden)


def method_of(name, values, steps=None):
    """The PosteriorSampler of a name and its settings.

    Raises:
      ValueError: an unknown name, one that needs more than images and a prior of them, or a wrong setting.
    """
    if name in LATENT:
        raise ValueError(f"--method: {name} needs an autoencoder, expected a prior of latents, got one of images")
    if name in ELSEWHERE:
        raise ValueError(f"--method: {name} needs {ELSEWHERE[name]}; it is used from Python, as genjax.inverse.{name}")
    if steps is not None:
        if "steps" in values:
            raise ValueError("--steps: expected this or --method.steps, got both")
        values = {**values, "steps": steps}
    return _made(METHODS, name, values, "--method", hidden=NOT_NUMBERS)


def operator_of(name, values, shape):
    """The operator of a name and its settings, for images of a shape."""
    if name == "mixture":
        raise ValueError("--operator: mixture measures pairs of images; it is used from Python, as genjax.inverse")
    return _made(CLI_OPERATORS, name, values, "--operator", shape)


def noise_of(name, values):
    """The noise of a name and its settings."""
    return _made(NOISES, name, values, "--noise")


class Problem(NamedTuple):
    """Images to restore."""

    names: list
    measurement: Any  # of all of them
    truth: Any  # [N, H, W, C] or None
    labels: Any  # [N] or None


def problem_of(args, prior, operator, noise, method):
    """The Problem that the command line describes, checked against the method.

    Raises:
      ValueError: files that cannot be read, images of another size, measurements of another shape or range,
        something that the method needs and does not get, labels that the prior does not take.
    """
    if args.degrade:
        found = files.read("--input", args.input, prior.shape, channels=prior.shape[-1], resize=args.resize)
        truth = jnp.asarray(files.check_clean("--input", found).x)
        keys = sample_keys(fold(jax.random.key(args.seed), 1), len(truth))
        measurement = measure(keys, operator, noise, truth)
    else:
        if args.resize:
            raise ValueError("--resize: expected only with --degrade; a measurement is taken as it is")
        channels = None if args.operator in NO_IMAGES else operator.out_shape[-1]
        why = f"what {args.operator} makes of the prior's {prior.shape[0]}x{prior.shape[1]},"
        if channels is not None and channels not in (1, 3):
            channels = None
        found = files.read("--input", args.input, operator.out_shape, key="y", channels=channels, why=why)
        y, truth = jnp.asarray(found.x), None
        if hasattr(operator, "support"):
            y = y * operator.support()[None].astype(y.dtype)
        measurement = Measurement(operator, noise, y)
        if args.truth:
            known = files.read("--truth", args.truth, prior.shape, channels=prior.shape[-1])
            truth = jnp.asarray(files.check_clean("--truth", known).x)
            if len(truth) != len(y):
                raise ValueError(f"--truth: expected {len(y)} images, one a measurement, got {len(truth)}")
    like = jax.ShapeDtypeStruct((len(measurement.y), *prior.shape), measurement.y.dtype)
    check_measurement(measurement, like, bound=1.0)
    check(method.name, method.needs, Adaptable(None, None), measurement, like)
    return Problem(found.names, measurement, truth, labels_of(args.labels, prior, found, method))


def labels_of(text, prior, found, method):
    """[N] classes of the images, or None.

    Raises:
      ValueError: classes that the prior, the method or the input does not have.
    """
    count = len(found.names)
    if text is None:
        if prior.num_classes and not prior.null:
            raise ValueError("--labels: expected the class of each image, as the prior was trained with classes alone")
        if prior.cfg_scale != 1:
            raise ValueError("--cfg-scale: expected --labels, by which it guides, got none")
        return np.full(count, -1, np.int32) if prior.num_classes else None
    if not prior.num_classes:
        raise ValueError("--labels: the prior of this workdir is unconditional and takes none")
    if "adaptable" in method.needs:
        raise ValueError(f"--labels: {method.name} tunes the prior without a class, expected none, got {text!r}")
    if text == "data":
        if found.label is None:
            raise ValueError("--labels: expected an input with classes (folders, or an array label), got one without")
        return files.numbered(found.label, prior.class_names, prior.num_classes)
    labels = files.numbered([part.strip() for part in text.split(",")], prior.class_names, prior.num_classes)
    if len(labels) not in (1, count):
        raise ValueError(f"--labels: expected one class, or one for each of {count} images, got {len(labels)}")
    return np.broadcast_to(labels, (count,))


class Restored(NamedTuple):
    """What was drawn."""

    draws: Any  # [N, S, H, W, C]
    nfe: int  # denoiser evaluations a draw
    compile_seconds: float
    seconds: float  # of all draws


def restore(prior, method, problem, samples, seed=0, batch=64):
    """Draws `samples` images from what the method takes for the posterior of each measurement.

    Draw j of image i depends on the seed, i and j alone.

    Raises:
      RuntimeError: draws that are not finite.
    """
    operator, noise, y = problem.measurement
    key, count = fold(jax.random.key(seed), 0), len(y) * samples
    images, draws = np.divmod(np.arange(count), samples)
    keys = jax.vmap(lambda i, j: fold(fold(key, i), j))(jnp.asarray(images), jnp.asarray(draws))
    adapt = "adaptable" in method.needs

    def program(keys, state, y, labels):
        cond = None if labels is None else {"label": labels}
        denoiser = prior.denoiser(state, None if adapt else cond, adapt)
        like = jnp.zeros((y.shape[0], *prior.shape), y.dtype)
        return method(keys, denoiser, prior.process, Measurement(operator, noise, y), like)

    def chunk(first):
        rows = np.minimum(np.arange(first, first + size), count - 1)  # the last is filled up: one program for all
        label = None if problem.labels is None else jnp.asarray(problem.labels[images[rows]])
        return keys[rows], prior.state, y[images[rows]], label

    size = min(batch, count)
    began = time.perf_counter()
    compiled = jax.jit(program).lower(*chunk(0)).compile()
    ready = time.perf_counter()
    x = np.concatenate([np.asarray(compiled(*chunk(first))) for first in range(0, count, size)])[:count]
    ended = time.perf_counter()
    bad = ~np.isfinite(x.reshape(count, -1)).all(1)
    if bad.any():
        raise RuntimeError(f"--method: {method.name} diverged: {bad.sum()} of {count} draws are not finite")
    return Restored(x.reshape(len(y), samples, *prior.shape), method.nfe, ready - began, ended - ready)


def summary(restored):
    """(estimate [N, H, W, C], spread [N, H, W, C]): mean and standard deviation of the draws, cut to [-1, 1]."""
    draws = np.clip(restored.draws, -1, 1)
    spread = draws.std(1, ddof=1) if draws.shape[1] > 1 else np.zeros_like(draws[:, 0])
    return draws.mean(1), spread


def quality(x, truth, extractor):
    """{metric: [N]} of images x and the truth [N, H, W, C]."""
    side = min(11, *x.shape[1:3])
    window = side if side % 2 else side - 1
    x, truth = jnp.asarray(x, jnp.float32), jnp.asarray(truth, jnp.float32)
    return {
        "psnr": np.asarray(psnr(x, truth)),
        "ssim": np.asarray(ssim(x, truth, window=window)),
        extractor.metric_name("feature_distance"): feature_distance(extractor, x, truth),
    }


def residual(measurement, x):
    """Root mean square of y - A(x) over what is measured, [N]."""
    operator, _, y = measurement
    error = (y - operator.forward(jnp.asarray(x, y.dtype))).reshape(len(y), -1)
    share = jnp.mean(operator.support()) if hasattr(operator, "support") else 1.0
    return np.asarray(jnp.sqrt(jnp.mean(error**2, axis=1) / share))


def features_of(model):
    """The Extractor of the prior's data: that of `genjax evaluate` where it has classes, else the pixels."""
    if model.data.arrays is None or not model.data.spec.num_classes:
        return raw_pixels()
    return extractors.extractor(model.data, build.dataset(model.config, "test"))


def figures_of(model, problem, restored):
    """{"images": {name: {metric: number}}, "mean": {metric: number}, ...}, of JSON values."""
    estimate, spread = summary(restored)
    draw = restored.draws[:, 0]
    columns = {}
    if problem.truth is not None:
        columns = quality(estimate, problem.truth, features_of(model))
        columns["psnr_draw"] = quality(np.clip(draw, -1, 1), problem.truth, raw_pixels())["psnr"]
    columns["spread"] = spread.reshape(len(spread), -1).mean(1)
    columns["residual"] = residual(problem.measurement, draw)
    rows = {
        name: {metric: float(column[i]) for metric, column in columns.items()} for i, name in enumerate(problem.names)
    }
    mean = {metric: float(np.mean(column)) for metric, column in columns.items()}
    cost = {"nfe": restored.nfe, "compile_seconds": restored.compile_seconds, "seconds": restored.seconds}
    return {"mean": mean, "draws": restored.draws.shape[1], **cost, "images": rows}


def table(names, figures, most=20):
    """The figures as text: a row an image, at most `most` of them, and the mean."""
    metrics = list(figures["mean"])
    width = min(24, max(map(len, (*names, "mean"))))
    line = lambda name, row: f"  {name[:width]:{width}}" + "".join(f"  {row[m]:{len(m)}.4f}" for m in metrics)
    rows = [f"  {'':{width}}" + "".join(f"  {m}" for m in metrics)]
    rows += [line(name, figures["images"][name]) for name in names[:most]]
    if len(names) > most:
        rows.append(f"  ... {len(names) - most} more")
    return "\n".join([*rows, line("mean", figures["mean"])])


def write(out, problem, restored, figures, said):
    """The folder `out` of a restoration: restored.png, a picture and the arrays of each image, metrics.json."""
    estimate, spread = summary(restored)
    operator, _, y = problem.measurement
    arrays = {"estimate": estimate, "spread": spread, "draws": restored.draws, "y": np.asarray(y)}
    truth = None if problem.truth is None else np.asarray(problem.truth)
    if truth is not None:
        arrays["truth"] = truth
    shown = files.picture(problem.names, np.asarray(operator.x_init(y)), estimate, restored.draws, spread, truth)
    files.write(Path(out), problem.names, arrays, {**figures, **said}, shown)
