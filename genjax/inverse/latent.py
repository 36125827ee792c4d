"""Restoration with a prior in the latent space of an autoencoder: latent DPS, ReSample and P2L.

The measurement is of x = D(z); the denoiser is of z. `like` is an image, and so is what comes back.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from genjax.core.denoiser import bind_cond
from genjax.core.keys import fold, per_sample
from genjax.core.laws import Normal
from genjax.core.numerics import bcast, mean_except_batch, sum_except_batch
from genjax.core.types import Measurement
from genjax.inverse import gradient, sampler
from genjax.inverse.linear import proximal


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The operator A(D(z)) of latents; never linear, and without adjoint.

    Attributes:
      operator: A.
      decode: z [B, ...] -> x [B, ...].
      in_shape: of one latent.
    """

    operator: object
    decode: Callable
    in_shape: tuple

    @property
    def out_shape(self):
        return self.operator.out_shape

    def forward(self, z, phi=None):
        return self.operator.forward(self.decode(z), phi)


def check_autoencoder(name, encode, decode):
    """Raises ValueError unless both are given."""
    if not (callable(encode) and callable(decode)):
        raise ValueError(f"encode, decode: {name} expected the two halves of an autoencoder, got {encode}, {decode}")


def in_latent(measurement, encode, decode, like):
    """(the measurement as one of latents, an array of zeros of the latents' shape)."""
    z = jax.eval_shape(encode, like)
    decoded = Decoded(measurement.operator, decode, tuple(z.shape[1:]))
    return Measurement(decoded, measurement.noise, measurement.y), jnp.zeros(z.shape, z.dtype)


def latent_dps(encode=None, decode=None, scale=0.5, steps=200, eta=1.0, grid="cosine"):
    """DPS in the latent space: its gradient goes through the decoder too (the baseline of 2307.08123)."""
    check_autoencoder("latent_dps", encode, decode)
    inner = gradient.dps(scale, steps=steps, eta=eta, grid=grid)

    def run(key, denoiser, process, measurement, like):
        z, _ = inner.run(key, denoiser, process, *in_latent(measurement, encode, decode, like))
        return decode(z), {"z": z}

    return sampler.PosteriorSampler("latent_dps", run, (), steps, steps)


def descend(loss, x, steps, rate, tol=0.0):
    """x after `steps` of Adam on loss(x) [B]; a sample stays where it is once its loss is below tol (scalar or [B])."""
    optimizer = optax.adam(rate)

    def body(carry, _):
        x, memory = carry
        value, pullback = jax.vjp(loss, x)
        updates, memory = optimizer.update(pullback(jnp.ones_like(value))[0], memory)
        return (jnp.where(bcast(value > tol, x), x + updates, x), memory), None

    return jax.lax.scan(body, (x, optimizer.init(x)), None, steps)[0][0]


def stochastic_resample(process, z0, z, s, variance):
    """The law of z_s that a clean latent and a noisy sample agree on (2307.08123, eq. 12), as a Normal.

    The product of N(alpha_s z0, sigma_s^2 I) and N(z, variance I).

    Args:
      z0: consistent clean latent; z: the sample at level s.
      variance: large, and z0 is noised afresh; small, and z stays.
    """
    alpha, noise = process.alpha(s), process.sigma(s) ** 2
    mean = (bcast(variance * alpha, z) * z0 + bcast(noise, z) * z) / bcast(variance + noise, z)
    return Normal(mean.astype(z.dtype), jnp.sqrt(variance * noise / (variance + noise)))


def resampling_variance(process, t, s, gamma=40.0):
    """gamma (1 - a_s) / (1 - a_t) (1 - a_t / a_s), a = alpha^2 in vp coordinates, in the units of the process."""
    a_t, a_s = (jax.nn.sigmoid(process.log_snr(u)) for u in (t, s))
    drop = -jnp.expm1(jnp.log(a_t) - jnp.log(a_s))
    return (
        gamma
        * jax.nn.sigmoid(-process.log_snr(s))
        / jax.nn.sigmoid(-process.log_snr(t))
        * drop
        / (sampler.vp_scale(process, s) ** 2)
    )


