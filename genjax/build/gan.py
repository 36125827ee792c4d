"""From a config to a game of a generator with a discriminator.

Its groups, beside those of every recipe (`build.common`):

  generator      {name, ...}        genjax.networks.gan.GENERATORS
  discriminator  {name, head, ...}  genjax.networks.gan.DISCRIMINATORS
  loss           {name, base, ...}  genjax.losses.adversarial.ADVERSARIAL; `base` a name or group in its turn
  latent         {name, dim}        genjax.algorithms.games.LATENTS
  penalties      {name: {weight, every, ...} or the weight}  genjax.losses.penalties.PENALTIES
  g_penalties    likewise                                    genjax.losses.penalties.G_PENALTIES
  augment        {name, ...}        AUGMENTS below, or absent
  prepare        {name: {...}}      genjax.algorithms.games.PREPARES, or absent
  g_optimizer, d_optimizer          in the place of `optimizer` for one player
  algorithm      {cond, d_cond, n_critic, fake_labels, simultaneous, clip_weights}  genjax.algorithms.gan
  sample         {truncation, truncate}

`train.batch_size` counts the reals of one update: a step takes n_critic times as many. The networks are given the
sizes of the data, the number of classes where they are conditioned on labels, and the precision.
"""

from typing import Any, NamedTuple

from genjax.algorithms import games
from genjax.algorithms.gan import gan, trained_generator
from genjax.build.common import (
    Recipe,
    axis_name,
    dataset,
    ema,
    is_conditional,
    of_group,
    optimizer,
    plan,
    precision,
    seed,
)
from genjax.construct import as_type_of, check_arguments, construct, group, lookup, nearest, parameters
from genjax.core.types import Algorithm
from genjax.data import extractors
from genjax.data.augment import AUGMENTS as OF_IMAGES
from genjax.losses.adversarial import ADVERSARIAL
from genjax.losses.mmd import KERNELS
from genjax.losses.penalties import G_PENALTIES, PENALTIES, Penalty, clip_weights
from genjax.networks import linen_net
from genjax.networks.gan import DISCRIMINATORS, GENERATORS, HEADS
from genjax.networks.gan.heads import CLASSLESS
from genjax.train.games import coverage_hook, interpolation_hook, watch_hook
from genjax.train.pictures import is_image

AUGMENTS = {**OF_IMAGES, "instance_noise": games.instance_noise}
GROUPS = (
    "generator",
    "discriminator",
    "loss",
    "latent",
    "penalties",
    "g_penalties",
    "augment",
    "prepare",
    "g_optimizer",
    "d_optimizer",
)


class Parts(NamedTuple):
    """The pieces of a game, for those who need more than the Algorithm."""

    generator: Any  # Net
    discriminator: Any  # Net
    loss: Any  # AdversarialLoss
    latent: Any  # games.Latent
    ema: Any  # EMA or None
    algorithm: Algorithm

    def generate(self, state, track=0):
        """`generate(z, cond=None, key=None) -> x` by the averaged weights."""
        return trained_generator(self.generator, state, self.ema, track)


def _made(table, node, field, config, spec, *given):
    """`construct`, with the parts that some constructors take made first: a kernel, an augmentation."""
    values = group(node, field)
    function = lookup(table, values.get("name"), f"{field}.name")
    takes, fixed = parameters(function, len(given)), {"axis_name": axis_name(config)}
    if "kernel" in takes and "kernel" in values:
        fixed["kernel"] = construct(KERNELS, values.pop("kernel"), f"{field}.kernel")
    if "augment" in takes:
        if "augment" not in values:
            raise ValueError(f"{field}.augment: expected one of: {', '.join(sorted(AUGMENTS))}, got none")
        fixed["augment"] = construct(AUGMENTS, values.pop("augment"), f"{field}.augment", fixed=fixed)
    return construct(table, values, field, *given, fixed=fixed, defaults={"num_classes": spec.num_classes})


def loss(config, spec, node=None, field="loss"):
    """The AdversarialLoss of config.loss; wrappers are put around their `base`, non-saturating by default."""
    values = {"name": "non_saturating", **group(node or config.get("loss", "non_saturating"), field)}
    function = lookup(ADVERSARIAL, values["name"], f"{field}.name")
    if "base" not in parameters(function):
        return _made(ADVERSARIAL, values, field, config, spec)
    base = loss(config, spec, values.pop("base", "non_saturating"), f"{field}.base")
    return _made(ADVERSARIAL, values, field, config, spec, base)


