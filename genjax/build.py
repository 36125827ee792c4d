"""From a config to objects: the one module that knows what a `ConfigDict` means.

A config holds names and numbers in these groups; each group is what the constructor of its name takes,
so the rooms' dictionaries (PROCESSES, NETWORKS, SOLVERS ...) and signatures are its only schema:

  seed        whole number
  data        {name, ...}                       genjax.data.DATASETS
  process     {name, ...}                       genjax.processes.PROCESSES
  network     {name, ...}                       genjax.networks.NETWORKS
  denoiser    {target, sigma_data, ...}         genjax.core.denoiser.make_denoiser
  loss        {name, time_sampler, weighting, ...}  genjax.losses.LOSSES
  algorithm   {name, cond, label_drop, ...}     genjax.algorithms.ALGORITHMS
  optimizer   {name, learning_rate, schedule, clip, ...}  genjax.train.optimizers
  ema         {name, ...}                       genjax.train.ema.EMAS, or absent
  precision   "float32" or "bfloat16", of the computation; parameters are float32
  train       genjax.train.loop.Plan
  sample      {solver, grid, steps, cfg_scale, ...}  `make_sampler`
  eval        genjax.train.evaluation.evaluate
  mesh        {data, fsdp, tensor}: sizes, -1 for the rest   genjax.train.sharding
  sharding    {rules, min_size}: where parameters lie, genjax.train.sharding
  parallel    "mesh" or "pmap"

Everything is checked before anything is compiled; each error names the field, and the nearest right name.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from genjax import algorithms, data, guidance, losses, networks, processes, solvers
from genjax.algorithms.diffusion import gaussian_sampler, trained_denoiser
from genjax.construct import as_type_of, check_arguments, construct, group, lookup, nearest, parameters, settings
from genjax.core.denoiser import NOISE_INPUTS, make_denoiser
from genjax.core.prediction import TARGETS
from genjax.core.types import Algorithm
from genjax.losses.denoising import with_uncertainty
from genjax.losses.times import TIME_SAMPLERS
from genjax.losses.weightings import WEIGHTINGS
from genjax.networks import Uncertainty, force_normalize, linen_net
from genjax.train.ema import EMAS
from genjax.train.evaluation import Subject, check_metrics, default_metrics, evaluate
from genjax.train.feed import device_feed, stream_feed
from genjax.train.hooks import sample_hook
from genjax.train.loop import Hook, Plan
from genjax.train.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer
from genjax.train.pictures import check_picture
from genjax.train.sharding import MIN_SIZE, PMAP_AXIS, make_layout

GROUPS = (
    "seed",
    "data",
    "process",
    "network",
    "uncertainty",
    "denoiser",
    "loss",
    "algorithm",
    "optimizer",
    "ema",
    "precision",
    "train",
    "sample",
    "eval",
    "mesh",
    "sharding",
    "parallel",
)
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
POST_UPDATES = {"force_normalize": force_normalize}  # what is done to the weights after each update


class Parts(NamedTuple):
    """The pieces of a diffusion model, for those who need more than the Algorithm."""

    process: Any
    net: Any  # Net
    denoise: Callable  # fn -> Denoiser
    times: Any  # TimeSampler
    loss: Callable
    ema: Any  # EMA or None
    algorithm: Algorithm

    def denoiser(self, state, track=0):
        """The Denoiser of the averaged weights."""
        return trained_denoiser(self.net, self.denoise, state, self.ema, track)


def check_groups(config):
    """Raises ValueError for a group that does not exist or one that is missing."""
    for name in config:
        if name not in GROUPS:
            raise ValueError(f"{name}: unknown key{nearest(name, GROUPS)}")
    for name in ("data", "process", "network", "train"):
        if name not in config:
            raise ValueError(f"{name}: expected this group in the config, got none")


def _settings(config, name, *without):
    return settings(config.get(name), name, *without)


def seed(config):
    """The seed, 0 where none is given."""
    return as_type_of(0, config.get("seed", 0), "seed")


def plan(config):
    """The Plan of a training."""
    return Plan(**check_arguments(_settings(config, "train"), [Plan], "train"))


def sharding_rules(config):
    """{"rules", "min_size"} of config.sharding."""
    values = check_arguments(_settings(config, "sharding"), [make_layout], "sharding", hidden=_NOT_SHARDING)
    return {"rules": tuple(values.get("rules", ())), "min_size": values.get("min_size", MIN_SIZE)}


_NOT_SHARDING = ("mesh", "parallel", "devices")


def layout(config, devices=None):
    """The Layout of the groups mesh, sharding and parallel; all devices along "data" by default."""
    mesh = _settings(config, "mesh")
    return make_layout(mesh, **sharding_rules(config), parallel=config.get("parallel", "mesh"), devices=devices)


def axis_name(config):
    """The axis that the recipe averages over: under pmap, else None."""
    return PMAP_AXIS if config.get("parallel") == "pmap" else None


def dataset(config, split="train"):
    """The Dataset, with the arguments of its name checked."""
    values = group(config.data, "data")
    name = values.pop("name", None)
    known = parameters(lookup(data.DATASETS, name, "data.name"), hidden=("split",))
    names = data.option_names(name)[0]
    for key, value in values.items():
        if key not in names:
            raise ValueError(f"data.{key}: unknown key{nearest(key, names)}")
        if key in known:
            values[key] = as_type_of(known[key].default, value, f"data.{key}")
    try:
        return data.load(name, split=split, **values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"data: {error}") from error


def process(config):
    """The Process."""
    return construct(processes.PROCESSES, config.process, "process")


def precision(config):
    """The dtype that networks compute in."""
    return lookup(PRECISIONS, config.get("precision", "float32"), "precision")


def network(config, spec, node="network"):
    """The Net of config.network, sized to the data.

    Args:
      config: with `algorithm.cond` and `denoiser.learned_variance`, which decide on classes and channels.
      spec: DataSpec.
      node: the group to build.
    """
    sizes = {"dtype": precision(config)}
    if is_conditional(config):
        if not spec.num_classes:
            raise ValueError("algorithm.cond: expected data with classes for 'label', got data without")
        sizes["num_classes"] = spec.num_classes
    if _settings(config, "denoiser").get("learned_variance"):
        sizes["out_channels"] = 2 * spec.shape[-1]
    return linen_net(construct(networks.NETWORKS, config[node], node, defaults=sizes, hidden=("parent", "name")))


def denoiser(config, process):
    """fn -> Denoiser, by config.denoiser."""
    values = check_arguments(_settings(config, "denoiser"), [make_denoiser], "denoiser", given=2)
    lookup(TARGETS, values.get("target", "eps"), "denoiser.target")
    lookup(NOISE_INPUTS, values.get("noise_input", "edm"), "denoiser.noise_input")
    return functools.partial(make_denoiser, process=process, **values)


def time_sampler(config, process):
    """The TimeSampler of config.loss; uniform where none is named."""
    node = _settings(config, "loss").get("time_sampler", "uniform")
    return construct(TIME_SAMPLERS, node, "loss.time_sampler", process)


def loss(config, process, times, spec):
    """The Loss."""
    values = {"name": "denoising", **_settings(config, "loss", "time_sampler", "weighting")}
    lookup(losses.LOSSES, values["name"], "loss.name")
    given, weighting = (process,), config.get("loss", {}).get("weighting")
    if values["name"] == "denoising":
        given = (process, times, construct(WEIGHTINGS, weighting or "eps", "loss.weighting"))
    elif weighting is not None:
        raise ValueError(f"loss.weighting: expected none for {values['name']!r}, got {plain(weighting)!r}")
    low, high = spec.range or (-1.0, 1.0)
    bounds = {"low": low, "high": high, "levels": spec.levels}
    made = construct(losses.LOSSES, values, "loss", *given, fixed={"times": times}, defaults=bounds)
    return with_uncertainty(made) if config.get("uncertainty") is not None else made


def optimizer(config):
    """The Optax transform; a schedule that needs a number of steps takes that of the training."""
    values = {"name": "adam", **_settings(config, "optimizer")}
    name, schedule = values.pop("name"), values.pop("schedule", None)
    chosen = lookup(OPTIMIZERS, name, "optimizer.name")
    values = check_arguments(values, [chosen, make_optimizer], "optimizer", hidden=("name", "schedule"))
    if schedule is not None:
        schedule = {"name": "constant", **group(schedule, "optimizer.schedule")}
        shape = schedule.pop("name")
        function = lookup(SCHEDULES, shape, "optimizer.schedule.name")
        if "steps" in parameters(function):
            schedule.setdefault("steps", max(1, plan(config).steps // values.get("accumulate", 1)))
        schedule = check_arguments(schedule, [function], "optimizer.schedule", hidden=("learning_rate",))
        schedule["name"] = shape
    try:
        return make_optimizer(name, schedule=schedule, **values)
    except ValueError as error:
        raise ValueError(f"optimizer: {error}") from error


def ema(config):
    """The EMA, None where the config has none."""
    node = config.get("ema")
    return None if node is None else construct(EMAS, node, "ema")


def make_sampler(
    process,
    shape,
    *,
    solver=None,
    grid=None,
    steps=18,
    cfg_scale=1.0,
    cfg_interval=None,
    clip=False,
    range=(-1.0, 1.0),
):
    """`sampler(key, denoiser, n, cond) -> [n, *shape]`: what config.sample means.

    Args:
      solver: a name in SOLVERS, or a group; "heun" where None; or a popular name in SAMPLERS, such as
        "DPM++ 2M Karras", which says the grid too.
      grid: a name in GRIDS, or a group; "karras" where None.
      steps: of the solver.
      cfg_scale: w of classifier-free guidance, uncond + w (cond - uncond); 1 for none.
      cfg_interval: (low, high) noise levels sigma / alpha between which it acts, None for everywhere.
      clip: clip predicted data to `range`.
      range: of the data, None where unbounded.
    """
    if clip and range is None:
        raise ValueError("sample.clip: expected data of a known range, got data without")
    if steps < 1:
        raise ValueError(f"sample.steps: expected at least 1, got {steps}")
    if isinstance(solver, str) and solver in solvers.SAMPLERS:
        if grid is not None:
            raise ValueError(f"sample.grid: expected none beside the sampler {solver!r}, got {grid!r}")
        made, make_grid = solvers.SAMPLERS[solver]
        times = make_grid(process, steps)
    else:
        solver = solver or "heun"
        names = {**solvers.SAMPLERS, **solvers.SOLVERS} if isinstance(solver, str) else solvers.SOLVERS
        made = construct(names, solver, "sample.solver")
        times = construct(solvers.GRIDS, grid or "karras", "sample.grid", process, steps)
    steering = [] if cfg_scale == 1 else [guidance.cfg(cfg_scale, cfg_interval)]
    if clip:
        steering.append(guidance.clip_x0(*range))
    return gaussian_sampler(process, made, times, shape, guidance.chain(*steering) if steering else None)


def sampler(config, process, spec):
    """The sampler of config.sample, an empty group meaning the defaults of `make_sampler`."""
    hidden = ("range",)
    values = check_arguments(_settings(config, "sample"), [make_sampler], "sample", given=2, hidden=hidden)
    return make_sampler(process, spec.shape, range=spec.range, **values)


def parts(config, spec):
    """The Parts of a diffusion model for data of `spec`.

    Raises:
      ValueError: anything in the config that is wrong, by field.
    """
    check_groups(config)
    values = {"name": "diffusion", **_settings(config, "algorithm", "label_drop", "post_update")}
    recipe, drop = lookup(algorithms.ALGORITHMS, values.pop("name"), "algorithm.name"), 0.0
    if "label_drop" in config.get("algorithm", {}):
        drop = as_type_of(0.0, config.algorithm.label_drop, "algorithm.label_drop")
    hidden = ("drop", "sampler", "times", "uncertainty", "post_update", "axis_name")
    values = check_arguments(values, [recipe], "algorithm", given=5, hidden=hidden)
    for name in values.get("cond", ()):
        if name not in spec.fields:
            raise ValueError(f"algorithm.cond: expected fields of the data, {sorted(spec.fields)}, got {name!r}")
    after = config.get("algorithm", {}).get("post_update")
    after = None if after is None else lookup(POST_UPDATES, after, "algorithm.post_update")
    corruption = process(config)
    times = time_sampler(config, corruption)
    net, denoise, average = network(config, spec), denoiser(config, corruption), ema(config)
    uncertainty = None
    if config.get("uncertainty") is not None:
        uncertainty = linen_net(
            Uncertainty(**check_arguments(_settings(config, "uncertainty"), [Uncertainty], "uncertainty"))
        )
    objective, update, draws = (
        loss(config, corruption, times, spec),
        optimizer(config),
        sampler(config, corruption, spec),
    )
    values.update(sampler=draws, times=times, uncertainty=uncertainty, post_update=after, drop=drop)
    values.update(axis_name=axis_name(config))
    try:
        algorithm = recipe(net, denoise, objective, update, average, **values)
    except ValueError as error:
        raise ValueError(f"algorithm: {error}") from error
    return Parts(corruption, net, denoise, times, objective, average, algorithm)


def algorithm(config, spec):
    """The Algorithm for data of `spec`."""
    return parts(config, spec).algorithm


class Evaluation(NamedTuple):
    """What config.eval says."""

    num: int = 1000  # samples
    metrics: tuple = ()  # names in `train.evaluation.METRICS`; empty: what suits the data
    draws: int = 64  # noise levels an example in the bound


def evaluation(config):
    """The Evaluation of config.eval."""
    found = Evaluation(**check_arguments(_settings(config, "eval"), [Evaluation], "eval"))
    check_metrics(found.metrics)
    for name in ("num", "draws"):
        if getattr(found, name) < 1:
            raise ValueError(f"eval.{name}: expected at least 1, got {getattr(found, name)}")
    return found


def is_conditional(config):
    """Whether the model is given class labels."""
    return "label" in _settings(config, "algorithm").get("cond", ())


def subject(config, parts, state, train, *, num=None, seed=0):
    """The `train.evaluation.Subject` of a model and the config's data."""
    said = evaluation(config)
    return Subject(
        parts.algorithm,
        parts.denoiser,
        parts.process,
        state,
        train,
        dataset(config, "test"),
        num=num or said.num,
        seed=seed,
        conditional=is_conditional(config),
        draws=said.draws,
    )


def hooks(config, parts, data, workdir):
    """The Hooks of a training: sample grids and evaluations, where the plan asks for them."""
    p, made = plan(config), []
    if p.sample_every:
        check_picture(data.spec)
        made.append(
            sample_hook(
                p.sample_every,
                parts.algorithm,
                data.spec,
                workdir,
                seed=seed(config),
                conditional=is_conditional(config),
            )
        )
    if p.evaluate_every:
        names = evaluation(config).metrics or default_metrics(data.spec, is_conditional(config))
        run = lambda step, state, log: evaluate(subject(config, parts, state, data, seed=seed(config)), names)
        made.append(Hook(p.evaluate_every, run))
    return made


def plain(node):
    """A group as plain values for JSON, None where it is absent."""
    return node.to_dict() if hasattr(node, "to_dict") else node


def feed(config, dataset, layout=None):
    """The Feed of a training on a Dataset, placed by a Layout (the first device where None)."""
    p = plan(config)
    if dataset.arrays is not None:
        return device_feed(dataset.arrays, p.batch_size, seed(config), layout and layout.replicated)
    return stream_feed(dataset, p.batch_size, seed(config), layout and layout.batch)
