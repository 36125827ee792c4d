"""Linear processes with matrix coefficients: data augmented by velocities (2112.07068, 2302.07261).

The state u [B, ..., K] has the data x in u[..., 0] and K - 1 auxiliary variables beside it. With the
same K x K matrices for every element,

  du = beta(t) A u dt + sqrt(beta(t)) G dW,   A = -(Q + D) S^-1,   G G^T = 2 D,

Q skew-symmetric and D positive semi-definite, for which N(0, S) is stationary. The auxiliary variables
start at N(0, diag(0, aux_var)) and are integrated out, so the kernel is conditional on x0 alone:

  u_t | x0 ~ N(M_t x0, Sigma_t),   M_t = Phi_t[:, 0],   Sigma_t = Phi_t Sigma_0 Phi_t^T + C_t.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from genjax.core.keys import normal, normal_like
from genjax.core.laws import BlockNormal
from genjax.core.numerics import bcast, float_leaves, float_time, safe_div, safe_sqrt
from genjax.core.types import Prediction

ORDER = 12  # Taylor terms of one piece
DOUBLINGS = 8  # the interval is cut into 2^8 pieces


def _t(m):
    return jnp.swapaxes(m, -1, -2)


def like_batch(m, other):
    """A matrix [K, K] with leading axes of size 1, to the rank of `other` [K, K] or [B, K, K]."""
    return jnp.asarray(m).reshape((1,) * (other.ndim - 2) + m.shape)


def identity(m):
    """The identity of the size, type and rank of m [..., K, K]."""
    return like_batch(jnp.eye(m.shape[-1], dtype=m.dtype), m)


def propagate(drift, diffusion, tau):
    """(Phi, C) of du = drift u d tau + dW with covariance rate `diffusion`, over the interval tau.

    Phi = exp(drift tau), C = int_0^tau exp(drift r) diffusion exp(drift r)^T dr: a Taylor series over
    tau / 256, then doubling, Phi(2h) = Phi(h)^2 and C(2h) = C(h) + Phi C Phi^T. Only sums of positive
    matrices occur, so C keeps its digits at small tau, where its entries differ by orders of magnitude;
    Phi is carried as Phi - 1 for the same reason.

    Args:
      drift, diffusion: [K, K].
      tau: scalar or [B], >= 0, of at most about 50 over the norm of `drift`.

    Returns:
      [K, K] twice, or [B, K, K] twice.
    """
    h = tau[..., None, None] / 2**DOUBLINGS
    a = like_batch(drift, h) * h
    term, c_term = a, like_batch(diffusion, h) * h
    e, c = term, c_term
    for k in range(2, ORDER + 1):
        term = a @ term / k
        c_term = (a @ c_term + c_term @ _t(a)) / k
        e, c = e + term, c + c_term
    for _ in range(DOUBLINGS):
        ec = c + e @ c
        c = c + ec + ec @ _t(e)  # c + (1 + e) c (1 + e)^T
        e = 2 * e + e @ e
    return identity(e) + e, c


def cholesky(m):
    """Lower Cholesky factor of semi-definite matrices [..., K, K], K small; zero rows where the pivot is zero."""
    k = m.shape[-1]
    rows = [[jnp.zeros_like(m[..., 0, 0])] * k for _ in range(k)]
    for j in range(k):
        rows[j][j] = safe_sqrt(m[..., j, j] - sum(rows[j][i] ** 2 for i in range(j)))
        for n in range(j + 1, k):
            rows[n][j] = safe_div(m[..., n, j] - sum(rows[n][i] * rows[j][i] for i in range(j)), rows[j][j])
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def apply(m, u):
    """m u for matrices m [K, K] or [B, K, K] and states u [B, ..., K]."""
    if m.ndim == 2:
        return u @ m.T
    flat = u.reshape(u.shape[0], -1, u.shape[-1])
    return jnp.einsum("bij,bnj->bni", m, flat).reshape(u.shape)


@struct.dataclass
class Linear:
    """A linear process in K variables; t = 0 is the data with its auxiliary variables.

    Attributes:
      q: [K, K] skew-symmetric.
      d: [K, K] symmetric positive semi-definite.
      s: [K] diagonal of the stationary covariance.
      aux_var: [K - 1] variances of the auxiliary variables at t = 0.
      beta_min, beta_max: rate beta(t) = beta_min + t (beta_max - beta_min).
    """

    q: Any
    d: Any
    s: Any
    aux_var: Any
    beta_min: Any = 0.1
    beta_max: Any = 10.0
    t_min: Any = 1e-3
    t_max: Any = 1.0

    def __post_init__(self):
        float_leaves(self, "beta_min", "beta_max", "t_min", "t_max")

    @property
    def size(self):
        """K."""
        return self.q.shape[0]

    def beta(self, t):
        return self.beta_min + float_time(t) * (self.beta_max - self.beta_min)

    def clock(self, t, s):
        """Integral of beta from t to s, shaped like their broadcast."""
        t, s = float_time(t), float_time(s)
        return (s - t) * (self.beta_min + (s + t) / 2 * (self.beta_max - self.beta_min))

    def matrices(self):
        """(A, G G^T), each [K, K], of the rate-one process."""
        return -(self.q + self.d) / self.s[None, :], 2 * self.d

    def _sigma_0(self):
        return jnp.diag(jnp.concatenate([jnp.zeros(1, self.s.dtype), jnp.asarray(self.aux_var)]))

    def _moments(self, t):
        """Phi_t[:, 0] [.., K] and Sigma_t [.., K, K]."""
        phi, c = propagate(*self.matrices(), self.clock(0.0, t))
        return phi[..., 0], phi @ like_batch(self._sigma_0(), phi) @ _t(phi) + c

    def kernel(self, t):
        """(M_t [K] or [B, K], L_t [K, K] or [B, K, K]): u_t = M_t x0 + L_t eps, L_t lower triangular."""
        mean, cov = self._moments(t)
        return mean, cholesky(cov)

    def _mean(self, m, x0):
        """M_t x0, [B, ..., K] for x0 [B, ...]."""
        return x0[..., None] * bcast_last(m, x0.ndim)

    def perturb(self, x0, eps, t):
        """u_t [B, ..., K] from data x0 [B, ...] and noise eps [B, ..., K]."""
        m, chol = self.kernel(t)
        return self._mean(m, x0) + apply(chol, eps)

    def noise(self, keys, like):
        """Standard normal noise of the shape of the state `like` [B, ..., K]."""
        return normal_like(keys, like)

    def corrupt(self, keys, x0, t):
        """u_t [B, ..., K] for data x0 [B, ...], and the truth (x0, eps)."""
        eps = normal(keys, (*x0.shape, self.size), x0.dtype)
        return self.perturb(x0, eps, t), Prediction(x0=x0, eps=eps)

    def prior(self, keys, like, t=None):
        """N(0, Sigma_t) at time t (t_max if None), of the shape of the state `like` [B, ..., K]."""
        return apply(self.kernel(self.t_max if t is None else t)[1], self.noise(keys, like))

    def prediction(self, eps, u, t):
        """The Prediction of a network that gives eps [B, ..., K]: x0 [B, ...] from the data row, t > 0."""
        m, chol = self.kernel(t)
        rest = (u - apply(chol, eps))[..., 0]
        return Prediction(x0=safe_div(rest, bcast(m[..., 0], rest)), eps=eps)

    def prediction_from_score(self, score, u, t):
        """The Prediction of a score field: eps = -L^T score."""
        return self.prediction(-apply(_t(self.kernel(t)[1]), score), u, t)

    def score(self, u, pred, t):
        """grad log p_t(u) = -L_t^-T eps."""
        chol = self.kernel(t)[1]
        inverse = jax.scipy.linalg.solve_triangular(chol, jnp.broadcast_to(identity(chol), chol.shape), lower=True)
        return -apply(_t(inverse), pred.eps)

    def drift(self, u, t):
        """beta(t) A u of the forward SDE."""
        return bcast(self.beta(t), u) * apply(self.matrices()[0], u)

    def diffusion(self, t):
        """sqrt(beta(t)) G as a lower triangular matrix [K, K] or [B, K, K]."""
        root = jnp.sqrt(self.beta(t))[..., None, None]
        return root * like_batch(cholesky(self.matrices()[1]), root)

    def reverse_drift(self, u, pred, t, share=1.0):
        """Drift of the reverse SDE (share 1, with the forward diffusion) or of the probability-flow ODE (share 1/2)."""
        push = apply(self.matrices()[1], self.score(u, pred, t))
        return self.drift(u, t) - share * bcast(self.beta(t), u) * push

    def velocity(self, u, pred, t):
        """du/dt of the probability-flow ODE."""
        return self.reverse_drift(u, pred, t, 0.5)

    def transition(self, u, t, s):
        """The forward law q(u_s | u_t) for s >= t."""
        phi, c = propagate(*self.matrices(), self.clock(t, s))
        return BlockNormal(apply(phi, u), cholesky(c))

    def posterior(self, u, pred, t, s, eta=1.0):
        """The law of u_s given u_t = u and x0, eps as predicted, s <= t.

        With the gain K = Sigma_s Phi^T Sigma_t^-1: mean M_s x0 + K L_t eps, and covariance in Joseph's
        form (1 - K Phi) Sigma_s (1 - K Phi)^T + K C K^T, which rounding leaves positive.

        Raises:
          ValueError: eta other than 1; the deterministic move of a matrix process is not this family's.
        """
        if isinstance(eta, (int, float)) and eta != 1:
            raise ValueError(f"eta: expected 1 for a linear process, got {eta}")
        phi, c = propagate(*self.matrices(), self.clock(s, t))
        m_s, cov_s = self._moments(s)
        cov_t = phi @ cov_s @ _t(phi) + c
        gain = _t(jnp.linalg.solve(cov_t, phi @ cov_s))
        keep = identity(phi) - gain @ phi
        cov = keep @ cov_s @ _t(keep) + gain @ c @ _t(gain)
        mean = self._mean(m_s, pred.x0) + apply(gain @ self.kernel(t)[1], pred.eps)
        return BlockNormal(mean, cholesky(cov))

    def bind(self, **context):
        """Raises TypeError if any context is given."""
        if context:
            raise TypeError(f"bind: a linear process takes no context, got {sorted(context)}")
        return self


def bcast_last(m, rank):
    """Vectors m [K] or [B, K] as [1 or B, 1, ..., K], to multiply [B, ..., 1] with `rank` leading axes."""
    return m.reshape((-1,) + (1,) * (rank - 1) + m.shape[-1:])


def linear(q, d, s, aux_var, beta_min=0.1, beta_max=10.0, t_min=1e-3):
    """A linear process from lists or arrays.

    Raises:
      ValueError: q not skew-symmetric, d not symmetric positive semi-definite, or sizes that differ.
    """
    q, d, s, aux_var = (np.asarray(a, jnp.result_type(float)) for a in (q, d, s, aux_var))
    k = len(q)
    if q.shape != (k, k) or not np.allclose(q, -q.T):
        raise ValueError(f"q: expected a skew-symmetric matrix, got {q.tolist()}")
    if d.shape != (k, k) or not np.allclose(d, d.T) or np.linalg.eigvalsh(d).min() < -1e-6:
        raise ValueError(f"d: expected a symmetric positive semi-definite matrix of size {k}, got {d.tolist()}")
    if s.shape != (k,) or not np.all(s > 0):
        raise ValueError(f"s: expected {k} positive numbers, got {s.tolist()}")
    if aux_var.shape != (k - 1,) or not np.all(aux_var >= 0):
        raise ValueError(f"aux_var: expected {k - 1} numbers >= 0, got {aux_var.tolist()}")
    return Linear(q, d, s, aux_var, beta_min, beta_max, t_min)


def cld(beta=4.0, mass=0.25, friction=None, gamma=0.04, t_min=1e-3):
    """Critically damped Langevin diffusion (2112.07068), state (x, v), K = 2.

    dx = beta v / mass dt,  dv = -beta (x + friction v / mass) dt + sqrt(2 friction beta) dW.

    Args:
      beta: constant rate.
      mass: M, the stationary variance of v.
      friction: Gamma; None for critical damping, 2 sqrt(M).
      gamma: v starts with variance gamma M.
    """
    friction = 2 * mass**0.5 if friction is None else friction
    return linear([[0, -1], [1, 0]], [[0, 0], [0, friction]], [1, mass], [gamma * mass], beta, beta, t_min)


def malda(beta_min=0.1, beta_max=10.0, velocity_var=1.0, aux_var=0.01, t_min=1e-3, size=3):
    """Modified accelerated Langevin with size - 1 auxiliary variables, all coupled to their neighbours
    and all but the data noised (the "MALDA" member of the multivariate family)."""
    above = np.diag(np.ones(size - 1), 1)
    noised = 2 * velocity_var**0.5 * (np.arange(size) > 0)
    spread = [1.0] + [velocity_var] * (size - 1)
    return linear(above.T - above, np.diag(noised), spread, [aux_var] * (size - 1), beta_min, beta_max, t_min)
