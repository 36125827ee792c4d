"""The latent of an image under a generator, by gradient descent from several starts."""

import jax
import jax.numpy as jnp
import optax

from genjax.core.keys import fold, sample_keys


def nearest_starts(x, bank, points, count):
    """The `count` points [count, B, ...] of a bank whose images are nearest to each x [B, ...], nearest first.

    Args:
      bank: images [M, ...] at `points` [M, ...].
    """
    a, b = (v.reshape(len(v), -1) for v in (x, bank))
    square = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None] - 2 * a @ b.T
    order = jnp.argsort(square, axis=1)[:, :count]
    return jnp.moveaxis(points[order], 1, 0)


def invert_generator(
    key, generate, x, sample, distance, *, optimizer=None, steps=200, restarts=1, starts=None, project=None
):
    """argmin_z distance(G(z), x) for each x, the best of several descents.

    Pure: to be called under `jit`, with the generator's parameters an argument.

    Args:
      key: one key; the starts of image i depend on it and on i alone.
      generate: z [N, ...] -> x [N, ...].
      x: [B, ...].
      sample: (keys [N], N) -> z, the law of the starts.
      distance: (made [N, ...], x [N, ...]) -> [N].
      optimizer: Optax transform that treats entries apart, as Adam does; Adam 0.05 where None.
      steps: of the descent.
      restarts: starts for each image.
      starts: [R, B, ...] in the place of draws; `key`, `sample` and `restarts` are then not read.
      project: z -> z after every step, such as onto a ball; None for none.

    Returns:
      (z [B, ...], distance [B]) of the best point visited at the end of the descents.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps: expected steps and restarts of at least 1, got {steps} and {restarts}")
    optimizer = optax.adam(0.05) if optimizer is None else optimizer
    project = (lambda z: z) if project is None else project
    if starts is None:
        keys = sample_keys(key, len(x))
        starts = [sample(fold(keys, i), len(x)) for i in range(restarts)]
    restarts, z = len(starts), jnp.concatenate(list(starts))
    goal = jnp.concatenate([x] * restarts)
    value = lambda z: distance(generate(z), goal)
    gradient = jax.grad(lambda z: jnp.sum(value(z)))

    def step(carry, _):
        z, opt = carry
        updates, opt = optimizer.update(gradient(z), opt, z)
        return (project(z + updates), opt), None

    z = project(z)
    (z, _), _ = jax.lax.scan(step, (z, optimizer.init(z)), length=steps)
    found = value(z).reshape(restarts, len(x))
    best = jnp.argmin(found, axis=0)
    z = z.reshape(restarts, len(x), *z.shape[1:])
    rows = jnp.arange(len(x))
    return z[best, rows], found[best, rows]
