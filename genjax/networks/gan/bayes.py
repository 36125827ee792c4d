"""A generator whose weights are random: a Gaussian law over networks, one draw a call (1505.05424; 2302.08942)."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.core.numerics import safe_norm
from genjax.networks.blocks import xavier
from genjax.networks.gan.layers import ACTIVATIONS, named
from genjax.networks.products import matmul


class BayesDense(nn.Module):
    """A dense layer with independent weights N(mu, softplus(rho)^2), drawn anew at every call.

    Parameters kernel_mu, kernel_rho, bias_mu, bias_rho; the draw is mu + softplus(rho) eps with eps from the stream
    "noise", the same for the whole batch. While it is initialized, and where `deterministic`, the weights are mu.

    Fields:
      features: of the output.
      rho: at the start.
      deterministic: no draw.
    """

    features: int
    rho: float = -5.0
    deterministic: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        def weights(name, init, shape):
            mu = self.param(f"{name}_mu", init, shape, jnp.float32)
            rho = self.param(f"{name}_rho", nn.initializers.constant(self.rho), shape, jnp.float32)
            if self.deterministic or self.is_initializing():
                return mu
            return mu + jax.nn.softplus(rho) * jax.random.normal(self.make_rng("noise"), shape, jnp.float32)

        kernel = weights("kernel", xavier(), (x.shape[-1], self.features))
        bias = weights("bias", nn.initializers.zeros, (self.features,))
        y = matmul(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class BayesGenerator(nn.Module):
    """z [B, L] to x [B, *shape] by `depth` hidden BayesDense layers: one network for the batch, drawn at each call.

    Sampled one by one, each sample comes from a network of its own.

    Fields:
      shape: of a sample.
      width, depth, activation: of the hidden layers.
      rho, deterministic: of `BayesDense`.
      radius: the output is projected to the ball of this radius, 0 for none (bounds ask for a bounded space).
    """

    shape: tuple = ()
    width: int = 128
    depth: int = 3
    activation: str = "relu"
    rho: float = -5.0
    deterministic: bool = False
    radius: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, cond=None, train=False):
        if not self.shape:
            raise ValueError("shape: expected the shape of a sample, got ()")
        act, h = named(ACTIVATIONS, self.activation, "activation"), z.astype(self.dtype)
        layer = lambda size, name: BayesDense(size, self.rho, self.deterministic, self.dtype, name=name)
        for i in range(self.depth):
            h = act(layer(self.width, f"layer{i}")(h))
        x = layer(math.prod(self.shape), "output")(h).astype(z.dtype)
        if self.radius:
            norm = safe_norm(x, axis=-1, keepdims=True)
            x = x * self.radius / jnp.maximum(norm, self.radius)
        return x.reshape(-1, *self.shape)


def gaussian_weights(params):
    """(means, standard deviations) of all random weights of a tree of `BayesDense` parameters, as vectors [P].

    Raises:
      ValueError: a tree without such parameters.
    """
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    names = [name for name in leaves if name.endswith("_mu']")]
    if not names or len(leaves) != 2 * len(names):
        raise ValueError(f"params: expected pairs of mu and rho (BayesDense), got {sorted(leaves)[:4]}")
    flat = lambda suffix: jnp.concatenate([leaves[name[: -len("mu']")] + suffix].reshape(-1) for name in names])
    return flat("mu']"), jax.nn.softplus(flat("rho']"))
