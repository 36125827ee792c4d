"""The exact variational bound: terms of a chain, the decoder, and the bound in continuous time.

For a chain of times t_max = t_0 > t_1 > ... > t_{N-1} > t_N = 0 (2006.11239, eq. 5)

  -log p(x) <=  KL(q(x_{t_0} | x) || prior)
              + sum_i E KL(q(x_{t_{i+1}} | x_{t_i}, x) || p(x_{t_{i+1}} | x_{t_i}))
              - E log p(x | x_{t_{N-1}}),

and for infinitely many steps (2107.00630, eq. 14; 2303.00848, eq. 2) the middle is

  1/2 int E ||eps - eps_hat||^2 d lambda   between the log-SNR of t_max and of t_min.

All in nats and summed over elements, [B] (`metrics.bits.bits_per_dim` makes bits of them). Predictions
must fit x = alpha x0 + sigma eps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from genjax.core.keys import fold, per_sample, uniform
from genjax.core.laws import Normal
from genjax.core.numerics import bcast, sum_except_batch
from genjax.losses.denoising import error

VARIANCES = ("lower", "upper", "predicted")


class Bound(NamedTuple):
    """The parts of a bound on -log p(x), in nats."""

    prior: Any  # [B] KL of the last latent from the prior
    diffusion: Any  # [N - 1, B] terms of the chain from t_max down; [B] in continuous time
    decoder: Any  # [B] -log p(x | first latent)

    @property
    def total(self):
        """The bound, [B]."""
        diffusion = self.diffusion if self.diffusion.ndim == 1 else self.diffusion.sum(0)
        return self.prior + diffusion + self.decoder


def prior_kl(process, x0, t=None):
    """KL(q(x_t | x0) || N(0, sigma_t^2)) = SNR ||x0||^2 / 2 at t_max (or t), [B]."""
    snr = jnp.exp(process.log_snr(process.t_max if t is None else t))
    return 0.5 * snr * sum_except_batch(x0 * x0)


def discretized_log_prob(x, mean, std, levels, low=-1.0, high=1.0):
    """log-probability of x on an even grid of `levels` values in [low, high] under N(mean, std^2), elementwise.

    The bin of a value reaches half way to its neighbours; the outer bins are open, so that the
    probabilities of all levels sum to 1 (2006.11239, eq. 13).
    """
    half = (high - low) / (levels - 1) / 2
    centred = x - mean
    # mirrored so that the bin lies in the lower tail, where log_ndtr keeps its digits
    sign = jnp.where(centred > 0, -1.0, 1.0)
    first, last = x < low + half, x > high - half
    upper = (sign * centred + half) / std
    lower = (sign * centred - half) / std
    open_below = jnp.where(sign > 0, first, last)
    open_above = jnp.where(sign > 0, last, first)
    log_upper, log_lower = log_ndtr(upper), log_ndtr(lower)
    # log(e^u - e^l) = u + log(1 - e^(l - u)); one rounding unit guards bins of no width
    gap = jnp.minimum(log_lower - log_upper, -jnp.finfo(x.dtype).eps)
    inside = log_upper + jnp.log(-jnp.expm1(gap))
    return jnp.where(open_below, log_upper, jnp.where(open_above, log_ndtr(-lower), inside))


def transition_kl(process, pred, true, t, s, variance="lower", reduce=sum_except_batch):
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) for 0 < s < t, [B].

    With std_p = std_q e^r, r = v (log sigma_t - log sigma_s) the learned widening (2102.09672, eq. 15),
    and ||mean_q - mean_p||^2 / std_q^2 = (e^(lambda_s - lambda_t) - 1) ||eps - eps_hat||^2 (2107.00630, eq. 12),

      KL = sum  r + (e^-2r - 1) / 2 + e^-2r / 2 (e^(lambda_s - lambda_t) - 1) (eps - eps_hat)^2.

    Args:
      pred, true: the denoiser's Prediction at x_t, the true pair.
      t, s: scalars or [B].
      variance: "lower" (std_p = std_q), "upper", or "predicted": `pred.v`, lower where it is None.
    """
    t, s = (jnp.broadcast_to(u, true.x0.shape[:1]) for u in (t, s))
    lam = process.log_snr(t)
    square, log_scale = error(pred, true, lam, reduce=lambda r: r)
    log_gain = log_scale + jnp.log(jnp.expm1(process.log_snr(s) - lam))
    distance = bcast(jnp.exp(log_gain), square) * square
    v = _fraction(pred, variance)
    widen = bcast(process.log_sigma(t) - process.log_sigma(s), square) * v
    return reduce(widen + 0.5 * jnp.expm1(-2 * widen) + 0.5 * jnp.exp(-2 * widen) * distance)


def _fraction(pred, variance):
    """Share of the log-variance range: 0 lower, 1 upper."""
    if variance not in VARIANCES:
        raise ValueError(f"variance: expected one of {VARIANCES}, got {variance!r}")
    if variance == "predicted" and pred.v is not None:
        return pred.v
    return 1.0 if variance == "upper" else 0.0


