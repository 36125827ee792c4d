"""Products of activations and kernels: numpy's values, Flax's dense layers, and kernels' gradients without a copy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from genjax.networks.blocks import dense
from genjax.networks.products import dot_general, kernel_gradient, matmul


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]


@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (2, 3, 4)], ids=len)
def test_values_of_any_rank(leading):
    x, k, g = arrays((*leading, 6), (6, 4), (*leading, 4))
    np.testing.assert_allclose(matmul(x, k), np.asarray(x) @ np.asarray(k), rtol=2e-5, atol=1e-6)
    by_hand = np.asarray(x).reshape(-1, 6).T @ np.asarray(g).reshape(-1, 4)
    np.testing.assert_allclose(kernel_gradient(x, g), by_hand, rtol=2e-5, atol=1e-6)
    wide = kernel_gradient(x.astype(jnp.bfloat16), g.astype(jnp.bfloat16), jnp.float32)
    assert wide.dtype == jnp.float32


def test_a_dense_layer_is_flax_own():
    (x,) = arrays((2, 3, 6))
    ours, theirs = dense(4, jnp.float32), nn.Dense(4)
    params = ours.init(jax.random.key(0), x)
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), rtol=2e-5, atol=1e-6)
    other = (((0,), (0,)), ((), ()))  # anything else is left as it is
    np.testing.assert_array_equal(dot_general(x, x, other), jax.lax.dot_general(x, x, other))


def test_nothing_is_transposed_for_a_kernel_gradient():
    """What makes an activation must not write it in another order, which takes longer than the product on a CPU."""
    x, k = arrays((4, 32, 24), (24, 16))
    loss = lambda k, x: jnp.sum(jnp.tanh(matmul(jnp.tanh(x), k)) ** 2)
    text = jax.jit(jax.grad(loss)).lower(k, x).compile().as_text()
    assert not re.search(r"f32\[\d+,4,32\]|f32\[(16|24),128\]", text)
    assert re.search(r"f32\[24,16\]\S* (dot|fusion)", text)
