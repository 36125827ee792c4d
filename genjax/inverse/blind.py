"""Generative diffusion prior (GDP, 2304.01247): guidance by a degradation whose parameters are fitted along the way.

  L(x, phi) = |A(x; phi) - y|^2 + Q(x),   phi <- phi - rate grad_phi L(x0, phi),
  x0 form    mean of x_s <- mean - scale grad_{x0} L(x0, phi)                 no gradient through the denoiser
  x_t form   mean of x_s <- mean - scale std^2 grad_{x_t} L(x_t, phi)         the loss at the noisy state itself

Both in vp coordinates. The x0 form's step has no variance factor: it must be bounded by the curvature of L.
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold
from genjax.core.laws import Normal
from genjax.core.numerics import bcast, mean_except_batch, sum_except_batch
from genjax.core.prediction import with_x0
from genjax.core.types import SolverState
from genjax.inverse import sampler
from genjax.solvers.ancestral import ddim
from genjax.solvers.base import from_step

FORMS = ("x0", "x_t")


def data_loss(measurement, reduce=sum_except_batch):
    """(x, phi) -> |A(x; phi) - y|^2 over each sample, [B]."""
    operator, _, y = measurement
    return lambda x, phi: reduce((operator.forward(x, phi) - y) ** 2)


def fitted(solver, measurement, scale, rates=None, *, form="x0", quality=None, clip=None, warm=jnp.inf):
    """GDP's step around a solver with a law: its mean moves, and phi sits in the memory as (inner memory, phi).

    Args:
      solver: a Solver with `propose`, whose first evaluation is at (x, t).
      scale: scalar or [B].
      rates: step sizes of phi on the mean (not the sum) of squares, one for each leaf of `operator.phi_init(batch)`
        or one for all; None: nothing to fit.
      form: "x0" or "x_t".
      quality: None, or x -> [B], Q, added to the loss.
      clip: None, or (low, high) to which x0 is clipped first, the gradient being taken at the clipped value.
      warm: sigma / alpha above which phi rests: there x0 is unrelated to y.
    """
    sampler.one_of(form, FORMS, "form")
    if solver.propose is None:
        raise ValueError("solver: expected one with a `propose`, got one whose step has no known law")
    total, mean = data_loss(measurement), data_loss(measurement, mean_except_batch)
    blind = rates is not None

    def init(x, t):
        phi = measurement.operator.phi_init(x.shape[0]) if blind else ()
        inner = solver.init(x, t)
        return SolverState(inner.x, (inner.memory, phi))

    def step(keys, denoiser, process, state, t, s):
        x, (memory, phi) = state.x, state.memory
        known = []

        def clipped(at, t, cond=None, key=None):
            pred = denoiser(at, t, cond, key)
            if clip is not None:
                pred = with_x0(pred, jnp.clip(pred.x0, *clip), at, process, t)
            known.append(pred.x0)
            return pred

        law, memory, info = solver.propose(clipped, process, SolverState(x, memory), t, s, fold(keys, 0))
        to_vp, from_vp = sampler.vp_scale(process, t), 1 / sampler.vp_scale(process, s)
        at = known[0] if form == "x0" else sampler.scaled(to_vp, x)
        given = phi if blind else None
        loss = lambda x: jnp.sum(total(x, given) + (0 if quality is None else quality(x)))
        gradient = jax.grad(loss)(at)
        if form == "x_t":
            gradient = gradient * bcast(law.std, x) ** 2 * bcast(from_vp, x) ** -2
        if blind:
            slope = jax.grad(lambda phi: jnp.sum(mean(known[0], phi)))(phi)
            allowed = jnp.where(sampler.ratio(process, t) <= warm, 1.0, 0.0)
            each = rates if jax.tree.structure(rates) == jax.tree.structure(phi) else jax.tree.map(lambda _: rates, phi)
            phi = jax.tree.map(lambda p, g, rate: (p - allowed * rate * g).astype(p.dtype), phi, slope, each)
        moved = Normal(law.mean - bcast(scale * from_vp, x) * gradient, law.std)
        return moved.sample(fold(keys, 1)), (memory, phi), info

    return from_step(step, init, solver.evals, solver.evals_last)


def gdp(scale=0.3, rates=None, form="x0", quality=None, clip=(-1.0, 1.0), warm=25.0, steps=200, eta=1.0, grid="cosine"):
    """GDP (2304.01247, algorithms 1 and 2): unknown parameters of the operator are fitted with the image.

    One denoiser evaluation a step and no gradient through it. `detail` gives the parameters as "phi".

    Args:
      scale: times the sum of squares' gradient; the x0 form needs 2 scale |A|^2 < 2 to be stable.
      rates: None for a known operator; else step sizes of phi (see `fitted`).
      form: "x0", or the weaker "x_t".
      quality: None, or a function of x0, [B, ...] -> [B] (`exposure`, `color_constancy`).
      clip: range of x0, or None.
      warm: sigma / alpha above which phi rests; 25 is level 800 of 1000 of the linear chain.
    """
    sampler.one_of(form, FORMS, "form")
    sampler.at_least(scale, 0, "scale")

    def make(measurement, like):
        solver = ddim(jnp.asarray(eta, jnp.result_type(float)))  # an array: the form that has a law, also at eta = 0
        return fitted(solver, measurement, scale, rates, form=form, quality=quality, clip=clip, warm=warm)

    needs = () if rates is None else ("phi_init",)
    return sampler.from_solver("gdp", make, steps, grid, needs, found=lambda memory: {"phi": memory[1]})


def exposure(level=-0.4, patch=8, weight=0.01):
    """x -> weight sum (mean over patches - level)^2, [B]: images [B, H, W, C] of a given brightness."""

    def quality(x):
        n, height, width, channels = x.shape
        if height % patch or width % patch:
            raise ValueError(f"patch: expected a divisor of both sides {(height, width)}, got {patch}")
        blocks = x.reshape(n, height // patch, patch, width // patch, patch, channels)
        return weight * sum_except_batch((jnp.mean(blocks, axis=(2, 4, 5)) - level) ** 2)

    return quality


def color_constancy(weight=0.005):
    """x -> weight times the squared differences of the channels' means, [B]; for images [B, H, W, C]."""

    def quality(x):
        mean = jnp.mean(x, axis=(1, 2))
        return weight * sum_except_batch((mean[:, :, None] - mean[:, None, :]) ** 2) / 2

    return quality
