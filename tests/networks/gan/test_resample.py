"""Filtered resampling: transposes of each other, unit gain, equal to the definitions written out with zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from genjax.networks.blocks import downsample, upsample
from genjax.networks.gan.resample import FIR, conv_down, conv_up, down, fir, transposed, up

LAYOUT = ("NHWC", "HWIO", "NHWC")
FILTERS = (FIR, (1, 1), (1, 2, 1), (1, 4, 6, 4, 1), (1, -2, 3, 5, 1, 0.5))


def stuffed(x):
    """x [B, H, W, C] with zeros after each value, both ways."""
    b, h, w, c = x.shape
    out = jnp.zeros((b, h, 2, w, 2, c), x.dtype).at[:, :, 0, :, 0].set(x)
    return out.reshape(b, 2 * h, 2 * w, c)


@pytest.mark.parametrize("taps", FILTERS)
def test_up_and_down_are_adjoint_and_keep_constants(taps, x64):
    # Catches an offset between the two, a wrong parity, and a gain other than one away from the borders.
    x, y = (jax.random.normal(jax.random.key(i), (2, n * 6, n * 8, 3)) for i, n in enumerate((1, 2)))
    run = jax.jit(lambda x, y: (up(x, taps), down(y, taps), up(jnp.ones_like(x), taps), down(jnp.ones_like(y), taps)))
    big, small, ones, fewer = run(x, y)
    assert big.shape == y.shape == (2, 12, 16, 3) and small.shape == x.shape
    np.testing.assert_allclose(jnp.vdot(big, y), 4 * jnp.vdot(x, small), rtol=1e-10)
    edge = len(taps) // 2
    if abs(sum(taps[::2]) - sum(taps[1::2])) < 1e-9:  # each parity has half of the weight
        np.testing.assert_allclose(ones[:, edge:-edge, edge:-edge], 1, atol=1e-12)
    np.testing.assert_allclose(fewer[:, edge:-edge, edge:-edge], 1, atol=1e-12)
    np.testing.assert_allclose(big, upsample(x, taps), atol=1e-12)
    np.testing.assert_allclose(small, downsample(y, taps), atol=1e-12)


def test_by_hand():
    # Catches a filter applied backwards or shifted: linear interpolation at quarters.
    x = jnp.asarray([0.0, 4, 8, 12]).reshape(1, 1, 4, 1).repeat(2, axis=1)
    middle = np.asarray(up(x))[0, 1, :, 0] / np.asarray(up(jnp.ones_like(x)))[0, 1, 1, 0]
    np.testing.assert_allclose(middle[1:-1], [1, 3, 5, 7, 9, 11], atol=1e-5)
    y = jnp.arange(8.0).reshape(1, 1, 8, 1).repeat(2, axis=1)
    np.testing.assert_allclose(down(y)[0, 0, 1:-1, 0], np.asarray([2.5, 4.5]) * 6 / 8, atol=1e-5)  # 6/8 by rows


def test_strided_convolutions_are_what_they_say(x64):
    # Catches a wrong phase in the four-parity form of the transposed convolution, and wrong paddings, in value
    # and gradients: against zeros stuffed in, plain convolutions and dense filters.
    x, k, k1 = (
        jax.random.normal(jax.random.key(i), s) for i, s in enumerate(((2, 6, 4, 3), (3, 3, 3, 5), (1, 1, 3, 5)))
    )
    wide = jnp.outer(jnp.asarray(FIR, float), jnp.asarray(FIR, float)) / 64
    depthwise = lambda v, gain: lax.conv_general_dilated(
        v,
        jnp.tile(gain * wide[:, :, None, None], (1, 1, 1, v.shape[-1])),
        (1, 1),
        "VALID",
        dimension_numbers=LAYOUT,
        feature_group_count=v.shape[-1],
    )
    dense = lambda v, k, stride: lax.conv_general_dilated(v, k, (stride, stride), "VALID", dimension_numbers=LAYOUT)
    pad = lambda v, low, high: jnp.pad(v, ((0, 0), (low, high), (low, high), (0, 0)))

    def up_reference(x, k):
        full = dense(pad(stuffed(x), 2, 1), k[::-1, ::-1], 1)  # y_(2 i + a) = x_i k_a, 2 H + 1 of them
        return depthwise(pad(full, 1, 1), 4)

    def down_reference(x, k):
        return dense(depthwise(pad(x, 2, 2), 1), k, 2)

    def everything(f, g):
        values = f(x, k), g(x, k)
        slope = lambda h: jax.grad(lambda *a: jnp.sum(jnp.sin(h(*a))), (0, 1))(x, k)
        return values, [slope(f), slope(g)]

    ours, theirs = jax.jit(lambda: (everything(conv_up, conv_down), everything(up_reference, down_reference)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), ours, theirs)
    assert ours[0][0].shape == (2, 12, 8, 5) and ours[0][1].shape == (2, 3, 2, 5)
    np.testing.assert_allclose(conv_up(x, k1), up(x @ k1[0, 0]), atol=1e-12)
    np.testing.assert_allclose(conv_down(x, k1), down(x) @ k1[0, 0], atol=1e-12)
    assert transposed(x, k).shape == (2, 13, 9, 5)
    np.testing.assert_allclose(fir(jnp.ones((1, 8, 8, 1)), FIR, (0, 0), 2.0), 4, atol=1e-12)


def test_bad_input():
    x = jnp.zeros((1, 5, 4, 2))
    with pytest.raises(ValueError, match=r"x: expected even sizes to halve, got \(5, 4\)"):
        conv_down(x, jnp.zeros((3, 3, 2, 2)))
    with pytest.raises(ValueError, match=r"kernel: expected \[3, 3, C, O\], got \(5, 5, 2, 2\)"):
        transposed(x, jnp.zeros((5, 5, 2, 2)))
    with pytest.raises(ValueError, match=r"taps: expected at least two numbers of non-zero sum, got \(1, -1\)"):
        up(x, (1, -1))
