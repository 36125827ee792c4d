"""Guidance by a gradient: of a log-probability of the noisy state, or of a loss of the predicted data.

A score that gains `gradient` is the Prediction

  x0 + (sigma^2 / alpha) gradient,    eps - sigma gradient,                                        (1)

for every Gaussian process. With J = d x0 / d x_t, a loss l of x0(x_t) gives gradient = -J^T grad l ("through the
denoiser"), or, with eps held constant, -(1 / alpha) grad l at the price of a plain evaluation (2312.13253).
"""

import jax
import jax.numpy as jnp

from genjax.core.numerics import bcast, safe_div
from genjax.core.prediction import with_x0
from genjax.solvers.levels import choose, ratio


def tweedie(denoiser, x, t, cond=None, key=None):
    """(pred, pullback): a prediction at (x, t), and u -> J^T u with J = d x0 / d x_t."""

    def estimate(x):
        pred = denoiser(x, t, cond, key)
        return pred.x0, pred

    _, pullback, pred = jax.vjp(estimate, x, has_aux=True)
    return pred, lambda u: pullback(u.astype(pred.x0.dtype))[0]


def tilted(pred, gradient, process, x, t):
    """The Prediction whose score has gained `gradient`: equation (1). Where alpha is 0, x0 stays."""
    alpha, sigma = bcast(process.alpha(t), x), bcast(process.sigma(t), x)
    x0 = pred.x0 + safe_div(sigma**2 * gradient, jnp.broadcast_to(alpha, gradient.shape))
    return pred._replace(x0=x0.astype(x.dtype), eps=(pred.eps - sigma * gradient).astype(x.dtype))


def bounded(gradient, process, t, limit=None):
    """`gradient` shortened so that the change of eps, sigma |gradient|, stays below `limit` in each sample.

    g / sqrt(1 + (sigma |g| / limit)^2): small ones pass, large ones keep their direction. None: no limit.
    """
    if limit is None:
        return gradient
    square = jnp.sum((gradient * gradient).reshape(gradient.shape[0], -1), axis=1) * process.sigma(t) ** 2
    return gradient * bcast(jax.lax.rsqrt(1 + square / limit**2), gradient).astype(gradient.dtype)


def toward(denoiser, loss, process, x, t, cond=None, key=None, through=True):
    """(pred, -gradient of loss(x0(x_t), cond) in x_t, loss [B]).

    Args:
      loss: (x0, cond) -> [B], each entry of its own sample.
      through: through the denoiser; else eps is held constant.
    """
    if through:
        pred, pullback = tweedie(denoiser, x, t, cond, key)
    else:
        pred = denoiser(x, t, cond, key)

    def total(x0):
        values = loss(x0, cond)
        return jnp.sum(values), values

    slope, values = jax.grad(total, has_aux=True)(pred.x0)
    if through:
        return pred, -pullback(slope), values
    return pred, -safe_div(slope, jnp.broadcast_to(bcast(process.alpha(t), x), x.shape)).astype(x.dtype), values


def classifier(log_prob, scale=1.0):
    """Classifier guidance (2105.05233, algorithm 2): the score gains scale grad log p(y | x_t).

    The same as a shift of eps; as a shift of the mean of a step it is `mean_shift`.

    Args:
      log_prob: (x, t, cond) -> [B], each entry a function of its own sample; the classifier sees noisy x.
      scale: scalar or [B].
    """

    def guidance(denoiser, process):
        def guided(x, t, cond=None, key=None):
            pred = denoiser(x, t, cond, key)
            gradient = jax.grad(lambda x: jnp.sum(log_prob(x, t, cond)))(x)
            return tilted(pred, bcast(scale, x) * gradient, process, x, t)

        return guided

    return guidance


def energy(loss, scale=1.0, through=True, limit=None):
    """Loss guidance: the score gains -scale grad loss(x0(x_t)) (universal guidance, 2302.07121, eq. 6).

    That paper's s(t) is scale sigma(t).

    Args:
      loss: (x0, cond) -> [B], each entry of its own sample.
      scale: scalar or [B].
      through: take the gradient through the denoiser, at about twice the cost; else with eps constant.
      limit: largest change of eps a sample, see `bounded`.
    """

    def guidance(denoiser, process):
        def guided(x, t, cond=None, key=None):
            pred, gradient, _ = toward(denoiser, loss, process, x, t, cond, key, through)
            return tilted(pred, bounded(bcast(scale, x) * gradient, process, t, limit), process, x, t)

        return guided

    return guidance


def classifier_x0(log_prob, scale=1.0, through=True, limit=None):
    """Guidance by a classifier of clean data, asked at x0(x_t): `energy` of -log_prob(x0, cond) -> [B]."""
    return energy(lambda x0, cond: -log_prob(x0, cond), scale, through, limit)


def likelihood(measurement, scale=1.0):
    """DPS in continuous form: the score gains scale grad log p(y | x0(x_t)) (2209.14687, eq. 9-11)."""
    return energy(lambda x0, _: -measurement.log_prob(x0), scale)


def backward(loss, steps=5, rate=0.1):
    """Backward guidance (2302.07121, eq. 7-8): x0 moves by gradient descent on the loss, eps is refitted.

    Args:
      loss: (x0, cond) -> [B].
      steps: of gradient descent, from the predicted x0.
      rate: their size.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps!r}")

    def guidance(denoiser, process):
        def guided(x, t, cond=None, key=None):
            pred = denoiser(x, t, cond, key)
            slope = jax.grad(lambda x0: jnp.sum(loss(x0, cond)))
            x0 = jax.lax.fori_loop(0, steps, lambda _, x0: (x0 - rate * slope(x0)).astype(x0.dtype), pred.x0)
            return with_x0(pred, x0, x, process, t)

        return guided

    return guidance


def within(guidance, low, high):
    """Any guidance where low <= sigma / alpha <= high; elsewhere the denoiser as it is.

    With a scalar t only one of the two runs (2404.07724 does it to classifier-free guidance).
    """
    if not low < high:
        raise ValueError(f"low, high: expected low < high, in sigma / alpha, got {low!r} and {high!r}")

    def limited(denoiser, process):
        inner = guidance(denoiser, process)

        def guided(x, t, cond=None, key=None):
            r = ratio(process, t)
            inside = (r >= low) & (r <= high)
            return choose(inside, lambda: inner(x, t, cond, key), lambda: denoiser(x, t, cond, key))

        return guided

    return limited
