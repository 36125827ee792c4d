"""Shared parts against closed forms and against Flax's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from genjax.networks import (
    Attention,
    Fourier,
    GroupNorm,
    downsample,
    group_norm,
    patchify,
    sinusoidal,
    unpatchify,
    upsample,
)
from genjax.networks.blocks import positions
from genjax.networks.conditioning import CondVector, NoiseCond, Tokens, check_cond, concat_image, embed_ids


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.result_type(float))


def test_group_norm_matches_flax_with_gradients(x64):
    # Catches wrong groups, statistics or the folding of scale and shift into the normalization.
    x, scale, shift, g = normal(3, 4, 5, 8), normal(8, seed=1), normal(8, seed=2), normal(3, 4, 5, 8, seed=3)
    theirs = nn.GroupNorm(num_groups=2, epsilon=1e-5, param_dtype=jnp.float64)

    @jax.jit
    def both(x, scale, shift):
        flax = lambda x, a, b: jnp.sum(g * theirs.apply({"params": {"scale": a, "bias": b}}, x))
        ours = lambda x, a, b: jnp.sum(g * group_norm(x, 2, a, b))
        return [(f(x, scale, shift), jax.grad(f, (0, 1, 2))(x, scale, shift)) for f in (ours, flax)]

    ours, flax = both(x, scale, shift)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), ours, flax)


def test_group_norm_modulation_is_applied_after_the_norm():
    # Catches (1 + scale) y + shift computed with the layer's own scale and bias in the wrong order.
    x, scale, shift = normal(2, 3, 3, 8), normal(2, 8, seed=1), normal(2, 8, seed=2)
    layer = GroupNorm(groups=2)
    params = {"params": {"scale": normal(8, seed=3), "bias": normal(8, seed=4)}}
    plain = layer.apply(params, x)
    expected = (1 + scale[:, None, None]) * plain + shift[:, None, None]
    np.testing.assert_allclose(layer.apply(params, x, scale, shift), expected, rtol=1e-4, atol=1e-5)


def test_group_norm_of_bfloat16_uses_float32_statistics():
    # Catches statistics in bfloat16: a mean of 30 with deviation 1 would leave no digits.
    x = (30 + normal(2, 16, 16, 4)).astype(jnp.bfloat16)
    y = group_norm(x, 1).astype(jnp.float32)
    assert y.dtype == jnp.float32 and abs(float(y.mean())) < 0.02 and abs(float(y.std()) - 1) < 0.02


def test_group_norm_rejects_groups():
    with pytest.raises(ValueError, match="groups: expected a divisor of 6 channels, got 4"):
        group_norm(normal(1, 2, 6), 4)


@pytest.mark.parametrize("filter", [(1, 1), (1, 2, 1), (1, 3, 3, 1)])
def test_resampling_is_an_adjoint_pair_that_keeps_constants(filter):
    # Catches misaligned taps: <down x, y> = <x, up y> / 4, and constants inside the border stay.
    x, y = normal(2, 8, 6, 3), normal(2, 4, 3, 3, seed=1)
    down, up = downsample(x, filter), upsample(y, filter)
    assert down.shape == y.shape and up.shape == x.shape
    np.testing.assert_allclose(jnp.vdot(down, y), jnp.vdot(x, up) / 4, rtol=1e-4)
    ones = jnp.ones((1, 16, 16, 1))
    np.testing.assert_allclose(downsample(ones, filter)[:, 1:-1, 1:-1], 1, rtol=1e-6)
    np.testing.assert_allclose(upsample(ones, filter)[:, 2:-2, 2:-2], 1, rtol=1e-6)


def test_resampling_by_hand():
    # Catches a swap of the filters: averages of pairs, repeats, and linear interpolation.
    x = jnp.arange(6.0).reshape(1, 6, 1)
    np.testing.assert_allclose(downsample(x)[0, :, 0], [0.5, 2.5, 4.5])
    np.testing.assert_allclose(upsample(x)[0, :6, 0], [0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose(upsample(x, (1, 2, 1))[0, :6, 0], [0, 0.5, 1, 1.5, 2, 2.5])
    with pytest.raises(ValueError, match="even sizes"):
        downsample(jnp.ones((1, 5, 1)))


def test_sinusoidal_frequencies():
    # Catches a wrong lowest frequency: 1 / max_period with the endpoint, above it without.
    v = jnp.array([0.0, 2.0])
    emb = sinusoidal(v, 8, max_period=100.0, endpoint=True)
    w = 100.0 ** -(np.arange(4) / 3)
    np.testing.assert_allclose(emb[1], np.concatenate([np.cos(2 * w), np.sin(2 * w)]), rtol=1e-5)
    np.testing.assert_allclose(emb[0], [1] * 4 + [0] * 4)
    with pytest.raises(ValueError, match="dim: expected an even number, got 7"):
        sinusoidal(v, 7)


def test_fourier_features_have_unit_variance_and_the_gaussian_kernel():
    # Catches a wrong bandwidth or phase law: E[z(a) z(b)] = exp(-(2 pi w (a - b))^2 / 2).
    for w in (1.0, 0.3):
        z = Fourier(4096, bandwidth=w).apply({}, jnp.array([0.2, 0.3, 1.2]))
        gaps = np.array([0.0, 0.1, 1.0])
        np.testing.assert_allclose((z[:1] * z).mean(-1), np.exp(-((2 * np.pi * w * gaps) ** 2) / 2), atol=0.03)


def test_stored_fourier_features_hold_weights_without_gradient():
    layer = Fourier(4, stored=True)
    params = {"params": {"frequencies": jnp.ones(4), "phases": jnp.zeros(4)}}
    np.testing.assert_allclose(layer.apply(params, jnp.array([0.5])), -np.sqrt(2) * np.ones((1, 4)), rtol=1e-5)
    grads = jax.grad(lambda p: layer.apply(p, jnp.array([0.3])).sum())(params)
    assert all(not np.any(g) for g in jax.tree.leaves(grads))
    fresh = layer.init(jax.random.key(0), jnp.zeros(1))
    np.testing.assert_allclose(layer.apply(fresh, jnp.array([0.3])), Fourier(4).apply({}, jnp.array([0.3])), rtol=1e-6)


def test_positions_tell_every_cell_apart():
    table = positions((3, 4), 16)
    gaps = np.linalg.norm(table[:, None] - table[None], axis=-1) + 10 * np.eye(12)
    assert table.shape == (12, 16) and gaps.min() > 0.5
    np.testing.assert_allclose(table[1, :8], table[0, :8])  # the first half is the row alone


@pytest.mark.parametrize("cross", [False, True])
def test_attention_matches_the_formula(cross):
    # Catches a wrong split into heads or a missing 1 / sqrt(channels of a head).
    x, context = normal(2, 5, 8), normal(2, 3, 6, seed=1)
    layer = Attention(heads=2, out_init=nn.initializers.normal(1.0))
    args = (x, context) if cross else (x,)
    params = layer.init(jax.random.key(0), *args)["params"]
    out = layer.apply({"params": params}, *args)
    apply = lambda n, v: v @ params[n]["kernel"] + params[n]["bias"][None, None]
    if cross:
        q, (k, v) = apply("q", x), jnp.split(apply("kv", context), 2, -1)
    else:
        q, k, v = jnp.split(apply("qkv", x), 3, -1)
    heads = []
    for s in (slice(0, 4), slice(4, 8)):
        w = jax.nn.softmax(jnp.einsum("bqc,bkc->bqk", q[..., s], k[..., s]) / 2, axis=-1)
        heads.append(w @ v[..., s])
    np.testing.assert_allclose(out, apply("out", jnp.concatenate(heads, -1)), rtol=1e-4, atol=1e-5)


def test_patchify_by_hand_and_back():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 6, 12)
    np.testing.assert_array_equal(tokens[1, 4].reshape(2, 2, 3), x[1, 2:4, 2:4])
    np.testing.assert_array_equal(unpatchify(tokens, (4, 6), 2), x)
    line = normal(2, 8, 3)
    np.testing.assert_array_equal(unpatchify(patchify(line, 4), (8,), 4), line)
    with pytest.raises(ValueError, match="patch: expected a divisor"):
        patchify(x, 4)


def test_null_label_has_its_own_row():
    # Catches -1 read as the last class, which is what plain indexing gives.
    table = normal(4, 2)
    np.testing.assert_array_equal(embed_ids(jnp.array([-1, 0, 2]), table), table[jnp.array([3, 0, 2])])
    layer = CondVector(5, num_classes=3, embedding_dim=2)
    params = layer.init(jax.random.key(0), {}, 2)
    null = {"label": jnp.array([-1, -1]), "embedding": jnp.zeros((2, 2))}
    np.testing.assert_array_equal(layer.apply(params, {}, 2), layer.apply(params, null, 2))


def test_token_context_has_null_rows_and_positions():
    layer = Tokens(8, vocab=5)
    params = layer.init(jax.random.key(0), {}, 2)
    same = layer.apply(params, {"tokens": jnp.full((2, 3), 4)}, 2)
    assert same.shape == (2, 3, 8)
    np.testing.assert_allclose(
        same[:, 1] - same[:, 0], jnp.broadcast_to(positions((2,), 8)[1] - positions((2,), 8)[0], (2, 8)), atol=1e-5
    )
    np.testing.assert_array_equal(layer.apply(params, {}, 2), layer.apply(params, {"tokens": jnp.full((2, 1), -1)}, 2))
    vectors = Tokens(8, token_dim=3)
    assert vectors.init_with_output(jax.random.key(0), {"tokens": normal(2, 4, 3)}, 2)[0].shape == (2, 4, 8)


def test_image_condition_is_resized_and_null_is_zero():
    x = normal(2, 4, 4, 1)
    joined = concat_image(x, {"image": jnp.full((2, 2, 2, 3), 7.0)}, 3)
    np.testing.assert_allclose(joined[..., 1:], 7.0, rtol=1e-6)
    np.testing.assert_array_equal(concat_image(x, {}, 3)[..., 1:], 0)


def test_condition_errors_name_the_field():
    with pytest.raises(ValueError, match="cond: the network takes no 'label'; set num_classes"):
        check_cond({"label": jnp.zeros(2, int)})
    with pytest.raises(ValueError, match=r"cond: expected fields among .* got 'caption'"):
        check_cond({"caption": 1}, num_classes=2)
    with pytest.raises(ValueError, match="cond image: expected shape"):
        concat_image(normal(2, 4, 4, 1), {"image": normal(2, 4, 4, 2)}, 3)
    with pytest.raises(ValueError, match=r"cond label: expected shape \(2,\), got \(2, 1\)"):
        CondVector(4, num_classes=3).init(jax.random.key(0), {"label": jnp.zeros((2, 1), int)}, 2)
    with pytest.raises(ValueError, match="noise_features: expected 'fourier' or 'positional', got 'sine'"):
        NoiseCond(4, 4, kind="sine").init(jax.random.key(0), jnp.zeros(2), {})
    with pytest.raises(ValueError, match=r"cond tokens: expected integers \[B, L\]"):
        Tokens(8, vocab=5).init(jax.random.key(0), {"tokens": normal(2, 3)}, 2)
