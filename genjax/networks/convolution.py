"""Convolution whose derivatives of every order are fast on every platform, inside loops too.

XLA:CPU runs the gradients of a convolution inside a `lax.scan` 12 to 30 times slower than outside
(measured in benchmarks/convolution.py), and training runs inside one scan. So the convolution is
written here as what it is, one trilinear form

  T(x, k, g) = <g, x * k>,

whose three partial gradients are three bilinear primitives, each the transpose of the others:

  conv(x, k)    the convolution,
  conv_x(g, k)  the gradient to the input,
  conv_k(x, g)  the gradient to the kernel.

Forward mode, reverse mode and every higher derivative stay inside the family (a `jax.custom_vjp`
would lose forward mode, which Jacobian-vector products of a network need). How each is computed is
chosen when the program is lowered, by its platform, so a program compiled ahead of time on a CPU
machine for an accelerator gets the accelerator's forms: XLA's own there, and on CPU

  conv    XLA's,
  conv_x  a plain convolution of the spread-out output gradient with the flipped, transposed kernel,
          kept from being folded back by an optimization barrier,
  conv_k  a plain convolution of the transposed input with the transposed output gradient, kept likewise; with
          strides, or where it is narrow, one matrix product of the input's patches with the output gradient;

and wide 3x3 kernels of stride 1 with fewer multiplications, all three (`winograd`).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from genjax.core.placement import across_batch, gathered
from genjax.networks import winograd
from genjax.networks.products import kernel_gradient, matmul
from genjax.networks.winograd import padded

PATCH_LIMIT = 2**24  # elements; larger patch matrices are built one kernel row at a time


def _native(x, k, strides, padding, wide=None):
    spatial = "DHW"[-(x.ndim - 2) :]
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=layout, preferred_element_type=wide)


def _plain(x, k, strides, padding, wide=None):
    # XLA exchanges x with a kernel of more places than x has, and then has no fast path: a hundred times slower for the
    # kernel's gradient of 256 -> 1024 channels at 8 x 8. Padded by hand x has more.
    if math.prod(k.shape[:-2]) > math.prod(x.shape[1:-1]):
        x, padding = lax.optimization_barrier(padded(x, padding)), ((0, 0),) * len(strides)
    return _native(x, k, strides, padding, wide)


def _out_sizes(sizes, kernel, strides, padding):
    return tuple((n + lo + hi - k) // s + 1 for n, k, s, (lo, hi) in zip(sizes, kernel, strides, padding))


def _conv_x_native(g, k, *, sizes, strides, padding):
    like = jax.ShapeDtypeStruct((g.shape[0], *sizes, k.shape[-2]), g.dtype)
    return jax.linear_transpose(lambda x: _native(x, k, strides, padding), like)(g)[0]


def _conv_x_cpu(g, k, *, sizes, strides, padding):
    # x_i = sum_o g_o k_(i + lo - o s): spread g by the stride, then correlate with the flipped kernel.
    kernel = k.shape[:-2]
    grown = [(out - 1) * s + 1 for out, s in zip(g.shape[1:-1], strides)]
    low = [w - 1 - lo for w, (lo, _) in zip(kernel, padding)]
    high = [n + w - 1 - m - p for n, w, m, p in zip(sizes, kernel, grown, low)]
    pads = [(0, 0, 0), *((p, q, s - 1) for p, q, s in zip(low, high, strides)), (0, 0, 0)]
    flipped = lax.optimization_barrier(jnp.flip(k, range(k.ndim - 2)).swapaxes(-1, -2))
    if all(s == 1 for s in strides) and min(low + high) >= 0:
        if winograd.suits(g, g.shape[-1], k.shape[-2], kernel, strides, sizes):
            return winograd.conv(g, flipped, tuple(zip(low, high)))
        return _plain(g, flipped, strides, tuple(zip(low, high)))
    spread = lax.pad(g, jnp.zeros((), g.dtype), pads)
    return _native(spread, flipped, (1,) * len(strides), ((0, 0),) * len(strides))


def _conv_k_native(x, g, *, kernel, strides, padding):
    like = jax.ShapeDtypeStruct((*kernel, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda k: _native(x, k, strides, padding), like)(g)[0]


def _shifts(x, out, kernel, strides):
    """For each kernel offset, the strided window of x [B, *S, C] that it multiplies: x stacked on channels."""
    offsets = [()]
    for w in kernel:
        offsets = [o + (i,) for o in offsets for i in range(w)]
    windows = []
    for o in offsets:
        limit = [i + (n - 1) * s + 1 for i, n, s in zip(o, out, strides)]
        windows.append(lax.slice(x, (0, *o, 0), (x.shape[0], *limit, x.shape[-1]), (1, *strides, 1)))
    return jnp.concatenate(windows, axis=-1) if len(windows) > 1 else windows[0]


def _patch_conv_k(x, g, *, kernel, strides, padding):
    out = g.shape[1:-1]
    x = padded(x, padding)
    product = functools.partial(kernel_gradient, g=g, wide=jnp.promote_types(g.dtype, jnp.float32))

    if math.prod(out) * x.shape[-1] * math.prod(kernel) * x.shape[0] <= PATCH_LIMIT:
        dk = product(_shifts(x, out, kernel, strides))
    else:
        rows = []
        for i in range(kernel[0]):
            row = lax.slice_in_dim(x, i, i + (out[0] - 1) * strides[0] + 1, strides[0], axis=1)
            rows.append(product(_shifts(row, out, (1, *kernel[1:]), (1, *strides[1:]))))
        dk = jnp.concatenate(rows)
    return dk.reshape(*kernel, x.shape[-1], g.shape[-1]).astype(g.dtype)


def _narrow(x, g, kernel):
    # Few images and few channels are too few for the plain form of conv_k: measured, patches take 0.15 to 0.55 of its
    # time for one image, and 0.4 to 1.1 for up to four as long as there are not too many patches (up to 2 beyond).
    patches = math.prod(g.shape[:-1]) * math.prod(kernel) * x.shape[-1]
    return g.shape[-1] <= 16 and (len(x) == 1 or (len(x) <= 4 and len(x) * patches <= 2**23))


def _conv_k_cpu(x, g, *, kernel, strides, padding):
    # dk_a = sum_(b, o) x_(b, o + a) g_(b, o) is a convolution of x with g as its kernel, channels for batch. Laid
    # out so explicitly, behind barriers, it keeps XLA's fast path inside loops too.
    if any(s != 1 for s in strides) or _narrow(x, g, kernel):
        return _patch_conv_k(x, g, kernel=kernel, strides=strides, padding=padding)
    if winograd.suits(x, x.shape[-1], g.shape[-1], kernel, strides, g.shape[1:-1]):
        return winograd.conv_k(x, g, padding)
    last = x.ndim - 1
    wide = jnp.promote_types(g.dtype, jnp.float32)
    across = lax.optimization_barrier(jnp.swapaxes(x, 0, last))
    filters = lax.optimization_barrier(jnp.moveaxis(g, 0, last - 1))
    dk = _plain(across, filters, strides, padding, wide)
    return jnp.moveaxis(lax.optimization_barrier(dk), 0, last - 1).astype(g.dtype)


def _conv_native(x, k, *, strides, padding):
    return _native(x, k, strides, padding)


def _conv_cpu(x, k, *, strides, padding):
    size = k.shape[:-2]
    out = _out_sizes(x.shape[1:-1], size, strides, padding)
    if min(map(min, padding)) >= 0 and winograd.suits(x, x.shape[-1], k.shape[-1], size, strides, out):
        return winograd.conv(x, k, padding)
    return _plain(x, k, strides, padding)


def _primitive(name: str, shape: Callable, default: Callable, cpu: Callable):
    """A bilinear primitive with one lowering for CPU and one for the rest.

    With `members` both operands have a further axis in front, and so has the outcome: that many of the same, each by
    itself. They become XLA's grouped convolution, and on CPU, where that is slow, a loop over the plain form.
    """
    prim = Primitive(name)
    jitted = functools.lru_cache(None)(lambda **params: jax.jit(functools.partial(prim.bind, **params)))
    prim.def_impl(lambda a, b, **params: jitted(**params)(a, b))

    def outcome(a, b, *, members, **params):
        if members:
            return a.update(shape=(a.shape[0], *shape(a.shape[1:], b.shape[1:], **params)))
        return a.update(shape=shape(a.shape, b.shape, **params))

    def everywhere(a, b, *, members, **params):
        one = functools.partial(default, **params)
        return (jax.vmap(one) if members else one)(a, b)

    def on_cpu(a, b, *, members, **params):
        one = functools.partial(cpu, **params)
        return lax.map(lambda pair: one(*pair), (a, b)) if members else one(a, b)

    prim.def_abstract_eval(outcome)
    mlir.register_lowering(prim, mlir.lower_fun(everywhere, multiple_results=False))
    mlir.register_lowering(prim, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")
    return prim


conv_p = _primitive(
    "conv",
    lambda x, k, strides, padding: (x[0], *_out_sizes(x[1:-1], k[:-2], strides, padding), k[-1]),
    _conv_native,
    _conv_cpu,
)
conv_x_p = _primitive(
    "conv_x", lambda g, k, sizes, strides, padding: (g[0], *sizes, k[-2]), _conv_x_native, _conv_x_cpu
)
conv_k_p = _primitive(
    "conv_k", lambda x, g, kernel, strides, padding: (*kernel, x[-1], g[-1]), _conv_k_native, _conv_k_cpu
)


# The transposes: each gradient of T(x, k, g) is a member of the family. An operand that is
# differentiated arrives without a value, as a shape alone.
def _of_x(g, x, k, *, members, **params):
    return conv_x_p.bind(g, k, sizes=x.aval.shape[members + 1 : -1], members=members, **params)


def _of_k(g, x, k, *, members, **params):
    return conv_k_p.bind(x, g, kernel=k.aval.shape[members:-2], members=members, **params)


ad.defbilinear(conv_p, _of_x, _of_k)
ad.defbilinear(
    conv_x_p,
    lambda x, g, k, sizes, **params: conv_p.bind(x, k, **params),
    lambda x, g, k, sizes, **params: _of_k(g, x, k, **params),
)
ad.defbilinear(
    conv_k_p,
    lambda k, x, g, kernel, **params: _of_x(g, x, k, **params),
    lambda k, x, g, kernel, **params: conv_p.bind(x, k, **params),
)


def _merged(a, dim, axis):
    """`a` without its axis `dim`, which is merged into the `axis` that it then has, as the slower of the two."""
    axis = axis % (a.ndim - 1)
    a = jnp.moveaxis(a, dim, axis)
    return a.reshape(*a.shape[:axis], -1, *a.shape[axis + 2 :])


def _batcher(prim, first, second):
    """vmap: of both operands, members; of one, a wider axis of that operand and of the outcome.

    Args:
      first, second: (axis of that operand, axis of the outcome) that widen.
    """

    def rule(args, dims, *, members, **params):
        bind = functools.partial(prim.bind, **params)
        count = next(a.shape[d] for a, d in zip(args, dims) if d is not None)
        if not members and None in dims:
            i = int(dims[0] is None)
            axis, out = (first, second)[i]
            args = [_merged(a, d, axis) if d is not None else a for a, d in zip(args, dims)]
            y = bind(*args, members=False)
            out = out % y.ndim
            return y.reshape(*y.shape[:out], count, -1, *y.shape[out + 1 :]), out
        args = [
            jnp.broadcast_to(a, (count, *a.shape)) if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(args, dims)
        ]
        if not members:
            return bind(*args, members=True), 0
        y = bind(*(a.reshape(-1, *a.shape[2:]) for a in args), members=True)
        return y.reshape(count, -1, *y.shape[1:]), 0

    batching.primitive_batchers[prim] = rule


IMAGES, OUT_CHANNELS = (0, 0), (-1, -1)
_batcher(conv_p, IMAGES, OUT_CHANNELS)
_batcher(conv_x_p, IMAGES, (-2, -1))
_batcher(conv_k_p, (-1, -2), OUT_CHANNELS)


def _varying(a):
    """Mesh axes over which `a` varies inside a checked `shard_map`; the attribute's name depends on JAX's version."""
    kind = jax.typeof(a)
    return frozenset(kind.mat.varying if hasattr(kind, "mat") else getattr(kind, "vma", ()))


def _vary_alike(x, k):
    """Inside a checked `shard_map`, marks both as varying over the union of their mesh axes.

    The transpose of the mark is the sum over devices that a replicated kernel's gradient needs.
    """
    vx, vk = _varying(x), _varying(k)
    x = lax.pcast(x, tuple(vk - vx), to="varying") if vk - vx else x
    return x, lax.pcast(k, tuple(vx - vk), to="varying") if vx - vk else k


def resolve_padding(padding, sizes, kernel, strides):
    """`padding` as ((low, high), ...): of "SAME", "VALID", "CIRCULAR", an int, or pairs."""
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID", "CIRCULAR"):
            raise ValueError(f"padding: expected 'SAME', 'VALID', 'CIRCULAR', an int or pairs, got {padding!r}")
        name = "SAME" if padding.upper() == "CIRCULAR" else padding.upper()
        return tuple(lax.padtype_to_pads(sizes, kernel, strides, name))
    if isinstance(padding, int):
        return ((padding, padding),) * len(kernel)
    return tuple((int(lo), int(hi)) for lo, hi in padding)


def conv(x, kernel, strides=1, padding="SAME"):
    """Cross-correlation of x with a kernel, channels last, in one to three spatial dimensions.

    Args:
      x: [B, *S, C].
      kernel: [*K, C, O], of x's dtype.
      strides: int, or one int a spatial axis.
      padding: "SAME", "VALID", "CIRCULAR" (wraps around), an int, or (low, high) pairs.

    Returns:
      [B, *S', O].

    Raises:
      ValueError: shapes that do not fit, or an unknown padding.
    """
    if not 3 <= x.ndim <= 5 or kernel.ndim != x.ndim:
        raise ValueError(f"kernel: expected the rank of x [B, *S, C], 3 to 5, got {kernel.shape} for x {x.shape}")
    if kernel.shape[-2] != x.shape[-1]:
        raise ValueError(f"kernel: expected {x.shape[-1]} input channels, got {kernel.shape[-2]}")
    x, kernel, size = across_batch(x), gathered(kernel), kernel.shape[:-2]
    strides = (strides,) * len(size) if isinstance(strides, int) else tuple(strides)
    pads = resolve_padding(padding, x.shape[1:-1], size, strides)
    if isinstance(padding, str) and padding.upper() == "CIRCULAR":
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="wrap")
        pads = ((0, 0),) * len(size)
    if all(w == 1 for w in size + strides) and not any(map(any, pads)):
        return across_batch(matmul(x, kernel.reshape(kernel.shape[-2:])))
    y = conv_p.bind(*_vary_alike(x, kernel), strides=strides, padding=pads, members=False)
    return across_batch(y)


class Conv(nn.Module):
    """Convolution layer on [B, *S, C] with float32 parameters `kernel` [*K, C, O] and `bias` [O]."""

    features: int
    kernel_size: int | tuple = 3  # an int is used for every spatial axis
    strides: int | tuple = 1
    padding: str | int | tuple = "SAME"
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
    bias_init: Callable = nn.initializers.zeros
    dtype: jnp.dtype = jnp.float32  # of the computation

    @nn.compact
    def __call__(self, x):
        size = self.kernel_size
        size = (size,) * (x.ndim - 2) if isinstance(size, int) else tuple(size)
        kernel = self.param("kernel", self.kernel_init, (*size, x.shape[-1], self.features), jnp.float32)
        y = conv(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.padding)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y
