"""From a config to a diffusion model.

Its groups, beside those of every recipe (`build.common`):

  process     {name, ...}                       genjax.processes.PROCESSES
  network     {name, ...}                       genjax.networks.NETWORKS
  denoiser    {target, sigma_data, ...}         genjax.core.denoiser.make_denoiser
  loss        {name, time_sampler, weighting, ...}  genjax.losses.LOSSES
  uncertainty {...}                             genjax.networks.Uncertainty, or absent
  algorithm   {cond, label_drop, post_update, spread}  genjax.algorithms.diffusion
  sample      {solver, grid, steps, cfg_scale, ...}  `make_sampler`
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from genjax import algorithms, guidance, losses, networks, processes, solvers
from genjax.algorithms.diffusion import gaussian_sampler, trained_denoiser
from genjax.build.common import Recipe, axis_name, ema, is_conditional, of_group, optimizer, plain, precision
from genjax.construct import as_type_of, check_arguments, construct, lookup
from genjax.core.denoiser import NOISE_INPUTS, make_denoiser
from genjax.core.prediction import TARGETS
from genjax.core.types import Algorithm
from genjax.losses.denoising import with_uncertainty
from genjax.losses.times import TIME_SAMPLERS
from genjax.losses.weightings import WEIGHTINGS
from genjax.networks import Uncertainty, force_normalize, linen_net

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


def process(config):
    """The Process."""
    return construct(processes.PROCESSES, config.process, "process")


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
    if of_group(config, "denoiser").get("learned_variance"):
        sizes["out_channels"] = 2 * spec.shape[-1]
    return linen_net(construct(networks.NETWORKS, config[node], node, defaults=sizes, hidden=("parent", "name")))


def denoiser(config, process):
    """fn -> Denoiser, by config.denoiser."""
    values = check_arguments(of_group(config, "denoiser"), [make_denoiser], "denoiser", given=2)
    lookup(TARGETS, values.get("target", "eps"), "denoiser.target")
    lookup(NOISE_INPUTS, values.get("noise_input", "edm"), "denoiser.noise_input")
    return functools.partial(make_denoiser, process=process, **values)


def time_sampler(config, process):
    """The TimeSampler of config.loss; uniform where none is named."""
    node = of_group(config, "loss").get("time_sampler", "uniform")
    return construct(TIME_SAMPLERS, node, "loss.time_sampler", process)


def loss(config, process, times, spec):
    """The Loss."""
    values = {"name": "denoising", **of_group(config, "loss", "time_sampler", "weighting")}
    lookup(losses.LOSSES, values["name"], "loss.name")
    given, weighting = (process,), config.get("loss", {}).get("weighting")
    fixed = {"times": times}
    if values["name"] == "denoising":
        given = (process, times, construct(WEIGHTINGS, weighting or "eps", "loss.weighting"))
    elif values["name"] in ("hybrid", "guided_denoising"):
        fixed["weighting"] = weighting and construct(WEIGHTINGS, weighting, "loss.weighting")
    elif weighting is not None:
        raise ValueError(f"loss.weighting: expected none for {values['name']!r}, got {plain(weighting)!r}")
    low, high = spec.range or (-1.0, 1.0)
    bounds = {"low": low, "high": high, "levels": spec.levels}
    made = construct(losses.LOSSES, values, "loss", *given, fixed=fixed, defaults=bounds)
    return with_uncertainty(made) if config.get("uncertainty") is not None else made


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
    values = check_arguments(of_group(config, "sample"), [make_sampler], "sample", given=2, hidden=hidden)
    return make_sampler(process, spec.shape, range=spec.range, **values)


def parts(config, spec):
    """The Parts of a diffusion model for data of `spec`.

    Raises:
      ValueError: anything in the config that is wrong, by field.
    """
    values = {"name": "diffusion", **of_group(config, "algorithm", "label_drop", "post_update")}
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
            Uncertainty(**check_arguments(of_group(config, "uncertainty"), [Uncertainty], "uncertainty"))
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


RECIPE = Recipe(
    groups=("process", "network", "uncertainty", "denoiser", "loss"), needed=("process", "network"), parts=parts
)
