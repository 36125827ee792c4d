"""What the experiments on games share: base configs, trainings with snapshots or many seeds at once, measures.

config = toy_config(scale, 2500, loss={"name": "hinge"})
for step, state, metrics in runner_gan.fit(config, key, snapshots=5): ...
states = runner_gan.fit_seeds(config, keys)
x = runner_gan.draw(config, state, key, 4000)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from genjax import build, data, metrics
from genjax.algorithms.stages import Stage
from genjax.cli import runner_default
from genjax.cli.runner_default import model_config, seed_of
from genjax.core.keys import fold
from genjax.core.types import State
from genjax.data import extractors
from genjax.data.resident import batch_indices
from genjax.data.stacked import unstacked
from genjax.data.toys import oracle
from genjax.metrics.modes import nearest_mode
from genjax.train.generation import class_labels
from genjax.train.generation import draw as draw_chunks

SEEDS = State(step=None, params=0, opt=0, ema=0, extra=0, frozen=0)  # axes of a State of many seeds under vmap


def _check_scale(scale):
    if scale not in ("small", "smoke"):
        raise ValueError(f"scale: expected 'small', 'smoke' or, for a method, 'paper', got {scale!r}")
    return scale == "smoke"


def _config(smoke, steps, width, depth, batch_size, groups, base):
    network = {"name": "mlp", "width": 16 if smoke else width, "depth": 1 if smoke else depth}
    return ConfigDict(
        {
            "seed": 0,
            "generator": dict(network),
            "discriminator": dict(network),
            "loss": {"name": "non_saturating"},
            "penalties": {},
            "algorithm": {"name": "gan"},
            "precision": "float32",
            "train": {"steps": 20 if smoke else steps, "batch_size": 16 if smoke else batch_size},
            "eval": {"num": 64 if smoke else 4000},
            **base,
            **groups,
        }
    )


def toy_config(scale, steps, width=64, depth=2, batch_size=128, **groups):
    """A ring of 8 Gaussians under two small MLPs; the optimizer is Adam 1e-3 (0, 0.9).

    Args:
      scale: "small", or "smoke" for a few steps of everything.
      steps: of the training.
      width, depth: of both networks.
      batch_size: reals of one update.
      **groups: replace whole groups, such as data={"name": "grid"}.
    """
    base = {
        "data": {"name": "ring"},
        "latent": {"name": "normal", "dim": 4},
        "optimizer": {"name": "adam", "learning_rate": 1e-3, "b1": 0.0, "b2": 0.9},
    }
    return _config(_check_scale(scale), steps, width, depth, batch_size, groups, base)


def digits_config(scale, steps, width=128, depth=2, batch_size=64, **groups):
    """Digits as 64-vectors under two MLPs; Adam 5e-4 (0.5, 0.999), an average of the generator's weights."""
    base = {
        "data": {"name": "digits_vector"},
        "latent": {"name": "normal", "dim": 32},
        "optimizer": {"name": "adam", "learning_rate": 5e-4, "b1": 0.5, "b2": 0.999},
        "ema": {"name": "warmup", "decay": 0.995},
    }
    return _config(_check_scale(scale), steps, width, depth, batch_size, groups, base)


def stacked_config(scale, steps, width=256, depth=2, batch_size=128, **groups):
    """Stacked digits (1,000 modes) as 192-vectors under two MLPs; Adam 5e-4 (0, 0.9)."""
    base = {
        "data": {"name": "stacked_digits", "flat": True},
        "latent": {"name": "normal", "dim": 64},
        "optimizer": {"name": "adam", "learning_rate": 5e-4, "b1": 0.0, "b2": 0.9},
    }
    return _config(_check_scale(scale), steps, width, depth, batch_size, groups, base)


@functools.cache
def _dataset(said):
    return build.dataset(ConfigDict({"data": dict(said)}))


def dataset(config):
    """The training Dataset of a config, loaded once."""
    return _dataset(tuple(sorted(config.data.to_dict().items())))


@functools.lru_cache(maxsize=32)
def _game(config, spec):
    return build.parts(config, spec)