def penalties(config, spec, node, table):
    """{name: Penalty} of a group {name: {weight, every, ...}} or {name: weight}."""
    found = {}
    for name, said in of_group(config, node).items():
        field = f"{node}.{name}"
        if name not in table:
            raise ValueError(f"{field}: unknown penalty{nearest(name, table)}")
        values = dict(said.items()) if hasattr(said, "items") else {"weight": said}
        weight = as_type_of(1.0, values.pop("weight", 1.0), f"{field}.weight")
        every = as_type_of(1, values.pop("every", 1), f"{field}.every")
        if not weight >= 0:
            raise ValueError(f"{field}.weight: expected a number >= 0, got {weight}")
        if every < 1:
            raise ValueError(f"{field}.every: expected at least 1, got {every}")
        found[name] = Penalty(_made(table, {"name": name, **values}, field, config, spec), weight, every)
    return found


def prepare(config):
    """The prepares of config.prepare, in its order."""
    names = of_group(config, "prepare")
    said = {name: {"name": name, **dict(values.items())} for name, values in names.items()}
    fixed = {"axis_name": axis_name(config)}
    return tuple(construct(games.PREPARES, values, f"prepare.{name}", fixed=fixed) for name, values in said.items())


def _head(config):
    """Name of the discriminator's head that the config says; None where the network chooses."""
    head = group(config.discriminator, "discriminator").get("head")
    return head if isinstance(head, str) or head is None else head.get("name")


def _conditions(config, spec):
    """(cond, d_cond) of config.algorithm, checked against the data and the discriminator's head."""
    said = of_group(config, "algorithm")
    cond = tuple(as_type_of((), said.get("cond", ()), "algorithm.cond"))
    d_cond = said.get("d_cond")
    d_cond = cond if d_cond is None else tuple(as_type_of((), d_cond, "algorithm.d_cond"))
    for field, names in (("cond", cond), ("d_cond", d_cond)):
        for name in names:
            if name not in spec.fields:
                raise ValueError(f"algorithm.{field}: expected fields of the data, {sorted(spec.fields)}, got {name!r}")
    if "label" in (*cond, *d_cond) and not spec.num_classes:
        raise ValueError("algorithm.cond: expected data with classes for 'label', got data without")
    if _head(config) in ("projection", "contrastive") and "label" not in d_cond:
        raise ValueError(f"algorithm.cond: expected 'label' for the head {_head(config)!r}, got {list(d_cond)}")
    if _head(config) in HEADS and _head(config) not in CLASSLESS and not spec.num_classes:
        raise ValueError(f"discriminator.head: expected data with classes for {_head(config)!r}, got data without")
    return cond, d_cond


def networks(config, spec, cond, d_cond):
    """(generator, discriminator) as Nets."""
    sizes = {"dtype": precision(config), "axis_name": axis_name(config)}
    if "tempering" in of_group(config, "prepare"):
        sizes["embedding_dim"] = 1
    if spec.range == (-1.0, 1.0):
        sizes["output"] = "tanh"
    needs_classes = "label" in d_cond or (_head(config) in HEADS and _head(config) not in CLASSLESS)
    made = []
    for node, table, classes in (
        ("generator", GENERATORS, "label" in cond),
        ("discriminator", DISCRIMINATORS, needs_classes),
    ):
        defaults = {**sizes, "num_classes": spec.num_classes} if classes else sizes
        hidden = ("parent", "name")
        module = construct(table, config[node], node, fixed={"shape": spec.shape}, defaults=defaults, hidden=hidden)
        made.append(linen_net(module))
    return made


def _n_critic(config):
    n = as_type_of(1, of_group(config, "algorithm").get("n_critic", 1), "algorithm.n_critic")
    if n < 1:
        raise ValueError(f"algorithm.n_critic: expected at least 1, got {n}")
    return n


def _optimized(config, name):
    """The group of a player's optimizer."""
    return name if config.get(name) is not None else "optimizer"


def _optimizers(config):
    g, d = (_optimized(config, name) for name in ("g_optimizer", "d_optimizer"))
    return optimizer(config, g), optimizer(config, d, _n_critic(config))


