"""From a config to objects: the one room that knows what a `ConfigDict` means.

A config holds names and numbers in groups: those of every recipe (`build.common`) and those of the recipe that
algorithm.name says (`build.diffusion`, `build.gan`). Everything is checked before anything is compiled; each
error names the field, and the nearest right name.
"""

from genjax.build import common, diffusion, gan, glo
from genjax.build.common import (
    PRECISIONS,
    Evaluation,
    Recipe,
    axis_name,
    dataset,
    ema,
    evaluation,
    is_conditional,
    layout,
    optimizer,
    plain,
    precision,
    seed,
    sharding_rules,
)
from genjax.build.diffusion import (
    Parts,
    denoiser,
    loss,
    make_sampler,
    network,
    process,
    sampler,
    time_sampler,
)
from genjax.construct import lookup
from genjax.train.evaluation import Subject, default_metrics, evaluate
from genjax.train.feed import device_feed, stream_feed
from genjax.train.hooks import sample_hook
from genjax.train.loop import Hook
from genjax.train.pictures import check_picture

RECIPES = {
    # algorithm.name: what its module says
    "diffusion": diffusion.RECIPE,
    "gan": gan.RECIPE,
    "glo": glo.RECIPE,
}
GROUPS = (*common.GROUPS, *dict.fromkeys(name for recipe in RECIPES.values() for name in recipe.groups))


def recipe(config):
    """The Recipe of algorithm.name."""
    return lookup(RECIPES, common.recipe_name(config), "algorithm.name")


def check_groups(config):
    """Raises ValueError for a group that does not exist, that belongs to another recipe, or that is missing."""
    chosen = recipe(config)
    common.check_groups(config, (*common.GROUPS, *chosen.groups), (*common.NEEDED, *chosen.needed), GROUPS)


def plan(config):
    """The Plan of a training, its batch_size that of a whole step: `train.batch_size` for each update on new data."""
    found = common.plan(config)
    return found._replace(batch_size=found.batch_size * recipe(config).batches(config))


def parts(config, spec):
    """The pieces of the config's recipe for data of `spec`; at least `algorithm`.

    Raises:
      ValueError: anything in the config that is wrong, by field.
    """
    check_groups(config)
    return recipe(config).parts(config, spec)


def algorithm(config, spec):
    """The Algorithm for data of `spec`."""
    return parts(config, spec).algorithm


def metrics(config, parts, spec):
    """Names of the metrics of config.eval, or of those that suit the data and the model."""
    likelihood = getattr(parts, "denoiser", None) is not None
    return evaluation(config).metrics or default_metrics(spec, is_conditional(config), likelihood)


def table(config):
    """Names of the metrics that are shown while training, () for the loss."""
    return recipe(config).table(config)


def subject(config, parts, state, train, *, num=None, seed=0):
    """The `train.evaluation.Subject` of a model and the config's data."""
    said = evaluation(config)
    return Subject(
        parts.algorithm,
        getattr(parts, "denoiser", None),
        getattr(parts, "process", None),
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
    p, made = plan(config), recipe(config).hooks(config, parts, data, workdir)
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
        names = metrics(config, parts, data.spec)
        run = lambda step, state, log: evaluate(subject(config, parts, state, data, seed=seed(config)), names)
        made.append(Hook(p.evaluate_every, run))
    return made


def feed(config, dataset, layout=None):
    """The Feed of a training on a Dataset, placed by a Layout (the first device where None)."""
    p = plan(config)
    if dataset.arrays is not None:
        return device_feed(dataset.arrays, p.batch_size, seed(config), layout and layout.replicated)
    return stream_feed(dataset, p.batch_size, seed(config), layout and layout.batch)


__all__ = [
    "GROUPS",
    "PRECISIONS",
    "RECIPES",
    "Evaluation",
    "Parts",
    "Recipe",
    "algorithm",
    "axis_name",
    "check_groups",
    "dataset",
    "denoiser",
    "ema",
    "evaluation",
    "feed",
    "hooks",
    "is_conditional",
    "layout",
    "loss",
    "make_sampler",
    "metrics",
    "network",
    "optimizer",
    "parts",
    "plain",
    "plan",
    "precision",
    "process",
    "recipe",
    "sampler",
    "seed",
    "sharding_rules",
    "subject",
    "table",
    "time_sampler",
]
