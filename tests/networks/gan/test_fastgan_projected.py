"""FastGAN and projected discriminators: gates, quarters, what must stay frozen, what training needs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from genjax.networks import CNNClassifier, linen_net
from genjax.networks.gan.fastgan import (
    AEDiscriminator,
    FastGANGenerator,
    SkipLayerExcitation,
    glu,
    quadrants,
    reconstruction_error,
)
from genjax.networks.gan.projected import ProjectedDiscriminator, RandomProjector, classifier_maps

KEY = jax.random.key(1, impl="rbg")  # initializers compile faster with it than with the default


def sizes(module, *args):
    """Shapes of the variables, and of the output."""
    variables = jax.eval_shape(lambda: module.init(KEY, *args))
    return variables, jax.eval_shape(lambda v: module.apply(v, *args), variables)


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_gates_by_hand():
    # Catches a gate that differs by place, is not bounded by (0, 1) or ignores the low map, and a GLU that takes
    # its halves the wrong way round.
    low, high = jax.random.normal(jax.random.key(0), (3, 8, 8, 2)), jax.random.normal(jax.random.key(1), (3, 16, 16, 4))
    layer = SkipLayerExcitation(spectral=0)
    params = jax.tree.map(lambda v: 30 * v, layer.init(KEY, low, high))
    gate = np.asarray(layer.apply(params, low, high) / high)
    np.testing.assert_allclose(gate, np.broadcast_to(gate[:, :1, :1], gate.shape), rtol=1e-4)
    assert 0 < gate.min() < gate.max() < 1 and gate[:, 0, 0].std(0).min() > 0.02
    pooled = low.reshape(3, 4, 2, 4, 2, 2).mean((2, 4)).repeat(2, 1).repeat(2, 2)  # only its 4x4 means count
    np.testing.assert_allclose(layer.apply(params, pooled, high), layer.apply(params, low, high), rtol=1e-4)
    np.testing.assert_allclose(glu(jnp.asarray([[3.0, 0.0]])), [[1.5]])


def test_quarters_by_hand():
    # Catches quarters counted the wrong way: rows first.
    x = jnp.arange(16.0).reshape(1, 4, 4, 1).repeat(4, axis=0)
    cut = quadrants(x, jnp.arange(4))[..., 0]
    np.testing.assert_array_equal(cut[:, 0, 0], [0, 2, 8, 10])
    np.testing.assert_array_equal(cut[2], [[8, 9], [12, 13]])


def test_published_sizes():
    # Catches a wrong width, pair or branch. By hand from the published tables at 256, base width 64: the
    # generator's excitations join 4-64, 8-128 and 16-256, its widths are 1024 512 256 128 128 64 32; the
    # discriminator's widths are 16 32 64 128 256 512 from 256 down to 8.
    variables, out = sizes(FastGANGenerator((256, 256, 3)), jnp.zeros((1, 256)))
    assert out.shape == (1, 256, 256, 3)
    w = (1024, 512, 256, 128, 128, 64, 32)
    first = 16 * 256 * 2 * w[0] + 4 * w[0]
    blocks = 0
    for i in range(1, 7):
        blocks += 9 * w[i - 1] * 2 * w[i] + 4 * w[i]
        if i % 2:  # a second layer, and a factor of the noise in each
            blocks += 9 * w[i] * 2 * w[i] + 4 * w[i] + 2
    gates = sum(16 * w[i] * w[i + 4] + w[i + 4] ** 2 for i in range(3))
    assert count(variables) == first + blocks + gates + 9 * w[6] * 3

    kernels = [k for k, v in jax.tree_util.tree_leaves_with_path(variables["params"]) if v.ndim == 4]
    assert len(jax.tree.leaves(variables["spectral"])) == 2 * len(kernels)  # u and sigma of every kernel

    variables, critique = sizes(AEDiscriminator(), jnp.zeros((1, 256, 256, 3)))
    assert critique.logits.shape == (1, 2 * 5 * 5)
    c = (16, 32, 64, 128, 256, 512)
    main = 27 * c[0]
    for a, b in itertools.pairwise(c):
        main += 16 * a * b + 9 * b * b + a * b + 3 * 2 * b
    main += sum(16 * c[i] * c[i + 3] + c[i + 3] ** 2 for i in range(3))
    main += 512 * 1024 + 2 * 1024 + 16 * 1024
    light = 16 * 3 * 32 + sum(16 * a * b + 2 * b for a, b in ((32, 64), (64, 128), (128, 256))) + 16 * 256
    decoder = lambda n: sum(9 * a * 2 * b + 4 * b for a, b in ((n, 128), (128, 64), (64, 64), (64, 32))) + 9 * 32 * 3
    assert count(variables) == main + light + decoder(512) + 2 * decoder(256)


@pytest.mark.parametrize("size", [16, 28, 32, 1024])
def test_any_size(size):
    # Catches sizes for which the branches, decoders and targets do not meet.
    _, out = sizes(FastGANGenerator((size, size, 1), width=8), jnp.zeros((2, 5)))
    assert out.shape == (2, size, size, 1)
    _, critique = sizes(AEDiscriminator(width=8, decoder=4), jnp.zeros((2, size, size, 1)))
    rebuilt, targets = critique.extra["reconstructions"], critique.extra["targets"]
    assert {k: v.shape for k, v in rebuilt.items()} == {k: v.shape for k, v in targets.items()}
    assert set(rebuilt) == {"full", "part", "light"} and max(v.shape[1] for v in rebuilt.values()) <= 128


def test_fastgan_game_inside_a_scan():
    # Catches gradients that are not finite or miss a parameter, statistics that do not move, reconstruction
    # targets other than what the discriminator saw, and an error that cannot be learned.
    g, d = (
        linen_net(m.clone(spectral=0))
        for m in (FastGANGenerator((16, 16, 1), width=4), AEDiscriminator(width=2, decoder=8))
    )
    z, x = jax.random.normal(jax.random.key(0), (4, 5)), jax.random.normal(jax.random.key(1), (4, 16, 16, 1))

    @jax.jit
    def run():
        (g_params, g_state), (d_params, d_state) = g.init(KEY, z), d.init(KEY, x)
        rngs = lambda key: {"noise": key}

        def loss(params, state, key):
            fake, g_new = g.apply(params["g"], state["g"], z, train=True, rngs=rngs(key))
            both = jnp.concatenate([x, fake])  # in one call only to compile less: batch norm wants two
            out, d_new = d.apply(params["d"], state["d"], both, train=True, rngs=rngs(key))
            game = jax.nn.softplus(-out.logits[:4]).mean() + jax.nn.softplus(out.logits[4:]).mean()
            error = reconstruction_error(out)[:4].mean()
            return game + error, ({"g": g_new, "d": d_new}, error)

        def step(carry, key):
            params, state, _ = carry
            grads, (state, error) = jax.grad(loss, has_aux=True)(params, state, key)
            return (jax.tree.map(lambda p, v: p - 0.05 * v, params, grads), state, grads), error

        params, state = {"g": g_params, "d": d_params}, {"g": g_state, "d": d_state}
        end, errors = lax.scan(step, (params, state, params), jax.random.split(jax.random.key(2), 12))
        critique = d.apply(d_params, d_state, x)[0]
        return end, errors, critique, state

    (_, state, grads), errors, critique, first = run()
    assert all(np.isfinite(v).all() for v in jax.tree.leaves((state, grads)))
    dead = {jax.tree_util.keystr(k) for k, v in jax.tree_util.tree_leaves_with_path(grads) if not v.any()}
    assert not dead
    assert errors[-1] < errors[0]
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state, first)
    assert all(jax.tree.leaves(moved["g"]["batch_stats"])) and all(jax.tree.leaves(moved["d"]["batch_stats"]))
    np.testing.assert_array_equal(critique.extra["targets"]["full"], x)
    np.testing.assert_array_equal(critique.extra["targets"]["part"], quadrants(x, jnp.arange(4)))
    assert critique.features.shape == (4, 16)


@pytest.fixture(scope="module")
def projected():
    """A projected discriminator on a small classifier, its net, images and variables."""
    classifier = CNNClassifier(channels=4, multipliers=(1, 2))
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 1))
    trained = jax.jit(lambda: {"params": classifier.init(KEY, x)["params"]})()
    module = ProjectedDiscriminator(
        classifier_maps(classifier), lambda: trained, width=4, channels=64, num_classes=3, mixing_size=3
    )
    return module, linen_net(module), x, trained


def test_projection_stays_frozen(projected):
    # Catches features or mixing that are trained, lost gradients to the image, a state that changes its
    # structure, labels that are not read, and judges without state.
    _, net, x, trained = projected
    cond = {"label": jnp.asarray([0, 1, 2, -1])}

    @jax.jit
    def run(x):
        params, state = net.init(KEY, x, cond)

        def step(carry, _):
            params, state = carry
            loss = lambda p, v: (lambda out: (out[0].logits.mean(), out[1]))(net.apply(p, state, v, cond, train=True))
            (grads, slope), new = jax.grad(loss, (0, 1), has_aux=True)(params, x)
            return (jax.tree.map(lambda p, q: p - 0.1 * q, params, grads), new), (grads, slope)

        (params, new), (grads, slope) = lax.scan(step, (params, state), None, length=2)
        labels = jnp.concatenate([cond["label"], jnp.asarray([1, 2, 0, 0])])
        critique = net.apply(params, new, jnp.concatenate([x, x]), {"label": labels})[0]
        return state, new, grads, slope, critique

    state, new, grads, slope, critique = run(x)
    for name in ("backbone", "projector"):
        jax.tree.map(np.testing.assert_array_equal, state[name], new[name])
    jax.tree.map(np.testing.assert_array_equal, new["backbone"]["variables"], trained)
    assert any((a != b).any() for a, b in zip(*(jax.tree.leaves(s["spectral"]) for s in (state, new))))
    assert all(np.isfinite(v).all() for v in jax.tree.leaves((grads, slope)))
    assert np.abs(slope).max(axis=(0, 2, 3, 4)).min() > 0 and all(v.any() for v in jax.tree.leaves(grads))
    assert critique.logits.shape == (8, 2 * 5 * 5)
    assert np.abs(critique.logits[:4] - critique.logits[4:]).min() > 0


def test_mixing_by_hand():
    # Catches a pyramid mixed in the wrong direction: after "scales" the finest map depends on all maps, the
    # coarsest on itself alone; sizes double, widths are those published, kernels have the stated law.
    maps = [jax.random.normal(jax.random.key(i), (1, 16 // 2**i, 16 // 2**i, 6)) for i in range(4)]
    mixer = RandomProjector(width=8)
    variables = jax.jit(mixer.init)(KEY, maps)
    assert set(variables) == {"projector"}
    apply = jax.jit(mixer.apply)
    out = apply(variables, maps)
    assert [v.shape[1:] for v in out] == [(32, 32, 8), (16, 16, 8), (8, 8, 16), (4, 4, 32)]
    reads = np.zeros((4, 4), bool)
    for j in range(4):
        changed = apply(variables, [v + (i == j) for i, v in enumerate(maps)])
        reads[:, j] = [bool(np.abs(a - b).max() > 1e-4) for a, b in zip(changed, out)]
    np.testing.assert_array_equal(reads, np.triu(np.ones((4, 4), bool)))
    by_channel = mixer.clone(mixing="channels")
    assert [v.shape[-1] for v in sizes(by_channel, maps)[1]] == [8, 16, 32, 64]
    kernel = variables["projector"]["ccm3"]["kernel"]
    assert abs(float(jnp.abs(kernel).max()) - 6**-0.5) < 0.02 and abs(float(kernel.std()) - (1 / 18) ** 0.5) < 0.02


def test_bad_input(projected):
    _, _, x, _ = projected
    with pytest.raises(ValueError, match=r"shape: expected a size of 16 to 1024, got 8"):
        sizes(FastGANGenerator((8, 8, 1)), jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"x: expected images of an even size, at least 16, got 17"):
        sizes(AEDiscriminator(), jnp.zeros((1, 17, 17, 1)))
    with pytest.raises(ValueError, match=r"backbone: expected a function from images to a list of maps, got None"):
        sizes(ProjectedDiscriminator(), x)
    with pytest.raises(ValueError, match=r"scales: expected 0 to 1, the number of maps, got 3"):
        sizes(ProjectedDiscriminator(lambda x: [x], scales=3), x)
    with pytest.raises(ValueError, match=r"mixing: expected one of \['none', 'channels', 'scales'\], got 'all'"):
        sizes(ProjectedDiscriminator(lambda x: [x], mixing="all"), x)
    with pytest.raises(ValueError, match=r"maps: expected sizes halved from map to map"):
        sizes(ProjectedDiscriminator(lambda x: [x, x]), x)
