"""Parts that generators and discriminators share: names of activations and initializations, conditions as
vectors, statistics of a minibatch, self-attention."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.construct import nearest
from genjax.core import collectives
from genjax.core.keys import normal_like
from genjax.networks.blocks import xavier
from genjax.networks.conditioning import check_cond
from genjax.networks.gan.spectral import SpectralConv

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "tanh": jnp.tanh,
}
INITS = {
    "xavier": xavier(),  # uniform, mean of both fans
    "he": nn.initializers.he_normal(),
    "lecun": nn.initializers.lecun_normal(),
    "normal": nn.initializers.normal(0.02),  # DCGAN's (1511.06434, section 4)
    "orthogonal": nn.initializers.orthogonal(),  # of the matrix [inputs, outputs] (1809.11096, appendix B)
}


def named(table, name, field):
    """table[name]; a ValueError that says the nearest name where there is none."""
    if name not in table:
        raise ValueError(f"{field}: unknown name {name!r}{nearest(name, table)}")
    return table[name]


def check_output(name):
    """Raises ValueError unless `name` is that of an output in `squash`."""
    if name not in ("linear", "tanh"):
        raise ValueError(f"output: expected 'linear' or 'tanh', got {name!r}")


def squash(x, output):
    """tanh(x) for "tanh", x for "linear"."""
    return jnp.tanh(x) if output == "tanh" else x


def doublings(shape, base, field="shape"):
    """How often `base` must be doubled to reach the size of `shape` (H, W, C).

    Raises:
      ValueError: not a square image of size base * 2^n with n >= 1.
    """
    if len(shape) != 3 or shape[0] != shape[1]:
        raise ValueError(f"{field}: expected a square image (H, H, C), got {tuple(shape)}")
    n = round(math.log2(shape[0] / base)) if base > 0 else -1
    if n < 1 or base * 2**n != shape[0]:
        raise ValueError(f"{field}: expected a size of {base} times a power of two, at least 2, got {shape[0]}")
    return n


class CondInput(nn.Module):
    """The condition as a vector [B, D] to be concatenated: the label one-hot, or a row of a learned table of
    width `label_dim`, beside cond "embedding" (which may hold one number, such as a temperature). What is
    null is zeros; None where nothing is declared."""

    num_classes: int = 0
    embedding_dim: int = 0
    label_dim: int = 0
    label_init: Callable = nn.initializers.normal(1.0)

    @nn.compact
    def __call__(self, cond, batch):
        cond = check_cond(cond, num_classes=self.num_classes, embedding_dim=self.embedding_dim)
        parts = []
        if self.num_classes:
            label = one_hot(cond.get("label"), self.num_classes, batch)
            if self.label_dim:
                label = label @ self.param("label", self.label_init, (self.num_classes, self.label_dim), jnp.float32)
            parts.append(label)
        if self.embedding_dim:
            vector = cond.get("embedding", jnp.zeros((batch, self.embedding_dim)))
            if vector.shape != (batch, self.embedding_dim):
                raise ValueError(f"cond embedding: expected shape {(batch, self.embedding_dim)}, got {vector.shape}")
            parts.append(vector)
        return jnp.concatenate(parts, axis=-1) if parts else None


def one_hot(label, num_classes, batch):
    """Labels [B] as float rows [B, num_classes]; negative ones, and None, are zeros."""
    if label is None:
        return jnp.zeros((batch, num_classes))
    if label.shape != (batch,):
        raise ValueError(f"cond label: expected shape ({batch},), got {label.shape}")
    return jax.nn.one_hot(label, num_classes)


def split_label(cond, num_classes):
    """cond as (label or None, cond without it), for a head that reads the label.

    Raises:
      ValueError: a label where the network has no classes.
    """
    cond = {} if cond is None else dict(cond)
    label = cond.pop("label", None)
    if label is not None and not num_classes:
        raise ValueError("cond: the network takes no 'label'; set num_classes above 0")
    return label, cond


def beside(x, vector):
    """x [B, *S, C] with a vector [B, D] on further channels, the same at every place; x where it is None."""
    if vector is None:
        return x
    vector = vector.astype(x.dtype).reshape(x.shape[0], *(1,) * (x.ndim - 2), -1)
    return jnp.concatenate([x, jnp.broadcast_to(vector, (*x.shape[:-1], vector.shape[-1]))], axis=-1)


def with_reference(module, z, cond, rows, num_classes):
    """z and cond with the fixed reference batch of virtual batch normalization in front.

    The reference latents are drawn once, at init, into the collection "reference"; their labels go round
    the classes, their embedding is null. The caller drops the first `rows` rows of the result.
    """
    if not rows:
        return z, cond
    draw = lambda: jax.random.normal(module.make_rng("params"), (rows, *z.shape[1:]), jnp.float32)
    z = jnp.concatenate([module.variable("reference", "z", draw).value.astype(z.dtype), z])
    cond = {} if cond is None else {k: v for k, v in cond.items() if v is not None}
    fill = {"label": jnp.arange(rows) % max(num_classes, 1)}
    front = {
        k: fill[k].astype(v.dtype) if k in fill else jnp.zeros((rows, *v.shape[1:]), v.dtype) for k, v in cond.items()
    }
    return z, {k: jnp.concatenate([front[k], v]) for k, v in cond.items()}


def add_noise(module, x, std, train):
    """x [B, ...] + std times normal numbers from the stream "noise", one stream a sample; x where not train."""
    if not (train and std):
        return x
    return x + std * normal_like(module.make_rng("noise"), x)


class MinibatchDiscrimination(nn.Module):
    """Closeness of each example to the rest of its batch (1606.03498, section 3.2): f [B, A] -> [B, A + kernels].

    M_i = f_i T with T [A, kernels, dim]; o(x_i)_b = sum_j exp(-|M_ib - M_jb|_1), itself (a constant 1)
    included, is put beside f. With `axis_name` j runs over all devices.
    """

    kernels: int = 16
    dim: int = 5
    std: float = 0.1  # standard deviation of T
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, f):
        shape = (f.shape[-1], self.kernels, self.dim)
        t = self.param("kernel", nn.initializers.normal(self.std), shape, jnp.float32)
        m = jnp.einsum("ia,abc->ibc", f.astype(self.dtype), t.astype(self.dtype))
        rest = collectives.gather(m, self.axis_name)
        gaps = jnp.sum(jnp.abs(m[:, None] - rest[None]).astype(jnp.float32), axis=-1)
        return jnp.concatenate([f, jnp.sum(jnp.exp(-gaps), axis=1).astype(f.dtype)], axis=-1)


def minibatch_stddev(x, group=4, channels=1, interleaved=False, axis_name=None):
    """Standard deviation over groups of a batch as further channels (1710.10196, section 3).

    In each group of examples: the deviation of every feature, sqrt(var + 1e-8), averaged over places and
    over each of `channels` parts of the channels; the result is the same at all places of all its members.

    Args:
      x: [B, *S, C].
      group: examples a group, a divisor of the batch of all devices; a larger one means that batch.
      channels: parts of the channels, each giving one feature; a divisor of C.
      interleaved: groups {i, i + B / group, ...} as in the published code, else contiguous ones, which
        whole devices hold and which need no communication.
      axis_name: mapped axis over which the batch is spread.

    Returns:
      [B, *S, C + channels].
    """
    local, devices = x.shape[0], collectives.axis_size(axis_name)
    group = min(group, local * devices)
    if (local * devices) % group:
        raise ValueError(f"group: expected a divisor of the batch {local * devices}, got {group}")
    if x.shape[-1] % channels:
        raise ValueError(f"channels: expected a divisor of {x.shape[-1]}, got {channels}")
    spread = axis_name is not None and (interleaved or local % group)
    wide = collectives.gather(x, axis_name) if spread else x
    wide = wide.astype(jnp.promote_types(x.dtype, jnp.float32))
    count = wide.shape[0] // group
    shape, axis = ((group, count), 0) if interleaved else ((count, group), 1)
    y = wide.reshape(*shape, -1, channels, x.shape[-1] // channels)
    y = jnp.sqrt(jnp.var(y, axis=axis) + 1e-8).mean(axis=(1, 3))  # [count, channels]
    y = jnp.tile(y, (group, 1)) if interleaved else jnp.repeat(y, group, axis=0)
    if spread:
        y = jax.lax.dynamic_slice_in_dim(y, collectives.axis_index(axis_name) * local, local)
    return beside(x, y)


class SelfAttention(nn.Module):
    """x + gamma attention(x) over the places of x [B, H, W, C], gamma starting at zero (1805.08318, eq. 1 to 3).

    Queries and keys have C / 8 channels, values C / 2; keys and values are max-pooled 2x2 where sizes are
    even. No bias; the products are not scaled.
    """

    spectral: int = 1
    kernel_init: str = "orthogonal"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        batch, height, width, channels = x.shape
        if channels < 8:
            raise ValueError(f"attention: expected at least 8 channels, got {channels}")

        def layer(features, name):
            init = named(INITS, self.kernel_init, "kernel_init")
            return SpectralConv(
                features, 1, self.spectral, use_bias=False, kernel_init=init, dtype=self.dtype, name=name
            )

        def tokens(y, pooled):
            if pooled and height % 2 == 0 and width % 2 == 0:
                y = y.reshape(batch, height // 2, 2, width // 2, 2, -1).max(axis=(2, 4))
            return y.reshape(batch, -1, y.shape[-1])

        q = tokens(layer(channels // 8, "query")(x, train), False)
        k = tokens(layer(channels // 8, "key")(x, train), True)
        v = tokens(layer(channels // 2, "value")(x, train), True)
        weights = jax.nn.softmax(jnp.einsum("bqc,bkc->bqk", q, k, preferred_element_type=jnp.float32), axis=-1)
        y = jnp.einsum("bqk,bkc->bqc", weights.astype(self.dtype), v).reshape(batch, height, width, -1)
        gamma = self.param("gamma", nn.initializers.zeros, (), jnp.float32)
        return x + gamma.astype(self.dtype) * layer(channels, "out")(y, train)