def decoder_law(process, pred, t, t_next, variance="upper"):
    """The law p(x0 | x_t) of the last step, from t to 0: mean x0_hat, std sigma_t / alpha_t.

    That is the upper end of the step's variance, and the spread of x0 given x_t for data smooth at that
    scale; the lower end is 0 and useless. A learned variance, "predicted" with `pred.v`, is
    interpolated in logarithm with the lower end of the step before, from `t_next` > t to t, in place of 0
    (2102.09672, section 3.1).
    """
    high = process.log_sigma(t) - process.log_alpha(t)
    if variance != "predicted" or pred.v is None:
        return Normal(pred.x0, bcast(jnp.exp(high), pred.x0))
    low = jnp.log(process.posterior_std_range(t_next, t)[0]) - process.log_alpha(t)
    high, low = (bcast(u, pred.x0) for u in (high, low))
    return Normal(pred.x0, jnp.exp(low + pred.v * (high - low)))


def decoder_nll(law, x0, levels=0, low=-1.0, high=1.0, reduce=sum_except_batch):
    """-log p(x0 | x_t), [B]: of a density (levels 0) or of `levels` even values in [low, high]."""
    if levels:
        return -reduce(discretized_log_prob(x0, law.mean, law.std, levels, low, high))
    z = (x0 - law.mean) / law.std
    return reduce(0.5 * z * z + jnp.log(law.std) + 0.5 * jnp.log(2 * jnp.pi) + jnp.zeros_like(x0))


def chain_bound(key, denoiser, process, x0, grid, cond=None, *, variance="predicted", levels=0, low=-1.0, high=1.0):
    """The bound of the ancestral chain over `grid`, one noise draw for every term.

    Args:
      key: one key or keys [B].
      denoiser: Denoiser; its `Prediction.v` is the learned variance.
      process: Gaussian process.
      x0: [B, ...].
      grid: [N + 1] times, descending, the last 0 (`solvers.grids`, e.g. levels T ... 1 and 0 of a chain).
      variance: "lower" (beta-tilde), "upper" (beta) or "predicted".
      levels: number of values of discrete data, evenly in [low, high] (256 for 8 bit images, 17 for
        digits); 0 for continuous data, whose bound is on a density.

    Returns:
      Bound, with a term for each step but the last, which is the decoder.

    Raises:
      ValueError: a grid of less than 2 steps, unknown variance.
    """
    grid = jnp.asarray(grid)
    if grid.ndim != 1 or grid.shape[0] < 3:
        raise ValueError(f"grid: expected a vector of at least 3 times, got shape {grid.shape}")
    if variance not in VARIANCES:
        raise ValueError(f"variance: expected one of {VARIANCES}, got {variance!r}")
    keys = per_sample(key, x0.shape[0])

    def predict(i, t):
        step_keys = fold(keys, i)
        x_t, true = process.corrupt(fold(step_keys, 1), x0, t)
        return denoiser(x_t, t, cond, fold(step_keys, 0)), true

    def body(_, inputs):
        i, t, s = inputs
        pred, true = predict(i, t)
        return None, transition_kl(process, pred, true, t, s, variance)

    n = grid.shape[0] - 1
    _, terms = jax.lax.scan(body, None, (jnp.arange(n - 1), grid[: n - 1], grid[1:n]))
    t = grid[n - 1]
    law = decoder_law(process, predict(n - 1, t)[0], t, grid[n - 2], variance)
    return Bound(prior_kl(process, x0, grid[0]), terms, decoder_nll(law, x0, levels, low, high))


def continuous_bound(key, denoiser, process, x0, times, cond=None, *, draws=64, levels=0, low=-1.0, high=1.0):
    """The bound of infinitely many steps, an unbiased estimate by `draws` stratified times a sample.

    Args:
      times: TimeSampler; changes the variance of the estimate alone. Its state is `times.init()`.
      draws: noise levels a sample.
      levels, low, high: as in `chain_bound`. The decoder's standard deviation is sigma / alpha at t_min.

    Returns:
      Bound with diffusion [B].
    """
    keys, state = per_sample(key, x0.shape[0]), times.init()

    def body(total, i):
        draw_keys = fold(keys, i)
        u = (i + uniform(fold(draw_keys, 1), x0.shape[:1])) / draws
        t = times.sample(state, u)
        x_t, true = process.corrupt(fold(draw_keys, 2), x0, t)
        pred = denoiser(x_t, t, cond, fold(draw_keys, 0))
        square, log_scale = error(pred, true, process.log_snr(t), sum_except_batch)
        return total + 0.5 * jnp.exp(log_scale - times.log_density(state, t)) * square / draws, None

    diffusion, _ = jax.lax.scan(body, jnp.zeros(x0.shape[0], x0.dtype), jnp.arange(draws))
    t = jnp.asarray(process.t_min)
    x_t, _ = process.corrupt(fold(fold(keys, draws), 2), x0, t)
    pred = denoiser(x_t, t, cond, fold(fold(keys, draws), 0))
    std = jnp.exp(-process.log_snr(t) / 2)
    decoder = decoder_nll(Normal(pred.x0, std), x0, levels, low, high)
    return Bound(prior_kl(process, x0), diffusion, decoder)
