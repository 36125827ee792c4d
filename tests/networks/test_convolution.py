"""The toolkit's convolution against XLA's own: values and every derivative, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from genjax.networks import convolution
from genjax.networks.convolution import Conv, conv


def reference(x, k, strides=1, padding="SAME"):
    spatial = "DHW"[-(x.ndim - 2) :]
    strides = (strides,) * (x.ndim - 2) if isinstance(strides, int) else strides
    padding = [(padding, padding)] * (x.ndim - 2) if isinstance(padding, int) else padding
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=layout)


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=s), jnp.result_type(float)) for s in shapes]


CASES = {
    # name: (sizes, kernel, strides, padding)
    "3x3": ((6, 5), (3, 3), 1, "SAME"),
    "3x3 stride 2": ((6, 5), (3, 3), 2, "SAME"),
    "4x4 stride 2 paired": ((8, 6), (4, 4), 2, ((1, 1), (1, 1))),
    "5x5 valid": ((7, 6), (5, 5), 1, "VALID"),
    "3x1 mixed strides": ((6, 6), (3, 1), (1, 2), "SAME"),
    "2x2 stride 3 drops a row": ((6, 7), (2, 2), 3, "VALID"),
    "1x1 stride 2": ((5, 6), (1, 1), 2, "VALID"),
    "3x3 padded beyond the kernel": ((4, 4), (3, 3), 1, 4),
    "kernel larger than the image": ((2, 2), (3, 3), 1, "SAME"),
    "output larger than the image": ((3, 2), (2, 2), 1, 1),
    "line": ((9,), (3,), 2, "SAME"),
    "volume": ((4, 3, 4), (3, 2, 3), 1, "SAME"),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_match_native(name, x64):
    # Catches a wrong transpose, pad or stride in any member of the family: first and second derivatives,
    # forward and reverse, in double precision.
    sizes, kernel, strides, padding = CASES[name]
    x, k, dx, dk = arrays(0, (5, *sizes, 3), (*kernel, 3, 4), (5, *sizes, 3), (*kernel, 3, 4))

    @jax.jit
    def everything(x, k, dx, dk):
        out = []
        for f in (conv, reference):
            loss = lambda x, k, f=f: jnp.sum(jnp.sin(f(x, k, strides, padding)))
            grad = jax.grad(loss, (0, 1))
            value, tangent = jax.jvp(lambda x, k, f=f: f(x, k, strides, padding), (x, k), (dx, dk))
            second = jax.grad(lambda x, k, g=grad: sum(jnp.sum(jnp.cos(u)) for u in g(x, k)), (0, 1))(x, k)
            over = jax.jvp(grad, (x, k), (dx, dk))[1]
            out.append((value, tangent, grad(x, k), second, over))
        return out

    ours, native = everything(x, k, dx, dk)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, native)


def test_vmap_over_either_operand(x64):
    # Catches a batching rule that mixes samples: images, kernels and both with an axis of their own.
    x, k = arrays(1, (3, 2, 5, 4, 2), (3, 3, 3, 2, 2))

    @jax.jit
    def everything(x, k):
        out = []
        for f in (conv, reference):
            grad = jax.grad(lambda x, k, f=f: jnp.sum(jnp.sin(f(x, k, 2))), (0, 1))
            linear = jax.grad(lambda x, k, f=f: jnp.sum(f(x, k, 2)), (0, 1))  # with one gradient of the output for all
            out.append(
                [
                    jax.vmap(slope, axes)(x[0] if axes[0] is None else x, k[0] if axes[1] is None else k)
                    for axes in ((0, None), (None, 0), (0, 0))
                    for slope in (grad, linear)
                ]
            )
            moved = jax.vmap(lambda x, f=f: f(x, k[0]), 3, 1)(jnp.moveaxis(x, 0, 3))
            out[-1].append(moved)
        return out

    ours, native = everything(x, k)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, native)


@pytest.mark.parametrize(
    "size, padding",
    [((3,), "SAME"), ((2, 3), ((0, 2), (3, 1))), ((3, 1, 2), "VALID"), ((3, 3), -1), ((3, 3), 4)],
    ids=str,
)
def test_kernels_with_an_axis_of_their_own(size, padding, x64):
    # Catches a rule that gives a member another's image or kernel, or mixes up what a shared image is widened by,
    # with padding that is negative or wider than the kernel's reach: values and second derivatives, of stride 1.
    x, k = arrays(6, (3, 2, *(7, 6, 5)[: len(size)], 2), (3, *size, 2, 3))

    @jax.jit
    def everything(x, k):
        out = []
        for f in (conv, reference):
            y = lambda x, k, f=f: f(x, k, 1, padding)
            slope = lambda x, k, y=y: jax.grad(lambda x: jnp.sum(jnp.sin(y(x, k))))(x)
            second = jax.grad(lambda x, k, slope=slope: jnp.sum(slope(x, k) ** 2), (0, 1))
            out.append([jax.vmap(y)(x, k), jax.vmap(y, (None, 0))(x[0], k), jax.vmap(second)(x, k)])
            together = jax.grad(lambda x, k, y=y: jnp.sum(jnp.sin(jax.vmap(y)(x, k))), (0, 1))
            twice = jax.vmap(jax.vmap(y, (None, 0)), (0, None))
            nested = jax.vmap(jax.vmap(y), (1, None), 1), jax.vmap(jax.vmap(y), (1, 1), 1)
            pair = jnp.stack([x, jnp.cos(x)], axis=1), jnp.stack([k, jnp.cos(k)], axis=1)
            out[-1].append([together(x, k), twice(x[:2], k), nested[0](pair[0], k), nested[1](*pair)])
        return out

    ours, native = everything(x, k)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), ours, native)


def test_per_sample_gradients(x64):
    # Catches a kernel gradient that is summed over samples under vmap of a loss on one sample.
    x, k = arrays(2, (4, 5, 5, 2), (3, 3, 2, 3))
    grads = [
        jax.jit(jax.vmap(jax.grad(lambda k, x, f=f: jnp.sum(f(x[None], k) ** 2)), (None, 0)))(k, x)
        for f in (conv, reference)
    ]
    np.testing.assert_allclose(*grads, rtol=1e-10)


def test_scan_training_matches_native(x64):
    # Catches a wrong carry of the family through scan and its transpose, with an R1-like penalty inside.
    x, k = arrays(3, (4, 5, 5, 2), (3, 3, 2, 2))

    def train(f, k):
        def penalty(k):
            critic = lambda x: jnp.sum(jnp.tanh(f(jnp.tanh(f(x, k)), k)))
            return critic(x) + jnp.sum(jax.grad(critic)(x) ** 2)

        return lax.scan(lambda k, _: (k - 1e-2 * jax.grad(penalty)(k), penalty(k)), k, None, length=3)

    ours, native = jax.jit(lambda k: [train(f, k) for f in (conv, reference)])(k)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), ours, native)


def test_scan_transpose_and_remat(x64):
    # Catches residuals that the scan's own transpose or a rematerialized body would lose.
    x, k = arrays(4, (2, 4, 4, 2), (3, 3, 2, 2))

    def loss(f, x, k):
        body = jax.checkpoint(lambda h, _: (jnp.tanh(f(h, k)), None))
        return jnp.sum(lax.scan(body, x, None, length=3)[0] ** 2)

    ours, native = jax.jit(lambda x, k: [jax.grad(loss, (1, 2))(f, x, k) for f in (conv, reference)])(x, k)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), ours, native)


def test_large_patches_take_rows(x64, monkeypatch):
    # Catches an error in the row-wise kernel gradient, which only large inputs would reach.
    x, g = arrays(5, (2, 7, 6, 3), (2, 4, 3, 4))
    params = {"kernel": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}
    monkeypatch.setattr(convolution, "PATCH_LIMIT", 0)
    rows = convolution._conv_k_cpu(x, g, **params)
    np.testing.assert_allclose(rows, convolution._conv_k_native(x, g, **params), rtol=1e-10)


def test_form_is_chosen_by_the_platform_of_the_program():
    # Catches a choice by the machine that compiles: ahead-of-time programs for TPUs must get XLA's form.
    x, k = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    traced = jax.jit(jax.grad(lambda x, k: jnp.sum(conv(x, k) ** 2), (0, 1))).trace(x, k)
    barrier = {p: "optimization_barrier" in traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")}
    assert barrier == {"cpu": True, "tpu": False}


@pytest.mark.parametrize("size, kernel", [(2, 3), (4, 2)], ids=("image below the kernel", "gradient of a wider output"))
def test_image_and_kernel_are_not_exchanged(size, kernel):
    """XLA:CPU has no fast path for what it exchanges; a kernel read backwards is the mark of it."""
    x, k = jnp.ones((2, size, size, 8)), jnp.ones((kernel, kernel, 8, 16))
    program = jax.jit(jax.value_and_grad(lambda x, k: jnp.sum(conv(x, k, padding=1) ** 2), (0, 1))).lower(x, k)
    assert "rhs_reversal" not in program.compile().as_text()


def test_checked_shard_map_sums_kernel_gradients():
    # Catches a kernel gradient that stays local to a device where the kernel is replicated.
    x, k = arrays(6, (4, 4, 4, 2), (3, 3, 2, 2))
    mesh = Mesh(np.array(jax.devices()), ("data",))
    loss = lambda x, k: jnp.sum(conv(x, k) ** 2)
    total = jax.shard_map(
        lambda x, k: lax.psum(loss(x, k), "data"), mesh=mesh, in_specs=(P("data"), P()), out_specs=P()
    )
    expected = jax.grad(loss, (0, 1))(x, k)
    for a, b in zip(jax.jit(jax.grad(total, (0, 1)))(x, k), expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_circular_padding_commutes_with_shifts():
    # Catches an off-by-one in the wrapped padding.
    x, k = arrays(7, (1, 6, 5, 2), (3, 3, 2, 3))
    shift = lambda v: jnp.roll(v, (2, -1), (1, 2))
    a, b = conv(shift(x), k, padding="CIRCULAR"), shift(conv(x, k, padding="CIRCULAR"))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_bfloat16_keeps_its_dtype():
    x, k = (a.astype(jnp.bfloat16) for a in arrays(8, (2, 4, 4, 2), (3, 3, 2, 2)))
    grads = jax.grad(lambda x, k: jnp.sum(conv(x, k).astype(jnp.float32) ** 2), (0, 1))(x, k)
    exact = jax.grad(lambda x, k: jnp.sum(reference(x, k) ** 2), (0, 1))(x.astype(jnp.float32), k.astype(jnp.float32))
    for a, b in zip(grads, exact):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0.05, atol=0.05 * float(jnp.abs(b).max()))


def test_layer_computes_kernel_and_bias():
    # Catches a bias or a dtype that is dropped.
    x = arrays(9, (2, 5, 5, 2))[0]
    layer = Conv(3, strides=2, bias_init=jax.nn.initializers.normal(1.0), dtype=jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)["params"]
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    out = layer.apply({"params": params}, x)
    assert out.dtype == jnp.bfloat16
    exact = reference(x, params["kernel"], 2) + params["bias"].reshape(1, 1, 1, -1)
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=0.05, atol=0.05)


def test_bad_input_names_the_field():
    x = jnp.ones((1, 4, 4, 2))
    with pytest.raises(ValueError, match=r"kernel: expected 2 input channels, got 3"):
        conv(x, jnp.ones((3, 3, 3, 4)))
    with pytest.raises(ValueError, match=r"kernel: expected the rank"):
        conv(x, jnp.ones((3, 2, 4)))
    with pytest.raises(ValueError, match=r"padding: expected 'SAME'.*got 'same_ish'"):
        conv(x, jnp.ones((3, 3, 2, 4)), padding="same_ish")
