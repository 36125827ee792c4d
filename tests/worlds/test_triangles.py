"""Triangles: area, symmetry, gradients, and the distance from their manifold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import data
from genjax.data.triangles import distance_to_triangles
from genjax.worlds.triangles import random_triangles, render, shrunk


@pytest.fixture(scope="module")
def vertices():
    return jnp.asarray(random_triangles(np.random.default_rng(0), 50, (0.6, 0.9)))


def test_light_is_the_area(vertices):
    """Anti-aliasing keeps it; the order of the vertices does not matter. Catches an inside taken for the outside."""
    area = lambda v: 0.5 * jnp.abs(jnp.linalg.det(v[:, 1:] - v[:, :1]))
    light = (render(vertices, 64) + 1).mean(axis=(1, 2, 3)) / 2 * 4  # the image is a square of area 4
    np.testing.assert_allclose(light, area(vertices), rtol=0.03)
    np.testing.assert_allclose(render(vertices[:, ::-1], 16), render(vertices, 16), atol=1e-5)
    x = render(vertices, 16)
    assert x.shape == (50, 16, 16, 1) and float(x.min()) >= -1 and float(x.max()) <= 1
    np.testing.assert_allclose(render(-vertices, 16), x[:, ::-1, ::-1], atol=1e-5)


def test_gradients_and_degenerate_triangles(vertices):
    gradient = jax.grad(lambda v: jnp.sum(render(v) ** 2))(vertices.at[0].set(0.3))
    assert np.isfinite(gradient).all() and float(jnp.abs(gradient[1:]).sum()) > 0


def test_laws_and_limits(vertices):
    assert float(jnp.abs(vertices).max()) <= 1
    small = shrunk(vertices, 0.4)
    far = lambda v: np.linalg.norm(v - v.mean(axis=1, keepdims=True), axis=-1).max(axis=1)
    np.testing.assert_allclose(far(small), 0.4, rtol=1e-4)
    np.testing.assert_allclose(shrunk(small, 5.0), small, atol=1e-6)
    with pytest.raises(ValueError, match="radius: expected 0 < low"):
        random_triangles(np.random.default_rng(0), 2, (0.0, 0.5))


def test_distance_tells_triangles_from_others():
    """Triangles are found, moved by a bump of known size they are as far as it or nearer; noise is far; the large are
    far from the small."""
    train, test = (data.load("triangles", split=s, num=30).arrays["x"] for s in ("train", "test"))
    assert not np.array_equal(train, test)
    near = distance_to_triangles(test)
    assert np.median(near) < 0.3 and near.max() < 1.0
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, test.shape).astype(np.float32)
    assert distance_to_triangles(noise).min() > 2
    large = np.asarray(render(jnp.asarray(random_triangles(rng, 30, (0.8, 0.9)))))
    assert distance_to_triangles(large, 0.4).min() > 1.5
