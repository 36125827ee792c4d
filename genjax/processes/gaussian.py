"""Gaussian corruption x_t = alpha(t) x0 + sigma(t) eps.

A process is a log-SNR curve times a scale family. Given lambda = log(alpha^2 / sigma^2),

  vp      alpha^2 = sigmoid(lambda),     sigma^2 = sigmoid(-lambda)      (alpha^2 + sigma^2 = 1)
  ve      alpha   = 1,                   sigma   = exp(-lambda / 2)
  flow    alpha   = sigmoid(lambda / 2), sigma   = sigmoid(-lambda / 2)  (alpha + sigma = 1)
  sub_vp  sigma   = 1 - alpha^2
  curve   whatever `curve.log_alpha(t)` says

so every process shares one set of formulas. As an SDE, dx = f x dt + g dW with
f = d log alpha / dt and g^2 = -sigma^2 d lambda / dt.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.nn import softplus

from genjax.core.keys import normal_like
from genjax.core.laws import Normal
from genjax.core.numerics import bcast, float_leaves, float_time, safe_div, safe_sqrt
from genjax.core.types import Prediction
from genjax.processes import curves


def _sub_vp_log_alpha(log_snr):
    # sigma / alpha = (1 - alpha^2) / alpha = 2 sinh(-log alpha)
    return -jnp.arcsinh(jnp.exp(-log_snr / 2) / 2)


_LOG_ALPHA = {
    "vp": lambda log_snr: -softplus(-log_snr) / 2,
    "ve": lambda log_snr: jnp.zeros_like(log_snr),
    "flow": lambda log_snr: -softplus(-log_snr / 2),
    "sub_vp": _sub_vp_log_alpha,
}
_LOG_SIGMA = {
    "vp": lambda log_snr: -softplus(log_snr) / 2,
    "ve": lambda log_snr: -log_snr / 2,
    "flow": lambda log_snr: -softplus(log_snr / 2),
    "sub_vp": lambda log_snr: _sub_vp_log_alpha(log_snr) - log_snr / 2,
}
SCALES = (*_LOG_ALPHA, "curve")


@struct.dataclass
class Gaussian:
    """A Gaussian process with time in [t_min, t_max]; t = 0 is the data itself (alpha 1, sigma 0).

    Methods take t as a scalar, [B], or an array of x's rank, and return coefficients shaped like t.

    Attributes:
      curve: log-SNR curve (`genjax.processes.curves`).
      scale: one of "vp", "ve", "flow", "sub_vp", "curve".
      t_min: smallest time that is trained and that solvers evaluate at, > 0.
      t_max: time of the prior.
    """

    curve: Any
    scale: str = struct.field(pytree_node=False, default="vp")
    t_min: Any = 1e-3
    t_max: Any = 1.0

    def __post_init__(self):
        float_leaves(self, "t_min", "t_max")
        if self.scale not in SCALES:
            raise ValueError(f"scale: expected one of {SCALES}, got {self.scale!r}")

    def log_snr(self, t):
        """lambda(t) = log(alpha^2 / sigma^2); +inf at t = 0."""
        t = float_time(t)
        return jnp.where(t > 0, self.curve.log_snr(jnp.where(t > 0, t, self.t_min)), jnp.inf)

    def time(self, log_snr):
        """The time at which the log-SNR is `log_snr`; 0 at +inf."""
        log_snr = float_time(log_snr)
        finite = log_snr < jnp.inf
        return jnp.where(finite, self.curve.time(jnp.where(finite, log_snr, 0)), 0)

    def log_alpha(self, t):
        if self.scale == "curve":
            t = float_time(t)
            return jnp.where(t > 0, self.curve.log_alpha(jnp.where(t > 0, t, self.t_min)), 0)
        return _LOG_ALPHA[self.scale](self.log_snr(t))

    def log_sigma(self, t):
        if self.scale == "curve":
            return self.log_alpha(t) - self.log_snr(t) / 2
        return _LOG_SIGMA[self.scale](self.log_snr(t))

    def alpha(self, t):
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t):
        return jnp.exp(self.log_sigma(t))

    def log_snr_rate(self, t):
        """d lambda / dt, negative."""
        t = float_time(t)
        return jax.jvp(self.log_snr, (t,), (jnp.ones_like(t),))[1]

    def _log_snr_gap(self, t, s):
        """log_snr(t) - log_snr(s), and 0 rather than inf - inf where both times are 0."""
        a, b = self.log_snr(t), self.log_snr(s)
        both = jnp.isinf(a) & jnp.isinf(b)
        return jnp.where(both, 0, a - jnp.where(both, 0, b))

    def drift(self, t):
        """f(t) = d log alpha / dt of the forward SDE dx = f x dt + g dW."""
        t = float_time(t)
        return jax.jvp(self.log_alpha, (t,), (jnp.ones_like(t),))[1]

    def diffusion(self, t):
        """g(t) = sigma sqrt(-d lambda / dt) of the forward SDE."""
        return self.sigma(t) * safe_sqrt(-self.log_snr_rate(t))

    def velocity_coefficients(self, t):
        """(d alpha / dt, d sigma / dt)."""
        t = float_time(t)
        one = jnp.ones_like(t)
        return jax.jvp(self.alpha, (t,), (one,))[1], jax.jvp(self.sigma, (t,), (one,))[1]

    def perturb(self, x0, eps, t):
        """alpha(t) x0 + sigma(t) eps."""
        return bcast(self.alpha(t), x0) * x0 + bcast(self.sigma(t), x0) * eps

    def noise(self, keys, like):
        """Standard normal noise of the shape of `like` [B, ...]."""
        return normal_like(keys, like)

    def corrupt(self, keys, x0, t):
        """x_t for x0 [B, ...], and the true pair (x0, eps) as a Prediction."""
        eps = self.noise(keys, x0)
        return self.perturb(x0, eps, t), Prediction(x0=x0, eps=eps)

    def prior(self, keys, like, t=None):
        """A start for sampling at time t (t_max if None): N(0, sigma(t)^2)."""
        return bcast(self.sigma(self.t_max if t is None else t), like) * self.noise(keys, like)

    def transition(self, x, t, s):
        """The forward law q(x_s | x_t) for s >= t."""
        ratio = jnp.exp(self.log_alpha(s) - self.log_alpha(t))
        std = self.sigma(s) * safe_sqrt(-jnp.expm1(self._log_snr_gap(s, t)))
        return Normal(bcast(ratio, x) * x, bcast(std, x))

    def posterior_std_range(self, t, s):
        """Standard deviations between which a reverse step from t to s < t lies, (lower, upper).

        Lower is that of q(x_s | x_t, x0); upper that of q(x_t | x_s) carried by the step
        (DDPM's beta-tilde and beta, 2006.11239, section 3.2).
        """
        root = safe_sqrt(-jnp.expm1(self._log_snr_gap(t, s)))  # sigma_{t|s} / sigma_t
        return self.sigma(s) * root, self.sigma(t) * root

    def posterior(self, x, pred, t, s, eta=1.0):
        """The law of x_s given x_t = x, for x0 and eps as predicted.

        With eta in [0, 1] (DDIM, 2010.02502, eq. 16): mean alpha_s x0 + sqrt(sigma_s^2 - std^2) eps,
        std = eta times that of q(x_s | x_t, x0). eta = 1 is the exact posterior, eta = 0 the
        deterministic move. A move up (s > t) is deterministic for every eta; with noise, up is
        `transition`. Where `pred.v` is given the standard deviation (not the mean) is v of the way
        from lower to upper, in logarithm (iDDPM, 2102.09672, eq. 15), times eta; a step to s = 0 is
        noiseless.
        """
        # <= 0 for s <= t, -inf at s = 0
        log_gap = jnp.minimum(self._log_snr_gap(t, s), 0.0)
        sigma_s = self.sigma(s)
        eps_scale = safe_sqrt((1 - eta**2) + eta**2 * jnp.exp(log_gap))
        mean = bcast(self.alpha(s), x) * pred.x0 + bcast(sigma_s * eps_scale, x) * pred.eps
        std = bcast(eta * sigma_s * safe_sqrt(-jnp.expm1(log_gap)), x)
        if pred.v is not None:
            ratio = self.log_sigma(t) - jnp.where(sigma_s > 0, self.log_sigma(s), 0)
            std = std * jnp.exp(pred.v * bcast(ratio, x))
        return Normal(mean, std)

    def velocity(self, x, pred, t):
        """dx/dt of the probability-flow ODE: alpha' x0 + sigma' eps."""
        d_alpha, d_sigma = self.velocity_coefficients(t)
        return bcast(d_alpha, x) * pred.x0 + bcast(d_sigma, x) * pred.eps

    def score(self, x, pred, t):
        """grad log p_t(x) = -eps / sigma."""
        return safe_div(-pred.eps, bcast(self.sigma(t), x))

    def bind(self, **context):
        """A Gaussian process has no context: raises TypeError if any is given."""
        if context:
            raise TypeError(f"bind: a Gaussian process takes no context, got {sorted(context)}")
        return self


def vp(beta_min=0.1, beta_max=20.0, t_min=1e-3):
    """Variance-preserving SDE with linear rate (2011.13456); t in [t_min, 1]."""
    return Gaussian(curves.LinearBeta(beta_min, beta_max), "vp", t_min)


def sub_vp(beta_min=0.1, beta_max=20.0, t_min=1e-3):
    """Sub-VP SDE (2011.13456, eq. 13)."""
    return Gaussian(curves.LinearBeta(beta_min, beta_max, sub=True), "sub_vp", t_min)


def cosine(log_snr_max=15.0, log_snr_min=-15.0, shift=1.0):
    """Variance-preserving, alpha = cos(pi t / 2), times cut to the given log-SNR range."""
    curve = curves.Cosine(shift)
    return Gaussian(curve, "vp", float(curve.time(log_snr_max)), float(curve.time(log_snr_min)))


def ddpm(steps=1000, betas="linear", max_log_snr=None):
    """Discrete variance-preserving chain (2006.11239): level i of 1 ... `steps` at t = i / steps.

    Args:
      steps: length T of the chain.
      betas: "linear", "cosine", or an array [T].
      max_log_snr: cap of the levels, None for none.

    Raises:
      ValueError: unknown name, or betas outside (0, 1).
    """
    if isinstance(betas, str):
        tables = {"linear": curves.linear_betas, "cosine": curves.cosine_betas}
        if betas not in tables:
            raise ValueError(f"betas: expected one of {sorted(tables)} or an array, got {betas!r}")
        betas = tables[betas](steps)
    levels = curves.levels_from_betas(betas)
    if max_log_snr is not None:
        levels = levels.clip(max=max_log_snr)
    levels = levels.astype(jnp.result_type(float))
    return Gaussian(curves.Table(levels), "vp", 1 / len(levels), 1.0)


def ve(sigma_min=0.01, sigma_max=50.0, t_min=1e-5):
    """Variance-exploding SDE, sigma(t) = sigma_min (sigma_max / sigma_min)^t (2011.13456, eq. 30)."""
    log = jnp.log
    return Gaussian(curves.LogLinear(float(-2 * log(sigma_min)), float(-2 * log(sigma_max))), "ve", t_min)


def edm(sigma_min=0.002, sigma_max=80.0):
    """EDM: alpha = 1, sigma(t) = t in [sigma_min, sigma_max] (2206.00364)."""
    return Gaussian(curves.NoiseLevel(), "ve", sigma_min, sigma_max)


def flow(t_min=1e-3, t_max=1.0, shift=1.0):
    """Flow matching / rectified flow: x_t = (1 - t) x0 + t eps (2210.02747, 2209.03003)."""
    return Gaussian(curves.Flow(shift), "flow", t_min, t_max)


def trigonometric(t_min=1e-3, t_max=1.0):
    """The trigonometric interpolant x_t = cos(pi t / 2) x0 + sin(pi t / 2) eps (2303.08797; "GVP")."""
    return Gaussian(curves.Cosine(), "vp", t_min, t_max)


def interpolant(alpha, sigma, t_min=1e-3, t_max=1.0):
    """Any linear interpolant x_t = alpha(t) x0 + sigma(t) eps, of two functions of t in (0, t_max].

    Example:
      interpolant(lambda t: 1 - t, lambda t: t * (2 - t))
    """
    return Gaussian(curves.Interpolant(alpha, sigma, t_min, t_max), "curve", t_min, t_max)


def learned(raw=None, log_snr_max=10.0, log_snr_min=-10.0, knots=16, scale="vp", t_min=1e-3):
    """A process whose log-SNR curve is learned (2107.00630): differentiate with respect to it.

    Args:
      raw: [K] initial free parameters; None for zeros, a straight line of `knots` pieces.
    """
    raw = jnp.zeros(knots) if raw is None else raw
    return Gaussian(curves.Monotone(raw, log_snr_max, log_snr_min), scale, t_min)


def log_linear(log_snr_max=10.0, log_snr_min=-10.0, scale="vp", t_min=1e-5):
    """Log-SNR linear in t, any scale family."""
    return Gaussian(curves.LogLinear(log_snr_max, log_snr_min), scale, t_min)
