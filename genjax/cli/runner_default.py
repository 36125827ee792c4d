"""Training and sampling for experiments: what the runner does by default, and parts for experiments that do it.

The same build, Algorithm and dispatch as `genjax train`, without a workdir: the whole training is a few
dispatches of one compiled program, its data on the device.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict, FrozenConfigDict

from genjax import build
from genjax.algorithms.diffusion import trained_denoiser
from genjax.cli.runner_scales import RUNNER_FIELDS
from genjax.core.keys import fold
from genjax.core.types import Algorithm
from genjax.train import generation
from genjax.train.dispatch import make_sampler
from genjax.train.evaluation import evaluate
from genjax.train.feed import device_feed
from genjax.train.loop import data_mesh, make_dispatch


def model_config(config):
    """`config` without the runner's own fields: what `build` takes."""
    return ConfigDict({k: v for k, v in config.items() if k not in RUNNER_FIELDS})


def seed_of(key):
    """A whole number from a key, for generators that are not JAX's."""
    return int(jax.random.bits(key) >> 1)


def fit(algorithm, arrays, key, steps, batch_size, *, snapshots=1, priors=None, state=None):
    """Trains an Algorithm on arrays.

    Variants that are given one key share the initialization's and the training's draws and the order of the data.

    Args:
      arrays: dict of numpy arrays with one leading axis.
      key: one key.
      steps: number of steps, a multiple of `snapshots`.
      batch_size: B.
      snapshots: states to return, evenly spaced, the last at the end.
      priors: what `Algorithm.init` is given.
      state: the State to begin with, in the place of a new one.

    Returns:
      List of (step, State, metrics averaged since the last), States without optimizer state, as numpy arrays.

    Raises:
      ValueError: `snapshots` does not divide `steps`.
      FloatingPointError: the loss is not finite.
    """
    if steps % snapshots:
        raise ValueError(f"snapshots: expected a divisor of {steps} steps, got {snapshots}")
    feed = device_feed(arrays, batch_size, seed_of(fold(key, 2)))
    length = steps // snapshots
    on_device, indices = feed.take(0, 1)
    first = jax.tree.map(lambda a: a[indices[0]], on_device)
    if state is None:
        state = jax.jit(algorithm.init)(fold(key, 0), first, priors or {})
    mesh = data_mesh(jax.local_devices()[:1])
    dispatch = make_dispatch(algorithm.step, mesh)
    state = jax.device_put(state, NamedSharding(mesh, P()))  # where the dispatch leaves it: one program for all
    found = []
    for i in range(snapshots):
        on_device, indices = feed.take(i * length, length)
        state, sums = dispatch(fold(key, 1), state, on_device, jnp.asarray(indices), length)
        metrics = {name: float(total) / length for name, total in sums.items()}
        if not np.isfinite(metrics["loss"]):
            raise FloatingPointError(f"training diverged: loss {metrics['loss']} before step {(i + 1) * length}")
        found.append(((i + 1) * length, jax.tree.map(np.asarray, state._replace(opt=())), metrics))
    return found


def train(config, key, priors):
    """The default `train`: the State at the end of what the config says."""
    config = model_config(config)
    dataset = build.dataset(config)
    plan = build.plan(config)
    algorithm = build.algorithm(config, dataset.spec)
    return fit(algorithm, dataset.arrays, key, plan.steps, plan.batch_size)[-1][1]


def denoiser_of(config, spec, state, track=0):
    """The Denoiser of a trained State (its averaged weights) and its Process."""
    parts = build.parts(model_config(config), spec)
    return parts.denoiser(state, track), parts.process


SAMPLED = ("network", "denoiser", "algorithm", "ema", "precision", "sample")  # groups that a sampler is made of


@functools.lru_cache(maxsize=32)
def _sampling(config, spec, track):
    """An Algorithm that samples, its State the pair (State, Process); one object for equal arguments.

    So it is known to be the same program: all else that the config says, the numbers of the process included,
    are arguments of it.
    """
    net, average = build.network(config, spec), build.ema(config)

    def sample(key, given, n, cond=None):
        state, process = given
        denoiser = trained_denoiser(net, build.denoiser(config, process), state, average, track)
        return build.sampler(config, process, spec)(key, denoiser, n, cond)

    return Algorithm(None, None, sample)


@functools.lru_cache(maxsize=32)
def _algorithm(config, spec):
    return build.algorithm(config, spec)


def sampling(config, spec, track=0):
    """(Algorithm that samples, State -> what it takes for its State).

    Configs of diffusion models that differ in the numbers of their process, or in what training alone reads, get one
    and the same Algorithm, and with it one compiled program: it takes pairs (State, Process). Those of other
    recipes get one where they are equal.
    """
    config = model_config(config)
    if "process" not in config:
        return _algorithm(FrozenConfigDict(config), spec), lambda state: state
    frozen = FrozenConfigDict({name: config[name] for name in SAMPLED if name in config})
    process = build.process(config)
    return _sampling(frozen, spec, track), lambda state: (state, process)


def drawer(config, spec, n, cond=None, track=0):
    """`draw(key, state) -> [n, ...]` as config.sample says, one program for every State and every config whose
    `sampling` is one.
    """
    algorithm, given = sampling(config, spec, track)
    sample = make_sampler(algorithm, n)
    return lambda key, state: sample(key, 0, given(state), cond)


def draw(config, spec, state, key, n, cond=None, track=0):
    """n samples of one State."""
    return drawer(config, spec, n, cond, track)(key, state)


def measure_of(slug):
    """The default `measure`: the metrics of config.eval, on the State that `train` returned."""

    def measure(config, key, priors):
        config = model_config(config)
        dataset = build.dataset(config)
        parts = build.parts(config, dataset.spec)
        state = jax.tree.map(jnp.asarray, priors[slug])
        names = build.metrics(config, parts, dataset.spec)
        subject = build.subject(config, parts, state, dataset, seed=seed_of(key))
        algorithm, given = sampling(config, dataset.spec)
        cond = None if subject.labels is None else {"label": subject.labels}
        # what the subject would draw, by the program that variants share
        subject.samples = generation.draw(algorithm, jax.random.key(subject.seed), given(state), subject.num, cond)
        return evaluate(subject, names)

    return measure
