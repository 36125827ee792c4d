"""From the noise number and the `cond` dict to vectors, tokens and channels that a network can use.

`cond` holds any of: "label" int [B], "embedding" float [B, D], "tokens" int [B, L] or float [B, L, D],
"image" float [B, *S, C]. A network declares what it takes by the sizes in its fields; what is declared
but not given is null: the label and the token -1, which have their own row in the embedding tables,
zeros for float conditions. What is given but not declared is an error.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.blocks import Fourier, dense, positions, sinusoidal


def check_cond(cond, *, num_classes=0, embedding_dim=0, vocab=0, token_dim=0, image_channels=0):
    """`cond` as a dict, None as the empty one.

    Raises:
      ValueError: a field that the network does not take, naming the setting that would take it.
    """
    cond = {} if cond is None else {k: v for k, v in cond.items() if v is not None}
    declared = {
        "label": (num_classes, "num_classes"),
        "embedding": (embedding_dim, "embedding_dim"),
        "tokens": (vocab or token_dim, "vocab or token_dim"),
        "image": (image_channels, "image_channels"),
    }
    for name in cond:
        if name not in declared:
            raise ValueError(f"cond: expected fields among {sorted(declared)}, got {name!r}")
        if not declared[name][0]:
            raise ValueError(f"cond: the network takes no {name!r}; set {declared[name][1]} above 0")
    return cond


TAKEN = ("num_classes", "embedding_dim", "vocab", "token_dim", "image_channels")  # fields of a network


def cond_of(module, cond):
    """`check_cond` by those of a network's fields that say what it takes."""
    return check_cond(cond, **{name: getattr(module, name) for name in TAKEN if hasattr(module, name)})


def labels_of(cond, batch):
    """The labels [B] of a condition, all null where there are none.

    Raises:
      ValueError: another shape.
    """
    label = cond.get("label", jnp.full((batch,), -1))
    if label.shape != (batch,):
        raise ValueError(f"cond label: expected shape ({batch},), got {label.shape}")
    return label


def embed_ids(ids, table):
    """Rows of `table` [n + 1, D] by ids [...] in [0, n); negative ids take the last row, the null one."""
    null = table.shape[0] - 1
    return table[jnp.where(ids < 0, null, ids)]


class NoiseFeatures(nn.Module):
    """Features [B, dim] of the noise number [B].

    kind: "fourier" for numbers of order one (EDM's ln(sigma) / 4, log-SNR with a smaller bandwidth),
    "positional" for DDPM's t * 1000 and for DDPM++.
    """

    dim: int
    kind: str = "fourier"
    bandwidth: float = 1.0

    @nn.compact
    def __call__(self, noise):
        if self.kind == "fourier":
            return Fourier(self.dim, self.bandwidth)(noise)
        if self.kind == "positional":
            return sinusoidal(noise, self.dim, endpoint=True)
        raise ValueError(f"noise_features: expected 'fourier' or 'positional', got {self.kind!r}")


class CondVector(nn.Module):
    """The sum [B, dim] of the embedded label and the projected embedding; zeros where none is declared.

    `label_init` is the standard deviation of the label's table.
    """

    dim: int
    num_classes: int = 0
    embedding_dim: int = 0
    label_init: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, cond, batch):
        out = jnp.zeros((batch, self.dim), self.dtype)
        if self.num_classes:
            init = nn.initializers.normal(self.label_init)
            table = self.param("label", init, (self.num_classes + 1, self.dim), jnp.float32)
            out = out + embed_ids(labels_of(cond, batch), table).astype(self.dtype)
        if self.embedding_dim:
            vector = cond.get("embedding", jnp.zeros((batch, self.embedding_dim)))
            if vector.shape != (batch, self.embedding_dim):
                raise ValueError(f"cond embedding: expected shape {(batch, self.embedding_dim)}, got {vector.shape}")
            out = out + dense(self.dim, self.dtype, "embedding")(vector.astype(self.dtype))
        return out


class NoiseCond(nn.Module):
    """The vector [B, dim] that modulates a network: an MLP of noise features and condition."""

    dim: int
    features: int  # of the noise
    kind: str = "fourier"
    bandwidth: float = 1.0
    num_classes: int = 0
    embedding_dim: int = 0
    late: bool = True  # the condition joins after the MLP (ADM, DiT), not before (DDPM++)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, noise, cond):
        batch = noise.shape[0]
        width = self.dim if self.late else self.features
        vector = CondVector(width, self.num_classes, self.embedding_dim, dtype=self.dtype, name="cond")(cond, batch)
        h = NoiseFeatures(self.features, self.kind, self.bandwidth, name="noise")(noise).astype(self.dtype)
        h = h if self.late else h + vector
        h = jax.nn.silu(dense(self.dim, self.dtype, "layer0")(h))
        h = dense(self.dim, self.dtype, "layer1")(h)
        return jax.nn.silu(h + vector if self.late else h)


class Tokens(nn.Module):
    """Context [B, L, dim] for cross-attention from cond "tokens", with their positions added."""

    dim: int
    vocab: int = 0
    token_dim: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, cond, batch):
        if self.vocab and self.token_dim:
            raise ValueError(f"vocab: expected 0 where token_dim is {self.token_dim}, got {self.vocab}")
        if self.vocab:
            ids = cond.get("tokens", jnp.full((batch, 1), -1))
            if ids.ndim != 2 or not jnp.issubdtype(ids.dtype, jnp.integer):
                raise ValueError(f"cond tokens: expected integers [B, L], got {ids.dtype} {ids.shape}")
            init = nn.initializers.normal(1.0)
            table = self.param("table", init, (self.vocab + 1, self.dim), jnp.float32)
            h = embed_ids(ids, table)
        else:
            values = cond.get("tokens", jnp.zeros((batch, 1, self.token_dim)))
            if values.ndim != 3 or values.shape[-1] != self.token_dim:
                raise ValueError(f"cond tokens: expected [B, L, {self.token_dim}], got {values.shape}")
            h = dense(self.dim, self.dtype, "project")(values.astype(self.dtype))
        return (h + positions((h.shape[1],), self.dim)[None]).astype(self.dtype)


def context_of(module, cond, dim, batch):
    """The `Tokens` [B, L, dim] of a network with the fields `vocab`, `token_dim` and `dtype`; None where it takes none.

    Called inside the network's compact `__call__`, whose parameters "tokens" they are.
    """
    if not (module.vocab or module.token_dim):
        return None
    return Tokens(dim, module.vocab, module.token_dim, module.dtype, name="tokens")(cond, batch)


def concat_image(x, cond, image_channels):
    """x [B, *S, C] with cond "image" on further channels, resized to x where its size differs."""
    if not image_channels:
        return x
    image = cond.get("image", jnp.zeros((*x.shape[:-1], image_channels), x.dtype))
    if image.ndim != x.ndim or image.shape[-1] != image_channels or image.shape[0] != x.shape[0]:
        expected = (x.shape[0], *x.shape[1:-1], image_channels)
        raise ValueError(f"cond image: expected shape {expected} up to the sizes, got {image.shape}")
    if image.shape[1:-1] != x.shape[1:-1]:
        image = jax.image.resize(image, (*x.shape[:-1], image_channels), "linear")
    return jnp.concatenate([x, image.astype(x.dtype)], axis=-1)
