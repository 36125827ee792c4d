"""AM score of samples under a classifier trained on the data (1703.02000, section 5.2); lower is better."""

from typing import NamedTuple

import numpy as np

from genjax.metrics.inception_score import _logsumexp


class AMScore(NamedTuple):
    """AM = entropy + kl."""

    score: float
    entropy: float  # E_x H(C(x)): how unsure the classifier is of single samples
    kl: float  # KL(mean prediction on the data || mean prediction on samples): what the samples lack


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
