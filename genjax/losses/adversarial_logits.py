"""Losses of the two players of a game, as functions of the critic's logits.

An `AdversarialLoss` holds two functions of `core.types.Critique`; both players minimise, each value is one
number a sample, [B], or a scalar, and the recipe takes the mean. Logits of patches [B, ...] are averaged per
sample after the nonlinearity. Here d = D(x) at real and at generated x.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax.core.collectives import mean as mean_over
from genjax.core.numerics import mean_except_batch


class AdversarialLoss(NamedTuple):
    """What the two players minimise.

    `d(real, fake)` and `g(fake, real)` take Critiques; `real` is None in g unless `real_in_g`. The recipe puts
    the fields of the batch beside x (such as "label") into `real.extra`, the condition of the generated samples
    into `fake.extra`, and into both "step", the number of the step, and "margin_keys", keys [B]. Names in `needs`
    are those of `extra` or of the Critique; "fake_label" asks for a generator that is given labels.
    """

    d: Callable  # (real, fake) -> ([B] or scalar, aux: dict of scalars)
    g: Callable  # (fake, real or None) -> ([B] or scalar, aux)
    real_in_g: bool = False  # whether g needs the critic's view of the real batch
    needs: tuple = ()
    logit: Callable = lambda critique: critique.logits  # the number that says "real": for penalties and sign rates


def per_sample(values):
    """Values [B, ...] averaged to [B]."""
    return mean_except_batch(values)


def separable(real, fake, generator):
    """The AdversarialLoss with d = real(D(x)) + fake(D(G(z))) and g = generator(D(G(z))), functions of logits."""

    def d(r, f):
        return per_sample(real(r.logits)) + per_sample(fake(f.logits)), {}

    def g(f, r=None):
        return per_sample(generator(f.logits)), {}

    return AdversarialLoss(d, g)


def _smoothed(target):
    """Cross-entropy of a logit with the target probability `target` of being real."""
    if not 0 < target <= 1:
        raise ValueError(f"real_target: expected a number in (0, 1], got {target}")
    return lambda d: target * jax.nn.softplus(-d) + (1 - target) * jax.nn.softplus(d)


def non_saturating(real_target=1.0):
    """L_D = softplus(-D(x)) + softplus(D(G(z))), L_G = softplus(-D(G(z))) (1406.2661, section 3).

    Args:
      real_target: alpha of one-sided label smoothing (1606.03498, section 3.4), in (0, 1]; at the optimum
        sigmoid(D) = alpha p / (p + q).
    """
    return separable(_smoothed(real_target), jax.nn.softplus, lambda d: jax.nn.softplus(-d))


def minimax(real_target=1.0):
    """L_D as `non_saturating`, L_G = log(1 - sigmoid(D(G(z)))) = -softplus(D(G(z))) (1406.2661, equation 1).

    At the optimal critic -L_D = 2 JS(p, q) - log 4.
    """
    return separable(_smoothed(real_target), jax.nn.softplus, lambda d: -jax.nn.softplus(d))


def least_squares(fake=0.0, real=1.0, goal=1.0):
    """L_D = 1/2 (D(x) - b)^2 + 1/2 (D(G(z)) - a)^2, L_G = 1/2 (D(G(z)) - c)^2 (1611.04076, equation 2).

    Args:
      fake, real, goal: a, b, c; (-1, 1, 0) makes the generator minimise a Pearson chi^2 divergence.
    """
    half_square = lambda target: lambda d: 0.5 * (d - target) ** 2
    return separable(half_square(real), half_square(fake), half_square(goal))


def wasserstein():
    """L_D = D(G(z)) - D(x), L_G = -D(G(z)) (1701.07875, algorithm 1); D must be kept Lipschitz elsewhere."""
    return separable(lambda d: -d, lambda d: d, lambda d: -d)


def hinge():
    """L_D = relu(1 - D(x)) + relu(1 + D(G(z))), L_G = -D(G(z)) (1705.02894; 1802.05957, equation 17)."""
    return separable(lambda d: jax.nn.relu(1 - d), lambda d: jax.nn.relu(1 + d), lambda d: -d)


def random_margin_hinge(low=0.8, high=1.0):
    """`hinge` with margins u ~ U(low, high), one an entry of the logits, in the place of 1 (2101.04775's code).

    The margins come from "margin_keys" in `extra`, keys [B], which the recipe gives to every loss.
    """
    if not 0 < low <= high:
        raise ValueError(f"low: expected 0 < low <= high, got {low} and {high}")

    def margins(critique, i):
        keys = jax.vmap(jax.random.fold_in, (0, None))(critique.extra["margin_keys"], i)
        shape = critique.logits.shape[1:]
        return jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32, low, high))(keys)

    def d(r, f):
        real = jax.nn.relu(margins(r, 0) - r.logits)
        return per_sample(real) + per_sample(jax.nn.relu(margins(f, 1) + f.logits)), {}

    return AdversarialLoss(d, hinge().g, needs=("margin_keys",))


def relativistic_pairing():
    """RpGAN: L_D = softplus(-(D(x_i) - D(G(z_i)))), L_G = softplus(-(D(G(z_i)) - D(x_i))) (2501.05441, equation 2).

    The i-th real is paired with the i-th generated sample of the batch.
    """

    def d(r, f):
        return per_sample(jax.nn.softplus(f.logits - r.logits)), {}

    def g(f, r):
        return per_sample(jax.nn.softplus(r.logits - f.logits)), {}

    return AdversarialLoss(d, g, real_in_g=True)


def relativistic_average(axis_name=None):
    """RaGAN: each logit against the mean of the other kind (1807.00734, equations 11 and 12).

    L_D = softplus(-(D(x) - E D(G(z)))) + softplus(D(G(z)) - E D(x)); L_G with x and G(z) exchanged.

    Args:
      axis_name: axis over which the batch is split.
    """
    average = lambda critique: mean_over(jnp.mean(critique.logits), axis=None, axis_name=axis_name)

    def rank(above, below):
        high = jax.nn.softplus(-(above.logits - average(below)))
        return per_sample(high) + per_sample(jax.nn.softplus(below.logits - average(above))), {}

    return AdversarialLoss(rank, rank, real_in_g=True)


class FDivergence(NamedTuple):
    """An f-divergence in the variational form sup_T E_p T - E_q f*(T), T = activation(v) (1606.00709, table 6)."""

    activation: Callable  # v -> T, the output activation g_f
    conjugate: Callable  # v -> f*(g_f(v)), in stable form
    optimum: Callable  # log(p / q) -> the v at which the supremum is reached


F_DIVERGENCES = {
    "kl": FDivergence(lambda v: v, lambda v: jnp.exp(v - 1), lambda r: 1 + r),
    "reverse_kl": FDivergence(lambda v: -jnp.exp(-v), lambda v: v - 1, lambda r: r),
    "pearson": FDivergence(lambda v: v, lambda v: v * v / 4 + v, lambda r: 2 * jnp.expm1(r)),
    "squared_hellinger": FDivergence(lambda v: -jnp.expm1(-v), jnp.expm1, lambda r: r / 2),
    "js": FDivergence(
        lambda v: jnp.log(2.0) - jax.nn.softplus(-v), lambda v: jax.nn.softplus(v) - jnp.log(2.0), lambda r: r
    ),
}


def f_gan(divergence="js", saturating=True):
    """f-GAN (1606.00709, equation 4): L_D = -g_f(D(x)) + f*(g_f(D(G(z)))).

    -L_D is a lower bound of the divergence: KL(p || q), KL(q || p), Pearson's E_q (p/q - 1)^2, the squared
    Hellinger distance (int (sqrt p - sqrt q)^2) and, for "js", twice the Jensen-Shannon divergence.

    Args:
      divergence: a name in `F_DIVERGENCES`.
      saturating: L_G = -f*(g_f(D(G(z)))), the same game; False for L_G = -g_f(D(G(z))) (section 3.2).
    """
    if divergence not in F_DIVERGENCES:
        raise ValueError(f"divergence: expected one of {sorted(F_DIVERGENCES)}, got {divergence!r}")
    f = F_DIVERGENCES[divergence]
    generator = (lambda v: -f.conjugate(v)) if saturating else (lambda v: -f.activation(v))
    return separable(lambda v: -f.activation(v), f.conjugate, generator)
