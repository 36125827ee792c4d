"""Losses of games whose critic knows classes.

What they read beside the logits, all in `Critique.extra`: "label" int32 [B] (put there by the recipe: the batch's
own for reals, the condition of generated samples), and from the discriminator's head "class_logits" [B, K],
"embedding" [B, F] and "proxy" [B, F], the learned vector of the given label (heads "auxiliary", "contrastive";
for the (K + 1)-class losses "classes", or "extra_class" with `num_classes` given).
"""

import jax
import jax.numpy as jnp

from genjax.core.collectives import axis_index, gather
from genjax.losses.adversarial_logits import AdversarialLoss


def cross_entropy(logits, label):
    """-log softmax(logits)_label, [B]; 0 where the label is -1 (none known)."""
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, jnp.maximum(label, 0)[:, None], axis=1)[:, 0]
    return jnp.where(label < 0, 0.0, -picked)


def classes_of(critique):
    """The class logits, in float32 at least."""
    logits = critique.extra["class_logits"]
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _accuracy(critique):
    return jnp.mean(jnp.argmax(classes_of(critique), axis=-1) == critique.extra["label"])


def auxiliary(base, weight=1.0, g_weight=1.0, on_fakes=True):
    """AC-GAN (1610.09585, equations 2 and 3): the base loss plus cross-entropy of a class head.

    L_D += weight (CE(x, y) + CE(G(z, y), y)), L_G += g_weight CE(G(z, y), y).

    Args:
      base: AdversarialLoss on the logits.
      on_fakes: whether the critic's head learns from generated samples too, as in the paper.
    """

    def term(critique):
        return cross_entropy(classes_of(critique), critique.extra["label"])

    def d(r, f):
        value, aux = base.d(r, f)
        classes = term(r) + (term(f) if on_fakes else 0.0)
        return value + weight * classes, {**aux, "class_loss": jnp.mean(classes), "class_accuracy": _accuracy(r)}

    def g(f, r=None):
        value, aux = base.g(f, r)
        return value + g_weight * term(f), aux

    return base._replace(d=d, g=g, needs=(*base.needs, "label", "fake_label", "class_logits"))


# One softmax over K classes and "generated". The head's plain logit is log(D_r / D_{K+1}), so that
# log D_r = -softplus(-logit) and log D_{K+1} = -softplus(logit).


def with_generated(critique, num_classes=0):
    """Logits [B, K + 1] over the classes and "generated", whose logit is 0 where the head has none of its own.

    Args:
      num_classes: K, by which a head with K + 1 class logits is known; 0: the head has K.
    """
    logits = classes_of(critique)
    if num_classes and logits.shape[-1] == num_classes + 1:
        return logits
    if num_classes and logits.shape[-1] != num_classes:
        raise ValueError(f"class_logits: expected {num_classes} or one more, got {logits.shape[-1]}")
    return jnp.concatenate([logits, jnp.zeros_like(logits[:, :1])], axis=-1)


def semi_supervised(weight=1.0, num_classes=0, reals="all"):
    """The (K + 1)-class critic of 1606.03498, section 5; a label of -1 is an unlabelled example.

    L_D = CE(softmax over K classes, y) where y is known + weight (softplus(-d(x)) + softplus(d(G(z)))),
    L_G = softplus(-d(G(z))) = -log D_r, d the plain logit; wrap it in `feature_matching` for the paper's generator.

    The labelled term is averaged over the labelled examples of the batch.

    Args:
      weight: of the unsupervised part, 0.5 in the paper's code.
      num_classes: K, needed for a head with K + 1 class logits.
      reals: which examples are reals of the unsupervised part: "all", or "unlabelled" as in the paper's code, where
        a few labelled ones that return in every batch would otherwise weigh more than the others.
    """
    if reals not in ("all", "unlabelled"):
        raise ValueError(f"reals: expected 'all' or 'unlabelled', got {reals!r}")

    def d(r, f):
        label = r.extra["label"]
        share = jnp.maximum(jnp.mean(label >= 0), 1e-6)
        labelled = cross_entropy(with_generated(r, num_classes)[:, :-1], label)
        real = jax.nn.softplus(-r.logits)
        if reals == "unlabelled":
            real = jnp.where(label < 0, real, 0.0) / jnp.maximum(jnp.mean(label < 0), 1e-6)
        unlabelled = real + jax.nn.softplus(f.logits)
        return labelled / share + weight * unlabelled, {"class_loss": jnp.mean(labelled) / share}

    def g(f, r=None):
        return jax.nn.softplus(-f.logits), {}

    return AdversarialLoss(d, g, needs=("label", "class_logits"))


def _k_plus_1(generator, num_classes, needs=()):
    def d(r, f):
        real, fake = with_generated(r, num_classes), with_generated(f, num_classes)
        generated = jnp.full(len(fake), fake.shape[-1] - 1, jnp.int32)
        value = cross_entropy(real, r.extra["label"]) + cross_entropy(fake, generated)
        return value, {"class_accuracy": jnp.mean(jnp.argmax(real[:, :-1], axis=-1) == r.extra["label"])}

    return AdversarialLoss(d, lambda f, r=None: (generator(f), {}), needs=("label", "class_logits", *needs))


