"""Projected GANs Converge Faster (arXiv 2111.01007).

    genjax reproduce projected_gan

The critic sees an image only through a frozen classifier and random mixing of its maps, and judges every scale by
itself. Rendered shapes at 16x16 on plain, striped and checkered grounds (5,000 pictures); the same generator
everywhere (transposed convolutions, widths 64 and 32), DiffAugment, Adam 5e-4 (0, 0.99), batch 32, 800 steps,
average of the generator's weights 0.99. Arms:

  projected            a residual CNN (8, 16, 32 and 64 channels at 16, 8, 4 and 2 pixels) trained to tell the 24
                       pairs of shape and colour on 10,000 other pictures; mixing across channels and scales; hinge
  random               the same network at its random initialization
  deepest              the trained network, its coarsest map alone, mixed to as many channels as among all four
  pixels_0.1, _1       a convolutional critic of the pixels with as many parameters as the four judges together,
                       non-saturating loss with R1 of that weight: the baseline is the better of the two

Judged by the Frechet distance (FD) of 1,000 samples to held-out pictures in features of another network, of another
architecture and seed, trained on a third set of pictures to tell the shapes; so what the first network knows does not
leak into the figure. It is taken every 80 steps. Rules fixed before the full run, on means over seeds:

1. `projected` reaches the final FD of the baseline in at most 0.7 of the steps.
2. Its final FD is at most 0.9 of the baseline's.
3. Its final FD is at most 0.85 of that of `random`: what was learned counts, not the architecture.
4. Its final FD is at most 0.9 of that of `deepest`.
5. What must hold for the theorem and for the method, with every seed: a linear decoder of the mixed maps around a pixel
   (of the two finest in 3x3 pixels) gives it back on held-out pictures with R^2 of at least 0.8, and classifier and
   mixing are the same to the bit before the first and after the last step.

1, 2 and 3 fail. Through the trained features the generator learns faster at first: after 320 steps FD is 182, against
325 with the better critic of pixels (`pixels_1`) and 315 through random features. From about 500 steps on the three
curves meet, and at the end `pixels_1` is ahead: 29 +- 3 against 36 +- 8, and 37 +- 11 through random features. So the
head start of learned features is there, and no better end. In pixels (sliced W2) what comes of the trained features is
further from the data, 0.165 against 0.121 and 0.118, so they seem to leave out what the pixels have. All arms are far
from real pictures (0.85) and still improve when the run ends; what holds them up then was not looked into, nor
whether a larger classifier or more steps change the order. The coarsest map alone does not teach this generator (870).

Reported: the sliced W2 distance of the pixels, which no network has a say in; the FD of real pictures, and what both
classifiers are worth on pictures that they have not seen.

First trials of one seed have changed the set-up, before any full run. (a) Every judge goes down to 2x2 places: with an
end at 8x8, as in the published code, those of the two coarse maps were linear here. The critic of the pixels has grown
with them. (b) The classifier is trained at a rate that falls from 1e-3 to 0 in 1,500 steps. At 2e-3 throughout it
told all colours but hardly a shape (44% of the 24 pairs after 800 steps, 26% with twice the channels after 1,500; now
85%), and FD was 186 after 500 steps of `projected` against 47 of `pixels_0.1`. (c) The decoder reads all maps around a
pixel, as the judges do, and finds 0.88. The finest map alone at its place, the first rule, gave 0.59: a place of the
classifier's first map holds a 3x3 convolution of the picture, and what the mixing adds to it of coarser maps is told
apart by these.
(d) 800 steps in the place of 1,000, to keep to half an hour.

An earlier trial on 8x8 digits with MLPs found the reverse of the paper's claim: pixels of such digits are a good
feature space already, and the features of a classifier of 900 pictures are a few directions that are easily fooled. So
here the features are maps of a convolutional network trained on many varied pictures.

`get_config("paper")`: the published judges, mixing, losses and numbers at 256x256 with a FastGAN generator. The
pretrained EfficientNet-Lite is not part of the toolkit: in its place stands a residual CNN with maps at the same
strides, whose variables `discriminator.initial` gives; a user puts a trained network there.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from genjax import build, data, metrics
from genjax.algorithms.supervised import supervised
from genjax.cli import runner_default
from genjax.cli import runner_gan as run
from genjax.cli.runner_scales import check_scale
from genjax.core.keys import fold
from genjax.data.extractors import train_classifier
from genjax.losses.guides import cross_entropy
from genjax.metrics.features import cached, content_hash
from genjax.metrics.linear_fit import linear_r2
from genjax.networks import CNNClassifier, linen_net
from genjax.networks.gan import classifier_maps
from genjax.networks.gan.projected import RandomProjector

PAPER = {
    "number": 38,
    "title": "Projected GANs Converge Faster",
    "year": 2021,
    "arxiv": "2111.01007",
    "family": "gan",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3
LOGS, STEPS = 10, 800


def get_config(scale="small"):
    if scale == "paper":
        return paper_config()
    smoke = check_scale(scale)
    few = 64  # of each set of pictures: one program draws them all
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "name": "shapes",
                "n": few if smoke else 5000,
                "size": 8 if smoke else 16,
                "textures": ("plain", "stripes", "checker"),
            },
            "generator": {"name": "dcgan", "width": 4 if smoke else 32},
            "discriminator": {
                "name": "projected",
                "width": 4 if smoke else 16,
                "channels": 16 if smoke else 128,
                "end": 8 if smoke else 2,
                "mixing": "scales",
            },
            "latent": {"name": "normal", "dim": 64},
            "loss": {"name": "hinge"},
            "penalties": {},
            **({} if smoke else {"augment": {"name": "diffaugment"}}),  # slow to compile
            "algorithm": {"name": "gan"},
            "optimizer": {"name": "adam", "learning_rate": 5e-4, "b1": 0.0, "b2": 0.99},
            "ema": {"name": "warmup", "decay": 0.99},
            "precision": "float32",
            "train": {"steps": LOGS if smoke else STEPS, "batch_size": 4 if smoke else 32},
            "frozen": {  # the network whose maps are judged: how much of them, and what it was trained on
                "trained": True,
                "multipliers": (1,) if smoke else (1, 2, 4, 8),
                "channels": 4 if smoke else 8,
                "maps": 0,  # the coarsest ones, 0 for all
                "pictures": few if smoke else 10000,
                "steps": 2 if smoke else 1500,
                "learning_rate": 1e-3,
            },
            "eval": {
                "num": few if smoke else 1000,
                "held_out": few if smoke else 2000,
                "judge": "mlp" if smoke else "large_kernel",
                "pictures": few if smoke else 8000,
                "steps": 2 if smoke else 800,
            },
        }
    )


def pixels(weight):
    return {
        "discriminator": {"name": "dcgan", "width": 36, "base": 2, "norm": "none"},
        "loss": {"name": "non_saturating"},
        "penalties": {"r1": {"weight": weight}},
    }


VARIANTS = {
    "projected": {},
    "random": {"frozen.trained": False},
    "deepest": {"frozen.maps": 1, "discriminator.width": 64},
    "pixels_0.1": pixels(0.1),
    "pixels_1": pixels(1.0),
}


@functools.cache
def _shapes(size, textures, split, n, seed, label):
    return data.load("shapes", split, n=n, seed=seed, label=label, size=size, textures=textures)


def shapes(config, split, n, seed, label="shape"):
    """A set of pictures of the config's world, drawn once; sets of different seeds have no picture in common."""
    return _shapes(config.data.size, tuple(config.data.textures), split, n, seed, label)


