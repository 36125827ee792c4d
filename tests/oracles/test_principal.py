"""Principal components against the eigenvectors of the covariance."""

import numpy as np
import pytest

from genjax.oracles.principal import principal_components


def test_components():
    """Variances are the covariance's eigenvalues; what is left out is the error; full codes lose nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2, 2)) * np.array([[3.0, 1.0], [0.5, 0.2]]) + 1.0
    flat = x.reshape(300, 4)
    eigenvalues = np.linalg.eigvalsh(np.cov(flat.T))[::-1]
    found = principal_components(x, 2)
    np.testing.assert_allclose(found.variances, eigenvalues[:2])
    np.testing.assert_allclose(np.cov(found.encode(x).T), np.diag(eigenvalues[:2]), atol=1e-10)
    gap = found.decode(found.encode(x)) - x
    assert gap.shape == x.shape
    assert np.sum(gap**2) / 299 == pytest.approx(eigenvalues[2:].sum())
    whole = principal_components(x, 4)
    np.testing.assert_allclose(whole.decode(whole.encode(x)), x, atol=1e-10)
    with pytest.raises(ValueError, match="dim: expected 1 to 4, got 5"):
        principal_components(x, 5)
