"""A wide network in the parameterization of neural tangent kernels (1806.07572)."""

import jax.numpy as jnp
from flax import linen as nn


class WideMLP(nn.Module):
    """x [B, d] to f [B] by `depth` ReLU layers; all weights and biases start as N(0, 1).

    Each dense layer is (weight_std / sqrt(fan_in)) W h + bias_std b, so that gradient descent of one rate has a
    limit at infinite width, whose kernel is `oracles.ntk.ntk_relu` of the same numbers.

    Fields:
      last_bias: whether the last dense layer has a bias.
      antisymmetric: the difference of two networks with equal weights at the start, over sqrt 2: f starts at 0 and
        has the kernel of one network.
    """

    width: int = 256
    depth: int = 2
    weight_std: float = 2**0.5
    bias_std: float = 1.0
    last_bias: bool = False
    antisymmetric: bool = True

    @nn.compact
    def __call__(self, x, train=False):
        if not self.antisymmetric:
            return self._half(x, {}, "")
        first = {}
        plus = self._half(x, first, "")
        return (plus - self._half(x, first, "_mirror")) / 2**0.5

    def _half(self, x, kept, suffix):
        def weight(name, shape):
            if suffix:  # starts as the first half's weight
                return self.param(name + suffix, lambda key: kept[name])
            kept[name] = self.param(name, nn.initializers.normal(1.0), shape, x.dtype)
            return kept[name]

        h = x
        for i in range(self.depth + 1):
            last = i == self.depth
            size = 1 if last else self.width
            y = self.weight_std / h.shape[-1] ** 0.5 * (h @ weight(f"w{i}", (h.shape[-1], size)))
            if self.bias_std and (self.last_bias or not last):
                y = y + self.bias_std * weight(f"b{i}", (size,))[None]
            h = y if last else jnp.maximum(y, 0)
        return h[:, 0]
