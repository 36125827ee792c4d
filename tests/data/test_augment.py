"""Augmentations: identities, moves known by hand, laws of the drawn transforms, the controllers' dynamics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.keys import sample_keys
from genjax.data.augment import (
    AUGMENTS,
    ada,
    ada_augment,
    affine_warp,
    apa,
    controller,
    diff_augment,
    horizontal_flip,
    pseudo_reals,
    shift,
)
from genjax.data.augment.ada import blit, blits, colour, draws, geometry
from genjax.data.augment.warp import ANALYSIS, SYNTHESIS


def picture(size=8, channels=3, batch=4, seed=0):
    """Smooth images: sums of a few low waves, so that interpolation is nearly exact."""
    rng = np.random.default_rng(seed)
    u = np.arange(size) / size
    waves = rng.normal(size=(batch, channels, 3, 3))
    basis = np.stack([np.ones(size), np.cos(np.pi * u), np.sin(np.pi * u)])
    return jnp.asarray(np.einsum("bcij,ih,jw->bhwc", waves, basis, basis) / 4, jnp.float32)


def by_name(name, numbers=None):
    return AUGMENTS[name](**(numbers or {}))


STRONG = {"ada": {"p": 1.0}, "apa": {"p": 1.0}}


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_contract(name):
    # Catches a change of shape or dtype, draws that depend on the batch, lost or non-finite gradients,
    # and a controller whose state changes its types (it would recompile the step).
    augment = by_name(name, STRONG.get(name))
    x, keys = picture(), sample_keys(jax.random.key(1), 4)

    @jax.jit
    def run(x):
        state = augment.init()
        y = augment(keys, x, state)
        alone = augment(keys[1:3], x[1:3], state)
        grad = jax.grad(lambda v: jnp.sum(augment(keys, v, state) ** 2))(x)
        half = augment(keys, x.astype(jnp.bfloat16), state)
        return y, alone, grad, half, augment.update(state, jnp.ones(4))

    y, alone, grad, half, state = run(x)
    assert y.shape == x.shape and y.dtype == x.dtype and half.dtype == jnp.bfloat16
    np.testing.assert_allclose(alone, y[1:3], atol=2e-6)
    assert np.isfinite(grad).all() and np.abs(grad).max(axis=(1, 2, 3)).min() > 0
    assert jax.tree.map(lambda v: (v.shape, v.dtype), state) == jax.tree.map(
        lambda v: (v.shape, v.dtype), augment.init()
    )
    np.testing.assert_array_equal(augment.present(keys, x, x, state), x)


def test_identity_where_nothing_is_drawn():
    # Catches a transform that is not scaled by p, or a resampling that blurs what it should leave alone.
    x, key = picture(), jax.random.key(0)
    start = AUGMENTS["ada"]()  # the controller starts at p = 0
    run = jax.jit(lambda x: (ada_augment(key, x, 0.0), diff_augment(key, x, 0.0), start(key, x)))
    for y in run(x):
        np.testing.assert_array_equal(y, x)
    none = dict.fromkeys(("brightness", "saturation", "contrast", "translation", "cutout"), 0.0)
    np.testing.assert_array_equal(diff_augment(key, x, **none), x)
    np.testing.assert_array_equal(horizontal_flip(key, x, 0.0), x)
    np.testing.assert_array_equal(horizontal_flip(key, x, 1.0), x[:, :, ::-1])


def test_p_is_the_share_of_augmented_samples():
    # Catches a p that acts on the whole batch at once: the share of changed samples must be p.
    x = jnp.broadcast_to(picture(4, 1, 1), (2000, 4, 4, 1))
    one = lambda **only: dict(
        dict.fromkeys(("brightness", "saturation", "contrast", "translation", "cutout"), 0.0), **only
    )
    for y, share in (
        (diff_augment(jax.random.key(0), x, 0.3, **one(brightness=0.5)), 0.3),
        (ada_augment(jax.random.key(0), x, 0.3, transforms=("brightness",)), 0.3),
        (pseudo_reals(jax.random.key(0), x, x + 1, 0.3), 0.3),
    ):
        changed = jnp.any(y != x, axis=(1, 2, 3)).mean()
        assert abs(float(changed) - share) < 5 * np.sqrt(share * (1 - share) / 2000)


def test_shift_by_hand():
    # Catches swapped axes or signs, and a border other than zeros or the mirror image.
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)
    move = lambda dy, dx, **k: shift(x, jnp.array([dy]), jnp.array([dx]), **k)[0, :, :, 0]
    np.testing.assert_array_equal(move(1, 0), [[0, 0, 0, 0], [0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(move(0, -2), [[2, 3, 0, 0], [6, 7, 0, 0], [10, 11, 0, 0]])
    np.testing.assert_array_equal(move(0, 1, mode="reflect"), [[1, 0, 1, 2], [5, 4, 5, 6], [9, 8, 9, 10]])
    with pytest.raises(ValueError, match=r"mode: expected 'zero' or 'reflect', got 'wrap'"):
        move(0, 0, mode="wrap")


def test_diffaugment_by_hand():
    # Catches wrong ranges: translations up to an eighth, each as likely; a square of half the side in zeros,
    # saturation that keeps the mean over channels, contrast that keeps the image's mean.
    ones, keys = jnp.ones((4000, 8, 8, 1)), jax.random.key(3)
    off = dict.fromkeys(("brightness", "saturation", "contrast", "translation", "cutout"), 0.0)
    moved = diff_augment(keys, ones, **dict(off, translation=0.125))
    rows, columns = (np.asarray(moved.max(axis).sum((1, 2))) for axis in (2, 1))
    assert set(rows) == set(columns) == {7.0, 8.0}
    assert abs((rows == 8).mean() - 1 / 3) < 0.04  # of the moves -1, 0 and 1
    cut = np.asarray(diff_augment(keys, ones, **dict(off, cutout=0.5)))[..., 0]
    holes = (cut == 0).sum((1, 2))
    assert holes.max() == 16 and holes.min() == 4  # the center may lie on a corner
    hidden = (cut == 0).mean(0)
    np.testing.assert_allclose(hidden, hidden[::-1, ::-1], atol=0.05)
    x = picture(8, 3, 256)
    y = diff_augment(keys, x, **dict(off, saturation=1.0))
    np.testing.assert_allclose(y.mean(-1), x.mean(-1), atol=1e-5)
    ratio = np.asarray((y - x.mean(-1, keepdims=True)).std((1, 2, 3)) / (x - x.mean(-1, keepdims=True)).std((1, 2, 3)))
    assert ratio.min() > -1e-6 and ratio.max() <= 2 + 1e-5 and abs(ratio.mean() - 1) < 0.15
    y = diff_augment(keys, x, **dict(off, contrast=0.5))
    np.testing.assert_allclose(y.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-5)
    y = diff_augment(keys, x, **dict(off, brightness=0.5)) - x
    assert float(y.std((1, 2, 3)).max()) < 1e-6 and abs(float(y.mean())) < 0.1
    assert 0.4 < float(jnp.abs(y).max()) <= 0.5 + 1e-6


def test_wavelets_are_dual(x64):
    # Catches a wrong tap: up and down again must be the identity, the even lags of the correlation a unit pulse.
    lags = np.convolve(ANALYSIS, SYNTHESIS)[1::2]
    np.testing.assert_allclose(lags, np.eye(7)[3], atol=1e-12)
    np.testing.assert_allclose([sum(ANALYSIS), sum(SYNTHESIS)], [1, 2], atol=1e-12)


def test_warp_by_hand():
    # Catches an offset by half a pixel, an inverse taken for the map, a wrong sense of turning, bad borders.
    x = jnp.concatenate([picture(8, 1, 1), jax.random.normal(jax.random.key(0), (1, 8, 8, 1))], axis=-1)
    matrix = lambda a, b, c, d, e=0.0, f=0.0: [[a, b, e], [c, d, f], [0.0, 0.0, 1.0]]
    inverse = jnp.asarray(
        [
            matrix(1.0, 0, 0, 1),
            matrix(-1.0, 0, 0, 1),
            matrix(0.0, 1, -1, 0),  # output (c, r) reads input (r, -c): right becomes down
            matrix(1.0, 0, 0, 1, -2, 1),  # by two to the right and one up
            matrix(1.0, 0, 0, 1, 0.5),
        ]
    )
    same, mirrored, turned, moved, half = jax.jit(affine_warp)(jnp.repeat(x, 5, axis=0), inverse)
    np.testing.assert_allclose(same, x[0], atol=1e-5)
    np.testing.assert_allclose(mirrored, x[0, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(turned, jnp.rot90(x[0], -1), atol=1e-5)
    expected = shift(x, jnp.array([-1]), jnp.array([2]), mode="reflect")[0]
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    between = (x[0, 2:-2, 2:-2] + x[0, 2:-2, 3:-1]) / 2  # nearly, where the image is smooth
    np.testing.assert_allclose(half[2:-2, 2:-2, :1], between[..., :1], atol=0.03)


def test_blits_are_the_symmetries_of_the_square():
    # Catches a missing member of the group or unequal odds: at p = 1 the eight symmetries come alike often.
    n = 4000
    x = jnp.broadcast_to(jnp.asarray([[1.0, 2], [3, 4]])[None, :, :, None], (n, 2, 2, 1))
    run = jax.jit(lambda keys: blit(x, jax.vmap(draws)(keys), 1.0, {"flip", "quarter_turn"}))
    found, counts = np.unique(run(sample_keys(jax.random.key(0), n)).reshape(n, 4), axis=0, return_counts=True)
    square = np.asarray([[1, 2], [3, 4]])
    group = {tuple(np.rot90(s, i).ravel()) for s in (square, square[:, ::-1]) for i in range(4)}
    assert {tuple(f) for f in found.astype(int)} == group
    assert abs(counts / n - 1 / 8).max() < 5 * np.sqrt(1 / 8 * 7 / 8 / n)
    mirror, turns, share = jax.vmap(lambda key: blits(draws(key), 0.4))(sample_keys(jax.random.key(1), n))
    assert abs(float(mirror.mean()) - 0.2) < 0.04  # half of the drawn ones are the identity
    assert abs(float((turns > 0).mean()) - 0.3) < 0.04
    assert abs(float((share != 0).mean()) - 0.4) < 0.04 and float(jnp.abs(share).max()) <= 0.125


def test_geometry_in_law():
    # Catches a turn that is not uniform: R(phi) A has the law of A for every phi, so all means of its linear
    # part vanish; stretches that change areas; and rotations drawn twice as often as p says.
    names = {"scale", "rotation", "stretch", "shift"}
    keys = sample_keys(jax.random.key(0), 8000)
    draw = lambda p, only=names: jax.jit(jax.vmap(lambda key: geometry(draws(key), p, (8, 16), only)))(keys)
    full = np.asarray(draw(1.0))
    assert abs(full[:, :2, :2].mean(0)).max() < 5 * full[:, :2, :2].std() / np.sqrt(8000)
    angle = np.angle(full[:, 0, 0] + 1j * full[:, 1, 0])
    assert abs(np.exp(1j * np.outer(np.arange(1, 4), angle)).mean(1)).max() < 0.06  # circular moments
    turned = np.asarray(draw(0.5, {"rotation"}))
    still = (turned == np.eye(3)).all((1, 2)).mean()
    assert abs(still - 0.5) < 0.03
    np.testing.assert_allclose(np.linalg.det(draw(1.0, {"rotation", "stretch"})), 1, atol=1e-4)
    scales = np.log2(np.linalg.det(draw(1.0, {"scale"}))) / 2
    assert abs(scales.std() - 0.2) < 0.01
    moves = np.asarray(draw(1.0, {"shift"}))[:, :2, 2]
    np.testing.assert_allclose(moves.std(0), [2.0, 1.0], rtol=0.05)  # an eighth of the width, of the height


def test_colour_in_law():
    # Catches a hue turn off the grey axis, a saturation that moves grey, a luma flip that is no reflection,
    # and a single-channel image treated otherwise than grey.
    keys = sample_keys(jax.random.key(0), 500)
    draw = lambda names, channels=3: jax.vmap(lambda key: colour(draws(key), 1.0, channels, names))(keys)
    grey = np.ones(3) / np.sqrt(3)
    hue, offset = draw({"hue"})
    np.testing.assert_allclose(hue @ grey, np.broadcast_to(grey, (500, 3)), atol=1e-5)
    np.testing.assert_allclose(np.einsum("nij,nkj->nik", hue, hue), np.broadcast_to(np.eye(3), (500, 3, 3)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(hue), 1, atol=1e-5)
    assert float(jnp.abs(offset).max()) == 0 and abs(float((jnp.trace(hue, axis1=1, axis2=2)).mean()) - 1) < 0.2
    np.testing.assert_allclose(draw({"saturation"})[0] @ grey, np.broadcast_to(grey, (500, 3)), atol=1e-5)
    flip = draw({"luma_flip"})[0]
    kinds = np.unique(np.round(flip @ grey @ grey, 4))
    np.testing.assert_allclose(kinds, [-1, 1], atol=1e-4)
    everything = {"brightness", "contrast", "luma_flip", "hue", "saturation"}
    np.testing.assert_array_equal(draw({"saturation", "hue"}, 1)[0], np.ones((500, 1, 1)))
    linear, offset = draw(everything, 1)
    assert abs(np.log2(np.abs(linear)).std() - 0.5) < 0.05 and abs((linear < 0).mean() - 0.5) < 0.1


def test_controller_by_hand():
    # Catches a wrong sign, step or interval: 4 x 50 images of 1,000 move p by 0.2, and p stays in [0, p_max].
    init, update = controller(0.6, 1.0, 4, p_max=0.5)
    run = jax.jit(lambda state, signs: jax.lax.scan(lambda s, g: (update(s, g), s.p), state, signs))
    up, down = jnp.full((12, 50), 3.0), jnp.full((8, 50), -0.1)
    state, path = run(init(), jnp.concatenate([up, down]))
    np.testing.assert_allclose(path, np.repeat([0, 0.2, 0.4, 0.5, 0.3], 4), atol=1e-6)
    np.testing.assert_allclose(state.p, 0.1, atol=1e-6)
    assert float(state.total) == 0 and float(state.count) == 0
    even = jnp.tile(jnp.asarray([1.0, 1, 1, 1, -1]), (4, 10))  # the mean of the signs is at the target
    np.testing.assert_allclose(run(init(), even)[0].p, 0, atol=1e-6)


def test_controller_over_devices():
    # Catches a controller that counts only its own device's images.
    _, update = controller(0.6, 1.0, 1, axis_name="batch")
    init, alone = controller(0.6, 1.0, 1)
    signs = jnp.asarray([[1.0, 1], [1, 1], [1, -1]])
    spread = jax.vmap(update, (None, 0), axis_name="batch")(init(), signs)
    np.testing.assert_allclose(spread.p, np.full(3, alone(init(), signs.ravel()).p), rtol=1e-6)


def test_apa_presents_fakes():
    # Catches fakes presented with their gradient, or in the wrong share, and images that change.
    augment, x = apa(p=0.5), picture(4, 1, 400)
    keys = sample_keys(jax.random.key(0), 400)
    shown = augment.present(keys, x, x + 10, augment.init())
    share = float((shown > 5).all(axis=(1, 2, 3)).mean())
    assert abs(share - 0.5) < 0.13 and float((shown > 5).any(axis=(1, 2, 3)).mean()) == share
    gradient = jax.grad(lambda fake: jnp.sum(augment.present(keys, x, fake, augment.init())))(x)
    np.testing.assert_array_equal(gradient, 0 * x)
    np.testing.assert_array_equal(augment(keys, x), x)


def test_bad_input():
    x = picture(8)
    with pytest.raises(ValueError, match=r"p: expected a probability in \[0, 1\], got 1.5"):
        ada_augment(jax.random.key(0), x, 1.5)
    with pytest.raises(ValueError, match=r"transforms: expected names among .*, got 'blur'"):
        ada(transforms=("blur",))
    with pytest.raises(ValueError, match=r"x: expected square images for 'quarter_turn', got 8 x 4"):
        ada_augment(jax.random.key(0), x[:, :, :4], 0.1)
    with pytest.raises(ValueError, match=r"interval: expected at least 1, got 0"):
        ada(interval=0)
    with pytest.raises(ValueError, match=r"kimg: expected a number above 0, got 0"):
        apa(kimg=0)
    with pytest.raises(ValueError, match=r"target: expected a mean of signs in \[-1, 1\], got 60"):
        apa(target=60)
    with pytest.raises(ValueError, match=r"cutout: expected a probability in \[0, 1\], got 2"):
        diff_augment(jax.random.key(0), x, cutout=2)
    with pytest.raises(ValueError, match=r"augment: expected numbers among .*, got 'strength'"):
        AUGMENTS["diffaugment"](strength=1)
    with pytest.raises(ValueError, match=r"fake: expected the shape of real"):
        pseudo_reals(jax.random.key(0), x, x[:2], 0.5)
