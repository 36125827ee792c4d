"""Restoration by gradients of the measurement through the denoiser.

With x0(x_t) the denoiser's estimate and J = d x0 / d x_t,

  DPS (2209.14687)    p(y | x_t) ~ p(y | x0(x_t));            x_s <- x_s - zeta / |r| grad |r|^2,  r = y - A(x0(x_t))
  MCG (2206.00941)    the same gradient, then the measured part is replaced (`projection.replace_range`)
  PiGDM (Song et al., ICLR 2023)
                      p(y | x_t) ~ N(A x0, A P A^T + std^2 I), P = r_t^2 I the assumed covariance of x0 given x_t

As Guidance the score gains grad log p(y | x_t) = J^T A^T (A P A^T + std^2 I)^-1 (y - A x0); the Prediction becomes

  x0 + (sigma^2 / alpha) grad,    eps - sigma grad      (`guidance.gradient.tilted`).               (1)

With P the true covariance and Gaussian data the guided denoiser is the posterior's own. Tweedie's second
moment P = (sigma^2 / alpha) J (2310.06721) is that covariance; r_t^2 = sigma^2 s^2 / (alpha^2 s^2 + sigma^2) is
it for data N(m, s^2 I).
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold
from genjax.core.numerics import bcast, mean_except_batch, safe_div, safe_norm
from genjax.guidance.gradient import tilted, tweedie
from genjax.inverse import sampler
from genjax.inverse.linear import conjugate_gradients
from genjax.inverse.projection import replace_range
from genjax.solvers.ancestral import ddim
from genjax.solvers.base import from_step

COVARIANCES = ("isotropic", "tweedie")


def remembered(denoiser, x, pred):
    """The denoiser that answers `pred` when asked at the array `x` itself: a step need not call it twice."""
    return lambda at, t, cond=None, key=None: pred if at is x else denoiser(at, t, cond, key)


def whitening(measurement):
    """Weights of the residual, [B, ...] or scalar: 1 / std of the noise where it varies, of mean square about 1.

    1 for Gaussian noise; for Poisson noise the norm of 2209.14687, eq. 18, up to a constant factor.
    """
    variance = measurement.noise.variance(measurement.y)
    if jnp.ndim(variance) == 0:
        return jnp.ones((), measurement.y.dtype)
    middle = bcast(mean_except_batch(variance), variance)
    return jnp.sqrt(safe_div(middle, jnp.maximum(variance, 1e-2 * middle)))


def misfit(measurement, squared=False):
    """x0 -> |y - A(x0)|, or its square, [B]; the gradient of the norm at 0 is 0."""
    weight = whitening(measurement)

    def value(x0):
        r = (weight * (measurement.y - measurement.operator.forward(x0))).reshape(x0.shape[0], -1)
        return jnp.sum(r * r, axis=1) if squared else safe_norm(r, axis=1)

    return value


def gradient_step(solver, loss, scale):
    """The solver whose result moves against a loss of x0(x_t): x_s <- x_s - scale d loss(x0(x_t)) / d x_t.

    In vp coordinates; under other scales the same sample in other units. The gradient is taken at the old
    x_t and subtracted from the new state (2209.14687, algorithm 1).

    Args:
      solver: a Solver whose first evaluation is at (x, t).
      loss: x0 [B, ...] -> [B], each entry of its own sample.
      scale: scalar or [B].
    """

    def step(keys, denoiser, process, state, t, s):
        x, key = state.x, fold(keys, 0)
        pred, pullback = tweedie(denoiser, x, t, key=key)
        gradient = pullback(jax.grad(lambda x0: jnp.sum(loss(x0)))(pred.x0))
        after, info = solver.step(key, remembered(denoiser, x, pred), process, state, t, s)
        factor = scale / (sampler.vp_scale(process, t) * sampler.vp_scale(process, s))
        return after.x - bcast(factor, x) * gradient, after.memory, info

    return from_step(step, solver.init, solver.evals, solver.evals_last)


def posterior_gradient(solver, measurement, scale, squared=False):
    """DPS's discrete step around a solver: `gradient_step` on |y - A(x0)|, or its square.

    The norm's gradient at `scale` is the published zeta = scale / 2 over |r| on the square's.
    """
    return gradient_step(solver, misfit(measurement, squared), scale)


def assumed_variance(process, t, data_std=1.0):
    """r_t^2 = sigma^2 s^2 / (alpha^2 s^2 + sigma^2): the variance of x0 given x_t for data of standard deviation s."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    return (sigma * data_std) ** 2 / ((alpha * data_std) ** 2 + sigma**2)


