"""Plug-and-play restoration: the denoiser as a proximal map (DiffPIR) and as a regularizer (RED-diff).

Neither differentiates the denoiser; neither is a posterior sampler.
"""

import jax
import jax.numpy as jnp
import optax

from genjax.core.keys import draw, fold, normal_like, per_sample
from genjax.core.numerics import bcast, mean_except_batch
from genjax.inverse import sampler
from genjax.inverse.linear import proximal
from genjax.solvers.base import from_step, info_of

MAX_RATIO = 1e3  # of sigma to alpha, in RED-diff's weights: it is infinite at pure noise
ORDERS = ("descending", "ascending", "random")


def half_quadratic(measurement, strength=1.0, zeta=1.0, floor=1e-3, cg_steps=20):
    """DiffPIR's step (2305.08995, algorithm 1) as a Solver.

      x0 <- argmin_x |y - A(x)|^2 + rho |x - x0|^2,  rho = strength std^2 / r_t^2,  r = sigma / alpha
      x_s = alpha_s x0 + sigma_s (sqrt(1 - zeta) eps + sqrt(zeta) n),  eps = (x_t - alpha_t x0) / sigma_t.

    For a nonlinear operator the first line is a Gauss-Newton step (the published gradient step diverges at small
    rho). At s = 0 the result is that x0.

    Args:
      strength: lambda, > 0.
      zeta: share of fresh noise, in [0, 1].
      floor: least standard deviation of the noise that is assumed.
    """
    operator, noise, y = measurement

    def step(keys, denoiser, process, state, t, s):
        x = state.x
        pred = denoiser(x, t, key=fold(keys, 0))
        rho = strength * jnp.maximum(jnp.asarray(noise.std), floor) ** 2 * jnp.exp(process.log_snr(t))
        x0 = proximal(operator, pred.x0, y, rho, cg_steps)
        alpha, sigma = bcast(process.alpha(t), x), bcast(process.sigma(t), x)
        mixed = jnp.sqrt(1 - zeta) * (x - alpha * x0) / sigma + jnp.sqrt(zeta) * normal_like(fold(keys, 1), x)
        new = bcast(process.alpha(s), x) * x0 + bcast(process.sigma(s), x) * mixed
        return new, state.memory, info_of(pred._replace(x0=x0))

    return from_step(step)


def diffpir(strength=1.0, zeta=1.0, floor=1e-3, cg_steps=20, steps=100, grid="cosine"):
    """Plug-and-play restoration by half-quadratic splitting (2305.08995). Any differentiable operator.

    Args:
      strength: lambda, the weight of the denoiser against the measurement.
      zeta: share of fresh noise; 1 for inpainting, 0.1 for deblurring in the paper.
    """
    sampler.at_least(strength, 0, "strength")
    make = lambda measurement, like: half_quadratic(measurement, strength, zeta, floor, cg_steps)
    return sampler.from_solver("diffpir", make, steps, grid, ("known_std",))


def red_diff(strength=0.25, power=1.0, order="descending", optimizer=None, steps=200, grid="uniform"):
    """RED-diff (2305.04391, algorithm 1): one estimate mu, fitted over all noise levels. Seeks a mode.

    Each step noises mu to a level and descends on, means over elements,

      mean((y - A(mu))^2) / 2 + strength w(t) mean((eps(x_t) - n) mu),    w = (sigma / alpha)^power,

    where eps(x_t) - n = (alpha / sigma)(mu - x0(x_t)) is a constant to the gradient.

    Args:
      strength: lambda.
      power: 1 is the published weight 1 / SNR, 0 a constant one.
      order: of the levels: "descending", "ascending" or "random".
      optimizer: an optax transformation; None: adam(0.1, 0.9, 0.99) as published. Elementwise ones alone keep
        samples independent.
    """
    sampler.one_of(order, ORDERS, "order")
    sampler.at_least(strength, 0, "strength")
    sampler.at_least(steps, 2, "steps")
    optimizer = optax.adam(0.1, 0.9, 0.99) if optimizer is None else optimizer

    def run(key, denoiser, process, measurement, like):
        operator, _, y = measurement
        keys = per_sample(key, like.shape[0])
        ts = sampler.times(process, steps, grid)[:-1]  # the levels above 0
        ts = ts[::-1] if order == "ascending" else ts
        mu = operator.x_init(y).astype(like.dtype)
        fit = lambda mu: jnp.sum(mean_except_batch((y - operator.forward(mu)) ** 2)) / 2

        def body(carry, i):
            mu, memory = carry
            here = fold(keys, i)
            t = ts[i]
            if order == "random":
                t = ts[draw(lambda key, _: jax.random.randint(key, (), 0, steps), fold(here, 2), mu.shape)]
            x = process.perturb(mu, normal_like(fold(here, 1), mu), t).astype(mu.dtype)
            x0 = denoiser(x, t, key=fold(here, 0)).x0
            weight = strength * jnp.minimum(sampler.ratio(process, t), MAX_RATIO) ** (power - 1)
            gradient = jax.grad(fit)(mu) + bcast(weight, mu) * (mu - x0) / mu[0].size
            updates, memory = optimizer.update(gradient.astype(mu.dtype), memory, mu)
            return (optax.apply_updates(mu, updates), memory), None

        return jax.lax.scan(body, (mu, optimizer.init(mu)), jnp.arange(steps))[0][0], {}

    return sampler.PosteriorSampler("red_diff", run, ("x_init",), steps)
