"""What every recipe's config shares: data, plan, optimizers, averages, layout, evaluation; and what a recipe says.

Groups of every config (each is what the constructor of its name takes, so the rooms' dictionaries and
signatures are its only schema):

  seed        whole number
  data        {name, ...}                       genjax.data.DATASETS; `indexed` adds the field "index"
  algorithm   {name, ...}                       genjax.algorithms.ALGORITHMS, and the recipe's module here
  optimizer   {name, learning_rate, schedule, clip, ...}  genjax.train.optimizers
  ema         {name, ...}                       genjax.train.ema.EMAS, or absent
  precision   "float32" or "bfloat16", of the computation; parameters are float32
  train       genjax.train.loop.Plan
  sample      what the recipe's sampler takes
  eval        `Evaluation`
  mesh        {data, fsdp, tensor}: sizes, -1 for the rest   genjax.train.sharding
  sharding    {rules, min_size}: where parameters lie, genjax.train.sharding
  parallel    "mesh" or "pmap"
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from genjax import data
from genjax.construct import as_type_of, check_arguments, construct, group, lookup, nearest, parameters, settings
from genjax.data.views import numbered
from genjax.train.ema import EMAS, every
from genjax.train.evaluation import check_metrics
from genjax.train.loop import Plan
from genjax.train.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer
from genjax.train.sharding import MIN_SIZE, PMAP_AXIS, make_layout

GROUPS = (
    "seed",
    "data",
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
NEEDED = ("data", "train")
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Recipe(NamedTuple):
    """What the module of a recipe says of it; one entry of `build.RECIPES` each."""

    groups: tuple  # groups of its config, beside those of every recipe
    needed: tuple  # those that cannot be left out
    parts: Callable  # (config, spec) -> its pieces, a NamedTuple with at least `algorithm`
    batches: Callable = lambda config: 1  # config -> batches of `train.batch_size` that one step takes
    hooks: Callable = lambda config, parts, data, workdir: []  # of a training, beside samples and evaluation
    table: Callable = lambda config: ()  # config -> metrics shown while training; () for the loss


def of_group(config, name, *without):
    """A group of the config as a dict less the keys `without`; {} where it is absent."""
    return settings(config.get(name), name, *without)


def check_groups(config, groups, needed, others=()):
    """Raises ValueError for a group that does not exist or one that is missing.

    Args:
      groups, needed: of the config's recipe.
      others: names of groups of other recipes.
    """
    for name in config:
        if name not in groups:
            what = f"no group of algorithm {recipe_name(config)!r}" if name in others else "unknown key"
            raise ValueError(f"{name}: {what}{nearest(name, groups)}")
    for name in needed:
        if name not in config:
            raise ValueError(f"{name}: expected this group in the config, got none")


def recipe_name(config):
    """algorithm.name, "diffusion" where none is given."""
    return of_group(config, "algorithm").get("name", "diffusion")


def seed(config):
    """The seed, 0 where none is given."""
    return as_type_of(0, config.get("seed", 0), "seed")


def plan(config):
    """The Plan of a training."""
    return Plan(**check_arguments(of_group(config, "train"), [Plan], "train"))


def sharding_rules(config):
    """{"rules", "min_size"} of config.sharding."""
    values = check_arguments(of_group(config, "sharding"), [make_layout], "sharding", hidden=_NOT_SHARDING)
    return {"rules": tuple(values.get("rules", ())), "min_size": values.get("min_size", MIN_SIZE)}


_NOT_SHARDING = ("mesh", "parallel", "devices")


def layout(config, devices=None):
    """The Layout of the groups mesh, sharding and parallel; all devices along "data" by default."""
    mesh = of_group(config, "mesh")
    return make_layout(mesh, **sharding_rules(config), parallel=config.get("parallel", "mesh"), devices=devices)


def axis_name(config):
    """The axis that the recipe averages over: under pmap, else None."""
    return PMAP_AXIS if config.get("parallel") == "pmap" else None


def dataset(config, split="train"):
    """The Dataset, with the arguments of its name checked."""
    values = group(config.data, "data")
    name = values.pop("name", None)
    indexed = as_type_of(False, values.pop("indexed", False), "data.indexed")
    known = parameters(lookup(data.DATASETS, name, "data.name"), hidden=("split",))
    names = data.option_names(name)[0]
    for key, value in values.items():
        if key not in names:
            raise ValueError(f"data.{key}: unknown key{nearest(key, names)}")
        if key in known:
            values[key] = as_type_of(known[key].default, value, f"data.{key}")
    try:
        found = data.load(name, split=split, **values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"data: {error}") from error
    return numbered(found) if indexed else found


def precision(config):
    """The dtype that networks compute in."""
    return lookup(PRECISIONS, config.get("precision", "float32"), "precision")


def optimizer(config, node="optimizer", updates=1):
    """The Optax transform of a group; a schedule that needs a number of steps takes that of the training.

    Args:
      node: name of the group.
      updates: of its network, a step of the training.
    """
    values = {"name": "adam", **of_group(config, node)}
    name, schedule = values.pop("name"), values.pop("schedule", None)
    chosen = lookup(OPTIMIZERS, name, f"{node}.name")
    values = check_arguments(values, [chosen, make_optimizer], node, hidden=("name", "schedule"))
    if schedule is not None:
        schedule = {"name": "constant", **group(schedule, f"{node}.schedule")}
        shape = schedule.pop("name")
        function = lookup(SCHEDULES, shape, f"{node}.schedule.name")
        if "steps" in parameters(function):
            schedule.setdefault("steps", max(1, updates * plan(config).steps // values.get("accumulate", 1)))
        schedule = check_arguments(schedule, [function], f"{node}.schedule", hidden=("learning_rate",))
        schedule["name"] = shape
    try:
        return make_optimizer(name, schedule=schedule, **values)
    except ValueError as error:
        raise ValueError(f"{node}: {error}") from error


def ema(config, optimized="optimizer"):
    """The EMA, None where the config has none; it counts the updates of the optimizer in the group `optimized`."""
    node = config.get("ema")
    if node is None:
        return None
    return every(construct(EMAS, node, "ema"), of_group(config, optimized).get("accumulate", 1))


class Evaluation(NamedTuple):
    """What config.eval says."""

    num: int = 1000  # samples
    metrics: tuple = ()  # names in `train.evaluation.METRICS`; empty: what suits the data
    draws: int = 64  # noise levels an example in the bound


def evaluation(config):
    """The Evaluation of config.eval."""
    found = Evaluation(**check_arguments(of_group(config, "eval"), [Evaluation], "eval"))
    check_metrics(found.metrics)
    for name in ("num", "draws"):
        if getattr(found, name) < 1:
            raise ValueError(f"eval.{name}: expected at least 1, got {getattr(found, name)}")
    return found


def is_conditional(config):
    """Whether the model is given class labels."""
    return "label" in of_group(config, "algorithm").get("cond", ())


def plain(node):
    """A group as plain values for JSON, None where it is absent."""
    return node.to_dict() if hasattr(node, "to_dict") else node
