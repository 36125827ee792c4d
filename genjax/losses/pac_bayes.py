"""PAC-Bayesian bounds of generators (2302.08942): the certificate, and the KL that makes it an objective.

For a law rho over generators, a prior pi fixed before the data, critics that are 1-Lipschitz on a space of diameter
Delta, n data points, and one draw of n samples of each generator, with probability 1 - delta for all rho at once

  E_rho W(P*, P_g) <= E_rho W(P_n, P_{g, n}) + (KL(rho || pi) + log(1 / delta)) / lam + lam Delta^2 / (4 n).

W is a supremum of linear functionals, so its mean over samples is no less than its value at the laws; one of the 2 n
points moves it by at most Delta / n, so its exponential moment is at most exp(lam^2 2n (Delta / n)^2 / 8)
(McDiarmid); the change of measure is Donsker's and Varadhan's. Where the generated law is exact, or the average over
its samples is taken, only the n data points count, and the last term is lam Delta^2 / (8 n).
"""

import math

import jax
import jax.numpy as jnp

from genjax.losses.penalties_gradient import Memory
from genjax.networks.gan.bayes import gaussian_weights


def gaussian_kl(mean, std, prior_mean, prior_std):
    """KL(N(mean, std^2) || N(prior_mean, prior_std^2)) in nats, summed over all entries."""
    ratio = jnp.square(std / prior_std)
    return 0.5 * jnp.sum(jnp.square((mean - prior_mean) / prior_std) + ratio - 1 - jnp.log(ratio))


def _check(n, diameter, delta):
    if not n >= 1:
        raise ValueError(f"n: expected at least 1 data point, got {n}")
    if not diameter > 0:
        raise ValueError(f"diameter: expected a number > 0, got {diameter}")
    if not 0 < delta < 1:
        raise ValueError(f"delta: expected a probability in (0, 1), got {delta}")


def certificate(risk, kl, n, diameter, lam, delta=0.05, *, generated=True):
    """The bound above on the expected Wasserstein distance from the data's law.

    Args:
      risk: E_rho W(P_n, P_{g, n}), or an upper bound of it. A value at one critic is only a lower estimate, and what
        comes out is then no certificate of W.
      kl: KL(rho || pi) in nats.
      n: data points, none of which the prior has seen.
      diameter: of the space in which data and samples lie.
      lam: > 0, fixed before the data.
      delta: the bound holds with probability 1 - delta.
      generated: whether the risk is that of one draw of n samples; False for the exact generated law.
    """
    _check(n, diameter, delta)
    if not lam > 0:
        raise ValueError(f"lam: expected a number > 0, got {lam}")
    return risk + (kl + math.log(1 / delta)) / lam + lam * diameter**2 / ((4 if generated else 8) * n)


def best_lam(kl, n, diameter, delta=0.05, *, generated=True):
    """The lam of the smallest certificate at a given KL; choosing it on the data takes a union bound."""
    _check(n, diameter, delta)
    return math.sqrt((kl + math.log(1 / delta)) * (4 if generated else 8) * n) / diameter


def bayes_kl():
    """A penalty of a generator with random weights: KL(rho || pi), pi being the law that its training began with.

    Its weight is 1 / lam of the certificate. For `BayesDense` layers (`networks.gan.bayes`).
    """

    def fn(keys, player, x, prior):
        return gaussian_kl(*gaussian_weights(player.params), *prior), prior

    return Memory(fn, lambda params: jax.tree.map(jnp.copy, gaussian_weights(params)))
