"""Weighted sums along one axis: colour to gray, and the sum of two images."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.inverse.operators import base


def _completed(weights):
    """[n, n] orthogonal, its first row along the weights (a Householder reflection)."""
    unit = weights / jnp.linalg.norm(weights)
    sign = jnp.where(unit[0] >= 0, 1.0, -1.0).astype(unit.dtype)
    v = unit.at[0].add(sign)
    reflection = jnp.eye(len(unit), dtype=unit.dtype) - 2 * jnp.outer(v, v) / jnp.sum(v * v)
    return -sign * reflection


@struct.dataclass
class Combination:
    """y = sum_i weights_i x_i over the entries of one axis; A A^T = |weights|^2 I.

    Attributes:
      weights: [n].
      in_shape: of one sample.
      axis: of the sample, n long; the last axis stays with length 1, any other goes.
    """

    weights: Any
    in_shape: tuple = struct.field(pytree_node=False)
    axis: int = struct.field(pytree_node=False, default=-1)

    @property
    def out_shape(self):
        axis = self.axis % len(self.in_shape)
        rest = self.in_shape[:axis] + self.in_shape[axis + 1 :]
        return (*rest, 1) if axis == len(self.in_shape) - 1 else rest

    @property
    def _axis(self):
        return 1 + self.axis % len(self.in_shape)

    def forward(self, x, phi=None):
        base.apply_phi(phi, "Combination")
        x = jnp.moveaxis(base.check(x, self.in_shape, "x"), self._axis, -1)
        return (x @ self.weights.astype(x.dtype)).reshape(-1, *self.out_shape)

    def _lift(self, y):
        """y with the summed axis back in place, of length 1."""
        y = base.check(y, self.out_shape, "y")
        return y if self._axis == len(self.in_shape) else jnp.expand_dims(y, self._axis)

    def _along(self, vector):
        """[n] shaped to broadcast along the axis."""
        shape = [1] * (len(self.in_shape) + 1)
        shape[self._axis] = -1
        return vector.reshape(shape)

    def adjoint(self, y):
        return self._lift(y) * self._along(self.weights.astype(y.dtype))

    def pinv(self, y):
        return self.adjoint(y) / jnp.sum(self.weights**2).astype(y.dtype)

    def svd(self):
        turn = _completed(self.weights)
        first = self._along(jnp.arange(len(self.weights)) == 0)
        image = lambda z: z.reshape(-1, *self.in_shape)
        apply = lambda x, q: jnp.moveaxis(jnp.moveaxis(x, self._axis, -1) @ q.astype(x.dtype), -1, self._axis)
        length = jnp.linalg.norm(self.weights)
        singular = jnp.broadcast_to(first[0] * length, self.in_shape).reshape(-1)

        def u(z):
            taken = jnp.take(image(z), jnp.asarray([0]), axis=self._axis)
            return taken.reshape(-1, *self.out_shape)

        return base.SVD(
            u=u,
            ut=lambda y: base.flat(self._lift(y) * first.astype(y.dtype)),
            v=lambda z: apply(image(z), turn),
            vt=lambda x: base.flat(apply(x, turn.T)),
            singular=singular,
        )

    prox = base.prox_svd
    x_init = base.x_init_pinv


def gray(shape, weights=None):
    """Colour to gray: the images to be colorized are [B, H, W, 1].

    Args:
      shape: (H, W, C), C >= 2.
      weights: of the channels; None: the luma of ITU-R BT.601 for three channels, else equal ones.
    """
    shape = base.image_shape(shape)
    if shape[2] < 2:
        raise ValueError(f"shape: expected at least two channels to make gray of, got {shape[2]}")
    if weights is None:
        weights = (0.299, 0.587, 0.114) if shape[2] == 3 else (1 / shape[2],) * shape[2]
    return _combination(weights, shape, -1)


def mixture_of_two(shape, ratio=0.5):
    """y = ratio x_1 + (1 - ratio) x_2: two overlaid images, to be separated by their priors.

    Args:
      shape: (2, H, W, C): the sample holds both images.
      ratio: in (0, 1).
    """
    shape = tuple(shape)
    if len(shape) < 2 or shape[0] != 2:
        raise ValueError(f"shape: expected (2, height, width, channels), got {shape}")
    if not 0 < ratio < 1:
        raise ValueError(f"ratio: expected in (0, 1), got {ratio}")
    return _combination((ratio, 1 - ratio), shape, 0)


def _combination(weights, shape, axis):
    weights = np.asarray(weights, float)
    if weights.shape != (shape[axis],) or not np.isfinite(weights).all() or not weights.any():
        raise ValueError(f"weights: expected {shape[axis]} finite numbers, not all 0, got {weights}")
    return Combination(jnp.asarray(weights, jnp.result_type(float)), shape, axis)
