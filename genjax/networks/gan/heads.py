"""What stands on a discriminator's features: one `Head` for every architecture, chosen by name.

A head is called as `head(features [B, F], label [B] or None, train) -> Critique`; `features` comes back
in the Critique, and a head with classes adds its findings, and the label it was given, to `extra`. Labels
are whole numbers below `num_classes`; a negative one is null. Everything is computed in float32.

  name          logits                         extra
  linear        [B]                            None
  vector        [B, dim], for kernels (MMD)    None
  projection    [B] psi(f) + <e_y, f>          None
  auxiliary     [B]                            class_logits [B, K], label [B]
  san           [B] scale <omega, f + b>       fun [B], dir [B]
  contrastive   [B]                            embedding [B, E], proxy [B, E], proxies [K, E], label [B]
  classes       [B] log sum exp l              class_logits [B, K] (fake logit 0), label [B]
  extra_class   [B] log sum exp l - l_fake     class_logits [B, K + 1], the last one fake, label [B]
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.construct import construct, group
from genjax.core.numerics import safe_norm
from genjax.core.types import Critique
from genjax.networks.gan.layers import INITS, CondInput, named, one_hot, split_label
from genjax.networks.gan.spectral import SpectralDense, normalized

EPS = 1e-12


def _labels(label, batch):
    return jnp.full((batch,), -1) if label is None else label


def _unit(x):
    return x / jnp.maximum(safe_norm(x, axis=-1, keepdims=True), EPS)


def _layer(head, features, name, use_bias=True):
    return SpectralDense(
        features, head.spectral, use_bias, named(INITS, head.kernel_init, "head.kernel_init"), name=name
    )


def _score(head, f, train):
    return _layer(head, 1, "score", head.use_bias)(f, train)[..., 0]


class Linear(nn.Module):
    """One linear layer. The label, where a network has one, is not read."""

    use_bias: bool = True
    spectral: int = 0
    kernel_init: str = "xavier"

    @nn.compact
    def __call__(self, f, label=None, train=False):
        return Critique(_score(self, f.astype(jnp.float32), train), f)


class Vector(nn.Module):
    """A linear layer to R^dim, where a kernel compares distributions (1801.01401): logits [B, dim]."""

    dim: int = 16
    use_bias: bool = True
    spectral: int = 0
    kernel_init: str = "xavier"

    @nn.compact
    def __call__(self, f, label=None, train=False):
        return Critique(_layer(self, self.dim, "score", self.use_bias)(f.astype(jnp.float32), train), f)


class Projection(nn.Module):
    """logits = psi(f) + <e_y, f> with a table of classes e (1802.05637, eq. 3); a null label leaves psi(f)."""

    num_classes: int = 0
    use_bias: bool = True
    spectral: int = 0
    kernel_init: str = "xavier"

    @nn.compact
    def __call__(self, f, label=None, train=False):
        wide = f.astype(jnp.float32)
        rows = one_hot(label, self.num_classes, f.shape[0])
        e = _layer(self, f.shape[-1], "classes", use_bias=False)(rows, train)
        return Critique(_score(self, wide, train) + jnp.sum(e * wide, axis=-1), f)


class Auxiliary(nn.Module):
    """A real-or-fake logit beside a classifier of K classes (AC-GAN, 1610.09585)."""

    num_classes: int = 0
    use_bias: bool = True
    spectral: int = 0
    kernel_init: str = "xavier"

    @nn.compact
    def __call__(self, f, label=None, train=False):
        wide = f.astype(jnp.float32)
        classes = _layer(self, self.num_classes, "classes")(wide, train)
        extra = {"class_logits": classes, "label": _labels(label, f.shape[0])}
        return Critique(_score(self, wide, train), f, extra)


class SAN(nn.Module):
    """The normalized linear layer of slicing adversarial networks (2301.12811, section 5).

    With h = f + b and the direction omega = w / |w|:

      fun = scale <h, sg(omega)>, dir = sg(scale) <sg(h), omega>, logits = scale <h, omega>.

    `fun` is for the game's own loss, `dir` for the mean difference, `logits` for the generator. With
    classes there is one direction a class, and one more for the null label. It takes no spectral norm.
    """

    num_classes: int = 0

    @nn.compact
    def __call__(self, f, label=None, train=False):
        width = f.shape[-1]
        bias = self.param("bias", nn.initializers.zeros, (width,), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (), jnp.float32)
        init = nn.initializers.normal(width**-0.5)
        w = self.param("direction", init, (self.num_classes + 1 if self.num_classes else 1, width), jnp.float32)
        label = _labels(label, f.shape[0])
        row = jnp.where(label < 0, self.num_classes, label) if self.num_classes else jnp.zeros_like(label)
        omega = _unit(w)[row]
        h = f.astype(jnp.float32) + bias[None]
        fixed = jax.lax.stop_gradient
        dot = lambda a, b: jnp.sum(a * b, axis=-1)
        extra = {"fun": scale * dot(h, fixed(omega)), "dir": fixed(scale) * dot(fixed(h), omega)}
        return Critique(scale * dot(h, omega), f, extra)


class Contrastive(nn.Module):
    """A logit beside a unit embedding of the sample and unit proxies of the classes.

    ContraGAN (2006.12681, eq. 8) and ReACGAN (2111.01118, eq. 6) contrast them; a null label's proxy is zero.
    """

    num_classes: int = 0
    dim: int = 128
    use_bias: bool = True
    spectral: int = 0
    kernel_init: str = "xavier"

    @nn.compact
    def __call__(self, f, label=None, train=False):
        wide, label = f.astype(jnp.float32), _labels(label, f.shape[0])
        embedding = _unit(_layer(self, self.dim, "embedding")(wide, train))
        table = self.param("proxies", nn.initializers.normal(1.0), (self.num_classes, self.dim), jnp.float32)
        proxies = _unit(normalized(self, table, self.spectral, train, "proxies_"))
        proxy = one_hot(label, self.num_classes, f.shape[0]) @ proxies
        extra = {"embedding": embedding, "proxy": proxy, "proxies": proxies, "label": label}
        return Critique(_score(self, wide, train), f, extra)


class Classes(nn.Module):
    """A classifier of K classes as discriminator (1606.03498, section 5): the logit of "fake" is fixed at 0, so

    p(real) = sum_k exp l_k / (sum_k exp l_k + 1) = sigmoid(logits),  logits = log sum_k exp l_k.
    """

    num_classes: int = 0
    spectral: int = 0
    kernel_init: str = "xavier"

    @nn.compact
    def __call__(self, f, label=None, train=False):
        classes = _layer(self, self.num_classes, "classes")(f.astype(jnp.float32), train)
        extra = {"class_logits": classes, "label": _labels(label, f.shape[0])}
        return Critique(jax.nn.logsumexp(classes, axis=-1), f, extra)


class ExtraClass(nn.Module):
    """K + 1 logits, the last one of "fake" (1703.02000): p(real) = sum of the first K shares = sigmoid(logits)."""

    num_classes: int = 0
    spectral: int = 0
    kernel_init: str = "xavier"

    @nn.compact
    def __call__(self, f, label=None, train=False):
        classes = _layer(self, self.num_classes + 1, "classes")(f.astype(jnp.float32), train)
        extra = {"class_logits": classes, "label": _labels(label, f.shape[0])}
        return Critique(jax.nn.logsumexp(classes[:, :-1], axis=-1) - classes[:, -1], f, extra)


HEADS = {
    # name: constructor of the module
    "linear": Linear,
    "vector": Vector,
    "projection": Projection,
    "auxiliary": Auxiliary,
    "san": SAN,
    "contrastive": Contrastive,
    "classes": Classes,
    "extra_class": ExtraClass,
}
BLIND = ("linear", "vector")  # heads that do not read the label
CLASSLESS = (*BLIND, "san")  # heads that work without classes


def _name(head):
    return head if isinstance(head, str) else group(head, "head").get("name")


def make_head(head, num_classes=0, spectral=0, kernel_init="xavier", name="head"):
    """The module of a head: of its name, or of a group {"name": ..., **fields}.

    Args:
      head: name or group; None is "linear".
      num_classes: handed on to heads with classes.
      spectral, kernel_init: of the discriminator, used where the head takes them and the group does not say.

    Raises:
      ValueError: unknown name or field, or a head with classes where num_classes is 0.
    """
    head = head or "linear"
    kind = _name(head)
    if kind in HEADS and kind not in CLASSLESS and num_classes < 1:
        raise ValueError(f"head: expected num_classes of at least 1 for {kind!r}, got {num_classes}")
    defaults = {"spectral": spectral, "kernel_init": kernel_init}
    fixed = {"num_classes": num_classes, "name": name}
    return construct(HEADS, head, "head", fixed=fixed, defaults=defaults, hidden=("parent",))


def reads_label(head):
    """Whether the head takes the label; else a discriminator takes it at its input."""
    return _name(head or "linear") not in BLIND


def critic_input(module, cond, batch, head=None):
    """(label for the head or None, vector [B, D] for the input or None) of a discriminator's condition.

    To be called inside the compact method of a module with `head`, `num_classes`, `embedding_dim` and
    `label_dim`: a label that the head does not read joins the embedding at the input. `head` replaces the
    module's.
    """
    label, classes = None, module.num_classes
    if reads_label(head or module.head):
        label, cond = split_label(cond, classes)
        classes = 0
    return label, CondInput(classes, module.embedding_dim, module.label_dim, name="cond")(cond, batch)