@functools.cache
def classifier(channels, multipliers):
    """The module of the frozen network."""
    return CNNClassifier(num_classes=24, channels=channels, multipliers=multipliers)


def module(config):
    return classifier(config.frozen.channels, tuple(config.frozen.multipliers))


def frozen(config):
    """({"params"}, accuracy) of the network whose maps are judged; the trained one is kept on disk."""
    net, said = module(config), config.frozen
    test = shapes(config, "test", min(500, said.pictures), 1, "shape_color").arrays
    variables = at_random(net)

    def loss(key, models, batch):
        return cross_entropy(models["guide"](batch["x"])[0], batch["label"]), {}

    if said.trained:
        arrays = shapes(config, "train", said.pictures, 1, "shape_color").arrays

        def compute():
            begun = linen_net(net)._replace(init=lambda key, x: (variables["params"], {}))  # nothing is drawn again
            rate = optax.warmup_cosine_decay_schedule(0.0, said.learning_rate, said.steps // 10, said.steps)
            recipe = supervised(begun, loss, optax.adamw(rate), inputs=lambda batch: (batch["x"],))
            state = runner_default.fit(recipe, arrays, jax.random.key(0), said.steps, 64)[-1][1]
            return {f"leaf{i}": leaf for i, leaf in enumerate(jax.tree.leaves(state.params["guide"]))}

        found = cached(
            "projected", content_hash(arrays["x"], arrays["label"], repr(net), said.steps, said.learning_rate), compute
        )
        leaves = [found[f"leaf{i}"] for i in range(len(found))]
        variables = {"params": jax.tree.unflatten(jax.tree.structure(variables["params"]), leaves)}
    logits = jax.jit(net.apply)(variables, test["x"])[0]
    return variables, float(np.mean(np.argmax(logits, axis=1) == test["label"]))


@functools.cache
def at_random(net):
    """{"params"} of a classifier; numbers, as the compiler would take minutes to draw what does not change."""
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]  # the size does not count
    return jax.tree.map(np.asarray, {"params": params})