def label_gan(num_classes=0):
    """LabelGAN (1703.02000, equation 5): K + 1 classes; the generator minimises -log D_r = softplus(-d)."""
    return _k_plus_1(lambda f: jax.nn.softplus(-f.logits), num_classes)


def am_gan(labels="dynamic", balance=2.0, num_classes=0, axis_name=None):
    """AM-GAN (1703.02000, equation 7): L_G = H(onehot(y*), D(G(z))) over K + 1 classes.

    Args:
      labels: where the target y* comes from. "dynamic": the most probable class. "balanced": argmax_k of
        log p_k(x) - balance log sum_batch p_k, p the softmax over the K classes, which keeps rare classes alive.
        "predefined": the condition of the generator.
      balance: strength of the balancing, >= 0.
      num_classes: K, needed for a head with K + 1 class logits.
      axis_name: axis over which the batch is split.
    """
    if labels not in ("dynamic", "balanced", "predefined"):
        raise ValueError(f"labels: expected 'dynamic', 'balanced' or 'predefined', got {labels!r}")

    def target(f):
        if labels == "predefined":
            return f.extra["label"]
        log_p = jax.nn.log_softmax(with_generated(f, num_classes)[:, :-1])
        if labels == "balanced":
            counts = jnp.sum(jnp.exp(gather(log_p, axis_name)), axis=0, keepdims=True)
            log_p = log_p - balance * jnp.log(counts + 1e-12)
        return jax.lax.stop_gradient(jnp.argmax(log_p, axis=-1))

    needs = ("fake_label",) if labels == "predefined" else ()
    return _k_plus_1(lambda f: cross_entropy(with_generated(f, num_classes), target(f)), num_classes, needs)


# Contrastive conditioning: unit embeddings, a unit proxy a class, terms over the whole batch


def _unit(x):
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def _contrast(critique, axis_name):
    """Own rows against the whole batch: (own proxies' similarity [b], similarity [b, B], same label, same row)."""
    own, proxy = _unit(critique.extra["embedding"]), _unit(critique.extra["proxy"])
    label = critique.extra["label"]
    every, labels = gather((own, label), axis_name)
    row = axis_index(axis_name) * len(own) + jnp.arange(len(own))
    same = label[:, None] == labels[None]
    itself = row[:, None] == jnp.arange(len(every))[None]
    return jnp.sum(own * proxy, axis=-1), own @ every.T, same, itself


def conditional_contrastive(temperature=1.0, axis_name=None):
    """The 2C loss of a Critique, [B] (2006.12681, equation 8): own proxy and own class against the whole batch."""

    def term(critique):
        proxy, similarity, same, itself = _contrast(critique, axis_name)
        proxy, similarity = proxy / temperature, similarity / temperature
        logits = jnp.where(itself, -jnp.inf, similarity)
        positive = jnp.where(same, logits, -jnp.inf)
        with_proxy = lambda rows: jax.nn.logsumexp(jnp.concatenate([proxy[:, None], rows], axis=1), axis=1)
        return with_proxy(logits) - with_proxy(positive)

    return term


def data_to_data(temperature=0.5, positive=0.98, negative=0.02, axis_name=None):
    """The D2D-CE loss of a Critique, [B] (2111.01118, equation 8), with margins on easy pairs.

    -log( e^{[f_i.w - m_p]_- / tau} / ( e^{[f_i.w - m_p]_- / tau} + sum_{j: y_j != y_i} e^{[f_i.f_j - m_n]_+ / tau} ) )
    """

    def term(critique):
        proxy, similarity, same, _ = _contrast(critique, axis_name)
        near = jnp.minimum(proxy - positive, 0.0) / temperature
        far = jnp.where(same, -jnp.inf, jnp.maximum(similarity - negative, 0.0) / temperature)
        return jax.nn.logsumexp(jnp.concatenate([near[:, None], far], axis=1), axis=1) - near

    return term


def _contrastive(base, term, weight, g_weight):
    def d(r, f):
        value, aux = base.d(r, f)
        classes = term(r)
        return value + weight * classes, {**aux, "class_loss": jnp.mean(classes)}

    def g(f, r=None):
        value, aux = base.g(f, r)
        return value + g_weight * term(f), aux

    return base._replace(d=d, g=g, needs=(*base.needs, "label", "fake_label", "embedding", "proxy"))


def contra_gan(base, weight=1.0, g_weight=1.0, temperature=1.0, axis_name=None):
    """ContraGAN (2006.12681): the base loss plus `conditional_contrastive`, of reals for D, of fakes for G."""
    return _contrastive(base, conditional_contrastive(temperature, axis_name), weight, g_weight)


def re_acgan(base, weight=1.0, g_weight=1.0, temperature=0.5, positive=0.98, negative=0.02, axis_name=None):
    """ReACGAN (2111.01118): the base loss plus `data_to_data`, of reals for D, of fakes for G."""
    return _contrastive(base, data_to_data(temperature, positive, negative, axis_name), weight, g_weight)
