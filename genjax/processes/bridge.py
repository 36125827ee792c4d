"""Brownian bridge between data x0 at t = 0 and a given end x1 at t = 1.

  x_t = (1 - t) x0 + t x1 + gamma sqrt(t (1 - t)) eps,

the Brownian motion of rate gamma pinned at both ends. The end is bound first,
`process.bind(x1=...)`; what the denoiser predicts is x0 given (x_t, x1).
"""

from typing import Any

import jax.numpy as jnp
from flax import struct

from genjax.core.keys import normal_like
from genjax.core.laws import Normal
from genjax.core.numerics import bcast, float_leaves, float_time, safe_div, safe_sqrt
from genjax.core.types import Prediction


@struct.dataclass
class BrownianBridge:
    """A Brownian bridge with time in [t_min, t_max], t_max <= 1.

    Attributes:
      gamma: rate of the Brownian motion; 0 is the straight line.
      x1: [B, ...] the end at t = 1, or None before `bind`.
    """

    gamma: Any = 1.0
    x1: Any = None
    t_min: Any = 1e-3
    t_max: Any = 1.0

    def __post_init__(self):
        float_leaves(self, "gamma", "t_min", "t_max")

    def bind(self, **context):
        """The process with its end: `bind(x1=...)`."""
        if set(context) != {"x1"}:
            raise TypeError(f"bind: expected x1, got {sorted(context)}")
        return self.replace(x1=context["x1"])

    def _end(self):
        if self.x1 is None:
            raise ValueError("x1: expected an end bound by process.bind(x1=...), got None")
        return self.x1

    def std(self, t):
        """gamma sqrt(t (1 - t)), shaped like t."""
        t = float_time(t)
        return self.gamma * safe_sqrt(t * (1 - t))

    def mean(self, x0, t):
        """(1 - t) x0 + t x1."""
        t = bcast(float_time(t), x0)
        return (1 - t) * x0 + t * self._end()

    def prediction(self, x0, x, t):
        """The Prediction of a network that gives x0: eps and x1 filled in; eps is 0 where std is."""
        eps = safe_div(x - self.mean(x0, t), bcast(self.std(t), x))
        return Prediction(x0=x0, eps=eps, x1=self._end())

    def noise(self, keys, like):
        """Standard normal noise of the shape of `like` [B, ...]."""
        return normal_like(keys, like)

    def perturb(self, x0, eps, t):
        return self.mean(x0, t) + bcast(self.std(t), x0) * eps

    def corrupt(self, keys, x0, t):
        """x_t for x0 [B, ...], and the truth (x0, eps, x1)."""
        eps = self.noise(keys, x0)
        return self.perturb(x0, eps, t), Prediction(x0=x0, eps=eps, x1=self._end())

    def prior(self, keys, like, t=None):
        """The start of sampling: the end x1 itself."""
        return jnp.broadcast_to(self._end(), like.shape)

    def transition(self, x, t, s):
        """The forward law q(x_s | x_t, x1) for s >= t, t < 1."""
        t, s = float_time(t), float_time(s)
        along = bcast(safe_div(s - t, 1 - t), x)
        std = self.gamma * safe_sqrt(safe_div((s - t) * (1 - s), 1 - t))
        return Normal(x + along * (self._end() - x), bcast(std, x))

    def posterior(self, x, pred, t, s, eta=1.0):
        """The law of x_s given x_t = x and x0 as predicted.

        std = eta gamma sqrt(s (t - s) / t), mean = m_s + k (x - m_t) with m the line from x0 to x1 and
        k^2 = (1 - eta^2) s (1 - s) / (t (1 - t)) + eta^2 (s / t)^2. eta = 1 is the exact posterior
        (the end x1 then drops out), eta = 0 keeps the noise and moves it deterministically, as every
        move up (s > t) does.
        """
        t, s = float_time(t), float_time(s)
        eta = jnp.where(s > t, 0, eta)
        still = safe_div(s * (1 - s), t * (1 - t))  # 0 at t = 1, where x = m_t and k does not matter
        ratio = safe_div(s, t)
        k = safe_sqrt((1 - eta**2) * still + eta**2 * ratio**2)
        std = eta * self.gamma * safe_sqrt(jnp.maximum(t - s, 0) * ratio)
        mean = self.mean(pred.x0, s) + bcast(k, x) * (x - self.mean(pred.x0, t))
        return Normal(mean, bcast(std, x))

    def velocity(self, x, pred, t):
        """dx/dt of the ODE that carries the law of x_t given x1: E[d x_t / dt | x_t, x1]. Singular at 0 and 1."""
        t = bcast(float_time(t), x)
        rate = safe_div(1 - 2 * t, 2 * t * (1 - t))
        return self._end() - pred.x0 + rate * (x - self.mean(pred.x0, t))

    def score(self, x, pred, t):
        """grad log p_t(x | x1) = -(x - m_t) / std^2."""
        return safe_div(self.mean(pred.x0, t) - x, bcast(self.std(t) ** 2, x))


def brownian_bridge(gamma=1.0, t_min=1e-3, t_max=1.0):
    """A Brownian bridge whose end is bound later (as in 2302.05872, 2205.07680)."""
    return BrownianBridge(gamma, None, t_min, t_max)
