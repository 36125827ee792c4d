"""What a game is played on: latents, rounds that change data or conditions, noise that the critic sees.

A `prepare` is a function `(step, keys, round) -> Round`: it changes the reals, the latents and the condition of one
update, and adds points for penalties. Several are chained. `step` is the step of the training, traced.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genjax.core import keys as random
from genjax.core.collectives import axis_index, gather
from genjax.core.numerics import bcast
from genjax.data.augment import Augment
from genjax.networks.gan.progressive import faded


class Latent(NamedTuple):
    """The law of z: `sample(keys, n, truncation=None) -> [n, dim]`."""

    sample: Callable
    dim: int


def _no_truncation(name, truncation):
    if truncation is not None:
        raise ValueError(f"truncation: expected normal latents, got {name!r}")


def _latent(name, dim, draw):
    if dim < 1:
        raise ValueError(f"latent.dim: expected at least 1, got {dim}")

    def sample(keys, n, truncation=None):
        _no_truncation(name, truncation)
        return draw(keys, (n, dim))

    return Latent(sample, dim)


def normal(dim=64):
    """Standard normal; `truncation` t draws |z| <= t, entry by entry (1809.11096, section 3.1)."""

    def sample(keys, n, truncation=None):
        if truncation is None:
            return random.normal(keys, (n, dim), jnp.float32)
        return random.draw(
            lambda key, shape: jax.random.truncated_normal(key, -truncation, truncation, shape), keys, (n, dim)
        )

    return _latent("normal", dim, None)._replace(sample=sample)


def uniform(dim=64):
    """Uniform in [-1, 1], entry by entry."""
    return _latent("uniform", dim, lambda keys, shape: 2 * random.uniform(keys, shape, jnp.float32) - 1)


def sphere(dim=64):
    """Uniform on the sphere of radius sqrt(dim)."""

    def draw(keys, shape):
        z = random.normal(keys, shape, jnp.float32)
        return z * jnp.sqrt(1.0 * dim) / jnp.linalg.norm(z, axis=-1, keepdims=True)

    return _latent("sphere", dim, draw)


def bits(dim=8):
    """Fair bits as -1 and 1: dim bits of noise a sample (2403.09196)."""
    return _latent("bits", dim, lambda keys, shape: 2.0 * (random.uniform(keys, shape) < 0.5) - 1)


def student_t(dim=64, df=2.0):
    """Student's t with df degrees of freedom, entry by entry: heavy tails (2501.07763)."""
    return _latent("student_t", dim, lambda keys, shape: random.draw(lambda k, s: jax.random.t(k, df, s), keys, shape))


LATENTS = {"normal": normal, "uniform": uniform, "sphere": sphere, "bits": bits, "student_t": student_t}


class Round(NamedTuple):
    """What one update of one player is played on."""

    x: Any  # [B, ...] reals
    z: Any  # [B, dim] latents
    cond: dict  # further fields [B, ...] of the condition that both networks are given
    points: dict  # further entries of what penalties are given
    options: dict  # keyword arguments of both networks, such as the alpha of a growing pair


def chain(*prepares):
    """Several prepares, one after the other."""

    def prepare(step, keys, round):
        for i, each in enumerate(prepares):
            round = each(step, random.fold(keys, i), round)
        return round

    return prepare


def partner(x, axis_name=None):
    """Another sample of the batch for each, the next one around: [B, ...], over all devices of the axis."""
    every = gather(x, axis_name)
    return jax.lax.dynamic_slice_in_dim(jnp.roll(every, -1, axis=0), axis_index(axis_name) * len(x), len(x))


def mixture(alpha, a, b):
    """alpha a + (1 - alpha) b, alpha [B] a weight a sample."""
    return bcast(alpha, a) * a + bcast(1 - alpha, a) * b


