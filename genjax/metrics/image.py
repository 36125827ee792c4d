"""PSNR and SSIM of image pairs [B, H, W, C], one value an image, differentiable."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.numerics import mean_except_batch


def _check(a, b):
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"images: expected two arrays of one shape [B, H, W, C], got {a.shape} and {b.shape}")


def psnr(a, b, low=-1.0, high=1.0):
    """Peak signal-to-noise ratio, 10 log10((high - low)^2 / MSE), [B] in dB; +inf for equal images.

    `low` and `high` bound the pixels.
    """
    _check(a, b)
    return 10 * (jnp.log10(jnp.asarray(high - low, a.dtype) ** 2) - jnp.log10(mean_except_batch((a - b) ** 2)))


def _window(size, sigma, dtype):
    offset = np.arange(size) - (size - 1) / 2
    weight = np.exp(-0.5 * (offset / sigma) ** 2)
    return jnp.asarray(weight / weight.sum(), dtype)


def _blur(x, weight):
    """Separable weighted mean over the windows that lie inside the image."""
    for axis in (1, 2):
        n = x.shape[axis] - len(weight) + 1
        x = sum(w * jax.lax.slice_in_dim(x, i, i + n, axis=axis) for i, w in enumerate(weight))
    return x


def ssim(a, b, low=-1.0, high=1.0, *, window=11, sigma=1.5, k1=0.01, k2=0.03):
    """Mean structural similarity (Wang et al., IEEE TIP 2004, eq. 13 and 17), [B], at most 1 and 1 for equal images.

    Gaussian window, windows inside the image only, weighted (biased) variances, channels averaged,
    with the constants of the original paper.

    Args:
      a, b: [B, H, W, C].
      low, high: bounds of the pixels; luminance is measured from `low`.
      window: width of the window, at most H and W (7 suits 8 x 8 images).
      sigma: its standard deviation in pixels.

    Raises:
      ValueError: shapes differ, or images smaller than the window.
    """
    _check(a, b)
    if window > min(a.shape[1:3]):
        raise ValueError(f"window: expected at most the image size {a.shape[1:3]}, got {window}")
    weight = _window(window, sigma, a.dtype)
    c1, c2 = (k1 * (high - low)) ** 2, (k2 * (high - low)) ** 2
    # variances do not change with a shift; a shift to the middle of the pair saves float32 digits
    shift = jax.lax.stop_gradient((a.mean((1, 2, 3), keepdims=True) + b.mean((1, 2, 3), keepdims=True)) / 2)
    mean_a, mean_b = _blur(a - shift, weight), _blur(b - shift, weight)
    var_a = _blur((a - shift) ** 2, weight) - mean_a**2
    var_b = _blur((b - shift) ** 2, weight) - mean_b**2
    cov = _blur((a - shift) * (b - shift), weight) - mean_a * mean_b
    level_a, level_b = (m + shift - low for m in (mean_a, mean_b))
    luminance = (2 * level_a * level_b + c1) / (level_a**2 + level_b**2 + c1)
    return mean_except_batch(luminance * (2 * cov + c2) / (var_a + var_b + c2))
