"""Progressive Growing of GANs for Improved Quality, Stability, and Variation (arXiv 1710.10196).

    genjax reproduce progressive_gan

Generator and critic grow from 4x4 to 8x8 and 16x16, each new resolution faded in. Rendered shapes at 16x16 (colour,
shape, place, size, turn and grey level are random), 32, 32 and 16 channels, WGAN-GP with the drift term, Adam 1e-3
(0, 0.99), equalized learning rate, pixel norm, deviation over groups of 4 of a batch of 8, average of the generator's
weights 0.99; optimizers start anew where a fade begins and ends. The arms have one budget of floating-point operations:

  grown          1,200 steps at 4x4, 300 of fading and 300 at 8x8, 240 of fading and 360 at 16x16
  straight       the same networks at 16x16 all along, for as many steps as cost the same
  no_deviation   `grown` without the standard deviation over the batch

Judged by the sliced Wasserstein distance of 7x7 patches (SWD, times 1,000) of 1,000 samples to as many held-out
pictures at the two levels of a Laplacian pyramid, and by the exact reader of shapes, which no network was trained with.
Rules fixed before the full run:

1. Cost: a step at 4x4 costs at most 1/5 of one at 16x16, one at 8x8 at most 1/2; the budgets of `grown` and `straight`
   agree to 1 %, and `grown` has seen at least twice as many pictures.
2. SWD, mean of the levels and over seeds: `grown` at most 1.1 of `straight`. Reported: whether it is at most 0.85.
3. Variation: without the deviation the entropy of the colours or that of the shapes (nats, as read) is lower by at
   least 0.1, or the mean distance of two samples by 5 %; the same measure lower with every seed.
4. Fade (`fade`): with alpha = 0 the generator's picture is that of the stage before at twice the size, and the critic
   sees what the critic of the stage before sees of the halved picture, to 1e-5; with alpha = 1 the layers that were
   faded out get no gradient.

The paper's budget is days at 1024x1024, where growing saves most; its specification here asks for 150 seconds an arm
at 32x32. Here an arm is far shorter; by the count of operations a step at 8x8 costs 0.43 and one at 4x4 0.05 of a
step at 16x16.

`get_config("paper")`: the last stage at 256x256, all resolutions in place, for its 1.6 million pictures; a growing
training is a list of stages (`stages` below), which one config does not say. The paper's setting is 1024x1024; its
abstract reports an inception score of 8.80 on CIFAR-10.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict, FrozenConfigDict

from genjax import data
from genjax.algorithms import games
from genjax.algorithms.gan import gan, trained_generator
from genjax.algorithms.stages import Stage, carry_over
from genjax.cli import runner_gan as run
from genjax.cli.runner_scales import check_scale
from genjax.core.keys import fold
from genjax.losses.adversarial import ADVERSARIAL
from genjax.losses.penalties import PENALTIES, Penalty
from genjax.losses.pyramid import laplacian_pyramid
from genjax.metrics.patches import patch_swd
from genjax.metrics.stacked import class_entropy
from genjax.networks import linen_net
from genjax.networks.blocks import downsample, upsample
from genjax.networks.gan import ProgressiveDiscriminator, ProgressiveGenerator
from genjax.train.ema import EMAS
from genjax.train.flops import count
from genjax.worlds.shapes import COLORS, SHAPES
from genjax.worlds.shapes_reader import read

PAPER = {
    "number": 59,
    "title": "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
    "year": 2018,
    "arxiv": "1710.10196",
    "family": "gan",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3


def get_config(scale="small"):
    if scale == "paper":
        return paper_config()
    smoke = check_scale(scale)
    return ConfigDict(
        {
            "seed": 0,
            "size": 8 if smoke else 16,
            "widths": (4, 4) if smoke else (32, 32, 16),
            "group": 4,  # of the deviation over the batch, 0 for none
            "latent": 32,
            "train": {"steps": 6 if smoke else 2400, "batch_size": 8},  # of the growing arm
            "stable": (1 / 3, 1 / 3) if smoke else (0.5, 0.125, 0.15),  # shares of the steps at each resolution
            "fade": (0.0, 1 / 3) if smoke else (0.0, 0.125, 0.1),
            "rate": 1e-3,
            "decay": 0.99,
            "patch": 3 if smoke else 7,
            "pictures": 64 if smoke else 5000,
            "eval": {"num": 16 if smoke else 1000, "read": 8 if smoke else 500},
        }
    )


VARIANTS = {
    "grown": {"part": "grown"},
    "straight": {"part": "straight"},
    "no_deviation": {"part": "grown", "group": 0},
    "fade": {"part": "fade"},
}


def networks(config, stage):
    """The two modules at a stage; their parameters are those of all stages."""
    said = {"shape": (config.size, config.size, 3), "stage": stage, "widths": config.widths}
    return ProgressiveGenerator(**said), ProgressiveDiscriminator(**said, group=config.group)


def game(config, stage, fade=0):
    """The game of a stage, alpha going from 0 to 1 over its first `fade` steps."""
    rate = optax.adam(config.rate, 0.0, 0.99)
    return gan(
        *(linen_net(module) for module in networks(config, stage)),
        ADVERSARIAL["wasserstein"](),
        rate,
        rate,
        latent=games.sphere(config.latent),
        penalties={
            "gradient_penalty": Penalty(PENALTIES["gradient_penalty"](), 10.0),
            "drift": Penalty(PENALTIES["drift"](), 1e-3),
        },
        ema=EMAS["constant"](config.decay),
        prepare=(games.growing(stage, games.ramp(0, fade)),),
    )


@functools.cache
def _cost(config, stage):
    algorithm = game(config, stage)
    batch = {"x": jax.ShapeDtypeStruct((config.train.batch_size, config.size, config.size, 3), jnp.float32)}
    state = jax.eval_shape(lambda batch: algorithm.init(jax.random.key(0), batch), batch)
    return count(lambda state, batch: algorithm.step(jax.random.key(0), state, batch), state, batch)


def cost(config, stage):
    """Floating-point operations of a step."""
    read_there = ("size", "widths", "group", "latent", "train", "rate", "decay")
    return _cost(FrozenConfigDict({name: config[name] for name in read_there}), stage)


def lengths(config):
    """(steps after fading, steps of fading) at each stage of the growing arm."""
    return tuple([round(share * config.train.steps) for share in shares] for shares in (config.stable, config.fade))


def steps(config):
    """(steps at each stage, fading included) of the growing arm, and those that cost the same at the last stage."""
    grown = [stable + fade for stable, fade in zip(*lengths(config))]
    costs = [cost(config, stage) for stage in range(len(config.widths))]
    return grown, round(sum(n * c for n, c in zip(grown, costs)) / costs[-1]), costs


def anew(algorithm):
    """The handover from a fade to the steps after it: optimizers anew, the count of steps (which says alpha) kept."""
    handover = carry_over(algorithm)
    return lambda key, state, batch: handover(key, state, batch)._replace(step=state.step)


def stages(config):
    """The list of Stages of an arm."""
    if config.part == "straight":
        return [Stage(game(config, len(config.widths) - 1), steps(config)[1])]
    stable, fade = lengths(config)
    found = [Stage(game(config, 0), stable[0])]
    for stage in range(1, len(config.widths)):
        algorithm = game(config, stage, fade[stage])
        found.append(Stage(algorithm, fade[stage], carry_over(algorithm)))
        found.append(Stage(algorithm, stable[stage], anew(algorithm)))
    return found


def train(config, key, priors):
    """The State at the end."""
    if config.part == "fade":
        return {}
    arrays = {"x": data.load("shapes", n=config.pictures, size=config.size).arrays["x"]}
    return run.fit_stages(stages(config), arrays, key, config.train.batch_size)[-1][0]


def ends(config, key, stage):
    """{generator, critic, old_gradient, new_gradient} of the fade into a stage: largest values over all entries."""
    (g, d), (old_g, old_d) = networks(config, stage), networks(config, stage - 1)
    z = games.sphere(config.latent).sample(fold(key, 0), 8)
    x = jax.random.normal(fold(key, 1), (8, 4 * 2**stage, 4 * 2**stage, 3))
    largest = lambda tree: jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(tree)]).max()

    @jax.jit
    def look(z, x):
        g_params, d_params = g.init(fold(key, 2), z), d.init(fold(key, 3), x)
        slopes = (
            jax.grad(lambda p: jnp.sum(g.apply(p, z, alpha=1.0) * x))(g_params)["params"],
            jax.grad(lambda p: jnp.sum(d.apply(p, x, alpha=1.0).logits))(d_params)["params"],
        )
        return {
            "generator": largest(g.apply(g_params, z, alpha=0.0) - upsample(old_g.apply(g_params, z))),
            "critic": largest(d.apply(d_params, x, alpha=0.0).logits - old_d.apply(d_params, downsample(x)).logits),
            "old_gradient": largest([slope[f"rgb{stage - 1}"] for slope in slopes]),
            "new_gradient": largest([slope[f"rgb{stage}"] for slope in slopes]),
        }

    return {name: float(value) for name, value in look(z, x).items()}


def fade(config, key):
    """`ends` of all fades, at random parameters: the worst of them."""
    found = [ends(config, fold(key, stage), stage) for stage in range(1, len(config.widths))]
    worst = {name: max(each[name] for each in found) for name in ("generator", "critic", "old_gradient")}
    return {**worst, "new_gradient": min(each["new_gradient"] for each in found)}


def variation(x):
    """{color_entropy, shape_entropy, present, misfit} of pictures as the reader sees them, {distance} of two."""
    seen = jax.tree.map(np.asarray, read(jnp.asarray(x)))
    there = seen.present[:, 0]
    entropy = lambda values, names: class_entropy(values[there, 0], len(names)) if there.any() else 0.0
    return {
        "present": there.mean(),
        "misfit": float(np.median(seen.residual[:, 0])),
        "color_entropy": entropy(seen.color, COLORS),
        "shape_entropy": entropy(seen.shape, SHAPES),
        "distance": float(np.sqrt(np.mean((x - np.roll(x, 1, axis=0)) ** 2, axis=(1, 2, 3))).mean()),
    }


def measure(config, key, priors):
    if config.part == "fade":
        return fade(config, key)
    state = jax.tree.map(jnp.asarray, priors["progressive_gan"])
    generator = linen_net(networks(config, len(config.widths) - 1)[0])
    generate = trained_generator(generator, state, EMAS["constant"](config.decay))
    z = games.sphere(config.latent).sample(fold(key, 5), config.eval.num)
    x = np.clip(np.asarray(jax.jit(generate)(z)), -1, 1)
    real = data.load("shapes", split="test", n=config.eval.num, size=config.size).arrays["x"]
    levels = [jax.jit(lambda v: laplacian_pyramid(v, 1))(v) for v in (x, real)]
    fine, coarse = (1000 * patch_swd(a, b, config.patch, per_image=32, directions=256) for a, b in zip(*levels))
    grown, straight, costs = steps(config)
    images = config.train.batch_size * (straight if config.part == "straight" else sum(grown))
    spent = straight * costs[-1] if config.part == "straight" else sum(n * c for n, c in zip(grown, costs))
    return {
        "swd": (fine + coarse) / 2,
        "swd_fine": fine,
        "swd_coarse": coarse,
        **variation(x[: config.eval.read]),
        "images": images,
        "gflop": spent / 1e9,
        **{f"cost_{4 * 2**i}": c / costs[-1] for i, c in enumerate(costs)},
    }


def _less_varied(t, metric):
    """Whether a measure of variation falls without the deviation, in the mean by what the rule asks and every seed."""
    with_it, without = t["grown"][metric], t["no_deviation"][metric]
    fall = without.mean() <= 0.95 * with_it.mean() if metric == "distance" else (with_it - without).mean() >= 0.1
    return bool(fall and (without < with_it).all())


CLAIMS = {
    "cost": (
        "a step costs at most 1/5 at 4x4 and 1/2 at 8x8; at one budget growing has seen twice as many pictures",
        lambda t: bool(
            t["grown"]["cost_4"].max() <= 0.2
            and t["grown"]["cost_8"].max() <= 0.5
            and abs(t["straight"]["gflop"][0] / t["grown"]["gflop"][0] - 1) <= 0.01
            and t["grown"]["images"][0] >= 2 * t["straight"]["images"][0]
        ),
    ),
    "quality": (
        "at one budget the SWD of growing is at most 1.1 of that of training at full resolution",
        lambda t: bool(t["grown"]["swd"].mean() <= 1.1 * t["straight"]["swd"].mean()),
    ),
    "variation": (
        "without the deviation over the batch colours or shapes lose 0.1 nat or distances 5 %, every seed",
        lambda t: any(_less_varied(t, metric) for metric in ("color_entropy", "shape_entropy", "distance")),
    ),
    "fade": (
        "a fade begins at the stage before (to 1e-5) and ends without it (no gradient)",
        lambda t: bool(
            (t["fade"]["generator"] <= 1e-5).all()
            and (t["fade"]["critic"] <= 1e-5).all()
            and (t["fade"]["old_gradient"] == 0).all()
            and (t["fade"]["new_gradient"] > 0).all()
        ),
    ),
}


def figure(table, path):
    """SWD by level and the variation of the three arms, every seed a dot."""
    from matplotlib.figure import Figure

    from genjax.cli.runner_report import save_figure

    arms = ("grown", "straight", "no_deviation")
    picture = Figure(figsize=(11, 3), layout="constrained")
    metrics = {"swd_fine": "SWD x 1000, fine", "swd_coarse": "SWD x 1000, coarse"}
    metrics |= {"color_entropy": "entropy of colours", "shape_entropy": "entropy of shapes", "distance": "distance"}
    for axis, (metric, title) in zip(picture.subplots(1, len(metrics)), metrics.items()):
        for i, arm in enumerate(arms):
            values = table[arm][metric]
            axis.plot([i] * len(values), values, ".", color=f"C{i}")
            axis.plot([i - 0.3, i + 0.3], [values.mean()] * 2, color=f"C{i}")
        axis.set_xticks(range(len(arms)), arms, rotation=30, fontsize=7)
        axis.set_title(title, fontsize=8)
    picture.suptitle("Growing against training at 16x16 at one budget (arXiv 1710.10196)", fontsize=9)
    save_figure(picture, path)


def paper_config():
    """The last stage at 256x256: WGAN-GP with drift, Adam 1e-3 (0, 0.99), batch 8 for 1.6 million pictures."""
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "tfds", "dataset": "celeb_a_hq/256"},
            "generator": {"name": "progressive", "channels": 16384, "width": 512},
            "discriminator": {"name": "progressive", "channels": 16384, "width": 512, "group": 4},
            "latent": {"name": "sphere", "dim": 512},
            "loss": {"name": "wasserstein"},
            "penalties": {"gradient_penalty": {"weight": 10.0}, "drift": {"weight": 1e-3}},
            "algorithm": {"name": "gan"},
            "optimizer": {"name": "adam", "learning_rate": 1e-3, "b1": 0.0, "b2": 0.99},
            "ema": {"name": "constant", "decay": 0.999},
            "precision": "float32",
            "train": {"steps": 200000, "batch_size": 8},
            "eval": {"num": 10000},
        }
    )
