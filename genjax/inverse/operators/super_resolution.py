"""Super-resolution: averages of blocks, and bicubic shrinking with the right antialiasing."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.inverse.operators import base
from genjax.inverse.operators.bases import dct_matrix


@struct.dataclass
class BlockAverage:
    """y = means over factor x factor blocks; the rows are orthogonal, A A^T = I / factor^2."""

    in_shape: tuple = struct.field(pytree_node=False)
    factor: int = struct.field(pytree_node=False, default=2)

    @property
    def out_shape(self):
        height, width, channels = self.in_shape
        return (height // self.factor, width // self.factor, channels)

    def _blocks(self, x):
        """[B, h, f, w, f, C]."""
        h, w, c = self.out_shape
        return x.reshape(-1, h, self.factor, w, self.factor, c)

    def forward(self, x, phi=None):
        base.apply_phi(phi, "BlockAverage")
        return jnp.mean(self._blocks(base.check(x, self.in_shape, "x")), axis=(2, 4))

    def _spread(self, y):
        """Each pixel copied over its block."""
        y = base.check(y, self.out_shape, "y")
        return jnp.repeat(jnp.repeat(y, self.factor, axis=1), self.factor, axis=2)

    def adjoint(self, y):
        return self._spread(y) / self.factor**2

    def pinv(self, y):
        return self._spread(y)

    def svd(self):
        """Cosines over each block; the constant one is measured, with singular value 1 / factor."""
        f, (h, w, c) = self.factor, self.out_shape
        place = np.zeros((h, f, w, f, c))
        place[:, 0, :, 0] = 1

        def vt(x):
            d = jnp.asarray(dct_matrix(f), x.dtype)
            return base.flat(jnp.einsum("bhiwjc,ki,lj->bhkwlc", self._blocks(x), d, d))

        def v(z):
            d = jnp.asarray(dct_matrix(f), z.dtype)
            return jnp.einsum("bhkwlc,ki,lj->bhiwjc", self._blocks(z), d, d).reshape(-1, *self.in_shape)

        def ut(y):
            return base.flat(self._spread(y)) * jnp.asarray(place.reshape(1, -1), y.dtype)

        singular = jnp.asarray(place.reshape(-1) / f, jnp.result_type(float))
        return base.SVD(u=lambda z: self._blocks(z)[:, :, 0, :, 0], ut=ut, v=v, vt=vt, singular=singular)

    prox = base.prox_svd
    x_init = base.x_init_pinv


@struct.dataclass
class Separable:
    """y = rows x cols^T in each channel: any resizing or blur that acts on height and width alone.

    Attributes:
      rows: [h, H].
      cols: [w, W].
      row_svd, col_svd: (left, singular, right) as in `Dense`.
      channels: C.
    """

    rows: Any
    cols: Any
    row_svd: Any
    col_svd: Any
    channels: int = struct.field(pytree_node=False)

    @property
    def in_shape(self):
        return (self.rows.shape[1], self.cols.shape[1], self.channels)

    @property
    def out_shape(self):
        return (self.rows.shape[0], self.cols.shape[0], self.channels)

    def forward(self, x, phi=None):
        base.apply_phi(phi, "Separable")
        return _both(self.rows, self.cols, base.check(x, self.in_shape, "x"))

    def adjoint(self, y):
        return _both(self.rows.T, self.cols.T, base.check(y, self.out_shape, "y"))

    def svd(self):
        """Products of the one-dimensional singular vectors; the singular values are an outer product."""
        (ru, rs, rv), (cu, cs, cv) = self.row_svd, self.col_svd
        image = lambda z: z.reshape(-1, *self.in_shape)
        ones = jnp.ones(self.channels, rs.dtype)
        return base.SVD(
            u=lambda z: _both(ru, cu, image(z)),
            ut=lambda y: base.flat(_both(ru.T, cu.T, y)),
            v=lambda z: _both(rv, cv, image(z)),
            vt=lambda x: base.flat(_both(rv.T, cv.T, x)),
            singular=(rs[:, None, None] * cs[None, :, None] * ones[None, None]).reshape(-1),
        )

    pinv = base.pinv_svd
    prox = base.prox_svd
    x_init = base.x_init_pinv


def _both(rows, cols, x):
    return jnp.einsum("hi,wj,bijc->bhwc", rows.astype(x.dtype), cols.astype(x.dtype), x)


def _small_svd(matrix):
    """(left [M, D], singular [D], right [D, D]), padded with zeros."""
    from genjax.inverse.operators.dense import dense

    operator = dense(matrix)
    return operator.left, operator.singular, operator.right


def separable(rows, cols, channels=1):
    """`Separable` of concrete matrices [h, H] and [w, W]."""
    kind = jnp.result_type(float)
    return Separable(jnp.asarray(rows, kind), jnp.asarray(cols, kind), _small_svd(rows), _small_svd(cols), channels)


def cubic(x, a=-0.5):
    """Keys' cubic convolution kernel, supported on [-2, 2]; a = -0.5 reproduces quadratics."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resize_matrix(n, m, kernel=cubic, reach=2.0):
    """[m, n] matrix that resizes n samples to m.

    Where it shrinks, the kernel is stretched by n / m (antialiasing); weights outside the signal are
    folded in by reflection about its edge, and each row sums to 1.
    """
    scale = max(n / m, 1.0)
    centers = (np.arange(m) + 0.5) * n / m - 0.5
    low, high = int(np.floor(centers.min() - reach * scale)), int(np.ceil(centers.max() + reach * scale))
    out = np.zeros((m, n))
    for j in range(low, high + 1):
        folded = j % (2 * n)  # reflection with the edge sample doubled has period 2 n
        folded = folded if folded < n else 2 * n - 1 - folded
        out[:, folded] += kernel((j - centers) / scale)
    return out / out.sum(axis=1, keepdims=True)


def super_resolution(shape, factor=2, kernel="average"):
    """Shrinking by a whole factor.

    Args:
      shape: (H, W, C), both sides multiples of factor.
      factor: >= 1.
      kernel: "average" (means of blocks) or "bicubic" (Keys' kernel, stretched by the factor).
    """
    height, width, channels = base.image_shape(shape)
    if factor < 1 or height % factor or width % factor:
        raise ValueError(f"factor: expected a divisor of both sides {(height, width)}, got {factor}")
    if kernel == "average":
        return BlockAverage((height, width, channels), factor)
    if kernel == "bicubic":
        return separable(resize_matrix(height, height // factor), resize_matrix(width, width // factor), channels)
    raise ValueError(f"kernel: expected 'average' or 'bicubic', got {kernel!r}")
