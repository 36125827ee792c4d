"""Windows against slices."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.inverse.windows import crop, joined, paste


def test_windows_are_slices():
    """A crop is the slice, pasting is its adjoint, and what is laid over a canvas keeps the rest."""
    x = jax.random.normal(jax.random.key(0), (3, 6, 7, 2))
    phi = jnp.array([[0, 0], [2, 4], [3, 1]])
    window = crop(x, phi, 3)
    for i, (r, c) in enumerate(np.asarray(phi)):
        np.testing.assert_array_equal(window[i], x[i, r : r + 3, c : c + 3])
    canvas, mask = paste(window, phi, (6, 7, 2))
    np.testing.assert_array_equal(canvas, x * mask)
    assert (mask.sum((1, 2, 3)) == 9).all()
    w = jax.random.normal(jax.random.key(1), window.shape)
    np.testing.assert_allclose(jnp.sum(w * window), jnp.sum(paste(w, phi, (6, 7, 2))[0] * x), rtol=1e-5)
    other = jnp.array([[1, 1], [0, 0], [3, 1]])
    both, seen = joined(canvas, mask, crop(x, other, 3), other)
    np.testing.assert_array_equal(both, x * seen)
    assert seen.sum((1, 2, 3)).tolist() == [14, 18, 9]
