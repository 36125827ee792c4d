"""Games under a magnifying glass: critics on laws that can be drawn from, gradients of the generator, many looks."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from genjax import build
from genjax.cli import runner_gan
from genjax.cli.runner_default import model_config
from genjax.core.keys import fold
from genjax.data.resident import batch_indices
from genjax.losses.penalties_gradient import gradient_norm


def fit_law(algorithm, law, key, marks, batch_size, *, record=None, priors=None):
    """Trains an Algorithm on fresh draws of a law, in one traced loop: made for `jit`, and `vmap` over keys or priors.

    Args:
      law: (key, n) -> x [n, ...].
      key: one key.
      marks: increasing numbers of steps; the States after them are returned, the last is the end.
      batch_size: examples a step, n_critic times those of an update.
      record: State -> pytree, taken after every step, or None.
      priors: what `Algorithm.init` is given.

    Returns:
      (list of States without optimizer state, what was recorded with a leading axis of steps, or None).
    """
    batch = lambda step: {"x": law(fold(fold(key, 2), step), batch_size)}
    state = algorithm.init(fold(key, 0), batch(0), priors or {})

    def body(state, _):
        state = algorithm.step(fold(fold(key, 1), state.step), state, batch(state.step))[0]
        return state, None if record is None else record(state)

    states, records = [], []
    for start, end in zip((0, *marks), marks):
        state, seen = jax.lax.scan(body, state, length=end - start)
        states.append(state._replace(opt=()))
        records.append(seen)
    recorded = None if record is None else jax.tree.map(lambda *parts: jnp.concatenate(parts), *records)
    return states, recorded


def critique_of(parts, state, cond=None):
    """x -> Critique by the discriminator of a State, as it stands."""
    params, stored = state.params["discriminator"], state.extra["net"]["discriminator"]
    return lambda x: parts.discriminator.apply(params, stored, x, cond)[0]


def loss_estimate(parts, state, real, fake):
    """-L_D on samples: the critic's estimate of the distance that its loss stands for."""
    critic = critique_of(parts, state)
    return -jnp.mean(parts.loss.d(critic(real), critic(fake))[0])


def pull(parts, state, fake):
    """Mean norm of the generator's loss's gradient with respect to generated samples [B, ...], a scalar."""
    critic = critique_of(parts, state)
    return jnp.mean(gradient_norm(lambda x: critic(x)._replace(logits=parts.loss.g(critic(x), None)[0]), fake))


def generator_gradients(config, state, key, count):
    """Gradients [count, P] of the generator's loss at a State, on as many batches with draws of their own.

    They are read from a step of plain gradient descent, taken at the critic as it stands, so whatever the config
    plays (tempering, augmentation) is in them.

    Args:
      state: out of `runner_gan.fit`, of the same config.
      key: one key.
    """
    config = ConfigDict(model_config(config).to_dict())
    config.g_optimizer = {"name": "sgd", "learning_rate": 1.0}
    config.algorithm.simultaneous, config.algorithm.n_critic = True, 1
    algorithm, plan = runner_gan.game(config).algorithm, build.plan(config)
    arrays = {name: jnp.asarray(a) for name, a in runner_gan.dataset(config).arrays.items()}
    size = len(arrays["x"])

    def one(arrays, state, i):
        rows = batch_indices(fold(key, 0), i, size, plan.batch_size)
        batch = jax.tree.map(lambda a: a[rows], arrays)
        start = algorithm.init(fold(key, 1), batch, state.params)
        start = start._replace(extra={**start.extra, "net": state.extra["net"]}, step=state.step)
        after = algorithm.step(fold(fold(key, 2), i), start, batch)[0]
        moved = jax.tree.map(lambda a, b: (a - b).ravel(), start.params["generator"], after.params["generator"])
        return jnp.concatenate(jax.tree.leaves(moved))

    found = jax.jit(lambda a, s: jax.lax.map(lambda i: one(a, s, i), jnp.arange(count)))
    return np.asarray(found(arrays, jax.tree.map(jnp.asarray, state)), np.float64)


def total_variance(values):
    """Trace of the covariance of values [N, P], N - 1 in the denominator."""
    return float(np.sum(np.var(np.asarray(values, np.float64), axis=0, ddof=1)))