def pseudo_inverse_guidance(measurement, scale=1.0, data_std=1.0, covariance="isotropic", cg_steps=20):
    """PiGDM as a Guidance, for linear operators and Gaussian noise of any standard deviation, 0 included.

    Args:
      scale: of the gradient; 1 is the model's. Scalar, [B], or of x's rank.
      data_std: s in r_t^2; 1 is the published one.
      covariance: "isotropic", P = r_t^2 I; "tweedie", P = (sigma^2 / alpha) J through the denoiser, solved by
        conjugate gradients in the measurement, each of whose steps costs one product with J^T.
      cg_steps: of those.
    """
    sampler.one_of(covariance, COVARIANCES, "covariance")
    operator, noise, y = measurement

    def guidance(denoiser, process):
        def guided(x, t, cond=None, key=None):
            pred, pullback = tweedie(denoiser, x, t, cond, key)
            error = (y - operator.forward(pred.x0)).astype(x.dtype)
            variance = jnp.asarray(noise.std) ** 2
            if covariance == "isotropic":
                r2 = assumed_variance(process, t, data_std)
                pulled = scaled_adjoint(operator, error, r2, variance)
            else:
                spread = jnp.where(process.alpha(t) > 0, safe_div(process.sigma(t) ** 2, process.alpha(t)), 0.0)
                total = lambda v: (
                    operator.forward(bcast(spread, x) * pullback(operator.adjoint(v))) + variance * v
                ).astype(v.dtype)
                pulled = operator.adjoint(conjugate_gradients(total, error, jnp.zeros_like(error), cg_steps))
            return tilted(pred, bcast(scale, x) * pullback(pulled), process, x, t)

        return guided

    return guidance


def scaled_adjoint(operator, error, r2, variance):
    """A^T (r2 A A^T + variance I)^-1 error, by the operator's proximal map."""
    zero = jnp.zeros((error.shape[0], *operator.in_shape), error.dtype)
    return operator.prox(zero, error, variance / r2) / bcast(r2, zero)


def dps(scale=0.5, squared=False, steps=200, eta=1.0, grid="cosine"):
    """Diffusion posterior sampling (2209.14687, algorithm 1). Any differentiable operator, any noise.

    Not consistent: what it draws depends on `scale`, which must be tuned for an operator and its noise.

    Args:
      scale: of the gradient of |y - A(x0)|; 0.3 to 1, the published zeta' = scale / 2.
      squared: the gradient of the square instead, at a constant step.
    """
    sampler.at_least(scale, 0, "scale")
    make = lambda measurement, like: posterior_gradient(ddim(eta), measurement, scale, squared)
    return sampler.from_solver("dps", make, steps, grid, vjp=True)


def mcg(scale=0.5, squared=False, steps=200, eta=1.0, grid="cosine"):
    """Manifold-constrained gradients (2206.00941, eq. 14-15): DPS's gradient, then replacement of the measured part."""
    sampler.at_least(scale, 0, "scale")

    def make(measurement, like):
        return replace_range(posterior_gradient(ddim(eta), measurement, scale, squared), measurement)

    return sampler.from_solver("mcg", make, steps, grid, ("pinv",), vjp=True)


def pigdm(scale=1.0, data_std=1.0, covariance="isotropic", cg_steps=20, steps=100, eta=1.0, grid="cosine"):
    """Pseudo-inverse guided diffusion (Song et al., ICLR 2023) under a DDIM step.

    As steps grow it is exact for data N(m, data_std^2 I); with covariance="tweedie" (2310.06721) for every Gaussian.
    """
    sampler.one_of(covariance, COVARIANCES, "covariance")
    sampler.at_least(scale, 0, "scale")
    guidance = lambda measurement: pseudo_inverse_guidance(measurement, scale, data_std, covariance, cg_steps)
    needs = ("adjoint", "prox", "known_std")
    return sampler.from_solver("pigdm", lambda *_: ddim(eta), steps, grid, needs, vjp=True, guidance=guidance)


def tmpd(scale=1.0, cg_steps=20, steps=100, eta=1.0, grid="cosine"):
    """Tweedie moment projection (2310.06721): `pigdm` with the covariance that the denoiser's Jacobian says."""
    return pigdm(scale, 1.0, "tweedie", cg_steps, steps, eta, grid)
