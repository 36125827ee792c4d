"""Critics in closed form: infinitely wide networks after training for a time, in the view of 2106.05566.

An infinitely wide critic that starts at 0 and follows the gradient of its loss on n reals y and n generated x for a
time tau obeys df/ds = -sum_i k(., z_i) dL/df(z_i), z all points, with k its neural tangent kernel. So

  ipm           L = mean f(x) - mean f(y)                f = tau (mean_j k(., y_j) - mean_i k(., x_i))
  least_squares L = mean (f(x) + 1)^2 + mean (f(y) - 1)^2    f = k(., z) K^-1 (I - exp(-4 tau K / M)) Y, M = 2 n
  non_saturating L = mean over z of softplus(-Y f)       df(z)/ds = K r, r = sigmoid(-Y f) Y / M; f = k(., z) int r ds

with Y = 1 at reals and -1 at generated points. Particles follow the gradient of a loss of f at their places.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax.core.numerics import safe_div
from genjax.losses.mmd import witness


class KernelGame(NamedTuple):
    """A game of particles against a critic in closed form."""

    critic: Callable  # (kernel, tau, real [N, d], fake [N, d]) -> (at [T, d] -> f [T])
    particle: Callable  # f -> the loss of a particle


def _points(real, fake):
    if real.ndim != 2 or real.shape != fake.shape:
        raise ValueError(f"real: expected as many points [N, d] as generated ones, got {real.shape} and {fake.shape}")
    return jnp.concatenate([real, fake]), jnp.concatenate([jnp.ones(len(real)), -jnp.ones(len(fake))]).astype(
        real.dtype
    )


def _ipm(kernel, tau, real, fake):
    return lambda at: tau * witness(kernel, at, real, fake)


def _least_squares(kernel, tau, real, fake):
    z, y = _points(real, fake)
    values, basis = jnp.linalg.eigh(kernel(z, z))
    rate = 4 * tau / len(z)
    small = jnp.abs(values) * rate < 1e-6
    gain = jnp.where(small, rate, safe_div(-jnp.expm1(-rate * values), jnp.where(small, 0, values)))
    weight = basis @ (gain * (basis.T @ y))
    return lambda at: kernel(at, z) @ weight


def _non_saturating(kernel, tau, real, fake, steps=200):
    z, y = _points(real, fake)
    gram = kernel(z, z)
    rate = lambda weight: jax.nn.sigmoid(-y * (gram @ weight)) * y / len(z)

    def step(weight, _):  # Runge and Kutta's of fourth order
        h = tau / steps
        a = rate(weight)
        b = rate(weight + h / 2 * a)
        c = rate(weight + h / 2 * b)
        d = rate(weight + h * c)
        return weight + h / 6 * (a + 2 * b + 2 * c + d), None

    weight = jax.lax.scan(step, jnp.zeros_like(y), None, steps)[0]
    return lambda at: kernel(at, z) @ weight


KERNEL_GAMES = {
    # name: the critic's solution and the particles' loss
    "ipm": KernelGame(_ipm, lambda f: -f),
    "least_squares": KernelGame(_least_squares, jnp.square),
    "non_saturating": KernelGame(_non_saturating, lambda f: jax.nn.softplus(-f)),
}


def mmd2(kernel, x, y):
    """Squared MMD of the empirical laws of x [N, d] and y [M, d], all pairs counted: >= 0, and 0 for equal sets."""
    return jnp.mean(kernel(x, x)) - 2 * jnp.mean(kernel(x, y)) + jnp.mean(kernel(y, y))


def mmd2_rate(kernel, x, y, eta=1.0):
    """d mmd2 / ds of particles under dx_i / ds = -eta grad V(x_i), V = mean k(x, .) - mean k(y, .): <= 0.

    -(2 eta / N) sum_i |grad V(x_i)|^2 (2106.05566).
    """
    slope = jax.grad(lambda at: jnp.sum(witness(kernel, at, x, y)))(x)  # x held fixed inside the witness
    return -2 * eta / len(x) * jnp.sum(slope**2)
