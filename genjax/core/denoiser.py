"""From a network to a Denoiser: the only place that owns c_in, c_out, c_skip and c_noise."""

import jax.numpy as jnp

from genjax.core.numerics import batch_time, bcast, safe_div
from genjax.core.prediction import predict
from genjax.core.types import Prediction

NOISE_INPUTS = {
    # name: (process, t) -> the number that the network is given
    "edm": lambda p, t: -p.log_snr(t) / 8,  # ln(sigma / alpha) / 4
    "log_snr": lambda p, t: p.log_snr(t),
    "t": lambda p, t: t,
    "t1000": lambda p, t: 1000 * t,  # the scale that sinusoidal embeddings of DDPM expect
    "none": lambda p, t: jnp.zeros_like(t),  # blind to the noise level (2502.13129)
}


def make_denoiser(
    fn, process, target="eps", *, sigma_data=1.0, scale_input=True, noise_input="edm", learned_variance=False
):
    """The Denoiser of a network that predicts `target`.

    Args:
      fn: (x, c_noise [B], cond, key) -> output, or (output, features). Parameters closed over. The
        output has x's shape; twice its last axis where `learned_variance`.
      process: a Gaussian process.
      target: a name in `TARGETS`: "x0", "eps", "v", "score", "velocity", "edm".
      sigma_data: standard deviation of the data, for "edm" and for `scale_input`.
      scale_input: multiply x by c_in = 1 / sqrt(alpha^2 sigma_data^2 + sigma^2), so that the
        network sees unit variance (EDM, eq. 7).
      noise_input: a name in `NOISE_INPUTS`.
      learned_variance: the second half of the output's last axis is iDDPM's v in [-1, 1]
        (2102.09672, eq. 15), handed on as `Prediction.v` in [0, 1].

    Returns:
      Denoiser (x [B, ...], t scalar or [B], cond, key) -> Prediction.

    Raises:
      ValueError: unknown target or noise_input, or an output of the wrong shape.
    """
    if noise_input not in NOISE_INPUTS:
        raise ValueError(f"noise_input: expected one of {sorted(NOISE_INPUTS)}, got {noise_input!r}")

    def denoiser(x, t, cond=None, key=None):
        alpha, sigma = bcast(process.alpha(t), x), bcast(process.sigma(t), x)
        c_in = 1 / jnp.sqrt(alpha**2 * sigma_data**2 + sigma**2) if scale_input else 1.0
        t_batch = batch_time(t, x)
        out = fn(c_in * x, NOISE_INPUTS[noise_input](process, t_batch), cond, key)
        out, features = out if isinstance(out, tuple) else (out, None)
        v = None
        if learned_variance:
            if out.shape[-1] != 2 * x.shape[-1]:
                raise ValueError(f"learned_variance: expected {2 * x.shape[-1]} output channels, got {out.shape[-1]}")
            out, v = jnp.split(out, 2, axis=-1)
            v = (v + 1) / 2
        if out.shape != x.shape:
            raise ValueError(f"network output: expected shape {x.shape}, got {out.shape}")
        pred = predict(target, out.astype(x.dtype), x, process, t, sigma_data)
        return pred._replace(v=v, features=features)

    return denoiser


def bind_cond(denoiser, cond):
    """The denoiser with its condition fixed; a condition given at the call wins."""
    return lambda x, t, override=None, key=None: denoiser(x, t, cond if override is None else override, key)


def velocity_field(denoiser, process):
    """The Field of the probability-flow ODE, dx/dt."""
    return lambda x, t, cond=None: process.velocity(x, denoiser(x, t, cond), t)


def score_field(denoiser, process):
    """The Field of the score, grad log p_t(x)."""
    return lambda x, t, cond=None: process.score(x, denoiser(x, t, cond), t)


def denoiser_from_score(score, process):
    """The Denoiser of a score field (Tweedie): x0 = (x + sigma^2 score) / alpha."""

    def denoiser(x, t, cond=None, key=None):
        alpha, sigma = bcast(process.alpha(t), x), bcast(process.sigma(t), x)
        s = score(x, t, cond)
        return Prediction(x0=safe_div(x + sigma**2 * s, alpha), eps=-sigma * s)

    return denoiser