@functools.cache
def backbone(net, coarsest):
    """((variables, x) -> the `coarsest` maps, finest first, () -> `at_random`, to be replaced)."""
    maps, start = classifier_maps(net), at_random(net)
    return lambda variables, x: maps(variables, x)[-coarsest:], lambda: start


def played(config):
    """The config of the game. It does not say what the frozen network has learned: one program plays both kinds."""
    game = ConfigDict({k: v for k, v in config.to_dict().items() if k not in ("frozen", "eval")})
    if game.discriminator.name == "projected":
        game.discriminator.backbone, game.discriminator.initial = backbone(module(config), config.frozen.maps)
    return run.model_config(game)


def of_generator(state):
    """The part of a State that draws samples, and the same tree in all arms: one program draws for them."""
    return state._replace(params={}, extra={"net": {"generator": state.extra["net"]["generator"]}})


def train(config, key, priors):
    """{looks: States that draw, one every 1 / LOGS of the steps; before, after: the critic's collections; ...}."""
    game, plan = played(config), build.plan(played(config))
    algorithm, arrays = run.game(game).algorithm, run.dataset(game).arrays
    state = jax.jit(algorithm.init)(fold(key, 0), {k: v[: plan.batch_size] for k, v in arrays.items()}, {})
    net, accuracy = state.extra["net"], 0.0
    if game.discriminator.name == "projected":
        variables, accuracy = frozen(config)
        given = {**net["discriminator"], "backbone": {"variables": variables}}
        state = state._replace(extra={**state.extra, "net": {**net, "discriminator": given}})
    before = jax.tree.map(np.array, state.extra["net"]["discriminator"])  # a copy: the training reuses the memory
    found = runner_default.fit(algorithm, arrays, key, plan.steps, plan.batch_size, snapshots=LOGS, state=state)
    last = found[-1][1]
    return {
        "looks": [of_generator(state) for _, state, _ in found],
        "before": before,
        "after": last.extra["net"]["discriminator"],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(last.params["discriminator"])),
        "accuracy": accuracy,
    }


@functools.cache
def _judge(size, textures, architecture, pictures, steps):
    config = ConfigDict({"data": {"size": size, "textures": textures}})
    sets = shapes(config, "train", pictures, 2), shapes(config, "test", min(500, pictures), 2)
    return train_classifier(*sets, architecture, seed=5, steps=steps)