def sampling(truncation=None, truncate="latent"):
    """What config.sample says: of `algorithms.gan.gan`."""
    if truncate not in ("latent", "style"):
        raise ValueError(f"sample.truncate: expected 'latent' or 'style', got {truncate!r}")
    if truncation is not None and not truncation > 0:
        raise ValueError(f"sample.truncation: expected a number > 0, got {truncation}")
    return {"truncation": truncation, "truncate": truncate}


OWN = ("name", "cond", "d_cond", "n_critic", "clip_weights")


def parts(config, spec):
    """The Parts of a game on data of `spec`.

    Raises:
      ValueError: anything in the config that is wrong, by field.
    """
    cond, d_cond = _conditions(config, spec)
    values = {k: v for k, v in of_group(config, "algorithm").items() if k not in OWN}
    known = {name: p for name, p in parameters(gan).items() if name in ("fake_labels", "simultaneous")}
    for name in values:
        if name not in known:
            raise ValueError(f"algorithm.{name}: unknown key{nearest(name, [*known, *OWN])}")
    values = {name: as_type_of(known[name].default, value, f"algorithm.{name}") for name, value in values.items()}
    clip = of_group(config, "algorithm").get("clip_weights")
    if clip is not None:
        try:
            values["d_post_update"] = clip_weights(as_type_of(0.01, clip, "algorithm.clip_weights"))
        except ValueError as error:
            raise ValueError(f"algorithm.clip_weights: {error}") from error
    g, d = networks(config, spec, cond, d_cond)
    objective, average = loss(config, spec), ema(config, _optimized(config, "g_optimizer"))
    latent = construct(games.LATENTS, config.get("latent", "normal"), "latent")
    augment = config.get("augment")
    if augment is not None:
        augment = construct(AUGMENTS, augment, "augment", fixed={"axis_name": axis_name(config)})
    said = check_arguments(of_group(config, "sample"), [sampling], "sample")
    g_optimizer, d_optimizer = _optimizers(config)
    of_critic, of_generator = (
        penalties(config, spec, node, table) for node, table in (("penalties", PENALTIES), ("g_penalties", G_PENALTIES))
    )
    try:
        algorithm = gan(
            g,
            d,
            objective,
            g_optimizer,
            d_optimizer,
            latent=latent,
            penalties=of_critic,
            g_penalties=of_generator,
            n_critic=_n_critic(config),
            ema=average,
            augment=augment,
            cond=cond,
            d_cond=d_cond,
            num_classes=spec.num_classes,
            prepare=prepare(config),
            axis_name=axis_name(config),
            **values,
            **sampling(**said),
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"algorithm: {error}") from error
    return Parts(g, d, objective, latent, average, algorithm)


TABLE = ("d_loss", "g_loss", "logit_real", "logit_fake", "sign_real", "sign_fake")


def table(config):
    """What a training shows: both losses, logits and their signs, penalties."""
    generators = (f"g_{name}" for name in of_group(config, "g_penalties"))
    return (*TABLE, *of_group(config, "penalties"), *generators)


def hooks(config, parts, data, workdir):
    """Warnings at every log point; with samples, walks through the latent space and a measure of coverage."""
    p, conditional = plan(config), is_conditional(config)
    made = [watch_hook(p.log_every, p.log_every)]
    if p.sample_every and data.arrays is not None:
        judge = None
        if data.spec.num_classes and not conditional and data.spec.num_classes <= 100:
            classify = extractors.judge(data, dataset(config, "test"))
            judge = lambda x: classify(x)[1].argmax(axis=-1)
        made.append(coverage_hook(p.sample_every, parts.algorithm, data, judge=judge, **pictured(config)))
    if p.sample_every and is_image(data.spec):
        walks = (p.sample_every, parts.generate, parts.latent, data.spec, workdir)
        made.append(interpolation_hook(*walks, **pictured(config)))
    return made


def pictured(config):
    """Seed and conditioning of pictures."""
    return {"seed": seed(config), "conditional": is_conditional(config)}


RECIPE = Recipe(
    groups=GROUPS,
    needed=("generator", "discriminator"),
    parts=parts,
    batches=_n_critic,
    hooks=hooks,
    table=table,
)
