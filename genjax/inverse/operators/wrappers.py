"""Operators made of operators: each slice of a volume for itself, and several measurements of one image."""

from typing import Any

import jax.numpy as jnp
from flax import struct

from genjax.inverse.operators import base


@struct.dataclass
class Slices:
    """A linear operator of images applied to each slice of a volume [depth, H, W, C].

    Attributes:
      operator: of one slice.
      depth: number of slices.
    """

    operator: Any
    depth: int = struct.field(pytree_node=False)

    @property
    def in_shape(self):
        return (self.depth, *self.operator.in_shape)

    @property
    def out_shape(self):
        return (self.depth, *self.operator.out_shape)

    def _each(self, function, value, shape, field):
        value = base.check(value, shape, field)
        out = function(value.reshape(-1, *shape[1:]))
        return out.reshape(-1, self.depth, *out.shape[1:])

    def forward(self, x, phi=None):
        base.apply_phi(phi, "Slices")
        return self._each(self.operator.forward, x, self.in_shape, "x")

    def adjoint(self, y):
        return self._each(self.operator.adjoint, y, self.out_shape, "y")

    def x_init(self, y):
        """Slice by slice."""
        return self._each(self.operator.x_init, y, self.out_shape, "y")

    def prox(self, x0, y, rho):
        """Slice by slice."""
        y = base.check(y, self.out_shape, "y").reshape(-1, *self.operator.out_shape)
        rho = jnp.repeat(jnp.broadcast_to(jnp.asarray(rho, x0.dtype).reshape(-1), x0.shape[:1]), self.depth)
        return self._each(lambda x0: self.operator.prox(x0, y, rho), x0, self.in_shape, "x0")


def slices(operator, depth):
    """`Slices` of a linear operator; depth >= 1."""
    base.require(operator, ("adjoint", "prox", "x_init"), "slices")
    if depth < 1:
        raise ValueError(f"depth: expected >= 1, got {depth}")
    return Slices(operator, depth)


@struct.dataclass
class Stack:
    """Several measurements of one image, [B, K, *out_shape]: exposures, or two sensors.

    Attributes:
      operators: tuple of K operators with the same shapes.
    """

    operators: tuple

    @property
    def in_shape(self):
        return self.operators[0].in_shape

    @property
    def out_shape(self):
        return (len(self.operators), *self.operators[0].out_shape)

    def forward(self, x, phi=None):
        """phi: a tuple of one entry an operator, or None."""
        phis = (None,) * len(self.operators) if phi is None else phi
        return jnp.stack([op.forward(x, p) for op, p in zip(self.operators, phis, strict=True)], axis=1)

    def phi_init(self, batch):
        """One entry an operator, None where an operator has no unknown parameters."""
        return tuple(op.phi_init(batch) if hasattr(op, "phi_init") else None for op in self.operators)

    def x_init(self, y):
        """The mean of the operators' starts."""
        y = base.check(y, self.out_shape, "y")
        return sum(op.x_init(y[:, k]) for k, op in enumerate(self.operators)) / len(self.operators)


def stack(operators):
    """`Stack` of operators that share their shapes."""
    operators = tuple(operators)
    shapes = {(tuple(op.in_shape), tuple(op.out_shape)) for op in operators}
    if len(shapes) != 1:
        raise ValueError(f"operators: expected at least one, all with the same shapes, got {sorted(shapes)}")
    return Stack(operators)
