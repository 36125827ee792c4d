"""Resampling by finite filters, and the strided convolutions that go with them (1912.04958, appendix B).

`up` and `down` are separable and pure, each the transpose of the other up to the factor 4 that keeps
constants in both directions; borders count as zeros. Written as shifted sums of the two parities: no
zeros are filtered, and gradients inside loops are sums again.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from genjax.networks.blocks import downsample
from genjax.networks.convolution import conv

FIR = (1, 3, 3, 1)  # of StyleGAN2; R3GAN's linear interpolation [1, 2, 1] with a box is the same filter


def _normalized(taps):
    f = np.asarray(taps, np.float64)
    if f.ndim != 1 or len(f) < 2 or f.sum() == 0:
        raise ValueError(f"taps: expected at least two numbers of non-zero sum, got {taps!r}")
    return f / f.sum()


def _shifted(x, axis, by):
    """x moved by `by` places along an axis, y_m = x_(m + by), zeros coming in."""
    if by == 0:
        return x
    n, pads = x.shape[axis], [(0, 0)] * x.ndim
    pads[axis] = (max(-by, 0), max(by, 0))
    return lax.slice_in_dim(jnp.pad(x, pads), max(by, 0), max(by, 0) + n, axis=axis)


def up(x, taps=FIR):
    """x [B, *S, C] at twice the resolution: zeros put between the values, then the filter, constants kept."""
    f, low = 2 * _normalized(taps), (len(taps) - 1) // 2
    for axis in range(1, x.ndim - 1):
        parts = []
        for parity in (0, 1):  # y_(2 m + p) = sum_i f_i x_(m + (p - i + low) / 2), where that is whole
            terms = [(float(v), (parity - i + low) // 2) for i, v in enumerate(f) if (parity - i + low) % 2 == 0]
            parts.append(sum(v * _shifted(x, axis, by) for v, by in terms))
        shape = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
        x = jnp.stack(parts, axis=axis + 1).reshape(shape)
    return x


def down(x, taps=FIR):
    """x [B, *S, C] at half the resolution: the filter, then every second value."""
    return downsample(x, taps)


def fir(x, taps, pads, gain=1.0):
    """Correlation of x [B, H, W, C] with a separable filter of sum `gain` an axis; `pads` (low, high) zeros around."""
    f = gain * _normalized(taps)
    for axis in (1, 2):
        widths = [(0, 0)] * x.ndim
        widths[axis] = pads
        x = jnp.pad(x, widths)
        n = x.shape[axis] - len(f) + 1
        x = sum(float(v) * lax.slice_in_dim(x, i, i + n, axis=axis) for i, v in enumerate(f))
    return x


def transposed(x, kernel):
    """y_(2 i + a) = sum x_i k_a along both axes: x [B, H, W, C], kernel [3, 3, C, O] to [B, 2H + 1, 2W + 1, O].

    As one 2x2 convolution that gives the four parities as channels; they are then laid out as pixels.
    """
    if kernel.shape[:2] != (3, 3):
        raise ValueError(f"kernel: expected [3, 3, C, O], got {kernel.shape}")
    batch, h, w, channels = x.shape
    out = kernel.shape[-1]
    # y_(2m) = x_(m-1) k_2 + x_m k_0 and y_(2m+1) = x_m k_1
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    taps = np.array([[2, 3], [0, 1]])  # [tap, parity] -> row of the padded kernel
    k = padded[taps][:, :, taps].transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, channels, 4 * out)
    y = conv(x, k, padding=1).reshape(batch, h + 1, w + 1, 2, 2, out)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * h + 2, 2 * w + 2, out)[:, :-1, :-1]


def conv_up(x, kernel, taps=FIR):
    """Convolution of x at twice the resolution, then the filter: [B, H, W, C] to [B, 2H, 2W, O].

    kernel [3, 3, C, O] acts on x with zeros between its values, by y_(2 i + a) = x_i k_a; a quarter of the
    work of filtering first. kernel [1, 1, C, O]: the convolution, then `up`.
    """
    if kernel.shape[:2] == (1, 1):
        return up(conv(x, kernel), taps)
    length = len(taps)
    return fir(transposed(x, kernel), taps, ((length - 1) // 2, length // 2 - 1), gain=2.0)


def conv_down(x, kernel, taps=FIR):
    """The filter, then the convolution with stride 2: [B, H, W, C] of even sizes to [B, H / 2, W / 2, O]."""
    if any(n % 2 for n in x.shape[1:3]):
        raise ValueError(f"x: expected even sizes to halve, got {x.shape[1:3]}")
    if kernel.shape[:2] == (1, 1):
        return conv(down(x, taps), kernel)
    low = (len(taps) - 1) // 2 + (kernel.shape[0] - 1) // 2
    high = (len(taps) - 2) // 2 + (kernel.shape[0] - 1) // 2
    return conv(fir(x, taps, (low, high)), kernel, strides=2, padding="VALID")
