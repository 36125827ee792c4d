"""AM score of samples under a classifier trained on the data (1703.02000, section 5.2); lower is better."""

from typing import NamedTuple

import numpy as np

from genjax.metrics.inception_score import _logsumexp


class AMScore(NamedTuple):
    """AM = entropy + kl."""

    score: float
    entropy: float  # E_x H(C(x)): how unsure the classifier is of single samples
    kl: float  # KL(mean prediction on the data || mean prediction on samples): what the samples lack


def unsmoothed(logits, smoothing):
    """Logits [N, K] of what a classifier says whose targets were (1 - smoothing) onehot + smoothing / K.

    Its best prediction is that mixture of the true one with the uniform; this takes the mixture away, with
    probabilities of at least 1e-12. Entropies of samples are otherwise bounded from below by that of the targets.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or not 0 <= smoothing < 1:
        raise ValueError(f"smoothing: expected logits [N, K] and a number in [0, 1), got {logits.shape}, {smoothing}")
    p = np.exp(logits - _logsumexp(logits, 1))
    p = np.maximum((p - smoothing / p.shape[1]) / (1 - smoothing), 1e-12)
    return np.log(p / p.sum(axis=1, keepdims=True))


def am_score(logits, reference):
    """E_x H(C(x)) + KL(mean C of the data || mean C of samples), in nats.

    Args:
      logits: [N, K] of samples, of a classifier trained on the data.
      reference: [M, K] logits of the data.
    """
    logits, reference = np.asarray(logits, np.float64), np.asarray(reference, np.float64)
    if logits.ndim != 2 or reference.ndim != 2 or logits.shape[1] != reference.shape[1]:
        raise ValueError(f"am_score: expected logits [N, K] and [M, K], got {logits.shape} and {reference.shape}")
    log_p = logits - _logsumexp(logits, 1)
    p = np.exp(log_p)
    entropy = float(-np.mean(np.sum(np.where(p > 0, p * log_p, 0), axis=1)))
    q = np.exp(reference - _logsumexp(reference, 1)).mean(axis=0)
    with np.errstate(divide="ignore"):
        log_mean = _logsumexp(log_p, 0)[0] - np.log(len(log_p))
        kl = float(np.sum(np.where(q > 0, q * (np.log(q) - log_mean), 0)))
    return AMScore(entropy + kl, entropy, kl)
