"""Inverses without a learned prior against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.inverse.operators import dense, slices
from genjax.inverse.regularized import tikhonov


def differences(shape, axis):
    """The matrix of x -> diff(x, axis), by its columns."""
    eye = np.eye(np.prod(shape)).reshape(-1, *shape)
    return np.diff(eye, axis=axis + 1).reshape(len(eye), -1).T


def test_tikhonov_solves_the_normal_equations():
    """Catches a weight on another axis, a missing factor 2, and an operator taken at another scale than |A|^2."""
    rng = np.random.default_rng(0)
    a, shape, weights = 3 * rng.normal(size=(5, 12)), (2, 3, 4, 1), (0.3, 0.1, 0.02, 0.0)
    operator = slices(dense(a, shape[1:]), 2)
    y = rng.normal(size=(3, *operator.out_shape))
    whole = np.kron(np.eye(2), a)
    penalty = sum(w * differences(shape, i).T @ differences(shape, i) for i, w in enumerate(weights) if w)
    matrix = whole.T @ whole / np.linalg.norm(a, 2) ** 2 + penalty
    expected = np.linalg.solve(matrix, (y.reshape(3, -1) @ whole / np.linalg.norm(a, 2) ** 2).T).T
    found = jax.jit(lambda y, w: tikhonov(operator, y, w))(jnp.asarray(y, jnp.float32), jnp.asarray(weights))
    np.testing.assert_allclose(np.asarray(found).reshape(3, -1), expected, atol=2e-3)


def test_tikhonov_names_the_axes():
    operator = slices(dense(np.eye(4), (2, 2, 1)), 3)
    with pytest.raises(ValueError, match="weights: expected 4, one an axis, got shape"):
        tikhonov(operator, jnp.zeros((1, *operator.out_shape)), (1.0, 1.0))
