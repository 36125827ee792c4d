"""Many games of one shape in one program: searches over numbers, cells of a grid.

numbers = random_numbers({"learning_rate": ("log", 1e-5, 1e-2), "b1": ("linear", 0.0, 1.0)}, 6, seed)
state, x = play(config, keys, numbers, 1000)  # [6] games, x [6, 1000, ...]
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict, FrozenConfigDict

from genjax import build
from genjax.algorithms.gan import gan
from genjax.cli import runner_gan
from genjax.cli.runner_default import model_config
from genjax.core.keys import fold, sample_keys
from genjax.data.resident import batch_indices
from genjax.losses.penalties import PENALTIES

ADAM = ("learning_rate", "b1", "b2")
LAWS = ("linear", "log")


def random_numbers(space, count, seed):
    """{name: [count]} drawn from a space {name: (law, low, high)}, law "linear" or "log"."""
    rng, found = np.random.default_rng(seed), {}
    for name, (law, low, high) in space.items():
        if law not in LAWS or not low <= high or (law == "log" and not low > 0):
            raise ValueError(f"{name}: expected ({' or '.join(LAWS)}, low, high), got {(law, low, high)}")
        u = rng.uniform(size=count)
        found[name] = low + (high - low) * u if law == "linear" else low * (high / low) ** u
    return found


@functools.lru_cache(maxsize=32)
def _program(config, names, n):
    """(keys [C], numbers {name: [C]}, arrays) -> (State, x [C, n, ...]), compiled once for equal arguments."""
    config = ConfigDict(config.to_dict())
    spec, plan = runner_gan.dataset(config).spec, build.plan(config)
    parts, said = runner_gan.game(config), config.algorithm
    known = {"name", "n_critic"}
    if not set(said) <= known or config.get("augment") is not None or config.get("g_penalties"):
        raise ValueError(f"algorithm: expected a plain game in a grid, {sorted(known)}, got {sorted(said)}")
    adam = {name: config.optimizer[name] for name in ADAM if name in config.optimizer}
    penalties = build.gan.penalties(config, spec, "penalties", PENALTIES)
    for name in names:
        if name not in (*ADAM, *penalties):
            raise ValueError(f"numbers: expected some of {[*ADAM, *penalties]}, got {name!r}")

    def one(key, numbers, arrays):
        rates = optax.adam(**{**adam, **{k: v for k, v in numbers.items() if k in ADAM}})
        weighted = {name: p._replace(weight=numbers.get(name, p.weight)) for name, p in penalties.items()}
        algorithm = gan(
            parts.generator,
            parts.discriminator,
            parts.loss,
            rates,
            rates,
            latent=parts.latent,
            penalties=weighted,
            n_critic=said.get("n_critic", 1),
            ema=parts.ema,
        )

        def batch(step):
            rows = batch_indices(fold(key, 2), step, len(arrays["x"]), plan.batch_size)
            return jax.tree.map(lambda a: a[rows], arrays)

        state = algorithm.init(fold(key, 0), batch(0))
        body = lambda i, state: algorithm.step(fold(key, 1), state, batch(i))[0]
        state = jax.lax.fori_loop(0, plan.steps, body, state)
        return state._replace(opt=()), algorithm.sample(sample_keys(fold(key, 3), n), state, n)

    return jax.jit(jax.vmap(one, (0, 0, None)))


def play(config, keys, numbers, n):
    """Trains one game for each entry of `numbers` and draws from each: (State, x), both with a leading axis [C].

    A game that diverges gives what is not finite, and does not stop the others.

    Args:
      config: of a plain game under Adam (`runner_gan.digits_config`): no condition, no augmentation.
      keys: [C] keys.
      numbers: {name: [C]}: "learning_rate", "b1", "b2" of both optimizers, or the weight of a penalty by its name.
      n: samples of each.
    """
    config = FrozenConfigDict(model_config(config))
    arrays = {"x": jnp.asarray(runner_gan.dataset(ConfigDict(config.to_dict())).arrays["x"])}
    numbers = {name: jnp.asarray(values, jnp.float32) for name, values in numbers.items()}
    found = _program(config, tuple(sorted(numbers)), n)(keys, numbers, arrays)
    return jax.tree.map(np.asarray, found)
