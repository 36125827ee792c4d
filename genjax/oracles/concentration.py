"""How far a Lipschitz image of well-behaved noise can stray: tail bounds without dimension, and Lipschitz constants.

For X = G(Z) with G Lipschitz with constant L and f 1-Lipschitz, P(|f(X) - centre| >= t) is at most

  Z ~ N(0, I), or density exp(-V) with Hess V >= kappa     2 exp(-kappa t^2 / (2 L^2))         centre: the mean
  Z uniform on a k-sphere of radius R (Gromov, Levy)       2 exp(-(k - 1) t^2 / (2 R^2 L^2))   the median
  Z with Poincare constant C, log-concave laws among them  2 A exp(-t / (L sqrt C))            the mean

so a generator of light-tailed noise has light tails whatever its training (2501.07763). A of the last follows from
the inequality itself: with |f'| <= 1, E f = 0 and M(s) = E exp(s f), Var exp(s f / 2) <= C s^2 / 4 M(s), hence
M(s) <= M(s / 2)^2 / (1 - C s^2 / 4), and M(1 / sqrt C) <= prod_k (1 - 4^-(k + 1))^(-2^k) = A.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

POINCARE_FACTOR = math.prod((1 - 4.0 ** -(k + 1)) ** -(2.0**k) for k in range(40))  # 1.718...; Ledoux has 3
LIPSCHITZ = {  # of activations; silu's and gelu's largest slopes are 1.0998 and 1.1290
    "relu": 1.0,
    "leaky_relu": 1.0,
    "tanh": 1.0,
    "silu": 1.1,
    "gelu": 1.13,
}


def _positive(**values):
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a number > 0, got {value}")


def gaussian_tail(t, lipschitz, convexity=1.0):
    """Bound on P(|f(X) - E f(X)| >= t) for Z of density exp(-V), Hess V >= `convexity` (1 for N(0, I)); like t."""
    _positive(lipschitz=lipschitz, convexity=convexity)
    return np.minimum(1.0, 2 * np.exp(-convexity * np.square(t) / (2 * lipschitz**2)))


def sphere_tail(t, lipschitz, dim, radius):
    """Bound on P(|f(X) - med f(X)| >= t) for Z uniform on a sphere of `dim` dimensions (in R^(dim + 1)); like t."""
    _positive(lipschitz=lipschitz, dim=dim, radius=radius)
    return np.minimum(1.0, 2 * np.exp(-(dim - 1) * np.square(t) / (2 * radius**2 * lipschitz**2)))


def poincare_tail(t, lipschitz, constant):
    """Bound on P(|f(X) - E f(X)| >= t) for Z with Poincare constant `constant`; like t.

    Var g(Z) <= constant E |grad g(Z)|^2: 4 b^2 for independent Laplace numbers of scale b, in any dimension.
    """
    _positive(lipschitz=lipschitz, constant=constant)
    return np.minimum(1.0, 2 * POINCARE_FACTOR * np.exp(-np.asarray(t) / (lipschitz * math.sqrt(constant))))


def lipschitz_upper(params, activation="relu"):
    """Upper bound of the Lipschitz constant of a chain of dense layers with an activation between each two.

    The product of the kernels' spectral norms, and of the activation's constant for all layers but the last.

    Args:
      params: tree whose leaves of two axes are the kernels; biases do not count.
      activation: a name in `LIPSCHITZ`.

    Raises:
      ValueError: an unknown activation, or a leaf of more than two axes (a convolution).
    """
    if activation not in LIPSCHITZ:
        raise ValueError(f"activation: expected one of {sorted(LIPSCHITZ)}, got {activation!r}")
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    if any(leaf.ndim > 2 for leaf in leaves):
        raise ValueError(f"params: expected dense layers, got a leaf of shape {max(leaves, key=np.ndim).shape}")
    norms = [np.linalg.norm(leaf, 2) for leaf in leaves if leaf.ndim == 2]
    return float(math.prod(norms) * LIPSCHITZ[activation] ** max(0, len(norms) - 1))


def jacobian_norms(fn, z):
    """Largest singular value of the Jacobian of `fn` (z [...] -> x [...]) at each row of z [N, ...]: [N].

    Their maximum is a lower bound of the Lipschitz constant.
    """

    def one(z):
        matrix = jax.jacrev(lambda flat: fn(flat.reshape(z.shape)).reshape(-1))(z.reshape(-1))
        small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(small)[-1], 0))

    return jax.vmap(one)(z)


def sampler_lipschitz(lipschitz, std, start=1.0):
    """Lipschitz constant of an ancestral sampler as a function of all its noise.

    x_T = start z_T and x_{t-1} = A_t(x_t) + s_t z_t: L^2 becomes l_t^2 L^2 + s_t^2 at every step.

    Args:
      lipschitz: l_t of the moves A_t in the order in which they are made, [T].
      std: s_t, [T].
      start: standard deviation of the first state.

    Returns:
      The constant after every step, [T]; the last one is the sampler's.
    """
    lipschitz, std = np.asarray(lipschitz, np.float64), np.asarray(std, np.float64)
    if lipschitz.shape != std.shape or lipschitz.ndim != 1:
        raise ValueError(f"lipschitz: expected as many numbers as std, got {lipschitz.shape} and {std.shape}")
    square, found = float(start) ** 2, []
    for move, noise in zip(lipschitz, std):
        square = move**2 * square + noise**2
        found.append(math.sqrt(square))
    return np.array(found)
