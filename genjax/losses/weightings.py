"""Weightings: one function of log-SNR each.

A weighting `log_w(log_snr) -> log w` is the logarithm of the factor on the mean squared error of eps.
Every Gaussian denoising loss is then

  L = E_{lambda ~ p} [ m(lambda) / p(lambda)  w(lambda)  ||eps - eps_hat||^2 ],

with p the density of log-SNR that the time sampler draws from and m the measure that the weighting
is meant under (`losses.denoising`):

  relative   m = p: the factor multiplies the loss as papers publish it, "the weight on the eps loss";
  absolute   m = 1: w is the weight of the integral over log-SNR, w = 1 is the ELBO, and the sampler
             changes the variance of the loss alone (VDM++, 2303.00848, eq. 1).

Errors in other spaces are weightings too, for a prediction pair that fits x = alpha x0 + sigma eps:

  ||x0 error||^2                = e^-lambda           ||eps error||^2
  ||v error||^2, vp             = (1 + e^-lambda)     ||eps error||^2
  ||flow velocity error||^2     = (1 + e^(-lambda/2))^2 ||eps error||^2
  ||F error||^2, any scale      = (1 + e^-lambda / sigma_data^2) ||eps error||^2

so `x0()`, `v()`, `flow()` and `edm()` make the loss of that name, and `on(w, x0())` is the factor that w
puts on the x0 error. Logarithms, because e^-lambda and its like overflow at the ends where the
factor times the error does not.
"""

import jax.numpy as jnp
import numpy as np
from jax.nn import softplus

from genjax.core.prediction import target_coefficients


def _positive(name, value):
    if not value > 0:
        raise ValueError(f"{name}: expected a number > 0, got {value}")
    return float(value)


def power(exponent=0.0):
    """w = SNR^-exponent. 0: eps error, absolute the ELBO; 1: x0 error; 1/2, absolute: v-cosine and flow matching."""
    return lambda log_snr: -exponent * log_snr


def eps():
    """The eps error itself, w = 1 (DDPM's simple loss, 2006.11239, eq. 14); absolute: the ELBO."""
    return power(0.0)


def x0():
    """The x0 error, w = 1 / SNR."""
    return power(1.0)


def v():
    """The v error of a vp process, w = 1 + 1 / SNR (2202.00512)."""
    return lambda log_snr: softplus(-log_snr)


def flow():
    """The velocity error of x_t = (1 - t) x0 + t eps, w = (1 + SNR^(-1/2))^2 (2210.02747)."""
    return lambda log_snr: 2 * softplus(-log_snr / 2)


def edm(sigma_data=0.5):
    """The error of EDM's network output F, w = (e^-lambda + sigma_data^2) / sigma_data^2 (2206.00364, section 5).

    The same as lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 on the x0 error.
    """
    shift = 2 * np.log(_positive("sigma_data", sigma_data))
    return lambda log_snr: softplus(-log_snr - shift)


def target(process, name, sigma_data=1.0):
    """The error of any prediction type in `core.prediction.TARGETS` under any Gaussian process.

    With f = c x0 + d eps the errors obey f error = (d - c sigma / alpha) eps error, so
    w = ((c sigma - d alpha) / alpha)^2.
    """

    def log_w(log_snr):
        t = process.time(log_snr)
        c, d = target_coefficients(name, process, t, sigma_data)
        return 2 * jnp.log(jnp.abs(c * process.sigma(t) - d * process.alpha(t))) - 2 * process.log_alpha(t)

    return log_w


def min_snr(gamma=5.0):
    """Min-SNR: min(SNR, gamma) on the x0 error, min(1, gamma / SNR) here (2303.09556)."""
    log_gamma = np.log(_positive("gamma", gamma))
    return lambda log_snr: jnp.minimum(0.0, log_gamma - log_snr)


