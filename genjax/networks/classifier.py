"""Classifiers that also give features: judges in metrics, guides in guidance.

Called as `module(x, noise=None, cond=None, train=False) -> (logits [B, num_classes], features [B, D])`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from genjax.networks.blocks import GroupNorm, dense, downsample, tap
from genjax.networks.conditioning import NoiseCond
from genjax.networks.convolution import Conv


def _noise_vector(noise_input, dim, noise, dtype):
    """The embedding [B, dim] of the noise number where the classifier takes one, else None."""
    if noise_input and noise is None:
        raise ValueError("noise: expected [B] for a classifier with noise_input, got None")
    if not noise_input and noise is not None:
        raise ValueError("noise: expected None for a classifier without noise_input; set noise_input=True")
    return NoiseCond(dim, dim, dtype=dtype, name="embed")(noise, {}) if noise_input else None


class CNNClassifier(nn.Module):
    """Residual convolutional classifier on x [B, *S, C], halving the size between levels.

    Fields:
      num_classes: of the logits.
      channels, multipliers, num_blocks: width, its factor at each level, blocks a level.
      features: size of the penultimate layer, which is returned.
      noise_input: take the noise number [B], for noisy x (classifier guidance, 2105.05233, section 4).
      dropout: of the features, before the logits.
      dtype: of the computation; parameters are float32.
    """

    num_classes: int = 10
    channels: int = 32
    multipliers: tuple = (1, 2)
    num_blocks: int = 1
    features: int = 64
    noise_input: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, noise=None, cond=None, train=False):
        taps = {}
        emb = _noise_vector(self.noise_input, 2 * self.channels, noise, self.dtype)
        h = Conv(self.channels, dtype=self.dtype, name="input")(x.astype(self.dtype))
        for level, multiplier in enumerate(self.multipliers):
            width = self.channels * multiplier
            if level:
                h = downsample(h)
            for i in range(self.num_blocks):
                name = f"block{level}_{i}"
                y = Conv(width, dtype=self.dtype, name=f"{name}_conv0")(jax.nn.silu(GroupNorm(name=f"{name}_norm0")(h)))
                scale = shift = None
                if emb is not None:
                    scale, shift = jnp.split(dense(2 * width, self.dtype, f"{name}_emb")(emb), 2, axis=-1)
                y = jax.nn.silu(GroupNorm(name=f"{name}_norm1")(y, scale, shift))
                y = Conv(width, dtype=self.dtype, name=f"{name}_conv1")(y)
                skip = h if h.shape[-1] == width else Conv(width, 1, dtype=self.dtype, name=f"{name}_skip")(h)
                h = tap(self, taps, name, skip + y, sown="maps")  # the layer "features" has that name
        h = jax.nn.silu(GroupNorm(name="norm")(h)).mean(tuple(range(1, h.ndim - 1)))
        features = jax.nn.silu(dense(self.features, self.dtype, "features")(h)).astype(jnp.float32)
        kept = nn.Dropout(self.dropout, deterministic=not train)(features)
        return dense(self.num_classes, jnp.float32, "logits")(kept), features


class MLPClassifier(nn.Module):
    """Classifier of vectors or flattened images by `depth` hidden layers; the last one is returned.

    Fields: num_classes; width and depth; features, the size of the last layer; noise_input; dropout; dtype.
    """

    num_classes: int = 10
    width: int = 128
    depth: int = 2
    features: int = 64
    noise_input: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, noise=None, cond=None, train=False):
        emb = _noise_vector(self.noise_input, self.width, noise, self.dtype)
        h = x.reshape(x.shape[0], -1).astype(self.dtype)
        for i in range(self.depth):
            h = dense(self.width, self.dtype, f"layer{i}")(h)
            if emb is not None:
                h = h + dense(self.width, self.dtype, f"layer{i}_emb")(emb)
            h = nn.Dropout(self.dropout, deterministic=not train)(jax.nn.silu(h))
        features = jax.nn.silu(dense(self.features, self.dtype, "features")(h)).astype(jnp.float32)
        return dense(self.num_classes, jnp.float32, "logits")(features), features
