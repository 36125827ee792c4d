"""Inception Score (1606.03498, section 4): exp of the mean KL(p(y | x) || p(y)), from a classifier's logits."""

import numpy as np


def _logsumexp(x, axis):
    top = x.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):  # log 0 where all terms are
        return np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top


def inception_score(logits, splits=1):
    """Inception Score of samples.

    Args:
      logits: [N, K] of any classifier (name it beside the figure), unnormalized log-probabilities.
      splits: number of equal parts, each scored by its own marginal p(y).

    Returns:
      (mean, standard deviation over the splits), floats; the mean lies in [1, K].
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or not 1 <= splits <= len(logits):
        raise ValueError(f"inception_score: expected logits [N, K] with N >= splits = {splits}, got {logits.shape}")
    scores = []
    for part in np.array_split(logits - _logsumexp(logits, 1), splits):
        log_marginal = _logsumexp(part, 0) - np.log(len(part))
        # p log p -> 0 where p = 0; the marginal is 0 there only if all p are
        gap = np.where(part > -np.inf, part - np.where(log_marginal > -np.inf, log_marginal, 0), 0)
        scores.append(np.exp(np.mean(np.sum(np.exp(part) * gap, axis=1))))
    return float(np.mean(scores)), float(np.std(scores))
