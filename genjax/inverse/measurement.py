"""Making measurements, and checking those that come from outside."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.types import Measurement


def measure(keys, operator, noise, x0, phi=None):
    """y = A(x0) + noise as a `Measurement`; where a masked operator sees nothing, y is 0.

    Args:
      keys: one key or [B].
      x0: [B, *operator.in_shape].
      phi: the true parameters of a blind operator.
    """
    mean = operator.forward(x0, phi)
    y = noise.sample(keys, mean)
    if hasattr(operator, "support"):
        y = y * operator.support()[None].astype(y.dtype)
    return Measurement(operator, noise, y)


def check_measurement(measurement, like=None, bound=None):
    """`measurement`, checked before anything is compiled.

    Args:
      like: x [B, ...] that will be restored; None: not compared.
      bound: largest |x| that data have, 1 for images; None: the range of y is not checked.

    Raises:
      ValueError: y of another shape than the operator's, of another batch than `like`, of whole numbers, or
        (where it is concrete) not finite or several times larger than a measurement of such x can be; `like` of
        another shape than the operator's input.
    """
    operator, y = measurement.operator, measurement.y
    if y.ndim != len(operator.out_shape) + 1 or y.shape[1:] != tuple(operator.out_shape):
        expected = ", ".join(map(str, operator.out_shape))
        raise ValueError(f"y: expected shape [B, {expected}] from {type(operator).__name__}, got {y.shape}")
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"y: expected real numbers, got {y.dtype} (bytes are scaled to [-1, 1] first)")
    if not isinstance(y, jax.core.Tracer) and not np.isfinite(np.asarray(y)).all():
        raise ValueError("y: expected finite numbers, got inf or NaN")
    if like is not None:
        if like.shape[1:] != tuple(operator.in_shape):
            raise ValueError(f"x: expected shape [B, ...] of {tuple(operator.in_shape)}, got {like.shape}")
        if like.shape[0] != y.shape[0]:
            raise ValueError(f"y: expected one measurement a sample ({like.shape[0]}), got {y.shape[0]}")
    if bound is not None and not isinstance(y, jax.core.Tracer):
        largest, limit = np.abs(np.asarray(y)).max(), _largest(measurement, bound)
        if largest > limit:
            raise ValueError(
                f"y: expected values up to about {limit / SLACK:.3g} (x in [-{bound:g}, {bound:g}]), got {largest:.3g}"
            )
    return measurement


# Measurements of the extreme images below, and of noise, may be exceeded this many times.
SLACK = 4.0


def _largest(measurement, bound):
    """A generous limit of |y| for x within the bound: from all-low, all-high and random extreme images."""
    operator, y = measurement.operator, measurement.y
    signs = np.sign(np.random.default_rng(0).normal(size=operator.in_shape))
    extremes = bound * jnp.asarray(np.stack([np.ones(operator.in_shape), -np.ones(operator.in_shape), signs]), y.dtype)
    mean = operator.forward(extremes)
    spread = jnp.sqrt(jnp.max(measurement.noise.variance(mean)))
    return SLACK * float(jnp.max(jnp.abs(mean)) + 2 * spread)