def game(config):
    """`build.gan.Parts` of a config: for equal configs the same, so that what is compiled once serves them all."""
    return _game(FrozenConfigDict(model_config(config)), dataset(config).spec)


def fit(config, key, *, snapshots=1, arrays=None, priors=None):
    """Trains a config's game: list of (step, State, metrics since the last), as `runner_default.fit`.

    Args:
      arrays: data in the place of the config's, dict of arrays with "x" of the same shape.
      priors: parameters to start from, {"generator", "discriminator"}.
    """
    config = model_config(config)
    algorithm, plan = game(config).algorithm, build.plan(config)
    arrays = dataset(config).arrays if arrays is None else arrays
    return runner_default.fit(algorithm, arrays, key, plan.steps, plan.batch_size, snapshots=snapshots, priors=priors)


def fit_seeds(config, keys, *, snapshots=1, arrays=None):
    """Trains a game once for every key, in one program: list of (step, State, metrics) with a leading axis of seeds.

    The count of steps is common to all seeds, so that lazy penalties stay lazy. Seed i's run is the one that
    `fit(config, keys[i])` makes, but for rounding.

    Args:
      keys: [S] keys.
    """
    config = model_config(config)
    algorithm, plan = game(config).algorithm, build.plan(config)
    arrays = {k: jnp.asarray(v) for k, v in (dataset(config).arrays if arrays is None else arrays).items()}
    size, length = len(arrays["x"]), plan.steps // snapshots
    if plan.steps % snapshots:
        raise ValueError(f"snapshots: expected a divisor of {plan.steps} steps, got {snapshots}")
    orders = jax.vmap(lambda key: jax.random.fold_in(jax.random.key(_seed_bits(key)), 2))(keys)
    draws = jax.vmap(fold, (0, None))(keys, 1)

    def batch_of(order, step):
        rows = batch_indices(order, step, size, plan.batch_size)
        return jax.tree.map(lambda a: a[rows], arrays)

    def one(key, order, state):
        return algorithm.step(jax.random.fold_in(key, state.step), state, batch_of(order, state.step))

    many = jax.vmap(one, (0, 0, SEEDS), (SEEDS, 0))

    @jax.jit
    def run(state):
        zeros = jax.tree.map(lambda m: jnp.zeros(m.shape), jax.eval_shape(many, draws, orders, state)[1])

        def body(_, carry):
            state, sums = carry
            state, found = many(draws, orders, state)
            return state, jax.tree.map(jnp.add, sums, found)

        return jax.lax.fori_loop(0, length, body, (state, zeros))

    init = lambda key, order: algorithm.init(jax.random.fold_in(key, 0), batch_of(order, 0), {})
    state = jax.jit(jax.vmap(init, out_axes=SEEDS))(keys, orders)
    found = []
    for i in range(snapshots):
        state, sums = run(state)
        kept = jax.tree.map(np.asarray, state._replace(opt=()))
        found.append(((i + 1) * length, kept, {k: np.asarray(v) / length for k, v in sums.items()}))
    return found


def _seed_bits(key):
    """`seed_of(fold(key, 2))` of a traced key: the order of the data that `runner_default.fit` takes."""
    return (jax.random.bits(fold(key, 2)) >> 1).astype(jnp.int32)


def seed_state(state, i):
    """The State of seed i out of `fit_seeds`."""
    take = lambda tree: jax.tree.map(lambda a: a[i], tree)
    return State(state.step, *(take(part) for part in state[1:]))


def fit_stages(stages, arrays, key, batch_size):
    """Trains a list of `algorithms.stages.Stage` one after the other: list of (State, metrics), one a stage.

    Args:
      stages: Stages; their algorithms are given the same batches of `arrays`.
      batch_size: examples a step.
    """
    found, state = [], None
    for i, stage in enumerate(stages):
        if not isinstance(stage, Stage) or stage.steps < 1:
            raise ValueError(f"stages: expected Stages of at least 1 step, got {stage!r}")
        own = fold(key, i)
        first = {name: jnp.asarray(a[:batch_size]) for name, a in arrays.items()}
        start = None
        if state is not None and stage.handover is not None:
            start = jax.jit(stage.handover)(own, state, first)
        _, state, metrics = runner_default.fit(stage.algorithm, arrays, own, stage.steps, batch_size, state=start)[-1]
        found.append((state, metrics))
    return found


