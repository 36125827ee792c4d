"""What a linear layer on frozen features knows of the classes, by ridge regression: closed form, no training."""

import numpy as np

from genjax.metrics.pairwise import as_pair


def linear_probe(features, labels, test_features, test_labels, ridge=1e-2):
    """Accuracy on the test rows of the linear layer that fits one-hot labels of the others by least squares.

    Features are standardized by the training rows; constant ones are left out.

    Args:
      features, test_features: [N, ...] and [M, ...].
      labels, test_labels: whole numbers >= 0, [N] and [M].
      ridge: penalty on the squared weights, relative to the N examples.
    """
    x, y = as_pair(features, test_features, ("features", "test_features"))
    labels, test_labels = np.asarray(labels), np.asarray(test_labels)
    if len(labels) != len(x) or len(test_labels) != len(y) or labels.min() < 0:
        raise ValueError(
            f"labels: expected {len(x)} and {len(y)} labels >= 0, got {labels.shape} and {test_labels.shape}"
        )
    if not ridge > 0:
        raise ValueError(f"ridge: expected a number > 0, got {ridge}")
    mean, std = x.mean(axis=0), x.std(axis=0)
    kept = std > 0
    scale = lambda a: (a[:, kept] - mean[kept]) / std[kept]
    x, y = scale(x), scale(y)
    target = np.eye(labels.max() + 1)[labels]
    gram = x.T @ x + ridge * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (target - target.mean(axis=0)))
    scores = y @ weights + target.mean(axis=0)
    return float(np.mean(scores.argmax(axis=1) == test_labels))
