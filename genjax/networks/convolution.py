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
          strides, or with a batch of kernels, one matrix product of the input's patches with the output gradient;

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


def _conv_k_cpu(x, g, *, kernel, strides, padding):
    # dk_a = sum_(b, o) x_(b, o + a) g_(b, o) is a convolution of x with g as its kernel, channels for batch. Laid
    # out so explicitly, behind barriers, it keeps XLA's fast path inside loops too.
    if any(s != 1 for s in strides):
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
    """A bilinear primitive with one lowering for CPU and one for the rest."""
    prim = Primitive(name)
    jitted = functools.lru_cache(None)(lambda **params: jax.jit(functools.partial(prim.bind, **params)))
    prim.def_impl(lambda a, b, **params: jitted(**params)(a, b))
    prim.def_abstract_eval(lambda a, b, **params: a.update(shape=shape(a, b, **params)))
    mlir.register_lowering(prim, mlir.lower_fun(default, multiple_results=False))
    mlir.register_lowering(prim, mlir.lower_fun(cpu, multiple_results=False), platform="cpu")
    return prim


conv_p = _primitive(
    "conv",
    lambda x, k, strides, padding: (
        x.shape[0],
        *_out_sizes(x.shape[1:-1], k.shape[:-2], strides, padding),
        k.shape[-1],
    ),
    _conv_native,
    _conv_cpu,
)
conv_x_p = _primitive(
    "conv_x",
    lambda g, k, sizes, strides, padding: (g.shape[0], *sizes, k.shape[-2]),
    _conv_x_native,
    _conv_x_cpu,
)
conv_k_p = _primitive(
    "conv_k",
    lambda x, g, kernel, strides, padding: (*kernel, x.shape[-1], g.shape[-1]),
    _conv_k_native,
    _conv_k_cpu,
)


def _conv(x, k, strides, padding):
    return conv_p.bind(x, k, strides=strides, padding=padding)


def _conv_x(g, k, sizes, strides, padding):
    return conv_x_p.bind(g, k, sizes=sizes, strides=strides, padding=padding)


def _conv_k(x, g, kernel, strides, padding):
    return conv_k_p.bind(x, g, kernel=kernel, strides=strides, padding=padding)


# The transposes: each gradient of T(x, k, g) is a member of the family. An operand that is
# differentiated arrives without a value, as a shape alone.
ad.defbilinear(
    conv_p,
    lambda g, x, k, **p: _conv_x(g, k, x.aval.shape[1:-1], **p),
    lambda g, x, k, **p: _conv_k(x, g, k.aval.shape[:-2], **p),
)
ad.defbilinear(
    conv_x_p,
    lambda x, g, k, sizes, **p: _conv(x, k, **p),
    lambda x, g, k, sizes, **p: _conv_k(x, g, k.aval.shape[:-2], **p),
)
ad.defbilinear(
    conv_k_p,
    lambda k, x, g, kernel, **p: _conv_x(g, k, x.aval.shape[1:-1], **p),
    lambda k, x, g, kernel, **p: _conv(x, k, **p),
)


# Under vmap: where one operand is an image batch and the other is shared, the two batch axes merge.
# Kernels with a batch axis of their own take windows and batched matrix products on CPU, where XLA's
# grouped convolution is slow, and XLA's form elsewhere. With stride 1 the windows are rows, stacked over all kernel
# axes but the first, and the first is a further factor of the product's columns: a third of the memory of
# whole 3x3 patches, and wider products where channels are few.
def _row_windows(x, kernel, padding):
    """[B, H + K - 1, *S', prod(K') C] of x [B, H, *S, C], padded: its windows along all kernel axes but the first."""
    x = padded(x, padding)
    size, ones = (1, *kernel[1:]), (1,) * len(kernel)
    return _shifts(x, _out_sizes(x.shape[1:-1], size, ones, ((0, 0),) * len(size)), size, ones)


def _row_conv(x, k, *, strides, padding):
    if any(s != 1 for s in strides) or min(map(min, padding)) < 0:
        return _patch_conv(x, k, strides=strides, padding=padding)
    rows, outputs = k.shape[0], k.shape[-1]
    columns = jnp.moveaxis(k.reshape(rows, -1, outputs), 0, 1).reshape(-1, rows * outputs)
    windows, wide = _row_windows(x, k.shape[:-2], padding), jnp.promote_types(x.dtype, jnp.float32)
    y = matmul(windows, columns, wide)
    n = y.shape[1] - rows + 1
    parts = [y[:, i : i + n, ..., i * outputs : (i + 1) * outputs] for i in range(rows)]
    return sum(parts).astype(x.dtype)


