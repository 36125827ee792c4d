"""Diffusion with forward models (DFM, 2306.11719): signals that are never seen, learned from their observations.

Data are pairs of partial observations of one signal, O = forward(S, phi) with known phi. The network estimates the
signal from a context observation and a noisy target; the forward model renders it, and only renderings are
compared with data:

  S = net(O_target^t, t; context)
  E w_t (|forward(S, phi_target) - O_target|^2 + novel |forward(S, phi_novel) - O_novel|^2).

A novel observation is given to no input. Without it, or with one phi for all data, S is free where phi does not look.
"""

import jax.numpy as jnp

from genjax.core.keys import fold, per_sample
from genjax.core.numerics import mean_except_batch
from genjax.core.prediction import with_x0
from genjax.core.types import Prediction
from genjax.losses.denoising import draw_times, measure_log_density


def forward_denoiser(signal, forward, process):
    """The Denoiser of observations whose x0 is a rendering of the estimated signal.

    Args:
      signal: (x_t, t, cond, key) -> S [B, ...]; cond holds what the network is given, "phi" of the target too.
      forward: (S, phi) -> observation [B, ...], differentiable.
      process: Gaussian process of the observations.

    Returns:
      Denoiser (x, t, cond, key) -> Prediction; `features["signal"]` is S, which is the sample at the last step.
    """

    def denoiser(x, t, cond=None, key=None):
        if cond is None or "phi" not in cond:
            raise ValueError(f"cond: expected 'phi' of the target observation, got {sorted(cond or {})}")
        s = signal(x, t, cond, key)
        pred = with_x0(Prediction(), forward(s, cond["phi"]).astype(x.dtype), x, process, t)
        return pred._replace(features={"signal": s})

    return denoiser


def forward_model(process, times, weighting, forward, *, novel=1.0, context=0.0, measure="sampler"):
    """The loss of DFM: a Loss of `models["signal"]`, (x_t, t, cond, key) -> S.

    The batch holds "x" [B, ...] the target observation; "cond", with "phi" of the target and what the network is
    given of the context; and, where their weights are not 0, "novel" and "novel_phi", "context" and "context_phi":
    further observations of the same signal. All terms have the target's weight in x0, exp(log w + log-SNR).

    Args:
      process, times, weighting, measure: as for `denoising`; w is the factor on the eps error.
      forward: (S, phi) -> observation.
      novel, context: weights of the other observations' errors, >= 0. Much context makes the noisy target useless.

    Returns:
      Loss (key, models, batch) -> ([B], aux); aux holds t, log_snr, target_mse, and novel_mse and context_mse where
      they are used, all [B].
    """
    weights = {"novel": novel, "context": context}
    for name, weight in weights.items():
        if isinstance(weight, (int, float)) and weight < 0:
            raise ValueError(f"{name}: expected a weight >= 0, got {weight}")
    log_measure = measure_log_density(measure, process, times)
    used = [name for name, weight in weights.items() if not (isinstance(weight, (int, float)) and weight == 0)]

    def loss(key, models, batch):
        missing = [name for name in ("cond", *used, *(f"{name}_phi" for name in used)) if name not in batch]
        if missing:
            raise ValueError(f"batch: expected {missing} too, got {sorted(batch)}")
        x0 = batch["x"]
        keys = per_sample(key, x0.shape[0])
        t, log_p = draw_times(models, times, fold(keys, 1))
        x_t, _ = process.corrupt(fold(keys, 2), x0, t)
        s = models["signal"](x_t, t, batch["cond"], fold(keys, 0))
        square = lambda phi, seen: mean_except_batch((forward(s, phi) - seen) ** 2)
        errors = {"target": square(batch["cond"]["phi"], x0)}
        errors.update({name: square(batch[f"{name}_phi"], batch[name]) for name in used})
        lam = process.log_snr(t)
        log_m = log_p if log_measure is None else log_measure(t)
        total = errors["target"] + sum(weights[name] * errors[name] for name in used)
        aux = {"t": t, "log_snr": lam, **{f"{name}_mse": value for name, value in errors.items()}}
        return jnp.exp(weighting(lam) + lam + log_m - log_p) * total, aux

    return loss
