"""An autoencoder of vectors with a Gaussian latent (1312.6114)."""

import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.gan.mlp import MLPGenerator


class MLPVariational(nn.Module):
    """Encoder and decoder of vectors: module(x [B, *shape], eps [B, latent]) -> (decoded, mean, log-variance).

    The latent is mean + exp(log-variance / 2) eps. `decode(z)` is the decoder alone.

    Fields:
      shape: of a sample.
      latent: size of the latent.
      width, depth, activation: of the hidden layers of both.
    """

    shape: tuple = ()
    latent: int = 8
    width: int = 128
    depth: int = 2
    activation: str = "relu"
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        sizes = {"width": self.width, "depth": self.depth, "activation": self.activation, "dtype": self.dtype}
        self.encoder = MLPGenerator(shape=(2 * self.latent,), **sizes)
        self.decoder = MLPGenerator(shape=self.shape, **sizes)

    def __call__(self, x, eps, train=False):
        mean, log_var = jnp.split(self.encoder(x.reshape(x.shape[0], -1)), 2, axis=-1)
        return self.decode(mean + jnp.exp(0.5 * log_var) * eps), mean, log_var

    def decode(self, z, train=False):
        return self.decoder(z)
