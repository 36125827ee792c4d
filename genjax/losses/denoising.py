"""The denoising loss: one weighted integral over log-SNR for every Gaussian process and prediction type.

A sample's loss is

  exp(log_w(lambda) + log m(lambda) - log p(lambda)) mean ||eps - eps_hat||^2,

with lambda drawn from p by the time sampler, a weighting w (`losses.weightings`) and the measure m
under which it is meant. Means over elements, not sums: multiply by half the number of elements for the
ELBO's units (`losses.elbo`).

Losses here take `models`: "denoiser", a Denoiser; where present, "times", a function keys [B] ->
(t [B], log p(lambda) [B]) that replaces the sampler's independent draws (the recipe closes it over the
state of a learned sampler and the place in a split batch), and "uncertainty", log_snr [B] -> [B].
The batch holds "x" [B, ...] and, where there is one, "cond", the condition as the denoiser gets it.
"""

import jax.numpy as jnp

from genjax.core.keys import fold, per_sample
from genjax.core.numerics import bcast, mean_except_batch
from genjax.losses.times import TimeSampler, independent, uniform

MEASURES = ("sampler", "log_snr", "uniform")


def error(pred, true, log_snr, reduce=mean_except_batch):
    """A prediction's squared error, in the space where it is not lost to rounding.

    At lambda > 0 this is the eps error, below it the x0 error: of the two equal expressions
    ||eps error||^2 = e^lambda ||x0 error||^2 the one whose residual is a large part of the numbers
    subtracted, whatever the network predicts.

    Args:
      pred, true: Prediction; `pred` must fit x = alpha x0 + sigma eps.
      log_snr: [B], finite.
      reduce: [B, ...] -> [B] (or identity).

    Returns:
      (square, log_scale): ||eps error||^2 = exp(log_scale) square, log_scale = min(lambda, 0) [B].
    """
    low = bcast(log_snr > 0, true.x0)
    residual = jnp.where(low, pred.eps - true.eps, pred.x0 - true.x0)
    return reduce(residual * residual), jnp.minimum(log_snr, 0.0)


def measure_log_density(measure, process, times):
    """t [n] -> log m(lambda) [n] of a fixed measure; None where the measure is the sampler's own density.

    Raises:
      ValueError: unknown measure, or "sampler" for a learned sampler, whose density moves.
    """
    if isinstance(measure, str) and measure == "uniform":
        measure = uniform(process)
    if isinstance(measure, TimeSampler):
        if measure.learned:
            raise ValueError("measure: expected a fixed time sampler, got a learned one")
        return lambda t: measure.log_density(measure.init(), t)
    if measure not in MEASURES:
        raise ValueError(f"measure: expected one of {MEASURES} or a TimeSampler, got {measure!r}")
    if measure == "log_snr":
        return jnp.zeros_like
    if times.learned:
        raise ValueError(
            "measure: a learned time sampler expected 'log_snr', 'uniform' or a fixed TimeSampler, got 'sampler'"
        )
    return None


def draw_times(models, times, keys):
    """(t [B], log p(lambda) [B]) from `models["times"]` where given, else independent draws of `times`."""
    if "times" in models:
        return models["times"](keys)
    state = times.init()
    t = times.sample(state, independent(keys, keys.shape[0]))
    return t, times.log_density(state, t)


def denoising(process, times, weighting, *, measure="sampler"):
    """The weighted denoising loss.

    Args:
      process: Gaussian process.
      times: TimeSampler.
      weighting: log_snr -> log w.
      measure: "sampler" (relative: w is the factor on the eps error as drawn), "log_snr" (absolute: w is
        the weight of the integral over log-SNR, 2303.00848, eq. 1), "uniform" (relative to uniform t, whatever
        is drawn from: importance sampling), or any other TimeSampler without state in that role.

    Returns:
      Loss (key, models, batch) -> ([B], aux); aux holds, all [B]: t, log_snr, eps_mse (mean squared
      eps error), importance (m / p), integrand (m w eps_mse, what learned samplers are updated with).

    Raises:
      ValueError: measure and sampler do not go together.
    """
    log_measure = measure_log_density(measure, process, times)

    def loss(key, models, batch):
        x0 = batch["x"]
        keys = per_sample(key, x0.shape[0])
        t, log_p = draw_times(models, times, fold(keys, 1))
        x_t, true = process.corrupt(fold(keys, 2), x0, t)
        pred = models["denoiser"](x_t, t, batch.get("cond"), fold(keys, 0))
        lam = process.log_snr(t)
        square, log_scale = error(pred, true, lam)
        log_m = log_p if log_measure is None else log_measure(t)
        log_factor = weighting(lam) + log_scale
        aux = {
            "t": t,
            "log_snr": lam,
            "eps_mse": jnp.exp(log_scale) * square,
            "importance": jnp.exp(log_m - log_p),
            "integrand": jnp.exp(log_factor + log_m) * square,
        }
        return jnp.exp(log_factor + (log_m - log_p)) * square, aux

    return loss


def with_uncertainty(loss):
    """A Loss weighted by a learned log-variance u(lambda) (EDM2, 2312.02696): loss e^-u + u.

    `models["uncertainty"]`: log_snr [B] -> u [B]. At the optimum e^u is the mean loss at that level, so
    every level gives gradients of one size. Not used in sampling.
    """

    def weighted(key, models, batch):
        value, aux = loss(key, models, batch)
        u = models["uncertainty"](aux["log_snr"])
        return value * jnp.exp(-u) + aux["importance"] * u, {**aux, "uncertainty": u}

    return weighted
