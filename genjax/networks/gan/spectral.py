"""Spectral normalization: kernels divided by their largest singular value (1802.05957).

A kernel [*K, C, O] is the matrix W [prod(K) C, O]. The collection "spectral" keeps for each kernel u [O],
the running right singular vector, and `sigma`, the last estimate of the norm. One call with train=True
makes n steps of v = W u / |W u|, u = W^T v / |W^T v|; then

  sigma = v^T W u,   kernel = W / sigma,

where u and v count as constants but sigma does not, so its gradient is v u^T, exact at convergence
(eq. 9 to 12). With train=False u stays as it is and sigma = |W u| is taken with the kernel at hand, which
may be a moving average of the one that u was made with; nothing is written.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from genjax.networks.blocks import xavier
from genjax.networks.convolution import conv
from genjax.networks.products import matmul

COLLECTION = "spectral"
BIRTH = 15  # power steps when the state is made, so that the first call is sane
EPS = 1e-12


def _unit(x):
    return x * lax.rsqrt(jnp.sum(x * x) + EPS**2)


def power_iteration(w, u, steps):
    """`steps` rounds of the power method on w [N, O] from u [O]: (v [N], u [O]), both of unit length."""
    dot = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
    once = lambda u: _unit(dot(_unit(dot(w, u)), w))
    u = once(u) if steps == 1 else lax.fori_loop(0, steps, lambda _, u: once(u), u)
    return _unit(dot(w, u)), u


def spectral_norm(w, u, steps=1):
    """The norm of w [..., O] by the power method from u [O]: (sigma, new u).

    sigma's gradient is v u^T; u and v have none.
    """
    flat = w.reshape(-1, w.shape[-1])
    v, u = power_iteration(lax.stop_gradient(flat), lax.stop_gradient(u), steps)
    sigma = jnp.sum(v * jnp.matmul(flat, u, precision=lax.Precision.HIGHEST))
    return sigma, u


def normalized(module, w, steps, train, prefix=""):
    """The kernel w [..., O] of a Linen module divided by its norm; w itself where `steps` is 0.

    `prefix` names the state where a module has several kernels.
    """
    if not steps:
        return w
    if steps < 0:
        raise ValueError(f"spectral: expected a number of power steps, 0 for none, got {steps}")

    def born():
        start = jax.random.normal(module.make_rng("params"), w.shape[-1:], w.dtype)
        return spectral_norm(w, _unit(start), BIRTH)[1]

    u = module.variable(COLLECTION, f"{prefix}u", born)
    stored = module.variable(COLLECTION, f"{prefix}sigma", lambda: spectral_norm(w, u.value, 0)[0])
    sigma, new = spectral_norm(w, u.value, steps if train else 0)
    if train and not module.is_initializing() and module.is_mutable_collection(COLLECTION):
        u.value, stored.value = new, lax.stop_gradient(sigma)
    return w / jnp.maximum(sigma, EPS)


class SpectralDense(nn.Module):
    """x [..., C] times a kernel of spectral norm one; an ordinary dense layer where `steps` is 0."""

    features: int
    steps: int = 1  # of the power method in a call with train=True
    use_bias: bool = True
    kernel_init: Callable = xavier()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        w = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = matmul(x.astype(self.dtype), normalized(self, w, self.steps, train).astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class SpectralConv(nn.Module):
    """Convolution of x [B, *S, C] with a kernel of spectral norm one; an ordinary one where `steps` is 0.

    The norm is that of the matrix [prod(K) C, O], not of the convolution as a linear map (which is at most
    sqrt(prod(K)) times as large).
    """

    features: int
    kernel_size: int = 3
    steps: int = 1
    strides: int = 1
    padding: str | int = "SAME"
    use_bias: bool = True
    kernel_init: Callable = xavier()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        shape = (*(self.kernel_size,) * (x.ndim - 2), x.shape[-1], self.features)
        w = self.param("kernel", self.kernel_init, shape, jnp.float32)
        w = normalized(self, w, self.steps, train).astype(self.dtype)
        y = conv(x.astype(self.dtype), w, self.strides, self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class SpectralUpConv(nn.Module):
    """Transposed convolution 4x4 with stride 2: [B, H, W, C] to [B, 2H, 2W, O]; plain where `steps` is 0.

    An output pixel sees 2x2 inputs, by other taps at each of the four parities: so it is computed as one
    2x2 convolution with 4 O channels whose parts are laid out as pixels, without the zeros of a
    transposed convolution.
    """

    features: int
    steps: int = 0
    use_bias: bool = True
    kernel_init: Callable = xavier()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        shape = (4, 4, x.shape[-1], self.features)
        w = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = up_conv(x.astype(self.dtype), normalized(self, w, self.steps, train).astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None]
        return y


def up_conv(x, w):
    """y[o] = sum over i and k with o = 2 i + k - 1 of x[i] w[k], along both axes; w [4, 4, C, O]."""
    batch, height, width, channels = x.shape
    out = w.shape[-1]
    # y[2m] = x[m-1] w[3] + x[m] w[1] and y[2m+1] = x[m] w[2] + x[m+1] w[0]: [tap, parity] -> index in w
    taps = jnp.array([[3, 2], [1, 0]])
    k = w[taps][:, :, taps]  # [tap, parity, tap, parity, C, O]
    k = k.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, channels, 4 * out)
    y = conv(x, k, padding=1).reshape(batch, height + 1, width + 1, 2, 2, out)
    rows = lambda a, b: y[:, a : a + height, b : b + width, a, b]
    parts = jnp.stack([jnp.stack([rows(a, b) for b in (0, 1)], axis=3) for a in (0, 1)], axis=2)
    return parts.reshape(batch, 2 * height, 2 * width, out)


def spectral_bound(state):
    """The product of all stored sigma, a float64 number: what normalization divided away (for monitoring)."""
    leaves = jax.tree_util.tree_leaves_with_path(state.get(COLLECTION, {}))
    return math.prod(float(v) for path, v in leaves if str(path[-1].key).endswith("sigma"))
