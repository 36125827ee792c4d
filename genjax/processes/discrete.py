"""Corruption of tokens: masking (absorbing) and uniform replacement.

A token of {0 ... V-1} survives to time t with probability alpha(t) = 1 - rate(t), independently of the
others; else it is the mask (a further token, V), or a uniformly drawn token. A denoiser of these
processes returns `Prediction.logits` [B, ..., V], the law of each x0 given all of x_t, over the V real
tokens; the mask is never predicted and positions that are known need not be copied: the posterior does.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.nn import log_softmax, logsumexp

from genjax.core.keys import uniform
from genjax.core.laws import Categorical
from genjax.core.numerics import float_leaves, float_time, safe_div
from genjax.core.types import Prediction


@struct.dataclass
class PowerRate:
    """rate(t) = t^power; 1 is MD4's linear schedule (2406.04329). `power` [V] lets tokens differ (there, section 6)."""

    power: Any = 1.0

    def __post_init__(self):
        float_leaves(self, "power")

    def _power(self, t):
        power = jnp.asarray(self.power)
        return power.reshape((1,) * (t.ndim - 1) + power.shape) if power.ndim else power

    def rate(self, t):
        return t ** self._power(t)

    def survival(self, t):
        inside = t > 0  # keeps the derivative in `power` finite at t = 0
        return jnp.where(inside, -jnp.expm1(self._power(t) * jnp.log(jnp.where(inside, t, 1))), 1)

    def time(self, rate):
        return rate ** (1 / self._power(rate))


@struct.dataclass
class CosineRate:
    """rate(t) = sin(pi t / 2): few tokens are left early, as in 2202.04200 and 2406.04329."""

    def rate(self, t):
        return jnp.sin(jnp.pi * t / 2)

    def survival(self, t):
        return 2 * jnp.sin(jnp.pi * (1 - t) / 4) ** 2  # 1 - sin(pi t / 2) without cancellation

    def time(self, rate):
        return 2 / jnp.pi * jnp.arcsin(rate)


RATES = {"linear": PowerRate, "polynomial": lambda: PowerRate(2.0), "cosine": CosineRate}


def _schedule(name_or_rate):
    if not isinstance(name_or_rate, str):
        return name_or_rate
    if name_or_rate not in RATES:
        raise ValueError(f"schedule: expected one of {sorted(RATES)} or a rate, got {name_or_rate!r}")
    return RATES[name_or_rate]()


def _only_ancestral(eta):
    if isinstance(eta, (int, float)) and eta != 1:
        raise ValueError(f"eta: expected 1, a discrete process has no deterministic move, got {eta}")


