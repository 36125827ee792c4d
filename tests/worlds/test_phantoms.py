"""Phantoms and patterns: areas against closed forms, volumes between their ends, no picture sees another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.worlds import patterns, phantoms

KEY = jax.random.key(0)


def test_ellipse_has_its_area():
    """Catches a wrong rotation, scale or edge: the mass of one ellipse is pi a b, its mean the center."""
    one = phantoms.Ellipses(*(jnp.asarray(a)[None] for a in ([1.0], [[0.1, -0.2]], [[0.5, 0.3]], [0.7], [1.0])))
    cover = (np.asarray(phantoms.render(one, 64))[0, ..., 0] + 1) / 2
    assert cover.sum() * (2 / 64) ** 2 == pytest.approx(np.pi * 0.5 * 0.3, rel=0.01)
    at = (2 * np.arange(64) + 1) / 64 - 1
    assert (cover.sum(0) @ at / cover.sum(), cover.sum(1) @ at / cover.sum()) == pytest.approx((0.1, -0.2), abs=5e-3)
    # the long axis lies at 0.7 from x towards y
    dx, dy = at[None] - 0.1, at[:, None] + 0.2
    moments = (cover * dx**2).sum(), (cover * dy**2).sum(), (cover * dx * dy).sum()
    assert 0.5 * np.arctan2(2 * moments[2], moments[0] - moments[1]) == pytest.approx(0.7, abs=0.02)


def test_slices_and_volumes():
    """Values in [-1, 1]; a slice does not change with its neighbours; a volume begins and ends with slices of its own,
    and moves between them."""
    x = phantoms.slices(KEY, jnp.arange(6), 16)
    assert x.shape == (6, 16, 16, 1) and float(jnp.abs(x).max()) <= 1 and float(x.std(0).mean()) > 0.1
    np.testing.assert_allclose(phantoms.slices(KEY, jnp.arange(4, 6), 16), x[4:], atol=1e-6)
    volume = phantoms.volumes(KEY, jnp.arange(2), 5, 16)
    ends = [phantoms.slices(jax.random.fold_in(KEY, i), jnp.arange(2), 16) for i in (0, 1)]
    np.testing.assert_allclose(volume[:, 0], ends[0], atol=1e-5)
    np.testing.assert_allclose(volume[:, -1], ends[1], atol=1e-5)
    steps = jnp.abs(jnp.diff(volume, axis=1)).mean((2, 3, 4))
    assert (steps > 0.01).all() and (steps.sum(1) >= jnp.abs(volume[:, -1] - volume[:, 0]).mean((1, 2, 3)) - 1e-5).all()
    with pytest.raises(ValueError, match="inner: expected"):
        phantoms.draw(KEY, jnp.arange(1), (2, 9))


def test_lines_are_lines():
    """Each picture is a sum of one or two full rows or columns, so that second differences across both axes vanish."""
    x = np.asarray(patterns.lines(KEY, jnp.arange(200), 8))[..., 0]
    mixed = x[:, 1:, 1:] - x[:, :-1, 1:] - x[:, 1:, :-1] + x[:, :-1, :-1]
    assert np.abs(mixed).max() < 1e-5
    size = np.abs(x).max((1, 2))
    assert (size >= 0.6 - 1e-6).mean() > 0.9 and size.max() <= 2.4
    count = (np.abs(x) > 1e-6).sum((1, 2))
    assert {8} < set(count.tolist()) <= {0, 8, 15, 16, 14}
    np.testing.assert_array_equal(patterns.lines(KEY, jnp.arange(7, 9), 8)[..., 0], x[7:9])


def test_rings_are_not_lines():
    x = np.asarray(patterns.rings(KEY, jnp.arange(100), 8))[..., 0]
    assert x.shape == (100, 8, 8) and np.isfinite(x).all()
    mixed = x[:, 1:, 1:] - x[:, :-1, 1:] - x[:, 1:, :-1] + x[:, :-1, :-1]
    assert (np.abs(mixed).max((1, 2)) > 0.1).all()


def test_texture_stays_inside():
    """Outside the body nothing changes; inside, stripes of the given amplitude are added and drift along z."""
    plain, x = (np.asarray(f(KEY, jnp.arange(2), 4, 16)) for f in (phantoms.volumes, phantoms.textured))
    added = x - plain
    assert np.abs(added[plain <= -0.99]).max() == 0 and 0.2 < np.abs(added).max() <= 0.35 + 1e-5
    assert np.abs(np.diff(added, axis=1)).mean() > 0.02