def truncated_snr(gamma=1.0):
    """Truncated SNR: max(SNR, gamma) on the x0 error, max(1, gamma / SNR) here (2202.00512, section 4)."""
    log_gamma = np.log(_positive("gamma", gamma))
    return lambda log_snr: jnp.maximum(0.0, log_gamma - log_snr)


def sigmoid(k=2.0):
    """w = sigmoid(k - lambda), monotone; meant absolute (VDM++, 2303.00848, section 4)."""
    return lambda log_snr: -softplus(log_snr - k)


def soft_min_snr(gamma=4.0):
    """Soft-min-SNR: SNR gamma / (SNR + gamma) on the x0 error (2401.11605); here sigmoid(log gamma - lambda)."""
    return sigmoid(np.log(_positive("gamma", gamma)))


def p2(gamma=1.0, k=1.0):
    """P2: w = 1 / (k + SNR)^gamma (2204.00227)."""
    log_k = np.log(_positive("k", k))
    return lambda log_snr: -gamma * (log_k + softplus(log_snr - log_k))


def debias(max_snr=None):
    """Debias: w = min(SNR, max_snr)^(-1/2) (2310.08442); no cap where None."""
    cap = np.inf if max_snr is None else np.log(_positive("max_snr", max_snr))
    return lambda log_snr: -jnp.minimum(log_snr, cap) / 2


def sech():
    """w = sech(lambda / 2): what the plain eps loss under a cosine schedule means, absolute (2303.00848, table 1)."""

    def log_w(log_snr):
        a = jnp.abs(log_snr)
        return jnp.log(2.0) - a / 2 - jnp.log1p(jnp.exp(-a))

    return log_w


def edm_implied(p_mean=-1.2, p_std=1.2, sigma_data=0.5):
    """What EDM's loss and log-normal noise levels mean together, absolute (2303.00848, table 1).

    w = N(lambda; -2 p_mean, (2 p_std)^2) (e^-lambda + sigma_data^2), up to the factor sigma_data^-2.
    """
    mean, std = -2 * p_mean, 2 * _positive("p_std", p_std)
    error = edm(sigma_data)
    norm = np.log(std) + 0.5 * np.log(2 * np.pi)
    return lambda log_snr: error(log_snr) - 0.5 * ((log_snr - mean) / std) ** 2 - norm


def edm_monotonic(p_mean=-1.2, p_std=1.2, sigma_data=0.5):
    """`edm_implied` held at its maximum below the argmax, so monotone; absolute (2303.00848, section 4)."""
    mean, var, shift = -2 * p_mean, 4 * _positive("p_std", p_std) ** 2, 2 * np.log(sigma_data)

    # logarithm of the weight without constants, on a grid; then Newton's method on its derivative
    # -(lambda - mean) / var - q, q = sigmoid(-lambda - shift)
    grid = np.linspace(mean - var - 10, mean + 10, 20001)
    top = grid[np.argmax(np.logaddexp(0, -grid - shift) - (grid - mean) ** 2 / (2 * var))]
    for _ in range(20):
        q = 1 / (1 + np.exp(top + shift))
        top -= (-(top - mean) / var - q) / (-1 / var + q * (1 - q))
    implied = edm_implied(p_mean, p_std, sigma_data)
    return lambda log_snr: implied(jnp.maximum(log_snr, top))


def on(weighting, error):
    """The factor that `weighting` puts on another error than that of eps, e.g. `on(min_snr(5), v())`."""
    return lambda log_snr: weighting(log_snr) - error(log_snr)


WEIGHTINGS = {
    "eps": eps,
    "x0": x0,
    "v": v,
    "flow": flow,
    "edm": edm,
    "power": power,
    "min_snr": min_snr,
    "soft_min_snr": soft_min_snr,
    "truncated_snr": truncated_snr,
    "p2": p2,
    "debias": debias,
    "sigmoid": sigmoid,
    "sech": sech,
    "edm_implied": edm_implied,
    "edm_monotonic": edm_monotonic,
}