@struct.dataclass
class Masked:
    """Masked diffusion of tokens {0 ... vocab - 1}, mask = vocab; t = 0 is the data, t = 1 all masks.

    Attributes:
      schedule: object with `rate(t)`, `survival(t)` = 1 - rate(t), and `time(rate)`; rate rises from 0
        to 1. Rates may differ by token: `rate(t)` then ends in an axis [vocab].
      vocab: number V of real tokens, static.
    """

    schedule: Any
    vocab: int = struct.field(pytree_node=False)
    t_min: Any = 1e-3
    t_max: Any = 1.0

    def __post_init__(self):
        float_leaves(self, "t_min", "t_max")

    @property
    def states(self):
        """Size of the alphabet of x_t, the mask included."""
        return self.vocab + 1

    def rate(self, t, rank=0):
        """Probability of being masked at t.

        Args:
          t: scalar or [B].
          rank: rank of the tokens [B, ...]. 0: shaped like t, one rate for all tokens. Else [B or 1, 1 ..., V or 1].
        """
        return self._by_token(self.schedule.rate, t, rank)

    def alpha(self, t, rank=0):
        """Probability of surviving to t; shapes as in `rate`."""
        return self._by_token(self.schedule.survival, t, rank)

    def _by_token(self, fn, t, rank):
        t = float_time(t)
        if rank == 0:
            return fn(t)
        return fn(t.reshape((-1,) + (1,) * rank))

    def log_snr(self, t):
        """log(alpha / (1 - alpha)), the gamma of 2406.04329; for one rate for all tokens."""
        return jnp.log(self.alpha(t)) - jnp.log(self.rate(t))

    def time(self, log_snr):
        return self.schedule.time(jax.nn.sigmoid(-float_time(log_snr)))

    def log_emission(self, x, t):
        """log q(x_t = x | x0 = v) for every v, [B, ..., V]."""
        rate, alpha = self.rate(t, x.ndim), self.alpha(t, x.ndim)
        alpha = jnp.maximum(alpha, jnp.finfo(alpha.dtype).tiny)  # a known token stays known at t = 1
        kept = jnp.where(jax.nn.one_hot(x, self.vocab, dtype=bool), jnp.log(alpha), -jnp.inf)
        return jnp.where(x[..., None] == self.vocab, jnp.log(rate), kept)

    def noise(self, keys, like):
        """Uniform numbers in [0, 1) of the shape of `like` [B, ...]: a token is masked while below its rate."""
        return uniform(keys, like.shape)

    def perturb(self, x0, noise, t):
        """x_t from tokens x0 [B, ...] and uniform noise; equal noise gives one path over t."""
        rate = self.rate(t, x0.ndim)
        if rate.shape[-1] == 1:
            rate = rate[..., 0]
        else:
            rate = jnp.broadcast_to(rate, (*x0.shape, self.vocab))
            rate = jnp.take_along_axis(rate, x0[..., None], axis=-1)[..., 0]
        return jnp.where(noise < rate, self.vocab, x0)

    def corrupt(self, keys, x0, t):
        """x_t for tokens x0 [B, ...], and the truth as `Prediction(x0=x0)`."""
        return self.perturb(x0, self.noise(keys, x0), t), Prediction(x0=x0)

    def transition(self, x, t, s):
        """The forward law q(x_s | x_t) for s >= t, over V + 1 states."""
        keep = safe_div(self.alpha(s, x.ndim), self.alpha(t, x.ndim))
        keep = jnp.broadcast_to(keep, (*x.shape, self.vocab))
        real = jax.nn.one_hot(x, self.vocab, dtype=keep.dtype) * keep
        masked = 1 - jnp.sum(real, axis=-1, keepdims=True)
        return Categorical(jnp.log(jnp.concatenate([real, masked], axis=-1)))

    def posterior(self, x, pred, t, s, eta=1.0):
        """The law of x_s given x_t = x, each position by itself: Categorical over V + 1 states.

        A mask becomes v with probability mu_v (1 - r_v) and stays with sum_v mu_v r_v, where mu is the
        softmax of `pred.logits` and r_v = rate_v(s) / rate_v(t) (2406.04329, eq. 5 and section 6); known
        tokens never change. At s = 0 no mask is left.
        """
        _only_ancestral(eta)
        log_mu = log_softmax(pred.logits, axis=-1)
        r = self.rate(s, x.ndim) / self.rate(t, x.ndim)
        stay = logsumexp(log_mu + jnp.log(r), axis=-1, keepdims=True)
        masked = jnp.concatenate([log_mu + jnp.log1p(-r), stay], axis=-1)
        known = jnp.log(jax.nn.one_hot(x, self.states, dtype=masked.dtype))
        return Categorical(jnp.where(x[..., None] == self.vocab, masked, known))

    def prior(self, keys, like, t=None):
        """All masks, of the shape of `like`: the law at t = 1."""
        return jnp.full(like.shape, self.vocab, jnp.int32)

    def bind(self, **context):
        """Raises TypeError if any context is given."""
        if context:
            raise TypeError(f"bind: a masked process takes no context, got {sorted(context)}")
        return self


