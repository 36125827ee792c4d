"""The laws of measurement noise.

A noise has

  sample(keys, mean) -> y          a measurement whose noiseless value is `mean`
  log_prob(r, mean=None) -> [B]    log p(y | mean) of the residual r = y - mean; Poisson noise needs the mean
  variance(mean) -> array          of each element, a scalar or shaped like mean

NOISES: name -> constructor(**numbers). `Structured` noise needs a law and is built by hand.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.special import gammaln, xlogy

from genjax.core.keys import draw, normal_like, per_sample
from genjax.core.laws import Normal
from genjax.core.numerics import float_leaves, sum_except_batch


def _positive(value, field, *, zero):
    """Raises ValueError where a plain number is negative (or zero, unless `zero`); arrays of JAX pass."""
    plain = isinstance(value, (int, float, np.number)) or (isinstance(value, np.ndarray) and value.ndim == 0)
    if plain and not (value > 0 or (zero and value == 0)):
        raise ValueError(f"{field}: expected {'>= 0' if zero else '> 0'}, got {float(value)}")


@struct.dataclass
class Gaussian:
    """y = mean + std n, n standard normal.

    Attributes:
      std: >= 0; at 0 the measurement is exact, and has no density.
    """

    std: Any = 0.05

    def __post_init__(self):
        _positive(self.std, "std", zero=True)
        float_leaves(self, "std")

    def sample(self, keys, mean):
        return mean + jnp.asarray(self.std, mean.dtype) * normal_like(keys, mean)

    def log_prob(self, r, mean=None):
        """[B]; infinite or NaN where std is 0."""
        return Normal(jnp.zeros_like(r), jnp.asarray(self.std, r.dtype)).log_prob(r)

    def variance(self, mean):
        return jnp.asarray(self.std) ** 2


@struct.dataclass
class Laplace:
    """y = mean + scale n, n with density exp(-|n|) / 2: outliers that Gaussian noise does not have.

    Attributes:
      scale: > 0.
    """

    scale: Any = 0.05

    def __post_init__(self):
        _positive(self.scale, "scale", zero=False)
        float_leaves(self, "scale")

    def sample(self, keys, mean):
        return mean + jnp.asarray(self.scale, mean.dtype) * draw(jax.random.laplace, keys, mean.shape, mean.dtype)

    def log_prob(self, r, mean=None):
        scale = jnp.asarray(self.scale, r.dtype)
        return sum_except_batch(-jnp.abs(r) / scale - jnp.log(2 * scale))

    def variance(self, mean):
        return 2 * jnp.asarray(self.scale) ** 2


@struct.dataclass
class Poisson:
    """Counting noise: k ~ Poisson(rate (mean - low) / (high - low)), y = low + (high - low) k / rate.

    Attributes:
      rate: > 0, expected count at `high` (the larger, the less noise).
      low, high: values of zero and of full intensity: -1 and 1 for images.
    """

    rate: Any = 100.0
    low: Any = -1.0
    high: Any = 1.0

    def __post_init__(self):
        _positive(self.rate, "rate", zero=False)
        float_leaves(self, "rate", "low", "high")

    def _intensity(self, mean):
        """Expected count; what lies below `low` counts as nothing."""
        return jnp.maximum(self.rate * (mean - self.low) / (self.high - self.low), 0).astype(mean.dtype)

    def sample(self, keys, mean):
        if keys is None:
            raise ValueError("keys: Poisson noise draws random numbers and needs keys, got None")
        count = jax.vmap(jax.random.poisson)(per_sample(keys, mean.shape[0]), self._intensity(mean))
        return self.low + (self.high - self.low) * count.astype(mean.dtype) / self.rate

    def log_prob(self, r, mean=None):
        """Log-probability of the counts, [B]; -inf where a count is seen at no intensity.

        Between whole counts (an image that was not made by `sample`) the same formula goes on.
        """
        if mean is None:
            raise ValueError("mean: Poisson noise needs the noiseless measurement, got None")
        lam = self._intensity(mean)
        count = self.rate * (r + mean - self.low) / (self.high - self.low)
        # A count of zero that rounding made a little negative or positive is zero.
        count = jnp.where(jnp.abs(count) < 1e-5 * self.rate, 0, count)
        return sum_except_batch(xlogy(count, lam) - lam - gammaln(count + 1))

    def variance(self, mean):
        return ((self.high - self.low) / self.rate) ** 2 * self._intensity(mean)


@struct.dataclass
class Structured:
    """y = mean + scale n, n from any law: lines, another image, a diffusion model's samples (2302.05290).

    Attributes:
      law: has `sample(keys, n) -> x [n, ...]` (or a tuple that starts with it) and `log_prob(x) -> [n]`; samples
        have as many elements as the measurement.
      scale: > 0.
      power: mean square of an element of n, for methods that take the noise for white.
    """

    law: Any
    scale: Any = 1.0
    power: Any = 1.0

    def __post_init__(self):
        _positive(self.scale, "scale", zero=False)
        float_leaves(self, "scale", "power")

    def sample(self, keys, mean):
        n = self.law.sample(per_sample(keys, mean.shape[0]), mean.shape[0])
        n = n[0] if isinstance(n, tuple) else n
        if n.size != mean.size:
            raise ValueError(f"law: expected samples of {mean[0].size} elements, got shape {n.shape[1:]}")
        return mean + jnp.asarray(self.scale, mean.dtype) * n.reshape(mean.shape).astype(mean.dtype)

    def log_prob(self, r, mean=None):
        shape = jax.eval_shape(lambda key: self.law.sample(key, 1), jax.random.key(0))
        shape = (shape[0] if isinstance(shape, tuple) else shape).shape[1:]
        size = sum_except_batch(jnp.ones_like(r))
        return self.law.log_prob((r / self.scale).reshape(-1, *shape)) - size * jnp.log(self.scale)

    def variance(self, mean):
        return self.power * jnp.asarray(self.scale) ** 2


def gaussian_std(noise, method, *, zero=True):
    """The standard deviation of Gaussian noise.

    Args:
      method: who asks, for the message.
      zero: whether 0 will do.

    Raises:
      ValueError: another noise, or std 0 where the method divides by it.
    """
    if not isinstance(noise, Gaussian):
        raise ValueError(f"noise: {method} needs Gaussian noise, got {type(noise).__name__}")
    if not zero and not isinstance(noise.std, jax.core.Tracer) and not np.any(np.asarray(noise.std) > 0):
        raise ValueError(f"std: {method} divides by the noise level, expected > 0, got 0")
    return noise.std


NOISES = {"gaussian": Gaussian, "laplace": Laplace, "poisson": Poisson}
