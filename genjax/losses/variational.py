"""Training on the variational bound of a chain, and iDDPM's hybrid loss (2102.09672, section 3)."""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold, per_sample
from genjax.core.numerics import bcast, mean_except_batch
from genjax.core.types import Prediction
from genjax.losses.denoising import draw_times, error
from genjax.losses.elbo import VARIANCES, decoder_law, decoder_nll, transition_kl
from genjax.losses.times import discrete, level_index


def variational(
    process,
    steps,
    times=None,
    *,
    levels=256,
    variance="predicted",
    simple=0.0,
    weighting=None,
    scale=1.0,
    stop_mean=False,
    low=-1.0,
    high=1.0,
):
    """The bound of a chain of `steps` levels, one term a sample, in bits an element.

    A sample's loss is  (simple ||eps - eps_hat||^2 + scale steps term_i)  P_uniform(i) / P(i),  where
    term_i is the KL term of level i, the decoder for i = 1. Its mean over levels is simple L_simple +
    scale (L_0 + ... + L_{T-1}); the prior's term has no parameters and is left out.

    Args:
      process: Gaussian process; level i of 1 ... steps lies at t_min + (i - 1) / (steps - 1) (t_max - t_min).
      steps: length of the chain.
      times: sampler of levels, `times.discrete` (None) or `times.second_moment` (importance sampling).
      levels: number of values of the data in [low, high], 0 for continuous data.
      variance: of the chain's steps, "lower" (beta-tilde), "upper" (beta) or "predicted" (`Prediction.v`), as in
        `elbo.chain_bound`: a fixed one decides the weights of the levels.
      simple: factor of the simple loss (mean squared eps error).
      weighting: log_snr -> log w (`losses.weightings`), a factor on the simple loss's eps error; None for 1.
      scale: factor of the bound.
      stop_mean: the bound trains `Prediction.v` alone: no gradient reaches x0 and eps through it.

    Returns:
      Loss -> ([B], aux); aux as in `denoising`, and "vlb" [B], the term times steps in bits an element.

    Raises:
      ValueError: fewer than 2 steps, times that are not levels of this chain, or an unknown variance.
    """
    if variance not in VARIANCES:
        raise ValueError(f"variance: expected one of {VARIANCES}, got {variance!r}")
    base = discrete(process, steps)
    times = base if times is None else times
    if times.steps != steps:
        raise ValueError(
            f"times: expected a sampler of {steps} levels ('discrete', 'second_moment'), got {times.steps}"
        )

    def level_time(i):
        return process.t_min + i / (steps - 1) * (process.t_max - process.t_min)

    def term(pred, true, x0, t):
        i = level_index(process, t, steps)
        first = i == 0
        # the first level is the decoder's; the KL there is computed at level 2 and not used
        s = level_time(jnp.where(first, 0, i - 1))
        kl = transition_kl(process, pred, true, jnp.where(first, level_time(1), t), s, variance, mean_except_batch)
        shown = pred._replace(x0=jnp.where(bcast(first, x0), pred.x0, x0))  # elsewhere no wild numbers, and no gradient
        law = decoder_law(process, shown, level_time(0), level_time(1), variance)
        decoder = decoder_nll(law, x0, levels, low, high, mean_except_batch)
        return jnp.where(first, decoder, kl) / jnp.log(2.0)

    def loss(key, models, batch):
        x0 = batch["x"]
        keys = per_sample(key, x0.shape[0])
        t, log_p = draw_times(models, times, fold(keys, 1))
        x_t, true = process.corrupt(fold(keys, 2), x0, t)
        pred = models["denoiser"](x_t, t, batch.get("cond"), fold(keys, 0))
        lam = process.log_snr(t)
        square, log_scale = error(pred, true, lam)
        eps_mse = jnp.exp(log_scale) * square
        judged = pred
        if stop_mean:
            judged = Prediction(x0=jax.lax.stop_gradient(pred.x0), eps=jax.lax.stop_gradient(pred.eps), v=pred.v)
        vlb = steps * term(judged, true, x0, t)
        value = scale * vlb
        if simple:
            value += simple * (eps_mse if weighting is None else jnp.exp(weighting(lam) + log_scale) * square)
        log_m = base.log_density((), t)
        aux = {
            "t": t,
            "log_snr": lam,
            "eps_mse": eps_mse,
            "importance": jnp.exp(log_m - log_p),
            "integrand": jnp.exp(log_m) * value,
            "vlb": vlb,
        }
        return aux["importance"] * value, aux

    return loss


def hybrid(process, steps, times=None, *, levels=256, weighting=None, scale=1e-3, low=-1.0, high=1.0):
    """L_hybrid = L_simple + scale L_vlb, the bound training the variance alone (2102.09672, eq. 16).

    With a `weighting` (log_snr -> log w), L_simple is that weighted loss in the place of the plain eps error.
    """
    return variational(
        process,
        steps,
        times,
        levels=levels,
        simple=1.0,
        weighting=weighting,
        scale=scale,
        stop_mean=True,
        low=low,
        high=high,
    )
