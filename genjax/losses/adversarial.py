"""All adversarial losses by name, and what may be put around any of them.

ADVERSARIAL: name -> constructor of an AdversarialLoss; those that take `base` wrap another loss.
"""

import jax.numpy as jnp

from genjax.core.collectives import axis_index, gather
from genjax.losses.adversarial_classes import am_gan, auxiliary, contra_gan, label_gan, re_acgan, semi_supervised
from genjax.losses.adversarial_features import cramer, feature_matching, mmd, repulsive_mmd
from genjax.losses.adversarial_logits import (
    AdversarialLoss,
    f_gan,
    hinge,
    least_squares,
    minimax,
    non_saturating,
    random_margin_hinge,
    relativistic_average,
    relativistic_pairing,
    wasserstein,
)


def san(base, weight=1.0):
    """The sliced form of a loss, SAN (2301.12811, equation 13).

    L_D = base on <h, sg(omega)> + weight (E <sg(h), omega> of generated - of real); the generator uses the plain
    logits. The critic's head gives extra["fun"] = <h, sg(omega)> and extra["dir"] = <sg(h), omega>, |omega| = 1,
    both of the logits' shape.
    """
    along = lambda critique, name: critique._replace(logits=critique.extra[name])
    flat = lambda critique: critique.extra["dir"].reshape(len(critique.extra["dir"]), -1).mean(axis=-1)

    def d(r, f):
        value, aux = base.d(along(r, "fun"), along(f, "fun"))
        direction = flat(f) - flat(r)
        return value + weight * direction, {**aux, "direction": -jnp.mean(direction)}

    return base._replace(d=d, needs=(*base.needs, "fun", "dir"), logit=lambda critique: critique.extra["fun"])


def top_k(base, share=0.5, decay=0.0, axis_name=None):
    """The generator learns from the share of generated samples with the highest logits (2002.06224, equation 4).

    Args:
      base: AdversarialLoss whose g gives one value a sample.
      share: share of the batch that is kept at last, in (0, 1].
      decay: the share starts at 1 and is multiplied by (1 - decay) each step until `share`; 0 for `share` at once.
      axis_name: axis over which the batch is split.
    """
    if not 0 < share <= 1 or not 0 <= decay < 1:
        raise ValueError(f"share: expected a share in (0, 1] and a decay in [0, 1), got {share} and {decay}")

    def g(f, r=None):
        value, aux = base.g(f, r)
        scores = base.logit(f)
        scores = scores.reshape(len(scores), -1).mean(axis=-1)
        every = gather(scores, axis_name)
        kept = share if not decay else jnp.maximum(share, (1 - decay) ** f.extra["step"])
        number = jnp.maximum(1.0, jnp.round(kept * len(every)))
        place = axis_index(axis_name) * len(scores) + jnp.arange(len(scores))
        later = (every[None] == scores[:, None]) & (jnp.arange(len(every))[None] < place[:, None])  # ties: first come
        rank = jnp.sum((every[None] > scores[:, None]) | later, axis=1)
        return jnp.where(rank < number, value * (len(every) / number), 0.0), aux

    return base._replace(g=g, needs=(*base.needs, "step") if decay else base.needs)


ADVERSARIAL = {
    "non_saturating": non_saturating,
    "minimax": minimax,
    "least_squares": least_squares,
    "wasserstein": wasserstein,
    "hinge": hinge,
    "random_margin_hinge": random_margin_hinge,
    "relativistic_pairing": relativistic_pairing,
    "relativistic_average": relativistic_average,
    "f_gan": f_gan,
    "mmd": mmd,
    "repulsive_mmd": repulsive_mmd,
    "cramer": cramer,
    "semi_supervised": semi_supervised,
    "label_gan": label_gan,
    "am_gan": am_gan,
    # around another loss, `base`
    "auxiliary": auxiliary,
    "contra_gan": contra_gan,
    "re_acgan": re_acgan,
    "feature_matching": feature_matching,
    "san": san,
    "top_k": top_k,
}

__all__ = ["ADVERSARIAL", *ADVERSARIAL, "AdversarialLoss"]
