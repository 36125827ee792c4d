"""Decoupled annealing (DAPS, 2407.01521): at each level a draw of x0 from its posterior, then fresh noise.

  x0^ = x0(x_t), by the denoiser or by a few steps of the probability-flow ODE
  x0 ~ N(x0; x0^, r_t^2 I) p(y | x0)           the assumed law of x0 given x_t, times the likelihood     (1)
  x_s = alpha_s x0 + sigma_s n

Nothing is carried from level to level but x0, so the marginals of x_t given y follow however large the steps are;
the error is that of (1) alone. It is exact for data N(m, s^2 I), one ODE step and
r_t^2 = sigma^2 s^2 / (alpha^2 s^2 + sigma^2); the published r_t = sigma / alpha is the limit of wide data.
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold, normal_like, per_sample
from genjax.core.numerics import bcast
from genjax.inverse import sampler
from genjax.inverse.gradient import assumed_variance
from genjax.inverse.linear import curvature, proximal
from genjax.solvers.ancestral import ddim

INNER = ("langevin", "prox")


def conditional_langevin(keys, measurement, center, r2, steps=50, step_size=0.2):
    """Draws of (1) by unadjusted Langevin moves from its center; any differentiable operator, noise with a density.

    The step is tau = step_size / (1 / r2 + L), L the largest curvature of the log-likelihood at the center, so the
    bias is of the order of step_size in the stiffest direction.

    Args:
      center: [B, ...] x0^.
      r2: scalar or [B], variance around it.
    """
    operator, noise, _ = measurement
    mean = operator.forward(center)
    variance = jnp.mean(jnp.broadcast_to(noise.variance(mean), mean.shape), axis=tuple(range(1, mean.ndim)))
    tau = bcast(step_size / (1 / r2 + curvature(operator.forward, center) / variance), center)
    score = jax.grad(lambda x: jnp.sum(measurement.log_prob(x)))

    def body(x, i):
        pull = score(x) - (x - center) / bcast(r2, x)
        return (x + tau * pull + jnp.sqrt(2 * tau) * normal_like(fold(keys, i), x)).astype(x.dtype), None

    return jax.lax.scan(body, center, jnp.arange(steps))[0]


def conditional_perturbed(keys, measurement, center, r2, floor=1e-3, cg_steps=20):
    """Draws of (1) by perturbing the center and the measurement and solving: exact for linear operators.

    argmin_x |y + std n1 - A x|^2 / std^2 + |x - x0^ - r n2|^2 / r^2 has the law of the Gaussian (1). For a
    nonlinear operator it is that of its linearization.
    """
    operator, noise, y = measurement
    std = jnp.asarray(noise.std)
    guess = center + jnp.sqrt(bcast(r2, center)) * normal_like(fold(keys, 0), center)
    moved = y + std * normal_like(fold(keys, 1), y)
    rho = jnp.maximum(std, floor) ** 2 / r2
    return proximal(operator, guess.astype(center.dtype), moved.astype(y.dtype), rho, cg_steps)


def ode_estimate(denoiser, process, x, t, steps, key=None):
    """x0 at the end of `steps` deterministic moves from (x, t), equal in log-SNR; one move is the denoiser's x0."""
    if steps == 1:
        return denoiser(x, t, key=fold(key, 0)).x0
    solver = ddim(0.0)
    low, high = jnp.maximum(process.log_snr(t), -16.0), process.log_snr(process.t_min)
    ts = process.time(low + (high - low) * jnp.linspace(0, 1, steps + 1)[1:-1])
    ts = jnp.concatenate([jnp.asarray(t, ts.dtype)[None], ts, jnp.zeros(1, ts.dtype)])
    step = lambda i, state, t, s: solver.step(fold(key, i), denoiser, process, state, t, s)[0]
    return sampler.scan_steps(step, solver.init(x, t), ts).x


def daps(inner="langevin", inner_steps=50, step_size=0.2, ode_steps=5, data_std=None, steps=50, grid="cosine"):
    """Decoupled annealing posterior sampling (2407.01521, algorithm 1). Any differentiable operator.

    Args:
      inner: "langevin", as published, for noise with a density; "prox", exact for linear operators and Gaussian
        noise, in one solve.
      inner_steps: of Langevin, or of the conjugate gradients of "prox".
      step_size: of Langevin, in (0, 1].
      ode_steps: denoiser evaluations that estimate x0 from x_t.
      data_std: s in r_t^2; None: the published r_t = sigma / alpha, at most 1e3.
    """
    sampler.one_of(inner, INNER, "inner")
    sampler.at_least(steps, 2, "steps")
    sampler.at_least(ode_steps, 1, "ode_steps")

    def run(key, denoiser, process, measurement, like):
        keys = per_sample(key, like.shape[0])
        ts = sampler.times(process, steps, grid)

        def step(i, x, t, s):
            here = fold(fold(keys, 1), i)
            center = ode_estimate(denoiser, process, x, t, ode_steps, fold(here, 0))
            published = jnp.minimum(sampler.ratio(process, t), 1e3) ** 2
            r2 = published if data_std is None else assumed_variance(process, t, data_std)
            if inner == "langevin":
                x0 = conditional_langevin(fold(here, 1), measurement, center, r2, inner_steps, step_size)
            else:
                x0 = conditional_perturbed(fold(here, 1), measurement, center, r2, cg_steps=inner_steps)
            return process.perturb(x0, normal_like(fold(here, 2), x), s).astype(x.dtype)

        x = sampler.start(fold(keys, 0), process, like, ts[0])
        return sampler.scan_steps(step, x, ts), {}

    needs = ("density",) if inner == "langevin" else ("known_std",)
    return sampler.PosteriorSampler("daps", run, needs, steps * ode_steps)
