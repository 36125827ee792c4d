"""A mixture whose weights are a prompt: the smallest conditional model with an exact, differentiable denoiser.

cond[name] holds C [B, K]; component k then has the weight proportional to w_k exp(C_k). C = 0 is the prior itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from genjax.core.types import Prediction
from genjax.oracles.gaussian import FullMixture


@struct.dataclass
class Prompted:
    """A `FullMixture` over vectors [D] with prompts.

    Attributes:
      law: the mixture, K components.
      offset: [K] or [B, K], added to every prompt.
      name: of the prompt in `cond`.
    """

    law: FullMixture
    offset: Any = 0.0
    name: str = struct.field(pytree_node=False, default="embedding")

    def weights(self, prompt):
        """Probabilities of the components, [B, K], under prompts [B, K]."""
        return jax.nn.softmax(self.law.log_weights[None] + jnp.atleast_2d(self.offset) + prompt, axis=-1)

    def denoiser(self, process):
        """E[x0 | x_t, C] as a Denoiser; without a prompt that of C = offset."""

        def denoiser(x, t, cond=None, key=None):
            size = (x.shape[0], self.law.log_weights.shape[0])
            prompt = jnp.zeros(size, x.dtype) if cond is None else cond[self.name]
            prompt = jnp.broadcast_to(prompt + jnp.atleast_2d(self.offset), size)
            a, s = (jnp.broadcast_to(jnp.reshape(c, -1), x.shape[:1]) for c in (process.alpha(t), process.sigma(t)))

            def one(x, c, a, s):
                x0, _, eps = self.law.replace(log_weights=self.law.log_weights + c).moments(x[None], a, s)
                return x0[0], eps[0]

            return Prediction(*jax.vmap(one)(x, prompt, a, s))

        return denoiser
