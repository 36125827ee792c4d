"""The denoiser of a data set itself: a Gaussian of one width around each of N points.

With width 0 this is the minimizer of the denoising loss on the data set, which memorizes it. The
points are visited in chunks with a running softmax, so nothing of size [B, N, D] is ever built.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct
from jax import lax

from genjax.core.keys import fold, normal_like, uniform
from genjax.core.types import Prediction


class _Running(NamedTuple):
    top: Any  # [B] largest log-weight so far, -inf before the first
    mass: Any  # [B] sum of exp(log-weight - top)
    first: Any  # [B, D] sum of the same times the point
    second: Any  # [B] sum of the same times ||point - reference||^2


@struct.dataclass
class Kernel:
    """p(x0) = mean_i N(x_i, std^2 I) over points of any shape.

    Attributes:
      points: [N, ...].
      std: width, scalar >= 0.
      labels: [N] int or None, for `cond["label"]`.
      chunk: points visited at a time, static.
    """

    points: Any
    std: Any = 0.0
    labels: Any = None
    chunk: int = struct.field(pytree_node=False, default=256)

    def sample(self, keys, n):
        """Draws (x [n, ...], index of the point [n])."""
        count = self.points.shape[0]
        i = jnp.minimum((uniform(fold(keys, 0), (n,)) * count).astype(jnp.int32), count - 1)
        x = jnp.asarray(self.points)[i]
        return x + self.std * normal_like(fold(keys, 1), x), i

    def _chunks(self):
        """Points [C, chunk, D], labels [C, chunk], and whether they are real or padding."""
        count = self.points.shape[0]
        size = min(self.chunk, count)
        padding = -count % size
        points = jnp.pad(jnp.asarray(self.points).reshape(count, -1), ((0, padding), (0, 0)))
        labels = jnp.zeros(count, jnp.int32) if self.labels is None else jnp.asarray(self.labels)
        labels = jnp.pad(labels, (0, padding))
        real = jnp.arange(count + padding) < count
        return points.reshape(-1, size, points.shape[-1]), labels.reshape(-1, size), real.reshape(-1, size)

    def _run(self, x, alpha, sigma, cond):
        """The running sums over all points, the number of points allowed [B], v [B or 1], and x as [B, D]."""
        flat = x.reshape(x.shape[0], -1)
        alpha, sigma = (jnp.reshape(jnp.asarray(a), (-1, 1)) for a in (alpha, sigma))
        v = alpha**2 * self.std**2 + sigma**2  # [B or 1, 1]
        label = None if cond is None else cond.get("label")

        def visit(carry, chunk):
            run, count = carry
            points, labels, real = chunk
            allowed = jnp.broadcast_to(real[None], (flat.shape[0], real.shape[0]))
            if label is not None:
                allowed = allowed & ((label[:, None] < 0) | (labels[None] == label[:, None]))
            square = jnp.sum((flat[:, None] - alpha[..., None] * points[None]) ** 2, axis=-1)
            log_w = jnp.where(allowed, -0.5 * square / v, -jnp.inf)
            top = jnp.maximum(run.top, jnp.max(log_w, axis=-1))
            base = jnp.where(jnp.isfinite(top), top, 0)  # nothing allowed so far: all weights are 0
            w = jnp.exp(log_w - base[:, None])
            decay = jnp.exp(run.top - base)
            spread = jnp.sum((points - center[None]) ** 2, axis=-1)[None]
            run = _Running(
                top,
                run.mass * decay + jnp.sum(w, axis=-1),
                run.first * decay[:, None] + w @ (points - center[None]),
                run.second * decay + jnp.sum(w * spread, axis=-1),
            )
            return (run, count + jnp.sum(allowed, axis=-1, dtype=count.dtype)), None

        chunks = self._chunks()
        center = jnp.mean(jnp.asarray(self.points).reshape(self.points.shape[0], -1), axis=0)
        zero = jnp.zeros_like(flat[:, 0])
        start = _Running(zero - jnp.inf, zero, jnp.zeros_like(flat), zero)
        (run, count), _ = lax.scan(visit, (start, jnp.zeros(flat.shape[0], jnp.int32)), chunks)
        return run, count, v, flat, center

    def log_prob(self, x, alpha=1.0, sigma=0.0, cond=None):
        """log p_t(x), [B], of data scaled by alpha plus noise sigma (scalars or [B])."""
        run, count, v, flat, _ = self._run(x, alpha, sigma, cond)
        norm = 0.5 * flat.shape[-1] * jnp.log(2 * jnp.pi * v[:, 0])
        return run.top + jnp.log(run.mass) - jnp.log(count.astype(flat.dtype)) - norm

    def moments(self, x, alpha, sigma, cond=None):
        """(E[x0 | x_t] [B, ...], trace of Cov(x0 | x_t) [B], E[eps | x_t] [B, ...])."""
        run, _, v, flat, center = self._run(x, alpha, sigma, cond)
        a, s = (jnp.reshape(jnp.asarray(u), (-1, 1)) for u in (alpha, sigma))
        shift = run.first / run.mass[:, None]
        point = center[None] + shift  # E[x_i | x_t]
        residual = flat - a * point
        pull = a * self.std**2 / v
        x0 = point + pull * residual
        eps = s * residual / v
        # x0 = (1 - a pull) x_i + ... given i
        between = jnp.maximum(run.second / run.mass - jnp.sum(shift**2, axis=-1), 0)
        inside = flat.shape[-1] * self.std**2 * s**2 / v
        trace = (1 - a * pull)[:, 0] ** 2 * between + inside[:, 0]
        return x0.reshape(x.shape), trace, eps.reshape(x.shape)

    def denoiser(self, process):
        """The exact Denoiser under a Gaussian process; `cond["label"]` [B] keeps the points of a class, -1 all."""

        def denoiser(x, t, cond=None, key=None):
            x0, _, eps = self.moments(x, process.alpha(t), process.sigma(t), cond)
            return Prediction(x0=x0, eps=eps)

        return denoiser


def kernel(points, std=0.0, labels=None, chunk=256):
    """`Kernel` over a data array [N, ...]."""
    return Kernel(jnp.asarray(points), std, labels, chunk)
