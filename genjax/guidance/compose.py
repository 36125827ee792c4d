"""Composition: of guidances, of conditional experts, of the laws of their steps.

Given conditions y_i that are independent given x0, p(x | y_1 ... y_N) is proportional to p(x) prod_i p(x | y_i) / p(x).
Taken at a noise level, this is (2206.05039; weights w_i = 1 for the plain product)

  eps = eps_0 + sum_i w_i (eps_i - eps_0),                                                         (1)

and, for Gaussian laws N(mu_i, s_i^2) of a step with exponents a_0 = 1 - sum_i w_i and a_i = w_i,

  1 / s^2 = sum_i a_i / s_i^2,    mu = s^2 sum_i a_i mu_i / s_i^2.                                   (2)

The y_i are independent given x0, not given x_t: at high noise both differ from the true joint condition. What is
sampled exactly under MCMC at every level is said in `guidance.densities`.
"""

import jax.numpy as jnp

from genjax.core.conditions import null_cond
from genjax.core.laws import Normal
from genjax.core.numerics import bcast
from genjax.solvers.base import from_proposal


def chain(*guidances):
    """The Guidance that applies the given ones in order, the first innermost."""

    def guidance(denoiser, process):
        for each in guidances:
            denoiser = each(denoiser, process)
        return denoiser

    return guidance


def _weights(weights, count):
    """One weight an expert, as a list."""
    if not isinstance(weights, list | tuple) and jnp.ndim(weights) == 0:
        return [weights] * count
    if len(weights) != count:
        raise ValueError(f"weights: expected one number or {count}, got {len(weights)}")
    return list(weights)


def combine_experts(preds, weights, base=None):
    """base + sum_i w_i (pred_i - base) on x0 and eps alike, equation (1); without a base, sum_i w_i pred_i.

    Args:
      preds: Predictions at one (x, t).
      weights: a number for all, or one an expert, each a scalar or [B]. Without a base a pair fits x again only if
        they sum to 1.
      base: Prediction of the unconditional model.
    """
    weights = _weights(weights, len(preds))

    def mix(*values):
        *experts, zero = values
        add = lambda e, w: bcast(w, e) * (e if zero is None else e - zero)
        total = sum(add(e, w) for e, w in zip(experts, weights))
        return (total if zero is None else zero + total).astype(experts[0].dtype)

    x0 = mix(*(p.x0 for p in preds), None if base is None else base.x0)
    eps = mix(*(p.eps for p in preds), None if base is None else base.eps)
    return preds[0]._replace(x0=x0, eps=eps)


def product(denoisers, weights=1.0, base=None):
    """The Denoiser of a product of experts: equation (1).

    Args:
      denoisers: conditional Denoisers, each with its own condition closed over, or reading its part of `cond`.
      weights: a number, or one an expert.
      base: the unconditional Denoiser; for several models' reliability-weighted mean, `product(models, betas)`
        with betas that sum to 1 (Unite and Conquer). None: sum_i w_i eps_i.

    Raises:
      ValueError: no denoisers, or another number of weights.
    """
    if not denoisers:
        raise ValueError("denoisers: expected at least one, got none")
    _weights(weights, len(denoisers))

    def denoiser(x, t, cond=None, key=None):
        preds = [d(x, t, cond, key) for d in denoisers]
        return combine_experts(preds, weights, None if base is None else base(x, t, cond, key))

    return denoiser


def by_field(weights):
    """Guidance by a product of one model's conditions: an expert for each field of `cond`, the others null.

    One network with a null value a field serves as all experts; it was trained with one field at a time, or with
    fields dropped independently.

    Args:
      weights: dict of field -> weight, scalar or [B]. Fields of `cond` that are not named stay null.
    """

    def guidance(denoiser, process):
        def guided(x, t, cond=None, key=None):
            if cond is None:
                return denoiser(x, t, cond, key)
            missing = sorted(set(weights) - set(cond))
            if missing:
                raise ValueError(f"cond: expected the fields {sorted(weights)}, got {sorted(cond)}")
            null = null_cond(cond)
            preds = [denoiser(x, t, {**null, name: cond[name]}, key) for name in weights]
            return combine_experts(preds, list(weights.values()), denoiser(x, t, null, key))

        return guided

    return guidance


def product_of_normals(laws, exponents):
    """The Normal proportional to prod_i law_i^a_i, equation (2).

    Args:
      laws: Normals of one shape, of positive std.
      exponents: one number a law, scalar or [B]. Where sum_i a_i / s_i^2 is not positive there is no such law, and
        the result is NaN.
    """
    like = laws[0].mean
    precisions = [bcast(a, like) / bcast(law.std, like) ** 2 for law, a in zip(laws, exponents, strict=True)]
    variance = 1 / sum(precisions)
    mean = variance * sum(p * law.mean for p, law in zip(precisions, laws))
    return Normal(mean, jnp.sqrt(variance))


def product_steps(solver, denoisers, weights=1.0):
    """The solver whose step draws from the product of its laws under several denoisers (2206.05039), equation (2).

    The run's own denoiser is the unconditional one. A step to s = 0, where the laws are points, takes equation (1).

    Args:
      solver: one with a law, such as `ddpm()` or `ddim(1.0)`; memory is that of the unconditional step.
      denoisers: the conditional ones.
      weights: a number, or one an expert.

    Raises:
      ValueError: a solver without a law, or another number of weights.
    """
    if solver.propose is None:
        raise ValueError("solver: expected one with a `propose`, got one whose step has no known law")
    weights = _weights(weights, len(denoisers))
    exponents = [1 - sum(jnp.asarray(w) for w in weights), *weights]

    def propose(denoiser, process, state, t, s, keys=None):
        base, memory, info = solver.propose(denoiser, process, state, t, s, keys)
        laws = [base, *(solver.propose(d, process, state, t, s, keys)[0] for d in denoisers)]
        spread = [jnp.broadcast_to(bcast(law.std, law.mean), law.mean.shape) for law in laws]
        inside = spread[0] > 0
        safe = [Normal(law.mean, jnp.where(inside, std, 1.0)) for law, std in zip(laws, spread)]
        law = product_of_normals(safe, exponents)
        return Normal(law.mean.astype(base.mean.dtype), jnp.where(inside, law.std, 0.0)), memory, info

    evals = len(denoisers) + 1
    return from_proposal(propose, solver.init, solver.evals * evals, solver.evals_last * evals)
