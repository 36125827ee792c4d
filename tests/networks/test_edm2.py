"""Magnitude preservation: variances of the pieces, the networks' activations, forced normalization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.networks import (
    MPMLP,
    EDM2UNet,
    MPConv,
    MPDense,
    Uncertainty,
    force_normalize,
    mp_cat,
    mp_silu,
    mp_sum,
    normalize,
)
from genjax.networks.edm2 import MPEmbedding

KEY = jax.random.key(1, impl="rbg")  # initializers compile faster with it than with the default


def rms(v):
    return float(jnp.sqrt(jnp.mean(jnp.asarray(v, jnp.float32) ** 2)))


def test_pieces_keep_unit_variance():
    # Catches a wrong constant in any of the magnitude-preserving functions.
    a, b, c = (jax.random.normal(jax.random.key(i), (4000, n)) for i, n in enumerate((16, 16, 48)))
    assert abs(rms(mp_silu(a)) - 1) < 0.01
    for t in (0.3, 0.5):
        assert abs(rms(mp_sum(a, b, t)) - 1) < 0.01
        joined = mp_cat(a, c, t)
        assert joined.shape == (4000, 64) and abs(rms(joined) - 1) < 0.01
        share = jnp.sum(joined[:, 16:] ** 2) / jnp.sum(joined**2)
        assert abs(float(share) - t**2 / (t**2 + (1 - t) ** 2)) < 0.01


def test_layers_keep_unit_variance_whatever_the_weights():
    # Catches a missing fan-in or normalization: the stored weight's size must not matter.
    x = jax.random.normal(jax.random.key(0), (500, 4, 4, 8))
    for layer in (MPDense(32), MPConv(32, 3)):
        params = layer.init(jax.random.key(1), x)
        scaled = jax.tree.map(lambda w: 7 * w, params)
        inner = slice(1, 3)
        out, same = (layer.apply(p, x)[:, inner, inner] for p in (params, scaled))
        assert abs(rms(out) - 1) < 0.05
        np.testing.assert_allclose(out, same, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(layer.apply(params, x, 0.5)[:, inner, inner], 0.5 * out, rtol=1e-4, atol=1e-5)


def test_gradient_is_orthogonal_to_the_weight():
    # Catches a forward pass without the differentiated normalization (eq. 47).
    x = jax.random.normal(jax.random.key(0), (20, 6))
    layer = MPDense(5)
    params = layer.init(jax.random.key(1), x)
    g = jax.grad(lambda p: jnp.sum(jnp.sin(layer.apply(p, x))))(params)["params"]["mp_kernel"]
    w = params["params"]["mp_kernel"]
    cosine = jnp.sum(g * w, 0) / (jnp.linalg.norm(g, axis=0) * jnp.linalg.norm(w, axis=0))
    assert float(jnp.abs(cosine).max()) < 1e-3


def test_normalize_is_finite_at_zero():
    g = jax.grad(lambda x: jnp.sum(normalize(x, -1)))(jnp.zeros((2, 3)))
    assert bool(jnp.all(jnp.isfinite(g)))


@pytest.fixture(scope="module")
def u_net():
    x = jax.random.normal(jax.random.key(0), (16, 8, 8, 1))
    noise, cond = jnp.linspace(-1, 1, 16), {"label": jnp.arange(16) % 11 - 1}
    module = EDM2UNet(num_classes=10)
    params = jax.jit(module.init)(KEY, x, noise, cond)
    _, features = jax.jit(lambda p: module.apply(p, x, noise, cond, return_features=True))(params)
    return params, features


def test_u_net_keeps_magnitudes_at_init(u_net):
    # Catches any block whose parts do not balance: every activation's RMS is about 1.
    _, features = u_net
    sizes = {name: rms(f) for name, f in features.items()}
    assert len(sizes) == 11 and all(0.75 < s < 1.35 for s in sizes.values()), sizes


def test_force_normalize_gives_unit_rows_and_spares_the_rest(u_net):
    # Catches normalization over the wrong axes, of gains, or of a tree that changes its structure.
    params, _ = u_net
    params = jax.tree.map(lambda p: 3 * np.asarray(p) + np.float32(0.1), params)
    forced = jax.tree.map(np.asarray, jax.jit(force_normalize)(params))
    assert jax.tree.structure(forced) == jax.tree.structure(params)
    for (path, w), before in zip(jax.tree_util.tree_leaves_with_path(forced), jax.tree.leaves(params)):
        if path[-1].key == "mp_kernel":
            rows = np.sqrt(np.mean(w**2, axis=tuple(range(w.ndim - 1))))
            np.testing.assert_allclose(rows, 1, atol=1e-3)
        else:
            assert path[-1].key in ("emb_gain", "out_gain")
            np.testing.assert_array_equal(w, before)


def test_mlp_keeps_magnitudes_at_init():
    x = jax.random.normal(jax.random.key(0), (256, 64))
    module = MPMLP(num_classes=10)
    args = (x, jnp.linspace(-1, 1, 256), {"label": jnp.arange(256) % 10})
    _, features = module.apply(module.init(KEY, *args), *args, return_features=True)
    assert len(features) == 3 and all(0.85 < rms(f) < 1.15 for f in features.values())


def test_embedding_has_unit_magnitude():
    layer = MPEmbedding(512, 256, num_classes=100)
    args = (jnp.linspace(-1, 1, 64), {"label": jnp.arange(64)})
    assert abs(rms(layer.init_with_output(jax.random.key(0), *args)[0]) - 1) < 0.1


def test_uncertainty_learns_the_log_of_the_error():
    # Catches a head that cannot follow the noise: the minimum of error / exp(u) + u is u = log error.
    noise = jnp.linspace(-1, 1, 64)
    error = jnp.exp(jnp.sin(2 * noise))
    head = Uncertainty()
    params = head.init(jax.random.key(0), noise)
    loss = lambda p: jnp.mean(error / jnp.exp(head.apply(p, noise)) + head.apply(p, noise))

    def step(p, _):
        return force_normalize(jax.tree.map(lambda w, g: w - 5.0 * g, p, jax.grad(loss)(p))), None

    start = float(loss(params))
    best = float(jnp.mean(1 + jnp.log(error)))
    params = jax.jit(lambda p: jax.lax.scan(step, p, None, length=300)[0])(params)
    # the weight has unit norm, so the fit is not exact: it closes most of the gap
    assert float(loss(params)) - best < 0.3 * (start - best)