def judge(config):
    """The extractor of the Frechet distance: another architecture, seed, set of pictures and labels."""
    said = config.eval
    return _judge(config.data.size, tuple(config.data.textures), said.judge, said.pictures, said.steps)


@functools.cache
def _mixed(mixer, maps):
    """(collections, x) -> the mixed maps, one program for all seeds."""

    @jax.jit
    def apply(collections, x):
        mixing = {"projector": collections["projector"]["mix"]}
        return mixer.apply(mixing, maps(collections["backbone"]["variables"], x))

    return apply


def at_pixels(h, side):
    """What a map [N, h, h, C] says of each pixel, [N, side, side, D]: all its places in it, or the one over it."""
    n, factor = len(h), max(h.shape[1] // side, 1)
    h = h.repeat(side * factor // h.shape[1], 1).repeat(side * factor // h.shape[2], 2)
    return h.reshape(n, side, factor, side, factor, -1).transpose(0, 1, 3, 2, 4, 5).reshape(n, side, side, -1)


def neighbourhood(h):
    """[N, H, W, C] with the channels of the 3x3 places around each, [N, H, W, 9 C]; edges repeated."""
    padded, (_, height, width, _) = np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge"), h.shape
    return np.concatenate([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=-1)


def decoded(config, collections, x):
    """R^2 of a linear decoder of pixels from the mixed maps: fitted on half of the pictures x, judged on the rest.

    It reads the two finest maps in the 3x3 pixels around, the others where they cover the pixel.
    """
    mixer = RandomProjector(config.discriminator.width, config.discriminator.mixing)
    mixed = _mixed(mixer, backbone(module(config), config.frozen.maps)[0])(collections, x)
    parts = [at_pixels(np.asarray(h), x.shape[1]) for h in mixed]
    h = np.concatenate([neighbourhood(h) if i < 2 else h for i, h in enumerate(parts)], axis=-1)
    rows = lambda a, part: a[part].reshape(-1, a.shape[-1])
    first, rest = slice(0, len(x) // 2), slice(len(x) // 2, len(x))
    return linear_r2(rows(h, first), rows(x, first), rows(h, rest), rows(x, rest))


def kept(config, found, held_out):
    """{decoder_r2, changed, frozen_accuracy}: what the projection keeps, and how far what is frozen has moved."""
    gaps = [
        np.max(np.abs(a - b))
        for name in ("projector", "backbone")
        for a, b in zip(*(jax.tree.leaves(found[when][name]) for when in ("before", "after")), strict=True)
    ]
    return {
        "decoder_r2": decoded(config, found["after"], held_out[:200]),
        "changed": max(gaps),
        "frozen_accuracy": found["accuracy"],
    }


def measure(config, key, priors):
    found, game, n = priors["projected_gan"], played(config), config.eval.num
    extractor = judge(config)
    held_out = shapes(config, "test", config.eval.held_out, 0).arrays["x"]
    others = run.dataset(game).arrays["x"][:n]  # real ones, that the judge has not seen either
    distance = lambda x: metrics.frechet_distance(
        metrics.gaussian_stats(extractor(x)[0]), metrics.data_stats(extractor, held_out)
    )
    curve = []
    for state in found["looks"]:
        x = run.draw(game, state, fold(key, 5), n)
        curve.append(distance(x))
    flat = lambda a: a.reshape(len(a), -1)
    return {
        "fd": curve[-1],
        "best": min(curve),
        "fd_of_real": distance(others),
        "sliced_w2": metrics.sliced_wasserstein2(flat(x), flat(held_out[:n])),
        "sliced_w2_of_real": metrics.sliced_wasserstein2(flat(others), flat(held_out[:n])),
        "critic_parameters": found["parameters"],
        "extractor_accuracy": extractor.accuracy,
        **{f"fd_{i:02}": value for i, value in enumerate(curve)},
        **(kept(config, found, held_out) if game.discriminator.name == "projected" else {}),
    }


def _curve(t, arm):
    """Mean FD over seeds at every look, [LOGS]."""
    return np.array([t[arm][f"fd_{i:02}"].mean() for i in range(LOGS)])


def _baseline(t):
    """The name of the better arm of pixels."""
    return min(("pixels_0.1", "pixels_1"), key=lambda arm: t[arm]["fd"].mean())


def _share(t):
    """Share of the steps after which the projected critic's FD is that of the baseline at the end; inf for never."""
    reached = np.flatnonzero(_curve(t, "projected") <= t[_baseline(t)]["fd"].mean())
    return (reached[0] + 1) / LOGS if len(reached) else np.inf


CLAIMS = {
    "faster": (
        "through projected features the final FD of the better pixel critic is reached in at most 0.7 of the steps",
        lambda t: bool(_share(t) <= 0.7),
    ),
    "better": (
        "the final FD is at most 0.9 of the better pixel critic's",
        lambda t: bool(t["projected"]["fd"].mean() <= 0.9 * t[_baseline(t)]["fd"].mean()),
    ),
    "pretrained": (
        "the final FD is at most 0.85 of that through the network's random initialization",
        lambda t: bool(t["projected"]["fd"].mean() <= 0.85 * t["random"]["fd"].mean()),
    ),
    "scales": (
        "the final FD is at most 0.9 of that through the coarsest map alone",
        lambda t: bool(t["projected"]["fd"].mean() <= 0.9 * t["deepest"]["fd"].mean()),
    ),
    "projection": (
        "pixels can be decoded from the mixed maps around (R^2 >= 0.8), and nothing frozen has changed, every seed",
        lambda t: bool((t["projected"]["decoder_r2"] >= 0.8).all() and (t["projected"]["changed"] == 0).all()),
    ),
}


def figure(table, path):
    """FD along the training, one line an arm, every seed thin."""
    from matplotlib.figure import Figure

    from genjax.cli.runner_report import save_figure

    picture = Figure(figsize=(5.5, 3.6), layout="constrained")
    axis = picture.add_subplot()
    steps = STEPS // LOGS * np.arange(1, LOGS + 1)
    for i, arm in enumerate(table):
        curves = np.stack([table[arm][f"fd_{j:02}"] for j in range(LOGS)])
        axis.plot(steps, curves, color=f"C{i}", alpha=0.3, linewidth=0.8)
        axis.plot(steps, curves.mean(axis=1), color=f"C{i}", label=arm)
    axis.set(xlabel="steps", ylabel="Frechet distance, independent features", yscale="log")
    axis.set_title("Critics of projected features and of pixels (arXiv 2111.01007)", fontsize=9)
    axis.legend(fontsize=7)
    save_figure(picture, path)


PUBLISHED = CNNClassifier(num_classes=1000, channels=24, multipliers=(1, 1, 1, 2, 4, 8))


@functools.cache
def _published():
    """(backbone, initial): the maps at strides 4, 8, 16 and 32, untrained."""
    maps = classifier_maps(PUBLISHED)
    shape = (1, 256, 256, 3)
    return (
        lambda variables, x: maps(variables, x)[2:],
        lambda: {"params": PUBLISHED.init(jax.random.key(0), jnp.zeros(shape))["params"]},
    )


def paper_config():
    """Section 4: 256x256, FastGAN generator, mixing of width 64, hinge, DiffAugment, Adam 2e-4 (0, 0.99), batch 64."""
    maps, initial = _published()
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "tfds", "dataset": "celeb_a_hq/256"},
            "generator": {"name": "fastgan", "width": 64},
            "discriminator": {"name": "projected", "backbone": maps, "initial": initial, "width": 64, "mixing_size": 3},
            "latent": {"name": "normal", "dim": 256},
            "loss": {"name": "hinge"},
            "augment": {"name": "diffaugment"},
            "algorithm": {"name": "gan"},
            "optimizer": {"name": "adam", "learning_rate": 2e-4, "b1": 0.0, "b2": 0.99},
            "ema": {"name": "constant", "decay": 0.999},
            "precision": "float32",
            "train": {"steps": 156250, "batch_size": 64},
            "eval": {"num": 50000},
        }
    )
