"""Solvers of the reverse SDE.

  dx = [f x - g^2 score] dt + g dW  (2011.13456, eq. 6),   score = -eps / sigma,

run from t down to s. With g replaced by any other w(t) >= 0 the marginals stay if the drift is
v - w^2 / 2 score with v the probability-flow velocity; `euler_maruyama` takes that form. The step
to s = 0 has no noise.
"""

import jax.numpy as jnp

from genjax.core.keys import fold, normal_like
from genjax.core.laws import Normal
from genjax.core.numerics import bcast
from genjax.solvers.base import from_proposal, from_step, info_of
from genjax.solvers.levels import choose, level, level_at, move, positive_or


def process_variance(process, t):
    """g(t)^2, or alpha g(t)^2 for the flow scale, whose g is infinite at pure noise."""
    variance = -(process.sigma(t) ** 2) * process.log_snr_rate(t)
    return variance * process.alpha(t) if process.scale == "flow" else variance


def euler_maruyama(noise=1.0, variance=process_variance):
    """Euler-Maruyama in time, of strength `noise`^2 times `variance`; order 1 in the law, any marginals exact.

    Args:
      noise: multiplies the noise; 0 is Euler's method in t.
      variance: (process, t) -> w^2.
    """

    def propose(denoiser, process, state, t, s, keys=None):
        pred = denoiser(state.x, t, key=keys)
        w2 = noise**2 * variance(process, t)
        dt = s - t
        d_alpha, d_sigma = process.velocity_coefficients(t)
        eps_rate = d_sigma + w2 / (2 * process.sigma(t))
        x = state.x + bcast(dt * d_alpha, pred.x0) * pred.x0 + bcast(dt * eps_rate, pred.eps) * pred.eps
        mean = jnp.where(bcast(s > 0, x), x, move(pred, level(process, s)))
        std = jnp.where(s > 0, jnp.sqrt(w2 * jnp.abs(dt)), 0.0)
        return Normal(mean, bcast(std, x)), state.memory, info_of(pred)

    return from_proposal(propose)


def reverse_diffusion():
    """The reverse SDE discretized as the forward chain is (2011.13456, appendix E).

    With q(x_t | x_s) = N(a x_s, b^2): x_s = (2 - a) x - b^2 / sigma_t eps + b z.
    """

    def propose(denoiser, process, state, t, s, keys=None):
        pred = denoiser(state.x, t, key=keys)
        at, to = level(process, t), level(process, s)
        a = at.alpha / to.alpha
        b2 = at.sigma**2 * -jnp.expm1(jnp.minimum(2 * (at.half - to.half), 0.0))
        x = bcast(2 - a, state.x) * state.x - bcast(b2 / at.sigma, state.x) * pred.eps
        mean = jnp.where(bcast(s > 0, x), x, move(pred, to))
        std = jnp.where(s > 0, jnp.sqrt(b2), 0.0)
        return Normal(mean, bcast(std, x)), state.memory, info_of(pred)

    return from_proposal(propose)


def dpmpp_sde(eta=1.0, r=0.5):
    """DPM-Solver++ for the SDE with two evaluations a step ("DPM++ SDE").

    The state at the inner level r h shares its noise with the end: the noise in x_s is that of the inner
    state, decayed, plus fresh noise, as one path of the linear SDE has it.
    """

    def step(keys, denoiser, process, state, t, s):
        inner_keys = fold(keys, 0)
        pred = denoiser(state.x, t, key=inner_keys)
        at, s_safe = level(process, t), positive_or(s, t)

        def two_stages():
            to = level(process, s_safe)
            h = to.half - at.half
            noisy = eta * jnp.maximum(h, 0.0)
            t_mid, mid = level_at(process, at.half + r * h)
            z_1 = bcast(jnp.sqrt(-jnp.expm1(-2 * r * noisy)), state.x) * normal_like(fold(keys, 1), state.x)
            z_2 = bcast(jnp.sqrt(-jnp.expm1(-2 * (1 - r) * noisy)), state.x) * normal_like(fold(keys, 2), state.x)
            x_mid = move(pred, mid, jnp.exp(-r * noisy)) + bcast(mid.sigma, state.x) * z_1
            x0_mid = denoiser(x_mid.astype(state.x.dtype), t_mid, key=inner_keys).x0
            weight = to.alpha * -jnp.expm1(-(h + noisy)) / (2 * r)
            z = bcast(jnp.exp(-(1 - r) * noisy), state.x) * z_1 + z_2
            x = move(pred, to, jnp.exp(-noisy)) + bcast(weight, state.x) * (x0_mid - pred.x0)
            return x + bcast(to.sigma, x) * z

        x = choose(s > 0, two_stages, lambda: move(pred, level(process, s)))
        return x, state.memory, info_of(pred)

    return from_step(step, evals=2)
