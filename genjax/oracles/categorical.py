"""A small joint table over tokens: the exact denoiser of every discrete process.

All V^N sequences are enumerated, so V^N should stay below some ten thousands.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.core.keys import draw
from genjax.core.types import Prediction


@struct.dataclass
class TokenTable:
    """The law of N tokens of {0 ... V - 1}, as the log-probability of each sequence.

    Attributes:
      log_probs: [V^N], normalized; sequence i is i written in base V, first token first.
      vocab: V, static.
      length: N, static.
    """

    log_probs: Any
    vocab: int = struct.field(pytree_node=False)
    length: int = struct.field(pytree_node=False)

    def sequences(self):
        """All sequences, [V^N, N] int32."""
        shape = (self.vocab,) * self.length
        return np.stack(np.unravel_index(np.arange(self.vocab**self.length), shape), axis=-1).astype(np.int32)

    def index(self, tokens):
        """Number of a sequence: [B, N] -> [B]."""
        return jnp.sum(tokens * (self.vocab ** np.arange(self.length)[::-1])[None], axis=-1)

    def sample(self, keys, n):
        """[n, N] int32."""
        noise = draw(jax.random.gumbel, keys, (n, self.log_probs.shape[0]))
        return jnp.asarray(self.sequences())[jnp.argmax(self.log_probs[None] + noise, axis=-1)]

    def log_prob(self, tokens):
        """log p of sequences [B, N], [B]."""
        return self.log_probs[self.index(tokens)]

    def entropy(self):
        """-sum p log p, in nats."""
        return jnp.sum(jax.scipy.special.entr(jnp.exp(self.log_probs)))

    def log_posterior(self, process, x, t):
        """log p(x0 = sequence i | x_t = x) for x [B, N] under a discrete process, [B, V^N]."""
        emission = process.log_emission(x, t)  # [B, N, V]
        chosen = jnp.arange(self.length)[None], self.sequences()  # [1, N], [V^N, N]
        return jax.nn.log_softmax(self.log_probs[None] + jnp.sum(emission[:, chosen[0], chosen[1]], axis=-1), axis=-1)

    def denoiser(self, process):
        """The exact Denoiser: `logits` [B, N, V] are log p(x0^n = v | all of x_t)."""
        member = self.sequences()[None, :, :, None] == np.arange(self.vocab)[None, None, None]  # [1, V^N, N, V]

        def denoiser(x, t, cond=None, key=None):
            log_post = self.log_posterior(process, x, t)[:, :, None, None]
            return Prediction(logits=jax.nn.logsumexp(jnp.where(member, log_post, -jnp.inf), axis=1))

        return denoiser


def token_table(probs):
    """`TokenTable` from probabilities [V, V, ..., V], one axis a token.

    Raises:
      ValueError: axes of different sizes, or negative entries.
    """
    probs = np.asarray(probs, jnp.result_type(float))
    if probs.ndim == 0 or len(set(probs.shape)) != 1:
        raise ValueError(f"probs: expected equal axes, one a token, got shape {probs.shape}")
    if not np.all(probs >= 0) or probs.sum() <= 0:
        raise ValueError(f"probs: expected numbers >= 0 with a positive sum, got a minimum of {probs.min():g}")
    with np.errstate(divide="ignore"):
        log_probs = np.log(probs.reshape(-1) / probs.sum())
    return TokenTable(jnp.asarray(log_probs), probs.shape[0], probs.ndim)


def random_table(key, vocab, length, spread=1.0):
    """A table whose log-weights are normal with standard deviation `spread`."""
    logits = spread * jax.random.normal(key, (vocab**length,))
    return TokenTable(jax.nn.log_softmax(logits), vocab, length)
