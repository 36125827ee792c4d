"""Wasserstein distances in closed form."""

import numpy as np


def commuting_w2_squared(mean_a, variances_a, mean_b, variances_b):
    """Squared W2 of two Gaussians whose covariances share their eigenvectors, a float in float64.

    |m_a - m_b|^2 + sum (sqrt l_a - sqrt l_b)^2, whatever the common basis.

    Args:
      mean_a, mean_b: [D].
      variances_a, variances_b: [D] eigenvalues >= 0, in the order of the common eigenvectors.
    """
    gap = np.asarray(mean_a, np.float64) - np.asarray(mean_b, np.float64)
    roots = np.sqrt(np.asarray(variances_a, np.float64)) - np.sqrt(np.asarray(variances_b, np.float64))
    return float(np.sum(gap**2) + np.sum(roots**2))