def temperature(alpha):
    """tau = 1 - 2 |alpha - 1/2| of the mixture weights alpha [B], as cond "embedding" [B, 1] (2411.11786)."""
    return (1 - 2 * jnp.abs(alpha - 0.5))[:, None]


def tempering(r=0.5, mix_latents=True, axis_name=None):
    """Parallel tempering (2411.11786, algorithm 3): reals become q = alpha x_1 + (1 - alpha) x_2.

    x_2 is the next example of the batch; alpha is 1 for a share r of the samples and uniform for the others. Both
    networks are told tau = 1 - 2 |alpha - 1/2| as cond "embedding" [B, 1]: 0 is the law of the data, and what a
    null condition says. For `penalties.coherency` a second mixture of the same pair and a point between are added.

    Args:
      r: share at the law of the data, in [0, 1].
      mix_latents: mix two latents like the data, z = alpha z_1 + (1 - alpha) z_2.
      axis_name: axis over which the batch is split.
    """
    if not 0 <= r <= 1:
        raise ValueError(f"r: expected a share in [0, 1], got {r}")

    def prepare(step, keys, round):
        x, z = round.x, round.z
        u, coin, second, nu = (random.uniform(random.fold(keys, i), (len(x),)) for i in range(4))
        first = jnp.where(coin < r, 1.0, u)
        other = partner(x, axis_name)
        q_1, q_2 = mixture(first, x, other), mixture(second, x, other)
        points = {
            "between": mixture(nu, q_1, q_2),
            "direction": q_1 - q_2,
            "between_cond": {"embedding": temperature(nu * first + (1 - nu) * second)},
        }
        if mix_latents:
            z = mixture(first, z, random.normal_like(random.fold(keys, 4), z))
        cond = {**round.cond, "embedding": temperature(first)}
        return round._replace(x=q_1, z=z, cond=cond, points={**round.points, **points})

    return prepare


def ramp(start, steps):
    """step -> 0 before `start`, 1 from `start + steps` on, straight between (1 at once for steps = 0)."""
    return lambda step: jnp.clip((step - start) / max(steps, 1), 0.0, 1.0) if steps else jnp.float32(step >= start)


def growing(stage, alpha=lambda step: 1.0):
    """One stage of a growing pair (1710.10196): reals at its resolution, the finest detail faded in by alpha.

    Args:
      stage: as of `networks.gan.progressive`, whose networks take it too.
      alpha: step -> [0, 1], such as `ramp(0, 1000)`, handed to both networks.
    """

    def prepare(step, keys, round):
        now = alpha(step)
        return round._replace(x=faded(round.x, stage, now), options={**round.options, "alpha": now})

    return prepare


def instance_noise(std=0.1, steps=0):
    """An Augment: Gaussian noise on all that the critic sees (1610.04490), down to 0 over `steps` updates.

    Args:
      std: at the start.
      steps: updates of the critic, 0 for a constant std.
    """
    if not std > 0 or steps < 0:
        raise ValueError(f"std: expected std > 0 and steps >= 0, got {std} and {steps}")

    def apply(keys, x, state):
        now = std * (1 - jnp.minimum(1.0, state / steps)) if steps else std
        return x + now * random.normal_like(keys, x)

    present = lambda keys, real, fake, state: real
    return Augment(apply, lambda: jnp.zeros(()), lambda state, signs: state + 1, present)


PREPARES = {"tempering": tempering}


def latent_path(start, end, count):
    """Latents [count, dim] from `start` to `end` [dim] along the great circle, which keeps normal latents' norm law."""
    t = jnp.linspace(0.0, 1.0, count)[:, None]
    unit = lambda z: z / jnp.linalg.norm(z)
    angle = jnp.arccos(jnp.clip(jnp.sum(unit(start) * unit(end)), -1 + 1e-6, 1 - 1e-6))
    weight = lambda share: jnp.sin(share * angle) / jnp.sin(angle)
    return weight(1 - t) * start[None] + weight(t) * end[None]
