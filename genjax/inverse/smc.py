"""Twisted sequential Monte Carlo (2306.17775): many particles a sample, weighted so that their law is the posterior's.

With a twist w_t(x_t) ~ p(y | x_t), equal to the likelihood itself at t = 0, particles move by the denoiser's
ancestral law shifted along grad log w_t, and carry weights

  W <- W  p(x_s | x_t) w_s(x_s) / (q(x_s | x_t) w_t(x_t)).                                          (1)

For a growing number of particles the weighted law is exactly prior sampler x likelihood, whatever the twist; a
good one keeps the weights even. Here w_t is PiGDM's N(y; A x0(x_t), r_t^2 A A^T + std^2 I). Particles of one
sample share nothing with those of another.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax.core.keys import draw, fold, per_sample
from genjax.core.laws import Categorical, Normal
from genjax.core.numerics import bcast, mean_except_batch, sum_except_batch
from genjax.core.types import Prediction
from genjax.inverse import sampler
from genjax.inverse.gradient import assumed_variance, scaled_adjoint, tilted, tweedie
from genjax.inverse.linear import curvature


class Particles(NamedTuple):
    """P weighted particles of each sample."""

    x: jax.Array  # [B, P, ...]
    log_weight: jax.Array  # [B, P], normalized over P
    ess: jax.Array  # [N, B] effective sample size before each step's resampling, in (1, P]


def systematic(keys, log_weight):
    """Systematic resampling: indices [B, P] in which each particle comes up P W times, rounded up or down.

    Args:
      keys: one key or [B].
      log_weight: [B, P], normalized.
    """
    count = log_weight.shape[1]
    u = draw(lambda key, _: jax.random.uniform(key, (), log_weight.dtype), keys, log_weight.shape)
    points = (u[:, None] + jnp.arange(count, dtype=log_weight.dtype)[None]) / count
    ends = jnp.cumsum(jnp.exp(log_weight), axis=1)
    return jnp.minimum(jax.vmap(jnp.searchsorted)(ends / ends[:, -1:], points), count - 1)


def effective_size(log_weight):
    """1 / sum W^2 of normalized log-weights [B, P], [B]."""
    return jnp.exp(-jax.nn.logsumexp(2 * log_weight, axis=1))


def twist(measurement, x0, r2):
    """(log N(y; A x0, r2 A A^T + v I) up to a constant, its gradient in x0 for linear A), ([N], [N, ...]).

    v is the mean variance of the noise. For an operator without `prox` the covariance is (r2 L + v) I, L the
    largest curvature of |A|^2 at x0.

    Args:
      measurement: N measurements, one for each row of x0.
      x0: [N, ...].
      r2: scalar > 0.
    """
    operator, noise, y = measurement
    mean, pull = jax.vjp(operator.forward, x0)
    error = (y - mean).astype(mean.dtype)
    variance = jnp.asarray(noise.variance(y), error.dtype)
    variance = mean_except_batch(variance) if jnp.ndim(variance) else jnp.broadcast_to(variance, error.shape[:1])
    if hasattr(operator, "prox"):
        pulled = scaled_adjoint(operator, error, r2, variance)
        solved = (error - r2 * operator.forward(pulled)) / bcast(variance, error)
        return -0.5 * sum_except_batch(error * solved), pulled
    total = variance + r2 * curvature(operator.forward, x0)
    solved = error / bcast(total, error)
    return -0.5 * sum_except_batch(error * solved) - 0.5 * error[0].size * jnp.log(total), pull(solved)[0]


def twisted(key, denoiser, process, measurement, like, particles, ts, *, threshold=0.5, data_std=1.0, scale=1.0):
    """The Particles after twisted SMC over the times ts [N + 1], which end at 0.

    Args:
      particles: P, of each sample.
      threshold: resample a sample's particles where their effective size falls below threshold x P.
      data_std: s of r_t^2 in the twist; scale: of the shift of the proposal. They cost efficiency, never exactness.
    """
    batch = like.shape[0]
    keys = per_sample(key, batch)
    flat = lambda x: x.reshape(batch * particles, *x.shape[2:])
    split = lambda x: x.reshape(batch, particles, *x.shape[1:])
    each = lambda keys: flat(jax.vmap(lambda key: jax.random.split(key, particles))(keys))  # [B] -> [B P]
    repeated = measurement._replace(y=jnp.repeat(measurement.y, particles, axis=0))

    def body(carry, i):
        x, log_weight, last = carry
        t, s, here = ts[i], ts[i + 1], fold(fold(keys, 1), i)
        pred, pullback = tweedie(denoiser, x, t, key=each(fold(here, 0)))
        log_w, toward = twist(repeated, pred.x0, assumed_variance(process, t, data_std))
        gradient, log_w = pullback(toward), split(log_w)
        log_weight = jax.nn.log_softmax(log_weight + log_w - last, axis=1)

        size = effective_size(log_weight)
        poor = (size < threshold * particles)[:, None]
        index = jnp.where(poor, systematic(fold(here, 1), log_weight), jnp.arange(particles)[None])
        log_weight = jnp.where(poor, even, log_weight)
        pick = lambda a: jax.vmap(lambda row, chosen: row[chosen])(a, index)
        x, x0, eps, gradient = (flat(pick(split(a))) for a in (x, pred.x0, pred.eps, gradient))
        pred, log_w = Prediction(x0=x0, eps=eps), pick(log_w)

        inside = s > 0  # the last law is a point, and the proposal must be the same one
        plain = process.posterior(x, pred, t, s, 1.0)
        shifted = tilted(pred, jnp.where(inside, scale, 0.0) * gradient, process, x, t)
        ahead = process.posterior(x, shifted, t, s, 1.0)
        new = ahead.sample(each(fold(here, 2))).astype(x.dtype)
        std = jnp.where(inside, ahead.std, 1.0)
        change = Normal(plain.mean, std).log_prob(new) - Normal(ahead.mean, std).log_prob(new)
        return (new, log_weight + jnp.where(inside, split(change), 0.0), log_w), size

    x = sampler.start(each(fold(keys, 0)), process, jnp.repeat(like, particles, axis=0), ts[0])
    even = jnp.full((batch, particles), -jnp.log(float(particles)), like.dtype)
    (x, log_weight, last), sizes = jax.lax.scan(body, (x, even, jnp.zeros_like(even)), jnp.arange(len(ts) - 1))
    log_weight = jax.nn.log_softmax(log_weight + split(repeated.log_prob(x)) - last, axis=1)
    return Particles(split(x), log_weight, sizes)


def smc(particles=16, threshold=0.5, data_std=1.0, scale=1.0, steps=100, grid="cosine"):
    """Twisted SMC (2306.17775, algorithm 1): one particle a sample, drawn by its weight.

    Exact for the ancestral sampler's prior as particles grow; with one particle it is guidance without a correction.
    `detail` gives all Particles, whose weighted means are the better estimates.

    Args:
      particles: of each sample; a run costs particles x steps evaluations.
      threshold: of the effective size, as a share of the particles, below which they are resampled.
      data_std: s of r_t^2 in the twist.
      scale: of the proposal's shift; 0 is the bootstrap filter.
    """
    sampler.at_least(particles, 1, "particles")
    sampler.at_least(scale, 0, "scale")
    sampler.at_least(steps, 2, "steps")

    def run(key, denoiser, process, measurement, like):
        keys, ts = per_sample(key, like.shape[0]), sampler.times(process, steps, grid)
        found = twisted(
            fold(keys, 0), denoiser, process, measurement, like, particles, ts,
            threshold=threshold, data_std=data_std, scale=scale,
        )  # fmt: skip
        chosen = Categorical(found.log_weight[:, None]).sample(fold(keys, 1))[:, 0]
        return jax.vmap(lambda x, i: x[i])(found.x, chosen), {"particles": found}

    cost = steps * particles  # in units of one sample
    return sampler.PosteriorSampler("smc", run, ("density",), cost, cost)