def draw(config, state, key, n, cond=None, truncation=None):
    """n samples of a State, the generator's batch statistics taken anew where it has any; labels in turn."""
    parts, spec = game(config), dataset(config).spec
    state = jax.jit(parts.algorithm.refresh)(fold(key, 1), jax.tree.map(jnp.asarray, state))
    if cond is None and "label" in config.algorithm.get("cond", ()):
        cond = {"label": class_labels(n, spec.num_classes)}
    algorithm = parts.algorithm
    if truncation is not None:
        cut = lambda keys, state, n, cond=None: parts.algorithm.sample(keys, state, n, cond, truncation)
        algorithm = algorithm._replace(sample=cut)
    return draw_chunks(algorithm, fold(key, 0), state, n, cond, chunk=1000)


def toy_measures(config, x, within=3.0, share=0.01):
    """{modes, high_quality, histogram_kl, sliced_w2} of samples x of a ring or a grid.

    `modes` counts those with at least a `share` of the samples within `within` standard deviations.
    """
    options = {k: v for k, v in config.data.items() if k not in ("name", "n", "seed")}
    law = oracle(config.data.name, **options)
    means, std = np.asarray(law.means), float(law.stds[0])
    report = metrics.mode_report(x, means, std, within)
    index, distance = nearest_mode(x, means)
    near = np.bincount(index[distance <= within * std], minlength=len(means))
    fresh = build.dataset(ConfigDict({"data": config.data.to_dict()}), "test").arrays["x"]
    return {
        "modes": int(np.sum(near >= share * len(x))),
        "high_quality": report.high_quality,
        "histogram_kl": metrics.histogram_kl(np.bincount(index, minlength=len(means))),
        "sliced_w2": metrics.sliced_wasserstein2(x, fresh[: len(x)]),
    }


@functools.cache
def _judged(name):
    sets = data.load(name), data.load(name, split="test")
    return sets, data.extractor(*sets), extractors.judge(*sets)


def digit_measures(x, name="digits"):
    """{fd, am_score, am_entropy, am_kl, class_entropy, smallest_class, confidence, inception_score, kid} of digits x.

    Distances in features of the set's classifier, classes by its independent judge.
    """
    sets, extractor, judge = _judged(name)
    real = sets[0].arrays["x"]
    x = np.asarray(x).reshape(len(x), *real.shape[1:])
    features, _ = extractor(x)
    logits, labels = judge(x)[1], judge(x)[1].argmax(axis=-1)
    counts = np.bincount(labels, minlength=10) / len(labels)
    am = metrics.am_score(logits, judge(real)[1])
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return {
        "fd": metrics.frechet_distance(metrics.gaussian_stats(features), metrics.data_stats(extractor, real)),
        "kid": metrics.kid(features, extractor(real)[0], subsets=20, subset_size=min(500, len(x)))[0],
        "inception_score": metrics.inception_score(logits)[0],
        "am_score": am.score,
        "am_entropy": am.entropy,
        "am_kl": am.kl,
        "class_entropy": metrics.class_entropy(labels, 10),
        "smallest_class": float(counts.min()),
        "confidence": float(np.mean(p.max(axis=1) / p.sum(axis=1))),
    }


def stacked_measures(x):
    """{modes, mode_kl} of stacked digits x [N, 8, 8, 3] or [N, 192], each channel read by the digits' judge."""
    judge = _judged("digits")[2]
    single = judge(unstacked(x))[1].argmax(axis=-1)
    found = metrics.mode_count(metrics.stacked_labels(single), 1000)
    return {"modes": found.modes, "mode_kl": found.kl}


__all__ = [
    "digit_measures",
    "digits_config",
    "draw",
    "fit",
    "fit_seeds",
    "fit_stages",
    "game",
    "seed_of",
    "seed_state",
    "stacked_config",
    "stacked_measures",
    "toy_config",
    "toy_measures",
]
