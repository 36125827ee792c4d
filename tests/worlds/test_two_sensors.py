"""Two sensors: who sees what."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.worlds.two_sensors import scenes


def test_each_sensor_sees_its_objects():
    """Inside an object that a sensor sees, the image is bright; elsewhere it is that of the ground. Objects do not
    overlap, and a scene does not change with its neighbours."""
    s = jax.jit(scenes, static_argnums=2)(jax.random.key(0), jnp.arange(40), 16)
    masks = np.asarray(s.masks)
    assert masks.sum(-1).max() <= 1 + 1e-5
    inside = masks >= 1

    def level(image, k):
        return np.asarray(image)[..., 0][inside[..., k]]

    for k in range(3):
        np.testing.assert_allclose(level(s.clean, k), 0.8, atol=1e-5)
    for k in (1, 2):
        np.testing.assert_allclose(level(s.infrared, k), 0.8, atol=1e-5)
    assert level(s.infrared, 0).max() < 0 and level(s.visible, 2).max() <= 0 + 1e-5
    lit = np.asarray(s.visible + 1) / np.asarray(s.clean + 1)
    shared = inside[..., 0] | inside[..., 1] | (masks.sum(-1) == 0)
    assert 0.34 < lit[..., 0][shared].min() < 0.4 and 0.95 < lit[..., 0][shared].max() <= 1 + 1e-5
    alone = scenes(jax.random.key(0), jnp.arange(7, 8), 16)
    np.testing.assert_allclose(alone.visible, s.visible[7:8], atol=1e-5)
