"""What operators share: the singular-value interface, and pseudo-inverse, proximal map, adjoint and matrix from it.

An operator is a frozen pytree dataclass with `in_shape` and `out_shape` (of one sample) and

  forward(x [B, *in_shape], phi=None) -> y [B, *out_shape]     phi: parameters of a blind operator
  x_init(y) -> [B, *in_shape]          a sane start from a measurement: never an estimate to compare with
  adjoint(y)                           A^T y; linear operators only
  prox(x0, y, rho)                     argmin_x |y - A x|^2 + rho |x - x0|^2; linear operators only
  svd() -> SVD, pinv(y)                where they have a closed form (or a small dense one)
  support() -> [*out_shape]            1 where something is measured, 0 elsewhere; masked operators only
  phi_init(batch) -> phi               blind operators only

Functions here take the operator first, so that a class may name them among its methods
(`prox = prox_svd`); there is no base class.
"""

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from genjax.core.numerics import safe_div


class SVD(NamedTuple):
    """A = U diag(singular) V^T in matrix-free form, over D = prod(in_shape) coefficients.

    `v` and `vt` are orthogonal and each other's inverse. Coefficients where `singular` is 0 span the
    null space: there `ut` may say anything that is finite, and `u` what it likes with coefficients
    that are multiplied by `singular` first.
    """

    u: Callable  # [B, D] -> [B, *out_shape]
    ut: Callable  # [B, *out_shape] -> [B, D]
    v: Callable  # [B, D] -> [B, *in_shape]
    vt: Callable  # [B, *in_shape] -> [B, D]
    singular: Any  # [D], >= 0, in no order


def size(shape):
    """Number of elements of a shape."""
    return math.prod(shape)


def check(value, shape, field):
    """`value` as an array [B, *shape].

    Raises:
      ValueError: another shape.
    """
    value = jnp.asarray(value)
    if value.shape[1:] != tuple(shape) or value.ndim != len(shape) + 1:
        raise ValueError(f"{field}: expected shape [B, {', '.join(map(str, shape))}], got {value.shape}")
    return value


def image_shape(shape, field="shape"):
    """`shape` as (H, W, C), all whole and positive; ValueError otherwise."""
    shape = tuple(shape)
    if len(shape) != 3 or not all(isinstance(n, Integral) and n > 0 for n in shape):
        raise ValueError(f"{field}: expected (height, width, channels), got {shape}")
    return shape


def flat(x):
    """[B, ...] -> [B, D]."""
    return x.reshape(x.shape[0], -1)


def apply_phi(phi, name):
    """Raises ValueError where a phi is given to an operator that has no unknown parameters."""
    if phi is not None:
        raise ValueError(f"phi: {name} has no unknown parameters, got {jax.tree.map(jnp.shape, phi)}")


def transpose(operator, y):
    """A^T y of a linear operator, by transposing its forward map."""
    y = check(y, operator.out_shape, "y")
    x = jax.ShapeDtypeStruct((y.shape[0], *operator.in_shape), y.dtype)
    return jax.linear_transpose(operator.forward, x)(y)[0]


def _column(rho):
    """A scalar or [B] as [1 or B, 1]."""
    return jnp.reshape(jnp.asarray(rho), (-1, 1))


def pinv_svd(operator, y, tol=1e-5):
    """The pseudo-inverse: V diag(1 / s) U^T y over the singular values above tol times the largest."""
    svd = operator.svd()
    s = jnp.asarray(svd.singular, y.dtype)
    keep = s > tol * jnp.max(s)
    inverse = jnp.where(keep, 1 / jnp.where(keep, s, 1), 0)
    return svd.v(inverse[None] * svd.ut(check(y, operator.out_shape, "y")))


def prox_svd(operator, x0, y, rho):
    """argmin_x |y - A x|^2 + rho |x - x0|^2 = x0 + V diag(s / (s^2 + rho)) (U^T y - s V^T x0).

    With noise of standard deviation std and a Gaussian N(x0, r^2 I) around x0, rho = std^2 / r^2 gives the
    posterior mean. prox(0, e, std^2 / r^2) / r^2 is A^T (r^2 A A^T + std^2 I)^-1 e.

    Args:
      x0: [B, *in_shape].
      y: [B, *out_shape].
      rho: scalar or [B], >= 0; at 0 the nearest x that fits y best.
    """
    svd, x0 = operator.svd(), check(x0, operator.in_shape, "x0")
    s = jnp.asarray(svd.singular, x0.dtype)[None]
    rho = _column(rho).astype(x0.dtype)
    # At rho = 0 a coefficient whose s is lost in the rounding of the largest counts as not measured.
    seen = (rho > 0) | (s > 1e-5 * jnp.max(s))
    weight = jnp.where(seen, safe_div(s, s**2 + rho), 0)
    residual = svd.ut(check(y, operator.out_shape, "y")) - s * svd.vt(x0)
    return x0 + svd.v(weight * residual)


def prox_cg(operator, x0, y, rho, tol=1e-6, steps=200):
    """argmin_x |y - A x|^2 + rho |x - x0|^2 by conjugate gradients, each sample for itself.

    Args:
      rho: scalar or [B]; at 0 the problem may be singular, and x0 is moved within the range of A^T alone.
      tol: relative residual at which a sample stops.
      steps: most iterations.
    """
    x0, y = check(x0, operator.in_shape, "x0"), check(y, operator.out_shape, "y")
    rho = jnp.broadcast_to(jnp.asarray(rho, x0.dtype).reshape(-1), x0.shape[:1])

    def one(x0, y, rho):
        normal = lambda d: operator.adjoint(operator.forward(d[None]))[0] + rho * d
        residual = operator.adjoint(y[None] - operator.forward(x0[None]))[0]
        return x0 + cg(normal, residual, tol=tol, maxiter=steps)[0]

    return jax.vmap(one)(x0, y, rho)


def x_init_pinv(operator, y):
    """The pseudo-inverse as a start."""
    return operator.pinv(y)


def gram_svd(operator, v, vt, singular):
    """SVD of an operator whose A^T A = V diag(singular^2) V^T is known: U = A V / s."""
    over = lambda z: safe_div(z, jnp.asarray(singular, z.dtype)[None])
    return SVD(
        u=lambda z: operator.forward(v(over(z))),
        ut=lambda y: over(vt(operator.adjoint(y))),
        v=v,
        vt=vt,
        singular=singular,
    )


def matrix(operator, dtype=None):
    """The operator as a dense matrix [M, D], for tests and exact answers on small problems."""
    dim = size(operator.in_shape)
    columns = operator.forward(jnp.eye(dim, dtype=dtype).reshape(dim, *operator.in_shape))
    return columns.reshape(dim, -1).T


def is_linear(operator):
    """Whether the operator says that it is linear: it has an adjoint."""
    return hasattr(operator, "adjoint")


def require(operator, names, method):
    """Raises ValueError, before anything is compiled, unless the operator has all of `names`.

    Args:
      names: of methods, such as ("svd",).
      method: who needs them, for the message.
    """
    missing = [name for name in names if not hasattr(operator, name)]
    if missing:
        kind = type(operator).__name__
        raise ValueError(f"operator: {method} needs {' and '.join(missing)}, which {kind} does not have")