def resample(
    encode=None, decode=None, scale=0.5, gamma=40.0, every=10, lookahead=5, inner_steps=50, rates=(1e-2, 5e-3),
    tol=None, steps=100, grid="cosine",
):  # fmt: skip
    """ReSample (2307.08123, algorithm 1): hard data consistency every few steps, and stochastic resampling.

    Every step is DDIM with the latent DPS gradient, scale a_t times that of |y - A(D(z0))|. At every `every`-th step
    of the last two thirds the clean latent is fitted to the measurement, in pixels (then encoded) in the middle
    third, in latents in the last, and mixed with the sample by `stochastic_resample`. A last fit ends the run.

    Args:
      encode, decode: of the autoencoder, x <-> z.
      gamma: of `resampling_variance`.
      lookahead: DDIM steps ahead that sharpen the estimate before a fit.
      inner_steps: of Adam in each fit.
      rates: of Adam, in pixels and in latents.
      tol: mean square of the residual at which a fit stops; None: the noise's variance, at least the published 1e-6.
    """
    check_autoencoder("resample", encode, decode)
    for value, field in ((every, "every"), (lookahead, "lookahead"), (inner_steps, "inner_steps")):
        sampler.at_least(value, 1, field)
    sampler.at_least(steps, 2, "steps")
    left = range(steps - 1, -1, -1)  # steps that remain after each
    hard = [i <= 2 * steps / 3 and i > 0 and i % every == 0 for i in left]

    def run(key, denoiser, process, measurement, like):
        keys, ts = per_sample(key, like.shape[0]), sampler.times(process, steps, grid)
        latent, zeros = in_latent(measurement, encode, decode, like)
        operator, noise, y = measurement
        loss, inner = gradient.misfit(latent), fold(keys, 1)
        floor = mean_except_batch(jnp.broadcast_to(noise.variance(y), y.shape))
        stop = jnp.maximum(floor, 1e-6) if tol is None else tol
        in_pixels = lambda x: mean_except_batch((y - operator.forward(x)) ** 2)
        in_latents = lambda z: in_pixels(decode(z))

        def ahead(i, z, here):
            """x0 after `lookahead` plain moves from z at ts[i + 1]."""

            def body(carry, j):
                z, _ = carry
                t, s = (ts[jnp.minimum(i + 1 + j + k, steps - 1)] for k in (0, 1))
                pred = denoiser(z, t, key=fold(here, j))
                return (process.posterior(z, pred, t, s, 0.0).mean.astype(z.dtype), pred.x0), None

            return jax.lax.scan(body, (z, z), jnp.arange(lookahead))[0][1]

        def consistent(i, z, t, s, here):
            z0 = ahead(i, z, fold(here, 0))
            pixels = lambda z0: encode(descend(in_pixels, decode(z0), inner_steps, rates[0], stop))
            latents = lambda z0: descend(in_latents, z0, inner_steps, rates[1], stop)
            z0 = jax.lax.cond(steps - 1 - i >= steps / 3, pixels, latents, z0)
            law = stochastic_resample(process, z0, z, s, resampling_variance(process, t, s, gamma))
            return law.sample(fold(here, 1)).astype(z.dtype)

        def step(i, z, t, s):
            here = fold(inner, i)
            pred, pullback = gradient.tweedie(denoiser, z, t, key=fold(here, 0))
            slope = pullback(jax.grad(lambda z0: jnp.sum(loss(z0)))(pred.x0))
            factor = scale * jax.nn.sigmoid(process.log_snr(t))
            factor = factor / (sampler.vp_scale(process, t) * sampler.vp_scale(process, s))
            new = (process.posterior(z, pred, t, s, 0.0).mean - bcast(factor, z) * slope).astype(z.dtype)
            fit = lambda z: consistent(i, z, t, s, fold(here, 1))
            return jax.lax.cond(jnp.asarray(hard)[i], fit, lambda z: z, new)

        z = sampler.scan_steps(step, sampler.start(fold(keys, 0), process, zeros, ts[0]), ts)
        z = descend(in_latents, z, inner_steps, rates[1], stop)
        return decode(z), {"z": z}

    return sampler.PosteriorSampler("resample", run, (), steps + lookahead * sum(hard), steps)


