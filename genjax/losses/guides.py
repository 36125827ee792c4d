"""Training what guides: classifiers of noisy data, guides taught by a model of clean data, readers of features.

Losses on models {"guide": ...}, a callable of noisy x; batch["x"] is clean.
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold, per_sample
from genjax.core.numerics import mean_except_batch
from genjax.losses.denoising import draw_times


def cross_entropy(logits, labels):
    """-log softmax(logits)[label], [B]."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def _corrupted(key, models, batch, process, times):
    keys = per_sample(key, batch["x"].shape[0])
    t, _ = draw_times(models, times, fold(keys, 1))
    return process.corrupt(fold(keys, 2), batch["x"], t)[0], t, fold(keys, 0)


def noisy_classification(process, times, noisy=True):
    """Cross-entropy of models["guide"] (x_t, t) -> logits [B, K] against batch["label"] (2105.05233, section 4).

    Args:
      noisy: False shows it clean data only (t as drawn), the control.
    """

    def loss(key, models, batch):
        x, t, _ = _corrupted(key, models, batch, process, times)
        logits = models["guide"](x if noisy else batch["x"], t)
        hit = jnp.argmax(logits, axis=1) == batch["label"]
        return cross_entropy(logits, batch["label"]), {"t": t, "accuracy": hit.astype(logits.dtype)}

    return loss


def knowledge_transfer(process, times, temperature=0.25):
    """KL(softmax(f(x0) / temperature) || softmax(guide(x_t, t))) (PPAP, 2212.05973, eq. 8): no label is read.

    models["teacher"] (x0) -> logits is the off-the-shelf model of clean data; only its logits are divided.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected > 0, got {temperature!r}")

    def loss(key, models, batch):
        x, t, _ = _corrupted(key, models, batch, process, times)
        said = jax.lax.stop_gradient(jax.nn.log_softmax(models["teacher"](batch["x"]) / temperature))
        heard = jax.nn.log_softmax(models["guide"](x, t))
        return jnp.sum(jnp.exp(said) * (said - heard), axis=1), {"t": t}

    return loss


def feature_reading(process, times):
    """Mean squared error of models["guide"] (features, t) against batch["target"] (LaCon, 2305.11520).

    models["denoiser"] is frozen and returns predictions with features.
    """

    def loss(key, models, batch):
        x, t, inner = _corrupted(key, models, batch, process, times)
        features = jax.lax.stop_gradient(models["denoiser"](x, t, None, inner).features)
        return mean_except_batch((models["guide"](features, t) - batch["target"]) ** 2), {"t": t}

    return loss