def _row_conv_x(g, k, *, sizes, strides, padding):
    kernel = k.shape[:-2]
    low = [w - 1 - lo for w, (lo, _) in zip(kernel, padding)]
    high = [n + w - 1 - m - p for n, w, m, p in zip(sizes, kernel, g.shape[1:-1], low)]
    if any(s != 1 for s in strides) or min(low + high) < 0:
        return _patch_conv_x(g, k, sizes=sizes, strides=strides, padding=padding)
    flipped = jnp.flip(k, range(k.ndim - 2)).swapaxes(-1, -2)
    return _row_conv(g, flipped, strides=strides, padding=tuple(zip(low, high)))


def _row_conv_k(x, g, *, kernel, strides, padding):
    if any(s != 1 for s in strides) or min(map(min, padding)) < 0:
        return _patch_conv_k(x, g, kernel=kernel, strides=strides, padding=padding)
    rows, wide = kernel[0], jnp.promote_types(g.dtype, jnp.float32)
    moved = [jnp.pad(g, [(0, 0), (i, rows - 1 - i), *[(0, 0)] * (g.ndim - 2)]) for i in range(rows)]
    dk = kernel_gradient(_row_windows(x, kernel, padding), jnp.concatenate(moved, axis=-1), wide)
    dk = jnp.moveaxis(dk.reshape(-1, rows, g.shape[-1]), 1, 0)
    return dk.reshape(*kernel, x.shape[-1], g.shape[-1]).astype(g.dtype)


def _patch_conv(x, k, *, strides, padding):
    x = padded(x, padding)
    out = _out_sizes(x.shape[1:-1], k.shape[:-2], strides, ((0, 0),) * len(strides))
    return matmul(_shifts(x, out, k.shape[:-2], strides), k.reshape(-1, k.shape[-1]))


def _platform(cpu, default, a, b):
    return lax.platform_dependent(a, b, cpu=cpu, default=default)


def _merged(bind):
    def rule(args, dims, **params):
        a, b = args
        a = jnp.moveaxis(a, dims[0], 0)
        out = bind(a.reshape(-1, *a.shape[2:]), b, **params)
        return out.reshape(a.shape[:2] + out.shape[1:]), 0

    return rule


def _batched(cpu, default):
    def rule(args, dims, **params):
        one = functools.partial(_platform, functools.partial(cpu, **params), functools.partial(default, **params))
        # in front before the windows are taken, which are larger
        args = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(args, dims)]
        return jax.vmap(one, tuple(d if d is None else 0 for d in dims))(*args), 0

    return rule


def _batcher(prim, cpu, default, merge):
    each, together = _batched(cpu, default), _merged(prim.bind)

    def rule(args, dims, **params):
        return (together if merge and dims[1] is None else each)(args, dims, **params)

    batching.primitive_batchers[prim] = rule


def _patch_conv_x(g, k, *, sizes, strides, padding):
    like = jax.ShapeDtypeStruct((g.shape[0], *sizes, k.shape[-2]), g.dtype)
    return jax.linear_transpose(lambda x: _patch_conv(x, k, strides=strides, padding=padding), like)(g)[0]


_batcher(conv_p, _row_conv, _conv_native, merge=True)
_batcher(conv_x_p, _row_conv_x, _conv_x_native, merge=True)
_batcher(conv_k_p, _row_conv_k, _conv_k_native, merge=False)


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
    size = kernel.shape[:-2]
    strides = (strides,) * len(size) if isinstance(strides, int) else tuple(strides)
    pads = resolve_padding(padding, x.shape[1:-1], size, strides)
    if isinstance(padding, str) and padding.upper() == "CIRCULAR":
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="wrap")
        pads = ((0, 0),) * len(size)
    if all(w == 1 for w in size + strides) and not any(map(any, pads)):
        return matmul(x, kernel.reshape(kernel.shape[-2:]))
    return _conv(*_vary_alike(x, kernel), strides, pads)


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
