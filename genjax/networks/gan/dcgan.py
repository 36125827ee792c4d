"""Deep convolutional GAN (1511.06434): strided 4x4 convolutions with batch norm, no pooling, no hidden dense layer."""

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
    doublings,
    named,
    squash,
    with_reference,
)
from genjax.networks.gan.norms import Norm
from genjax.networks.gan.spectral import SpectralConv, SpectralDense, SpectralUpConv


class DCGANGenerator(nn.Module):
    """z [B, L] to x [B, H, H, C]: a dense layer to base x base, then transposed convolutions 4x4 of stride 2.

    With n doublings the widths are width * 2^(n-1), ..., width, C, none above width * max_multiplier. The
    published form is size 64 with width 64 (n = 4, 512 to 64 channels).

    Fields:
      shape: of a sample, size base * 2^n.
      width, max_multiplier, base: see above.
      activation, kernel_init: of the hidden layers.
      norm: a name in `NORMS`; "virtual" takes a reference batch of `reference` latents.
      output: "tanh" or "linear".
      spectral: power steps of spectral normalization, 0 for none.
      num_classes, embedding_dim, label_dim: the condition, put beside z; see `CondInput`.
      axis_name: mapped axis of batch statistics.
      dtype: of the computation; parameters are float32.
    """

    shape: tuple = ()
    width: int = 64
    max_multiplier: int = 8
    base: int = 4
    activation: str = "relu"
    norm: str = "batch"
    reference: int = 64
    output: str = "tanh"
    spectral: int = 0
    kernel_init: str = "normal"
    num_classes: int = 0
    embedding_dim: int = 0
    label_dim: int = 0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z, cond=None, train=False):
        n = doublings(self.shape, self.base)
        act = named(ACTIVATIONS, self.activation, "activation")
        check_output(self.output)
        options = {"kernel_init": named(INITS, self.kernel_init, "kernel_init"), "dtype": self.dtype}
        rows = self.reference if self.norm == "virtual" else 0
        z, cond = with_reference(self, z, cond, rows, self.num_classes)
        vector = CondInput(self.num_classes, self.embedding_dim, self.label_dim, name="cond")(cond, z.shape[0])
        plain = self.norm == "none"  # a bias in front of a norm would be taken away by it
        widths = [self.width * min(2**i, self.max_multiplier) for i in reversed(range(n))]

        def finish(h, i):
            return act(Norm(self.norm, axis_name=self.axis_name, reference=rows, name=f"norm{i}")(h, train))

        h = SpectralDense(self.base**2 * widths[0], self.spectral, plain, **options, name="input")(
            beside(z, vector), train
        )
        h = finish(h.reshape(-1, self.base, self.base, widths[0]), 0)
        for i, width in enumerate(widths[1:], 1):
            h = finish(SpectralUpConv(width, self.spectral, plain, **options, name=f"up{i}")(h, train), i)
        x = SpectralUpConv(self.shape[-1], self.spectral, plain, **options, name="output")(h, train)
        return squash(x[rows:].astype(z.dtype), self.output)


class DCGANDiscriminator(nn.Module):
    """x [B, H, H, C] to a Critique by convolutions 4x4 of stride 2 down to base x base; `features` is that map.

    The widths mirror the generator's. No norm after the first convolution. The published last layer is the
    linear head without bias on the flattened map.

    Fields:
      spectral: power steps of spectral normalization, 0 for none.
      head: name or group in `HEADS`, None is "linear"; it reads the label where it can, else the label comes on further
        channels of x, as the embedding does.
      input_noise: standard deviation of noise added to x where train (stream "noise").
      dropout: of the hidden maps where train (stream "dropout").
      minibatch: kernels of minibatch discrimination before the head, 0 for none.
      The others as in the generator.
    """

    width: int = 64
    max_multiplier: int = 8
    base: int = 4
    activation: str = "leaky_relu"
    norm: str = "batch"
    spectral: int = 0
    kernel_init: str = "normal"
    head: Any = None
    input_noise: float = 0.0
    dropout: float = 0.0
    minibatch: int = 0
    num_classes: int = 0
    embedding_dim: int = 0
    label_dim: int = 0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        n = doublings(x.shape[1:], self.base)
        act = named(ACTIVATIONS, self.activation, "activation")
        options = {"kernel_init": named(INITS, self.kernel_init, "kernel_init"), "dtype": self.dtype}
        head = make_head(self.head, self.num_classes, self.spectral, self.kernel_init)
        label, vector = critic_input(self, cond, x.shape[0])
        h = beside(add_noise(self, x, self.input_noise, train), vector)
        for i in range(n):
            width = self.width * min(2**i, self.max_multiplier)
            norm = self.norm if i else "none"
            h = SpectralConv(
                width,
                4,
                self.spectral,
                strides=2,
                padding=1,
                use_bias=self.norm == "none",
                **options,
                name=f"down{i}",
            )(h, train)
            h = act(Norm(norm, axis_name=self.axis_name, name=f"norm{i}")(h, train))
            h = nn.Dropout(self.dropout, deterministic=not train)(h)
        f = h.reshape(h.shape[0], -1).astype(jnp.float32)
        if self.minibatch:
            f = MinibatchDiscrimination(self.minibatch, axis_name=self.axis_name, name="minibatch")(f)
        return head(f, label, train)
