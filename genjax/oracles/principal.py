"""Principal components of data: the best linear code of a given size."""

from typing import NamedTuple

import numpy as np


class Components(NamedTuple):
    """A mean, orthonormal directions and the variances along them, largest first; float64."""

    mean: np.ndarray  # [D]
    directions: np.ndarray  # [dim, D]
    variances: np.ndarray  # [dim]
    shape: tuple  # of one example

    def encode(self, x):
        """Coordinates [N, dim] of x [N, *shape]."""
        return (np.asarray(x, np.float64).reshape(len(x), -1) - self.mean) @ self.directions.T

    def decode(self, codes):
        """Examples [N, *shape] at coordinates [N, dim]."""
        x = np.asarray(codes, np.float64) @ self.directions + self.mean
        return x.reshape(-1, *self.shape)


def principal_components(x, dim):
    """The `dim` leading Components of x [N, ...].

    Raises:
      ValueError: dim below 1 or above what N examples of D values have.
    """
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    if not 1 <= dim <= min(len(flat) - 1, flat.shape[1]):
        raise ValueError(f"dim: expected 1 to {min(len(flat) - 1, flat.shape[1])}, got {dim}")
    mean = flat.mean(axis=0)
    _, s, vt = np.linalg.svd(flat - mean, full_matrices=False)
    return Components(mean, vt[:dim], s[:dim] ** 2 / (len(flat) - 1), tuple(np.shape(x)[1:]))
