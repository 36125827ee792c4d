"""Generator and discriminator for vectors, or for small images as vectors."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.gan.heads import critic_input, make_head
from genjax.networks.gan.layers import (
    ACTIVATIONS,
    INITS,
    CondInput,
    MinibatchDiscrimination,
    add_noise,
    beside,
    check_output,
    named,
    squash,
    with_reference,
)
from genjax.networks.gan.norms import Norm
from genjax.networks.gan.spectral import SpectralDense


class MLPGenerator(nn.Module):
    """z [B, L] to x [B, *shape] by `depth` hidden layers: dense, norm, activation.

    Fields:
      shape: of a sample.
      width, depth, activation, kernel_init: of the hidden layers.
      norm: a name in `NORMS`; "virtual" takes a reference batch of `reference` latents.
      output: "linear", or "tanh" for data in [-1, 1].
      spectral: power steps of spectral normalization, 0 for none.
      num_classes, embedding_dim: conditions taken, put beside z; see `CondInput`.
      label_dim: width of a learned table of labels, 0 for one-hot labels.
      axis_name: mapped axis of batch statistics.
      dtype: of the computation; parameters are float32.
    """

    shape: tuple = ()
    width: int = 128
    depth: int = 3
    activation: str = "relu"
    norm: str = "none"
    reference: int = 64
    output: str = "linear"
    spectral: int = 0
    kernel_init: str = "xavier"
    num_classes: int = 0
    embedding_dim: int = 0
    label_dim: int = 0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, cond=None, train=False):
        if not self.shape:
            raise ValueError("shape: expected the shape of a sample, got ()")
        check_output(self.output)
        act, init = named(ACTIVATIONS, self.activation, "activation"), named(INITS, self.kernel_init, "kernel_init")
        rows = self.reference if self.norm == "virtual" else 0
        z, cond = with_reference(self, z, cond, rows, self.num_classes)
        vector = CondInput(self.num_classes, self.embedding_dim, self.label_dim, name="cond")(cond, z.shape[0])
        h = beside(z, vector).astype(self.dtype)
        for i in range(self.depth):
            h = SpectralDense(self.width, self.spectral, kernel_init=init, dtype=self.dtype, name=f"layer{i}")(h, train)
            h = Norm(self.norm, axis_name=self.axis_name, reference=rows, name=f"norm{i}")(h, train)
            h = act(h)
        size = math.prod(self.shape)
        x = SpectralDense(size, self.spectral, kernel_init=init, dtype=self.dtype, name="output")(h, train)
        return squash(x.astype(z.dtype).reshape(-1, *self.shape)[rows:], self.output)


class MLPDiscriminator(nn.Module):
    """x [B, *shape] to a Critique by `depth` hidden layers and a head; `features` is the last hidden layer.

    The label goes to the head where the head reads one, else beside x; cond "embedding" goes beside x.

    Fields:
      width, depth, activation, kernel_init: of the hidden layers.
      norm: a name in `NORMS` but "virtual", after each dense layer.
      spectral: power steps of spectral normalization, 0 for none.
      head: name or group in `HEADS`; None is "linear".
      input_noise, hidden_noise: standard deviation of the noise added to x and after each hidden layer
        where train, from the stream "noise" (1606.03498).
      dropout: of the hidden layers where train, from the stream "dropout".
      minibatch: kernels of minibatch discrimination before the head, 0 for none; minibatch_dim: their size.
      num_classes, embedding_dim, label_dim, axis_name, dtype: as in the generator.
    """

    width: int = 128
    depth: int = 3
    activation: str = "leaky_relu"
    norm: str = "none"
    spectral: int = 0
    kernel_init: str = "xavier"
    head: Any = None
    input_noise: float = 0.0
    hidden_noise: float = 0.0
    dropout: float = 0.0
    minibatch: int = 0
    minibatch_dim: int = 5
    num_classes: int = 0
    embedding_dim: int = 0
    label_dim: int = 0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        if self.norm == "virtual":
            raise ValueError("norm: expected one without a reference batch in a discriminator, got 'virtual'")
        act, init = named(ACTIVATIONS, self.activation, "activation"), named(INITS, self.kernel_init, "kernel_init")
        head = make_head(self.head, self.num_classes, self.spectral, self.kernel_init)
        x = x.reshape(x.shape[0], -1)
        label, vector = critic_input(self, cond, x.shape[0])
        h = beside(add_noise(self, x, self.input_noise, train), vector).astype(self.dtype)
        for i in range(self.depth):
            h = SpectralDense(self.width, self.spectral, kernel_init=init, dtype=self.dtype, name=f"layer{i}")(h, train)
            h = act(Norm(self.norm, axis_name=self.axis_name, name=f"norm{i}")(h, train))
            h = add_noise(self, h, self.hidden_noise, train)
            h = nn.Dropout(self.dropout, deterministic=not train)(h)
        if self.minibatch:
            h = MinibatchDiscrimination(
                self.minibatch, self.minibatch_dim, axis_name=self.axis_name, dtype=self.dtype, name="minibatch"
            )(h)
        return head(h.astype(jnp.float32), label, train)
