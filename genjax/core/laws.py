"""Laws of a step, each with `sample(keys)` and `log_prob(x) -> [B]`: `Normal`, `BlockNormal`, `Categorical`,
`Binomial`.

Parameters may be of any shape that broadcasts against the state [B, ...]; draws use one key a sample.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, xlog1py, xlogy

from genjax.core.keys import draw, normal_like
from genjax.core.numerics import bcast, sum_except_batch


class Normal(NamedTuple):
    """N(mean, std^2), independent over elements; std = 0 is a point mass."""

    mean: Any  # [B, ...]
    std: Any  # scalar, [B], or [B, ...]

    def sample(self, keys):
        return self.mean + bcast(self.std, self.mean) * normal_like(keys, self.mean)

    def log_prob(self, x):
        """Log-density of x, [B]; infinite or NaN where std is 0."""
        std = jnp.broadcast_to(bcast(self.std, self.mean), self.mean.shape)
        z = (x - self.mean) / std
        return sum_except_batch(-0.5 * z * z - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi))


class BlockNormal(NamedTuple):
    """Gaussians over the last axis, N(mean, L L^T), independent over the other axes."""

    mean: Any  # [B, ..., K]
    chol: Any  # [K, K] or [B, K, K], lower triangular; a zero on the diagonal is a point mass

    def _chol(self):
        rank = self.mean.ndim + 1
        return self.chol.reshape(self.chol.shape[:-2] + (1,) * (rank - self.chol.ndim) + self.chol.shape[-2:])

    def sample(self, keys):
        noise = normal_like(keys, self.mean)
        return self.mean + jnp.sum(self._chol() * noise[..., None, :], axis=-1)

    def log_prob(self, x):
        """Log-density of x, [B]; infinite or NaN where the covariance is singular."""
        chol, z = self._chol(), []
        for i in range(self.mean.shape[-1]):  # forward substitution: K is 2 or 3, and an image has many pixels
            known = sum(chol[..., i, j] * z[j] for j in range(i))
            z.append(((x - self.mean)[..., i] - known) / chol[..., i, i])
        z = jnp.stack(z, axis=-1)
        log_det = jnp.broadcast_to(jnp.log(jnp.diagonal(chol, axis1=-2, axis2=-1)), z.shape)
        return sum_except_batch(-0.5 * z * z - log_det - 0.5 * jnp.log(2 * jnp.pi))


class Categorical(NamedTuple):
    """Independent categorical variables with log-weights `logits` [B, ..., V] (need not be normalized)."""

    logits: Any

    def sample(self, keys):
        noise = draw(jax.random.gumbel, keys, self.logits.shape, self.logits.dtype)
        return jnp.argmax(self.logits + noise, axis=-1)

    def log_prob(self, x):
        log_p = jax.nn.log_softmax(self.logits, axis=-1)
        return sum_except_batch(jnp.take_along_axis(log_p, x[..., None], axis=-1)[..., 0])


class Binomial(NamedTuple):
    """Independent Binomial(count, prob) variables, both [B, ...] (count whole numbers as floats)."""

    count: Any
    prob: Any

    def sample(self, keys):
        shape = jnp.broadcast_shapes(jnp.shape(self.count), jnp.shape(self.prob))
        count, prob = jnp.broadcast_to(self.count, shape), jnp.broadcast_to(self.prob, shape)
        keys = draw(lambda key, _: key, keys, shape)
        return jax.vmap(jax.random.binomial)(keys, count, prob)

    def log_prob(self, x):
        n, p = self.count, self.prob
        choose = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)
        return sum_except_batch(choose + xlogy(x, p) + xlog1py(n - x, -p))
