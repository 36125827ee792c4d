"""Convolutions with fewer multiplications: the same numbers as the plain ones, and only where they are meant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from genjax.networks import conv, winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")
CASES = {
    # name: (sizes of x, padding)
    "same": ((8, 12), ((1, 1), (1, 1))),
    "valid": ((10, 6), ((0, 0), (0, 0))),
    "uneven": ((7, 8), ((2, 1), (0, 2))),
    "wide": ((4, 4), ((3, 1), (2, 2))),
}


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=s), jnp.result_type(float)) for s in shapes]


@pytest.mark.parametrize("tiles", [4, 50, 256])
@pytest.mark.parametrize("name", CASES)
def test_same_as_plain(name, tiles, x64, monkeypatch):
    # Catches a wrong matrix, a transposed kernel, a lost pad, and strips that do not meet.
    monkeypatch.setattr(winograd, "TILES", tiles)
    sizes, padding = CASES[name]
    x, k = arrays((4, *sizes, 2), (3, 3, 2, 5))
    plain = lambda k: lax.conv_general_dilated(x, k, (1, 1), padding, dimension_numbers=LAYOUT)
    y, pull = jax.vjp(plain, k)
    np.testing.assert_allclose(jax.jit(winograd.conv, static_argnums=2)(x, k, padding), y, rtol=1e-10, atol=1e-10)
    found = jax.jit(winograd.conv_k, static_argnums=2)(x, y, padding)
    np.testing.assert_allclose(found, pull(y)[0], rtol=1e-10, atol=1e-10)


def test_small_strips_are_taken():
    # The strips above are strips: images of 24 tiles are all in one, by two with 50 tiles, in pieces with 4.
    assert winograd._strips(3, (8, 12)) == (3, 1, 8)
    assert winograd._strips(4, (64, 64)) == (1, 4, 16)
    assert winograd._strips(4, (32, 32)) == (1, 1, 32)
    assert winograd._strips(24, (8, 8)) == (12, 1, 8)


def test_the_layer_uses_it_and_keeps_its_gradients():
    # Catches a choice that the layer never makes, and gradients to another place than XLA's.
    x, k, g = arrays((2, 16, 16, 96), (3, 3, 96, 96), (2, 16, 16, 96))
    native = lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT)
    found = {}
    for name, f in (("toolkit", conv), ("native", native)):
        run = jax.jit(lambda x, k, g, f=f: (f(x, k), *jax.vjp(f, x, k)[1](g)))
        found[name] = run(x, k, g), run.lower(x, k, g).as_text().count("stablehlo.while")
    assert (found["toolkit"][1], found["native"][1]) == (3, 0)
    for a, b in zip(found["toolkit"][0], found["native"][0]):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()))


def test_where_it_suits():
    # Catches a choice that depends on the batch or takes a case that the form does not have.
    like = lambda dtype=jnp.float32: jax.ShapeDtypeStruct((1, 16, 16, 96), dtype)
    suits = lambda x=None, inputs=96, outputs=96, kernel=(3, 3), strides=(1, 1), out=(16, 16): winograd.suits(
        like() if x is None else x, inputs, outputs, kernel, strides, out
    )
    assert suits() and suits(out=(8, 8)) and suits(inputs=768)
    assert not any(
        [
            suits(like(jnp.bfloat16)),
            suits(inputs=32),
            suits(outputs=3),
            suits(kernel=(5, 5)),
            suits(kernel=(3,)),
            suits(strides=(2, 2)),
            suits(out=(17, 16)),
            suits(out=(6, 6)),
            suits(inputs=768, out=(8, 8)),
        ]
    )


def test_a_program_for_another_platform_has_none():
    x, k = jnp.ones((1, 16, 16, 96)), jnp.ones((3, 3, 96, 96))
    traced = jax.jit(conv).trace(x, k)
    loops = {p: "stablehlo.while" in traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")}
    assert loops == {"cpu": True, "tpu": False}


def test_checked_shard_map():
    # Catches a sum over strips whose start does not vary over the mesh as what is added does.
    x, k = arrays((2, 16, 16, 96), (3, 3, 96, 96))
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    loss = lambda x, k: jnp.mean(conv(x, k) ** 2)
    total = jax.shard_map(
        lambda x, k: lax.pmean(loss(x, k), "data"), mesh=mesh, in_specs=(P("data"), P()), out_specs=P()
    )
    expected = jax.jit(jax.grad(loss, (0, 1)))(x, k)
    for a, b in zip(jax.jit(jax.grad(total, (0, 1)))(x, k), expected):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
