"""DiffusionMBIR (2211.10655): a prior of slices restores a volume, total variation ties the slices together.

After each denoising of all slices, one step of the alternating direction method on

  min_x |y - A x|^2 / 2 + lambda |D x|_1,   D x = x_{z+1} - x_z (the last slice's neighbour is the first):

  x <- conjugate gradients on (A^T A + rho D^T D) x = A^T y + rho D^T (d - w), from the denoised x
  d <- soft(D x + w, lambda / rho),   w <- w + D x - d.

d and w live through all diffusion steps. The paper moves the noisy x under sigma(t) with alpha = 1; here it is the
denoised estimate, so that the same constants serve at every level and scale.
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold, per_sample
from genjax.core.numerics import safe_div
from genjax.core.prediction import with_x0
from genjax.core.types import SolverState
from genjax.inverse import sampler
from genjax.inverse.linear import conjugate_gradients, curvature
from genjax.solvers.base import from_step, info_of


def difference(x):
    """x_{z+1} - x_z along axis 1, around the end."""
    return jnp.roll(x, -1, axis=1) - x


def difference_adjoint(d):
    """The transpose of `difference`."""
    return jnp.roll(d, 1, axis=1) - d


def soft(x, threshold):
    """sign(x) max(|x| - threshold, 0)."""
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


def total_variation_step(operator, y, x, split, weight, rho, cg_steps=1, size=1.0):
    """One iteration of the method above: (x, (d, w)).

    Args:
      operator: of volumes, with `adjoint`.
      y: [B, ...]; x, and d and w of `split`: [B, Z, ...].
      weight: lambda; rho: of the splitting. At rho = 0 the slices are solved apart.
      size: |A|^2: A and y are taken over its root, so that weight and rho mean the same for every operator.
    """
    d, w = split
    apply = lambda v: operator.adjoint(operator.forward(v)) / size + rho * difference_adjoint(difference(v))
    b = operator.adjoint(y) / size + rho * difference_adjoint(d - w)
    x = conjugate_gradients(apply, b, x, cg_steps)
    jump = difference(x)
    d = soft(jump + w, safe_div(jnp.asarray(weight, x.dtype), jnp.asarray(rho, x.dtype)))
    return x, (d, w + jump - d)


def on_slices(denoiser):
    """The Denoiser of volumes [B, Z, ...] that treats each slice by itself; a condition [B, ...] holds for all."""

    def volume(x, t, cond=None, key=None):
        depth = x.shape[1]
        spread = lambda a: jnp.repeat(a, depth, axis=0)
        t = jnp.asarray(t)
        t = spread(t.reshape(-1)) if t.ndim else t
        if key is not None:
            key = jax.vmap(lambda k: jax.random.split(k, depth))(per_sample(key, x.shape[0])).reshape(-1)
        pred = denoiser(x.reshape(-1, *x.shape[2:]), t, jax.tree.map(spread, cond), key)
        return pred._replace(x0=pred.x0.reshape(x.shape), eps=pred.eps.reshape(x.shape))

    return volume


def regularized_slices(measurement, weight, rho, cg_steps=1, eta=1.0, size=1.0, carry=True):
    """The Solver of DiffusionMBIR over volumes; its denoiser is one of slices.

    Args:
      carry: keep d and w from step to step; without it the tie between slices is lost at each.
    """

    def init(x, t):
        return SolverState(x, (jnp.zeros_like(x), jnp.zeros_like(x)))

    def step(keys, denoiser, process, state, t, s):
        x, split = state
        pred = on_slices(denoiser)(x, t, key=fold(keys, 0))
        before = split if carry else jax.tree.map(jnp.zeros_like, split)
        x0, split = total_variation_step(
            measurement.operator, measurement.y, pred.x0, before, weight, rho, cg_steps, size
        )
        pred = with_x0(pred, x0, x, process, t)
        return process.posterior(x, pred, t, s, eta).sample(fold(keys, 1)), split, info_of(pred)

    return from_step(step, init)


def diffusion_mbir(weight=0.02, rho=0.1, cg_steps=1, carry=True, steps=60, eta=1.0, grid="karras"):
    """DiffusionMBIR for volumes [B, Z, H, W, C], by a denoiser of slices [B, H, W, C].

    Args:
      weight: lambda of the total variation across slices.
      rho: of the splitting, in units of |A|^2; 0.05 to 0.1.
      cg_steps: of conjugate gradients a step: few, as the start carries the prior.
      carry: see `regularized_slices`.
    """

    def make(measurement, like):
        one = jnp.zeros((1, *measurement.operator.in_shape), like.dtype)
        size = curvature(measurement.operator.forward, one, 30)[0]
        return regularized_slices(measurement, weight, rho, cg_steps, eta, size, carry)

    return sampler.from_solver("diffusion_mbir", make, steps, grid, ("adjoint",))