@struct.dataclass
class Uniform:
    """Tokens replaced by uniformly drawn ones (D3PM, 2107.03006): q(x_t | x0) = alpha delta + (1 - alpha) / V."""

    schedule: Any
    vocab: int = struct.field(pytree_node=False)
    t_min: Any = 1e-3
    t_max: Any = 1.0

    def __post_init__(self):
        float_leaves(self, "t_min", "t_max")

    @property
    def states(self):
        """Size of the alphabet of x_t."""
        return self.vocab

    def rate(self, t):
        """Probability of having been replaced by t, shaped like t."""
        return self.schedule.rate(float_time(t))

    def alpha(self, t):
        return self.schedule.survival(float_time(t))

    def log_snr(self, t):
        return jnp.log(self.alpha(t)) - jnp.log(self.rate(t))

    def time(self, log_snr):
        return self.schedule.time(jax.nn.sigmoid(-float_time(log_snr)))

    def _expand(self, value, x):
        return value.reshape((-1,) + (1,) * x.ndim)

    def log_emission(self, x, t):
        """log q(x_t = x | x0 = v) for every v, [B, ..., V]."""
        alpha, rate = self._expand(self.alpha(t), x), self._expand(self.rate(t), x)
        return jnp.log(alpha * jax.nn.one_hot(x, self.vocab, dtype=alpha.dtype) + rate / self.vocab)

    def noise(self, keys, like):
        """Uniform numbers in [0, 1), [*like.shape, 2]: whether to replace, and by what."""
        return uniform(keys, (*like.shape, 2))

    def perturb(self, x0, noise, t):
        rate = self._expand(self.rate(t), x0)[..., 0]
        other = jnp.minimum((noise[..., 1] * self.vocab).astype(x0.dtype), self.vocab - 1)
        return jnp.where(noise[..., 0] < rate, other, x0)

    def corrupt(self, keys, x0, t):
        """x_t for tokens x0 [B, ...], and the truth as `Prediction(x0=x0)`."""
        return self.perturb(x0, self.noise(keys, x0), t), Prediction(x0=x0)

    def transition(self, x, t, s):
        """The forward law q(x_s | x_t) for s >= t."""
        keep = safe_div(self._expand(self.alpha(s), x), self._expand(self.alpha(t), x))
        return Categorical(jnp.log(keep * jax.nn.one_hot(x, self.vocab, dtype=keep.dtype) + (1 - keep) / self.vocab))

    def posterior(self, x, pred, t, s, eta=1.0):
        """The law of x_s given x_t = x, each position by itself (2107.03006, eq. 4), in O(V).

        With w_k = p(x0 = k | x_t) / q(x_t | x0 = k) and a = alpha_t / alpha_s it is
        p(x_s = j) = q(x_t | x_s = j) (alpha_s w_j + (1 - alpha_s) / V sum_k w_k).
        """
        _only_ancestral(eta)
        alpha_s, rate_s = self._expand(self.alpha(s), x), self._expand(self.rate(s), x)
        hit = jax.nn.one_hot(x, self.vocab, dtype=alpha_s.dtype)
        replaced = (self._expand(self.rate(t), x) - rate_s) / alpha_s  # 1 - a
        log_w = log_softmax(pred.logits, axis=-1) - self.log_emission(x, t)
        w = jnp.exp(log_w - jnp.max(log_w, axis=-1, keepdims=True))
        mixed = alpha_s * w + rate_s / self.vocab * jnp.sum(w, axis=-1, keepdims=True)
        return Categorical(jnp.log((1 - replaced) * hit + replaced / self.vocab) + jnp.log(mixed))

    def prior(self, keys, like, t=None):
        """Uniform tokens of the shape of `like`: the law at t = 1."""
        return jnp.minimum((uniform(keys, like.shape) * self.vocab).astype(jnp.int32), self.vocab - 1)

    def bind(self, **context):
        """Raises TypeError if any context is given."""
        if context:
            raise TypeError(f"bind: a uniform process takes no context, got {sorted(context)}")
        return self


def masked(vocab, schedule="linear", t_min=1e-3):
    """Masked diffusion over `vocab` tokens; schedule "linear", "polynomial", "cosine" or an object with `rate`."""
    return Masked(_schedule(schedule), vocab, t_min)


def uniform_tokens(vocab, schedule="linear", t_min=1e-3):
    """Uniform-replacement diffusion over `vocab` tokens; schedules as in `masked`."""
    return Uniform(_schedule(schedule), vocab, t_min)
