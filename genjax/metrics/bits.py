"""Nats and bits per dimension: the one place that knows log 2 and the width of a grey level."""

import math


def _size(shape):
    size = math.prod(shape)
    if size < 1:
        raise ValueError(f"shape: expected at least one dimension, got {tuple(shape)}")
    return size


def bits_per_dim(nats, shape):
    """Nats of one example of `shape` -> bits per dimension; `nats` a number or an array."""
    return nats / (_size(shape) * math.log(2.0))


def nats_from_bits(bits, shape):
    """Bits per dimension -> nats of one example of `shape`."""
    return bits * (_size(shape) * math.log(2.0))


def level_width(levels, low=-1.0, high=1.0):
    """Distance of neighbouring grey levels when `levels` of them span [low, high]."""
    if levels < 2:
        raise ValueError(f"levels: expected at least 2 grey levels, got {levels}")
    return (high - low) / (levels - 1)


def discrete_bits_per_dim(nll, shape, levels, low=-1.0, high=1.0):
    """Bits per dimension of discrete data from the density of its dequantized form.

    Args:
      nll: mean of -log p(x + u) in nats, u uniform within a grey level, x in [low, high].
      shape: of one example.
      levels: grey levels that span [low, high].

    Returns:
      nll in bits per dimension minus log2(width of a level): an upper bound on the exact figure
      (1511.01844, section 3.1), log2(levels) for the uniform density over all the levels.
    """
    return bits_per_dim(nll, shape) - math.log2(level_width(levels, low, high))
