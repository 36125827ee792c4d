"""A discriminator of vectors that must also reconstruct: the idea of FastGAN's (2101.04775) without convolutions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.blocks import xavier
from genjax.networks.gan.heads import critic_input, make_head
from genjax.networks.gan.layers import ACTIVATIONS, beside, check_output, named, squash


class MLPAutoencodingDiscriminator(nn.Module):
    """x [B, *shape] to a Critique by hidden layers of `widths`; decoders rebuild x from the last of them.

    extra = {"reconstructions": {"full": [B, *shape]}, "targets": {"full": x}}, what `losses.penalties.reconstruction`
    reads. `features` [B, widths[-1]] is the layer that both the head and the decoder see, so the decoder's gradient
    goes into the whole trunk.

    Fields:
      widths: of the hidden layers, at least one.
      decoder: widths of the decoder's hidden layers.
      activation: of all hidden layers.
      output: of the decoder, "tanh" for data in [-1, 1] or "linear".
      head: name or group in `HEADS`; None is "linear".
      num_classes, embedding_dim, label_dim: conditions taken; see `CondInput`.
      dtype: of the computation; parameters are float32.
    """

    widths: tuple = (128, 64)
    decoder: tuple = (128,)
    activation: str = "leaky_relu"
    output: str = "linear"
    head: Any = None
    num_classes: int = 0
    embedding_dim: int = 0
    label_dim: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        if not self.widths or min((*self.widths, *self.decoder)) < 1:
            raise ValueError(f"widths: expected at least one width, all >= 1, got {self.widths} and {self.decoder}")
        check_output(self.output)
        act = named(ACTIVATIONS, self.activation, "activation")
        head = make_head(self.head, self.num_classes)
        label, vector = critic_input(self, cond, x.shape[0])
        dense = lambda width, name: nn.Dense(width, kernel_init=xavier(), dtype=self.dtype, name=name)
        h = beside(x.reshape(x.shape[0], -1), vector).astype(self.dtype)
        for i, width in enumerate(self.widths):
            h = act(dense(width, f"layer{i}")(h))
        made = h
        for i, width in enumerate(self.decoder):
            made = act(dense(width, f"decoder{i}")(made))
        made = squash(dense(math.prod(x.shape[1:]), "decoded")(made).astype(jnp.float32), self.output)
        critique = head(h.astype(jnp.float32), label, train)
        rebuilt = {"reconstructions": {"full": made.reshape(x.shape)}, "targets": {"full": jax.lax.stop_gradient(x)}}
        return critique._replace(extra={**(critique.extra or {}), **rebuilt})
