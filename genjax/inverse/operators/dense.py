"""A dense matrix as an operator: compressed sensing, and any small linear problem."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.inverse.operators import base


@struct.dataclass
class Dense:
    """y = matrix x, over the flattened sample.

    Attributes:
      matrix: [M, D].
      left: [M, D] left singular vectors, columns beyond the rank's reach are zero.
      singular: [D].
      right: [D, D] orthogonal, right singular vectors in columns.
      in_shape: of one sample, D elements.
    """

    matrix: Any
    left: Any
    singular: Any
    right: Any
    in_shape: tuple = struct.field(pytree_node=False)

    @property
    def out_shape(self):
        return (self.matrix.shape[0],)

    def forward(self, x, phi=None):
        base.apply_phi(phi, "Dense")
        return base.flat(base.check(x, self.in_shape, "x")) @ self.matrix.T.astype(x.dtype)

    def adjoint(self, y):
        y = base.check(y, self.out_shape, "y")
        return (y @ self.matrix.astype(y.dtype)).reshape(-1, *self.in_shape)

    def svd(self):
        return base.SVD(
            u=lambda z: z @ self.left.T.astype(z.dtype),
            ut=lambda y: y @ self.left.astype(y.dtype),
            v=lambda z: (z @ self.right.T.astype(z.dtype)).reshape(-1, *self.in_shape),
            vt=lambda x: base.flat(x) @ self.right.astype(x.dtype),
            singular=self.singular,
        )

    pinv = base.pinv_svd
    prox = base.prox_svd
    x_init = base.x_init_pinv


def dense(matrix, in_shape=None):
    """`Dense` of a concrete matrix [M, D]; its singular values are computed once, here.

    Args:
      in_shape: shape of one sample with D elements; None: (D,).
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"matrix: expected [M, D], got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("matrix: expected finite numbers, got inf or NaN")
    m, dim = matrix.shape
    in_shape = (dim,) if in_shape is None else tuple(in_shape)
    if base.size(in_shape) != dim:
        raise ValueError(f"in_shape: expected {dim} elements, as the matrix has columns, got {in_shape}")
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=True)
    rank = min(m, dim)
    left, singular = np.zeros((m, dim)), np.zeros(dim)
    left[:, :rank], singular[:rank] = u[:, :rank], s[:rank]
    kind = jnp.result_type(float)
    return Dense(*(jnp.asarray(a, kind) for a in (matrix, left, singular, vt.T)), in_shape)


def compressed_sensing(shape, fraction=0.5, seed=0):
    """Random Gaussian measurements y = A x, entries N(0, 1 / M).

    Args:
      shape: of one sample.
      fraction: measurements over unknowns, > 0; M is rounded, at least 1.
      seed: of the matrix.
    """
    if not fraction > 0:
        raise ValueError(f"fraction: expected > 0, got {fraction}")
    dim = base.size(shape)
    m = max(1, round(fraction * dim))
    return dense(np.random.default_rng(seed).normal(size=(m, dim)) / np.sqrt(m), shape)
