"""Training aligned with guidance (2311.00938): the combination that is sampled is what predicts the noise.

  L = E |eps - g|^2 / scale^2 + lambda E |eps - eps_null|^2,    g = eps_null + scale (eps_cond - eps_null).

With e_c = E[eps | x_t, c] and e_0 = E[eps | x_t], a fixed scale has its optimum where g = e_c: sampled with that
scale the model draws from p(x | c), and with scale' from a factor scale' / scale of guidance. With a random scale the
factor is scale' E[1 / scale], and scale' E[scale] / E[scale^2] for the loss without the division. The paper's exact
loss is not public; this is the form that its abstract describes, with gradients through both branches.
"""

import jax
import jax.numpy as jnp

from genjax.core.conditions import null_cond
from genjax.core.keys import fold, per_sample, uniform
from genjax.core.numerics import bcast, mean_except_batch
from genjax.losses.denoising import draw_times
from genjax.losses.weightings import eps as eps_weight


def combination_error(strong, weak, true, scale):
    """|eps - g|^2 and |eps - eps_null|^2, means over elements, [B] each.

    Args:
      strong, weak, true: eps, [B, ...].
      scale: scalar or [B], w + 1 of the papers whose w is 0 without guidance.
    """
    guided = weak + bcast(scale, true) * (strong - weak)
    return mean_except_batch((true - guided) ** 2), mean_except_batch((true - weak) ** 2)


def guided_denoising(process, times, scale=(1.0, 5.0), null_weight=1.0, normalize=True, weighting=None):
    """The guidance-aware denoising loss, on eps: a combination of x0 or of v is the same times a number of the level.

    Both branches are evaluated in one call of 2 B; a sample whose condition is null counts as unconditional there.

    Args:
      process: Gaussian process.
      times: TimeSampler.
      scale: guidance scale in the loss, > 0: a number, or a pair of bounds of a uniform draw a sample.
      null_weight: lambda; with 0 the null branch is not determined.
      normalize: divide the first term by scale^2, by which the variance of its gradient grows.
      weighting: log-SNR -> log of the factor on the eps errors; None for 1.

    Returns:
      Loss (key, models, batch) -> ([B], aux); batch["cond"] is the condition.

    Raises:
      ValueError: a scale that is not positive, or bounds that are not.
    """
    low, high = scale if isinstance(scale, list | tuple) else (scale, scale)
    if not 0 < low <= high:
        raise ValueError(f"scale: expected 0 < low <= high, got {scale!r}")
    weighting = weighting or eps_weight()

    def loss(key, models, batch):
        x0, cond = batch["x"], batch.get("cond")
        if cond is None:
            raise ValueError("cond: guided_denoising expected a condition, got None")
        keys = per_sample(key, x0.shape[0])
        t, log_p = draw_times(models, times, fold(keys, 1))
        x_t, true = process.corrupt(fold(keys, 2), x0, t)
        w = low + (high - low) * uniform(fold(keys, 3), x0.shape[:1])
        double = lambda a, b: jnp.concatenate([a, b])
        both = jax.tree.map(double, cond, null_cond(cond))
        inner = fold(keys, 0)
        pred = models["denoiser"](double(x_t, x_t), double(t, t), both, double(inner, inner))
        strong, weak = jnp.split(pred.eps, 2)
        guided, unguided = combination_error(strong, weak, true.eps, w)
        lam = process.log_snr(t)
        value = (guided / w**2 if normalize else guided) + null_weight * unguided
        factor = jnp.exp(weighting(lam))
        aux = {
            "t": t,
            "log_snr": lam,
            "eps_mse": unguided,
            "guided_mse": guided,
            "importance": jnp.ones_like(t),
            "integrand": jnp.exp(log_p) * factor * value,
        }
        return factor * value, aux

    return loss
