"""Normalization in games: batch, conditional batch, virtual batch, layer and instance, by one module.

y = (x - mean) / sqrt(var + eps) * scale + shift, where the statistics are those of

  batch      the batch and all places, over `axis_name` too; running averages where train=False (1502.03167)
  virtual    a reference batch (the first `reference` rows of x) and the example itself (1606.03498, section 3.4)
  instance   each example and channel
  layer      each example
  none       nothing: y = x, without parameters

and scale and shift are learned, [C], or read from a vector of the condition (conditional batch
normalization, 1610.07629; with one-hot labels its kernels are the tables of SNGAN, with the shared
embedding beside a chunk of z those of BigGAN).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.core import collectives
from genjax.networks.gan.spectral import SpectralDense

NORMS = ("none", "batch", "virtual", "layer", "instance")
BATCH_STATS = "batch_stats"


def virtual_statistics(x, reference):
    """Mean and variance [N, 1, ..., C] by which virtual batch normalization treats each row of x [N, *S, C].

    Rows below `reference` take those of the reference batch; row i those of the reference batch together
    with itself, the weight of each being its number of examples.
    """
    spatial = tuple(range(1, x.ndim - 1))
    ref = x[:reference]
    ref_mean = jnp.mean(ref, axis=(0, *spatial), keepdims=True)
    ref_var = jnp.mean((ref - ref_mean) ** 2, axis=(0, *spatial), keepdims=True)
    own = x[reference:]
    own_mean = jnp.mean(own, axis=spatial, keepdims=True)
    own_var = jnp.mean((own - own_mean) ** 2, axis=spatial, keepdims=True)
    a, b = reference / (reference + 1), 1 / (reference + 1)
    mean = a * ref_mean + b * own_mean
    var = a * (ref_var + (ref_mean - mean) ** 2) + b * (own_var + (own_mean - mean) ** 2)
    rows = lambda r, o: jnp.concatenate([jnp.broadcast_to(r, (reference, *o.shape[1:])), o])
    return rows(ref_mean, mean), rows(ref_var, var)


class Norm(nn.Module):
    """Normalization of x [B, *S, C]; statistics in float32, the result in x's dtype.

    Called as norm(x, train=False, cond=None) with cond [B, D] or None; with a condition the scale is
    1 + cond W and the shift cond V, both linear, without bias: a zero vector is the null condition.

    Fields:
      kind: a name in `NORMS`.
      momentum: of the running averages, of the batch variance (divided by the count) too.
      axis_name: mapped axis over which batch statistics are taken.
      reference: leading rows of x that are the reference batch, for "virtual".
      spectral: power steps of spectral normalization of the condition's kernels, 0 for none.
      cond_init: of these kernels; zeros start at the unconditional layer.
      affine: learn scale and shift where no condition is given.
    """

    kind: str = "batch"
    momentum: float = 0.9
    eps: float = 1e-5
    axis_name: str | None = None
    reference: int = 0
    spectral: int = 0
    cond_init: Callable = nn.initializers.zeros
    affine: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False, cond=None):
        if self.kind not in NORMS:
            raise ValueError(f"norm: expected one of {list(NORMS)}, got {self.kind!r}")
        if self.kind == "none":
            return x
        channels = x.shape[-1]
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, var = self._statistics(wide, train)
        scale = shift = None
        if cond is not None:
            layer = lambda name: SpectralDense(
                channels, self.spectral, use_bias=False, kernel_init=self.cond_init, dtype=self.dtype, name=name
            )
            each = lambda v: v.astype(wide.dtype).reshape(-1, *(1,) * (x.ndim - 2), channels)
            scale, shift = 1 + each(layer("scale")(cond, train)), each(layer("shift")(cond, train))
        elif self.affine:
            every = (1,) * (x.ndim - 1) + (channels,)
            scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32).reshape(every)
            shift = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32).reshape(every)
        factor = jax.lax.rsqrt(var + self.eps)
        y = (wide - mean) * (factor if scale is None else factor * scale)
        return (y if shift is None else y + shift).astype(x.dtype)

    def _statistics(self, x, train):
        spatial = tuple(range(1, x.ndim - 1))
        if self.kind == "virtual":
            if not 0 < self.reference <= x.shape[0]:
                raise ValueError(f"reference: expected 1 to {x.shape[0]} rows for virtual norm, got {self.reference}")
            return virtual_statistics(x, self.reference)
        if self.kind == "instance" and not spatial:
            raise ValueError(f"norm: expected x with space for 'instance', got shape {x.shape}")
        if self.kind != "batch":
            axes = spatial if self.kind == "instance" else (*spatial, x.ndim - 1)
            return jnp.mean(x, axis=axes, keepdims=True), jnp.var(x, axis=axes, keepdims=True)
        every = (1,) * (x.ndim - 1) + (-1,)
        channels = (x.shape[-1],)
        run_mean = self.variable(BATCH_STATS, "mean", jnp.zeros, channels, jnp.float32)
        run_var = self.variable(BATCH_STATS, "var", jnp.ones, channels, jnp.float32)
        if not train:
            return run_mean.value.reshape(every), run_var.value.reshape(every)
        axes = (0, *spatial)
        mean = collectives.mean(x, axes, self.axis_name)
        var = collectives.var(x, axes, self.axis_name)
        if not self.is_initializing() and self.is_mutable_collection(BATCH_STATS):
            m = self.momentum
            run_mean.value = m * run_mean.value + (1 - m) * jax.lax.stop_gradient(mean).astype(jnp.float32)
            run_var.value = m * run_var.value + (1 - m) * jax.lax.stop_gradient(var).astype(jnp.float32)
        return mean.reshape(every), var.reshape(every)


def standing_statistics(update, stats, xs):
    """Running averages taken anew, as plain means over batches, for weights that moved since (1809.11096, section 3.1).

    Args:
      update: (stats, x) -> stats, one call of the network with train=True, whatever its momentum.
      stats: the collection "batch_stats" (its values do not matter).
      xs: pytree of stacked batches, leaves [n, ...]: latents, labels.

    Returns:
      stats: the mean over the n batches of their means and of their variances.
    """
    fill = lambda value: jax.tree.map(lambda v: jnp.full_like(v, value), stats)
    first = jax.tree.map(lambda v: v[0], xs)
    # an update is m old + (1 - m) new: its answers to zeros and to ones tell the weight of the new
    weights = jax.tree.map(
        lambda one, zero: 1 - jnp.median(one - zero), update(fill(1.0), first), update(fill(0.0), first)
    )

    def add(total, x):
        return jax.tree.map(lambda t, v, w: t + v / w, total, update(fill(0.0), x), weights), None

    count = jax.tree.leaves(xs)[0].shape[0]
    total, _ = jax.lax.scan(add, fill(0.0), xs)
    return jax.tree.map(lambda v: v / count, total)
