"""The Laplacian pyramid and its distance, by identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.losses import pyramid as p


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (2, 16, 16, 3))


def test_pyramid_gives_the_image_back(images):
    """From the coarsest up, expanded and added. Catches levels made of the wrong pair."""
    levels = p.laplacian_pyramid(images, 2)
    assert [level.shape[1] for level in levels] == [16, 8, 4]
    x = levels[-1]
    for level in reversed(levels[:-1]):
        x = level + p.expanded(x)
    np.testing.assert_allclose(x, images, atol=1e-5)


def test_constants_and_ramps_have_no_detail():
    """Catches taps that do not sum to 1 (expanded: 4 over the zeros), and edges that are padded by zeros."""
    constant = jnp.full((1, 16, 16, 1), 0.7)
    detail, rest = p.laplacian_pyramid(constant, 1)
    np.testing.assert_allclose(detail, 0, atol=1e-6)
    np.testing.assert_allclose(rest, 0.7, atol=1e-6)
    ramp = jnp.broadcast_to(jnp.arange(16.0)[None, :, None, None], (1, 16, 16, 1))
    np.testing.assert_allclose(p.laplacian_pyramid(ramp, 1)[0][:, 4:-4], 0, atol=1e-5)
    dot = jnp.zeros((1, 16, 16, 1)).at[0, 8, 8, 0].set(1.0)
    np.testing.assert_allclose(p.blurred(dot)[0, 6:11, 8, 0], np.array([1, 4, 6, 4, 1]) * 6 / 256, atol=1e-6)


def test_distance_weighs_levels_by_four(images):
    """sum_j 4^j |L^j|_1 over the values of x, by the definition. A difference of mean c costs at least |c|."""
    loss = p.laplacian(levels=2, squares=0.5)
    other = images + 0.3
    np.testing.assert_allclose(loss(other, images), 0.3 + 0.5 * 0.09, rtol=1e-4)
    noise = jax.random.normal(jax.random.key(1), images.shape)
    levels = p.laplacian_pyramid(noise, 2)
    by_hand = sum(4**j * jnp.sum(jnp.abs(level), axis=(1, 2, 3)) for j, level in enumerate(levels)) / (16 * 16 * 3)
    np.testing.assert_allclose(p.laplacian(2)(images + noise, images), by_hand, rtol=1e-4)


def test_means_and_bad_input(images):
    np.testing.assert_allclose(p.squared_error()(images, 0 * images), jnp.mean(images**2, (1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(p.absolute_error()(images, 0 * images), jnp.mean(abs(images), (1, 2, 3)), rtol=1e-5)
    with pytest.raises(ValueError, match="levels: expected sides that are multiples of 8, from 16 on"):
        p.laplacian(3)(images[:, :12], images[:, :12])
    with pytest.raises(ValueError, match="levels: expected levels >= 1"):
        p.laplacian(0)
