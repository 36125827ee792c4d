"""Geometric moves of images: separable ones as matrix products, general affine ones by interpolation."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.networks.gan.resample import down, up

# The symmetric biorthogonal pair of Cohen, Daubechies and Feauveau with 9 and 7 taps: SYNTHESIS brings an
# image to twice the resolution, ANALYSIS back, exactly. The paper's filter, sym6, is orthogonal but not
# symmetric, so that mirrored and turned images come back blurred.
ANALYSIS = (
    0.02674875741080976,
    -0.01686411844287495,
    -0.07822326652898785,
    0.2668641184428723,
    0.6029490182363579,
    0.2668641184428723,
    -0.07822326652898785,
    -0.01686411844287495,
    0.02674875741080976,
)
SYNTHESIS = (
    -0.09127176311424948,
    -0.05754352622849957,
    0.5912717631142470,
    1.115087052456994,
    0.5912717631142470,
    -0.05754352622849957,
    -0.09127176311424948,
)
REACH = 4  # pixels of margin: two that the way back reads past an edge, each made of two more


def _reflect(u, n):
    """Coordinate u mirrored into [0, n - 1] at the centers of the first and last pixel."""
    if n == 1:
        return jnp.zeros_like(u)
    u = jnp.mod(jnp.abs(u), 2 * (n - 1))
    return jnp.minimum(u, 2 * (n - 1) - u)


def shift(x, dy, dx, mode="zero"):
    """x [B, H, W, C] moved down by dy and right by dx whole pixels, each int [B].

    What comes in is zeros, or with `mode` "reflect" the image mirrored at the centers of its edge pixels.
    Two matrix products with shifted identities: their gradients stay products inside loops, where
    gathers would become scatters, slow on CPU.
    """
    if mode not in ("zero", "reflect"):
        raise ValueError(f"mode: expected 'zero' or 'reflect', got {mode!r}")

    def move(n, by):
        source = jnp.arange(n)[None, :] - by[:, None]
        source = _reflect(source, n) if mode == "reflect" else source
        return (source[..., None] == jnp.arange(n)[None, None, :]).astype(x.dtype)

    x = jnp.einsum("bij,bjwc->biwc", move(x.shape[1], dy), x)
    return jnp.einsum("bij,bhjc->bhic", move(x.shape[2], dx), x)


def _bilinear(x, v, u):
    """x [H, W, C] at rows v and columns u (both [N], inside the image), [N, C]."""
    h, w, channels = x.shape
    top, left = (jnp.clip(jnp.floor(c), 0, n - 2).astype(jnp.int32) for c, n in ((v, h), (u, w)))
    fy, fx = v - top, u - left
    flat = x.reshape(h * w, channels)
    corners = jnp.stack([top * w + left, top * w + left + 1, (top + 1) * w + left, (top + 1) * w + left + 1], 1)
    weights = jnp.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], 1).astype(x.dtype)
    return jnp.einsum("nk,nkc->nc", weights, flat[corners])


def affine_warp(x, inverse):
    """Images through an affine map, without aliasing (2006.06676, appendix B).

    The image is mirrored at its edges, brought to twice the resolution by a wavelet's filter, read
    bilinearly there, and brought back by the filter dual to it: mirror images, quarter turns and shifts
    by whole pixels are exact, and turns and shrinkings do not alias.

    Args:
      x: [B, H, W, C].
      inverse: [B, 3, 3], from the position (column, row, 1) in the output, in pixels from the center
        of the image, to the position in x.

    Returns:
      [B, H, W, C] of x's dtype.
    """
    _, h, w, channels = x.shape
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    padded = jnp.pad(
        wide, ((0, 0), (REACH, REACH), (REACH, REACH), (0, 0)), mode="reflect" if min(h, w) > 1 else "edge"
    )
    fine = up(padded, SYNTHESIS)
    # sample j of the fine grid sits at pixel j / 2 - REACH of the image
    at = lambda n: jnp.asarray(np.arange(2 * (n + 2 * REACH)) / 2 - REACH - (n - 1) / 2, wide.dtype)
    columns, rows = jnp.meshgrid(at(w), at(h))
    points = jnp.stack([columns.ravel(), rows.ravel(), jnp.ones(rows.size, wide.dtype)])

    def read(image, matrix):
        target = matrix[:2] @ points
        u, v = (_reflect(c + (n - 1) / 2, n) for c, n in zip(target, (w, h)))
        return _bilinear(image, 2 * (v + REACH), 2 * (u + REACH))

    warped = jax.vmap(read)(fine, inverse.astype(wide.dtype))
    coarse = down(warped.reshape(*fine.shape[:3], channels), ANALYSIS)
    return coarse[:, REACH:-REACH, REACH:-REACH].astype(x.dtype)