def p2l(
    encode=None, decode=None, embedding=None, cond_name="embedding", scale=1.0, tune_steps=3, rate=0.1, every=4,
    weight=1.0, cg_steps=10, steps=100, eta=0.5, grid="cosine",
):  # fmt: skip
    """P2L (2310.01110, algorithm 1): the embedding that conditions the denoiser is tuned to the measurement.

    Each step: `tune_steps` of Adam on |y - A(D(z0(z_t, C)))|^2 over C; where due z0 <- E(argmin_x |y - A(x)|^2 + weight
    |x - D(z0)|^2); a DDIM move; and latent DPS's gradient at the tuned C. C and Adam's moments are carried on.
    `detail` gives the tuned "embedding".

    Args:
      encode, decode: of the autoencoder, x <-> z.
      embedding: the null condition, an array of one sample's shape; handed to the denoiser as cond[cond_name].
      scale: of the gradient of the norm.
      tune_steps: K; 0 leaves the null condition. rate: of Adam.
      every: steps between projections to the encoder's range; None: no projection.
    """
    check_autoencoder("p2l", encode, decode)
    if embedding is None:
        raise ValueError("embedding: p2l expected the null condition as an array, got None")
    sampler.at_least(steps, 2, "steps")
    optimizer = optax.adam(rate)

    def run(key, denoiser, process, measurement, like):
        keys, ts = per_sample(key, like.shape[0]), sampler.times(process, steps, grid)
        latent, zeros = in_latent(measurement, encode, decode, like)
        operator, _, y = measurement
        loss, inner = gradient.misfit(latent), fold(keys, 1)
        null = jnp.broadcast_to(jnp.asarray(embedding), (like.shape[0], *jnp.shape(embedding)))

        def tune(z, t, here, c, memory):
            def square(c):
                z0 = denoiser(z, t, {cond_name: c}, fold(here, 0)).x0
                return jnp.sum(sum_except_batch((y - latent.operator.forward(z0)) ** 2))

            def body(carry, _):
                c, memory = carry
                updates, memory = optimizer.update(jax.grad(square)(c), memory)
                return (c + updates, memory), None

            return jax.lax.scan(body, (c, memory), None, tune_steps)[0]

        def project(z0):
            return encode(proximal(operator, decode(z0), y, weight, cg_steps)).astype(z0.dtype)

        def step(i, carry, t, s):
            z, c, memory = carry
            here = fold(inner, i)
            c, memory = tune(z, t, here, c, memory)
            pred, pullback = gradient.tweedie(bind_cond(denoiser, {cond_name: c}), z, t, key=fold(here, 0))
            slope = pullback(jax.grad(lambda z0: jnp.sum(loss(z0)))(pred.x0))
            z0 = pred.x0 if every is None else jax.lax.cond(i % every == 0, project, lambda z0: z0, pred.x0)
            law = process.posterior(z, pred._replace(x0=z0), t, s, eta)
            factor = scale / (sampler.vp_scale(process, t) * sampler.vp_scale(process, s))
            return (law.sample(fold(here, 1)) - bcast(factor, z) * slope).astype(z.dtype), c, memory

        z = sampler.start(fold(keys, 0), process, zeros, ts[0])
        z, c, _ = sampler.scan_steps(step, (z, null, optimizer.init(null)), ts)
        return decode(z), {"z": z, "embedding": c}

    return sampler.PosteriorSampler("p2l", run, (), steps * (1 + tune_steps), steps * (1 + tune_steps))
