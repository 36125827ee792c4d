"""The sliced Wasserstein distance of patches: closed forms, invariance, and which scale a blur is seen at."""

import numpy as np
import pytest

from genjax.data import load
from genjax.losses.pyramid import blurred, laplacian_pyramid
from genjax.metrics.patches import patch_swd


def test_one_pixel_is_the_distance_of_two_laws():
    # Catches wrong sorting, squares in the place of absolute values, and sets that are normalized together: patches
    # of one pixel give W1 between the standardized laws, here the quantiles sqrt(3) (2 u - 1) against those of +-1.
    u = (np.arange(40_000) + 0.5) / 40_000
    rng = np.random.default_rng(0)
    shape = lambda v: rng.permutation(v).reshape(100, 20, 20, 1)
    flat, signs = shape(5 + 3 * u), shape(np.where(u < 0.5, -2.0, 2.0))
    expected = np.mean(np.abs(np.sqrt(3) * (2 * u - 1) - np.where(u < 0.5, -1, 1)))
    found = patch_swd(flat, signs, size=1, per_image=400, directions=3)
    np.testing.assert_allclose(found, expected, rtol=0.03)
    assert patch_swd(flat, 0.5 * flat - 3, size=5, per_image=4) < 1e-12


def test_a_blur_is_seen_at_the_finest_scale():
    # Catches levels in the wrong order and a distance that is large between two halves of one set: they are near each
    # other at both scales, and a blurred half is far at the fine one above all.
    x = load("shapes", n=800, size=16).arrays["x"]
    a, b, blur = (laplacian_pyramid(v, 1) for v in (x[:400], x[400:], blurred(x[400:])))
    same = [patch_swd(*pair, per_image=16, directions=64) for pair in zip(a, b)]
    far = [patch_swd(*pair, per_image=16, directions=64) for pair in zip(a, blur)]
    assert max(same) < 0.08
    assert far[0] > 2.5 * same[0] and far[0] - same[0] > 2 * (far[1] - same[1])


def test_bad_input():
    x = np.zeros((3, 8, 8, 1))
    with pytest.raises(ValueError, match=r"x: expected two sets \[N, H, W, C\] of one shape, got .*4, 8"):
        patch_swd(x, np.zeros((4, 8, 8, 1)))
    with pytest.raises(ValueError, match=r"size: expected patches of 1 to 8, at least one, got 9, 128"):
        patch_swd(x, x, size=9)
