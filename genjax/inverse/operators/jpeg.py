"""Quantization as in JPEG: cosine coefficients of 8x8 blocks, rounded to multiples of a table."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.inverse.operators import base
from genjax.inverse.operators.bases import dct_matrix

# The example tables of ITU-T T.81, annex K, for bytes.
LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99.0],
    ]
)
CHROMA = np.full((8, 8), 99.0)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# RGB -> (Y, Cb, Cr) of ITU-T T.871, without its offsets
TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def quantization_table(quality, table=LUMA):
    """A table [8, 8] for a quality in 1 ... 100, as the IJG library scales it; whole numbers in 1 ... 255."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip(np.floor((table * scale + 50) / 100), 1, 255)


@struct.dataclass
class Jpeg:
    """y = the decoded image, in the range of x. Without chroma sub-sampling, byte rounding and clipping,
    so that coding twice changes nothing.

    Attributes:
      tables: [8, 8, C] steps of the coefficients, for images in [-1, 1].
      in_shape: (H, W, C), sides multiples of 8; with three channels they are red, green and blue.
      straight_through: whether the gradient takes rounding for the identity; otherwise it is zero.
    """

    tables: Any
    in_shape: tuple = struct.field(pytree_node=False)
    straight_through: bool = struct.field(pytree_node=False, default=True)

    @property
    def out_shape(self):
        return self.in_shape

    def _colour(self, x, matrix):
        return x @ jnp.asarray(matrix.T, x.dtype) if self.in_shape[2] == 3 else x

    def _blocks(self, x):
        height, width, channels = self.in_shape
        return x.reshape(-1, height // 8, 8, width // 8, 8, channels)

    def coefficients(self, x):
        """Coefficients over steps before rounding, [B, H/8, W/8, 8, 8, C]."""
        d = jnp.asarray(dct_matrix(8), x.dtype)
        blocks = self._blocks(self._colour(base.check(x, self.in_shape, "x"), TO_YCBCR))
        z = jnp.einsum("bhiwjc,ki,lj->bhwklc", blocks, d, d)
        return z / self.tables[None, None, None].astype(x.dtype)

    def decode(self, levels):
        """The image of coefficient levels."""
        d = jnp.asarray(dct_matrix(8), levels.dtype)
        z = levels * self.tables[None, None, None].astype(levels.dtype)
        blocks = jnp.einsum("bhwklc,ki,lj->bhiwjc", z, d, d)
        return self._colour(blocks.reshape(-1, *self.in_shape), np.linalg.inv(TO_YCBCR))

    def forward(self, x, phi=None):
        base.apply_phi(phi, "Jpeg")
        z = self.coefficients(x)
        levels = jnp.sign(z) * jnp.floor(jnp.abs(z) + 0.5)  # halves go away from zero, as in the codec
        if self.straight_through:
            levels = z + jax.lax.stop_gradient(levels - z)
        return self.decode(levels)

    def x_init(self, y):
        """The decoded image itself."""
        return base.check(y, self.in_shape, "y")


def jpeg(shape, quality=10, straight_through=True):
    """`Jpeg` of quality 1 (coarse) to 100; one channel, or three (RGB)."""
    shape = base.image_shape(shape)
    if shape[0] % 8 or shape[1] % 8 or shape[2] not in (1, 3):
        raise ValueError(f"shape: expected sides that are multiples of 8 and 1 or 3 channels, got {shape}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected in 1 ... 100, got {quality}")
    luma, chroma = quantization_table(quality), quantization_table(quality, CHROMA)
    # Steps are for bytes, 127.5 to the unit of [-1, 1].
    tables = np.stack([luma, chroma, chroma] if shape[2] == 3 else [luma], axis=-1) / 127.5
    return Jpeg(jnp.asarray(tables, jnp.result_type(float)), shape, straight_through)
