"""Disturbances of images: nothing at level 0, what each one keeps, and what it changes."""

import numpy as np
import pytest

from genjax.data.disturb import DISTURBANCES, blur, dark_square, gaussian_noise, salt_and_pepper, shuffled_pixels, swirl

X = np.random.default_rng(0).uniform(-0.9, 0.9, (200, 8, 8, 2)).astype(np.float32)
RNG = lambda: np.random.default_rng(1)


@pytest.mark.parametrize("name", DISTURBANCES)
def test_level_zero_shape_and_seed(name):
    """Catches a disturbance that is there at level 0, that changes the input in place or forgets its seed."""
    x, level = X.copy(), 2 if name == "dark_square" else 0.5
    disturbed = DISTURBANCES[name](RNG(), x, level)
    np.testing.assert_allclose(DISTURBANCES[name](RNG(), x, 0), x, atol=1e-6)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(disturbed, DISTURBANCES[name](RNG(), x, level))
    assert disturbed.shape == x.shape and disturbed.dtype == x.dtype and np.abs(disturbed - x).max() > 0.1


def test_noise_and_blur():
    """The noise's size; a blur keeps constants and the variance of a point is level^2 along each axis."""
    assert np.std(gaussian_noise(RNG(), X, 0.3) - X) == pytest.approx(0.3, rel=0.02)
    np.testing.assert_allclose(blur(RNG(), np.full((1, 8, 8, 1), 0.4), 2.0), 0.4)
    point = np.zeros((1, 31, 31, 1))
    point[0, 15, 15] = 1
    rows = blur(RNG(), point, 1.4)[0, :, :, 0].sum(axis=1)
    assert np.sum(rows * (np.arange(31) - 15) ** 2) == pytest.approx(1.4**2, rel=0.02)


def test_square_and_pepper():
    """Exactly level^2 pixels darkened, contiguous, everywhere; the share of salt and of pepper."""
    dark = (dark_square(RNG(), X, 3) == -1).all(axis=-1)
    assert (dark.sum(axis=(1, 2)) == 9).all() and (dark.any(axis=2).sum(axis=1) == 3).all()
    assert dark.any(axis=0).all()
    changed = salt_and_pepper(RNG(), X, 0.2)
    assert np.mean(changed == 1) == pytest.approx(0.1, abs=0.01) and np.mean(changed == -1) == pytest.approx(
        0.1, abs=0.01
    )
    assert ((changed == X).all(axis=-1) | (np.abs(changed) == 1).all(axis=-1)).all()  # whole pixels
    with pytest.raises(ValueError, match="level: expected a side"):
        dark_square(RNG(), X, 9)


def test_swirl_turns_by_its_angle():
    """A quarter turn in a huge image, where the angle hardly falls, is `rot90`. Catches a wrong centre."""
    big = np.pad(X[:2], ((0, 0), (500, 500), (500, 500), (0, 0)))
    turned = swirl(RNG(), big, np.pi / 2)[:, 500:508, 500:508]
    either = [np.abs(turned - np.rot90(X[:2], k, axes=(1, 2))).max() for k in (1, 3)]
    assert min(either) < 0.2 < 1 < max(either)
    rings = X[:1] * 0 + np.hypot(*np.meshgrid(np.arange(8) - 3.5, np.arange(8) - 3.5))[None, ..., None]
    np.testing.assert_allclose(swirl(RNG(), rings, 2.0)[:, 1:-1, 1:-1], rings[:, 1:-1, 1:-1], atol=0.2)


def test_shuffling_keeps_the_pixels():
    """A share of the images, each a permutation of whole pixels of its own."""
    mixed = shuffled_pixels(RNG(), X, 0.25)
    changed = (mixed != X).any(axis=(1, 2, 3))
    assert changed.sum() == 50
    own = lambda a: np.sort(a.reshape(len(a), 64, 2).view([("a", a.dtype), ("b", a.dtype)])[..., 0], axis=1)
    np.testing.assert_array_equal(own(np.ascontiguousarray(mixed)), own(X))
