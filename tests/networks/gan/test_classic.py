"""The classic generators and discriminators: contract, published sizes, symmetries, one trained step."""

import functools
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.networks import linen_net
from genjax.networks.gan import (
    DISCRIMINATORS,
    GENERATORS,
    BigGANDiscriminator,
    BigGANGenerator,
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)
from genjax.networks.gan.spectral import spectral_bound

KEY = jax.random.key(0)
LATENT, BATCH, CLASSES = 4, 3, 2
SHAPE = (8, 8, 1)
# name: (generator, fields, discriminator, fields), every one with classes
PAIRS = {
    "mlp": ("mlp", {"width": 8, "norm": "batch"}, "mlp", {"width": 8, "head": "classes", "minibatch": 2}),
    "dcgan": ("dcgan", {"width": 4, "base": 2}, "dcgan", {"width": 4, "base": 2, "head": "auxiliary"}),
    "resnet": ("resnet", {"width": 4}, "resnet", {"width": 4, "multipliers": (1, 2), "head": "san", "stddev": 3}),
    "biggan": ("biggan", {"width": 2, "attention": (8,)}, "biggan", {"width": 2, "attention": (4,)}),
    "biggan_deep": ("biggan", {"width": 4, "deep": True}, "biggan", {"width": 4, "deep": True}),
}
# parts of heads that this loss, of the logits alone, does not use
UNUSED = {"['head']['classes']['bias']", "['head']['classes']['kernel']"}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is the cost here


def variables_of(net, *x):
    """(params, state) of random numbers of the right shapes, without compiling the initialization."""
    rng = np.random.default_rng(2)

    def fill(path, leaf):
        name, fan = path[-1].key, np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 1
        if name in ("var", "sigma"):
            return jnp.ones(leaf.shape)
        value = rng.normal(size=leaf.shape) / np.sqrt(fan)
        return jnp.asarray(1 + 0.1 * value if name == "scale" else value, jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(net.init, KEY, *x))


def build(pair, **fields):
    g, g_fields, d, d_fields = PAIRS[pair]
    generator = GENERATORS[g](shape=SHAPE, num_classes=CLASSES, **g_fields, **fields)
    return generator, DISCRIMINATORS[d](num_classes=CLASSES, **d_fields, **fields)


class Game:
    """A pair with its variables, compiled once for all tests."""

    def __init__(self, pair):
        self.g, self.d = (linen_net(m) for m in build(pair))
        self.z, self.cond = normal(BATCH, LATENT), {"label": jnp.array([0, 1, -1])}
        self.g_vars = variables_of(self.g, self.z, self.cond)
        self.x = normal(BATCH, *SHAPE, seed=1)
        self.d_vars = variables_of(self.d, self.x, self.cond)
        self.generate = quick(lambda z, cond: self.g.apply(*self.g_vars, z, cond)[0])
        self.judge = quick(lambda x, cond: self.d.apply(*self.d_vars, x, cond)[0])


@pytest.fixture(scope="module", params=sorted(PAIRS))
def pair(request):
    return request.param


@pytest.fixture(scope="module")
def game(pair):
    return Game(pair)


def test_contract(game):
    # Shapes, types, range and the collections of the contract.
    x, critique = game.generate(game.z, game.cond), game.judge(game.x, game.cond)
    assert x.shape == (BATCH, *SHAPE) and x.dtype == jnp.float32
    assert critique.logits.shape == (BATCH,) and critique.logits.dtype == jnp.float32
    assert critique.features.ndim == 2 and critique.features.dtype == jnp.float32
    assert set(game.g_vars[1]) | set(game.d_vars[1]) <= {"batch_stats", "spectral"}
    head = game.d_vars[0]["head"]
    width = head["direction"].shape[-1] if "direction" in head else jax.tree.leaves(head)[-1].shape[0]
    assert critique.features.shape[1] == width, "features are not what the head's last layer sees"


def test_samples_do_not_depend_on_their_batch_and_labels_count(game, pair):
    # Catches batch statistics at test time, and conditions that are dropped on the way.
    order = jnp.array([2, 0, 1])
    cond = {"label": game.cond["label"][order]}
    np.testing.assert_allclose(game.generate(game.z[order], cond), game.generate(game.z, game.cond)[order], atol=1e-5)
    other = {"label": jnp.array([1, 1, -1])}
    changed = abs(game.generate(game.z, other) - game.generate(game.z, game.cond)).max((1, 2, 3))
    assert changed[0] > 1e-6 and not changed[1:].any()
    if pair not in ("mlp", "resnet"):  # those two couple the batch in the discriminator
        expected = game.judge(game.x, game.cond).logits[order]
        np.testing.assert_allclose(game.judge(game.x[order], cond).logits, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16(pair):
    # Parameters, states, logits, features and samples stay float32; the work between is bfloat16.
    g, d = build(pair, dtype=jnp.bfloat16)
    z, x, cond = jnp.ones((BATCH, LATENT)), jnp.ones((BATCH, *SHAPE)), {"label": jnp.zeros(BATCH, int)}
    for module, data in ((g, z), (d, x)):
        run = lambda key, data, module=module: module.init_with_output(key, data, cond)
        shapes = jax.eval_shape(run, KEY, data)
        floats = [a for a in jax.tree.leaves(shapes) if jnp.issubdtype(a.dtype, jnp.floating)]
        assert floats and all(a.dtype == jnp.float32 for a in floats)
        assert "bf16" in str(jax.make_jaxpr(run)(KEY, data))


def test_steps_of_the_game_inside_a_scan(game):
    # Gradients of both players, the discriminator's state threaded from real to fake, two steps in one scan.
    def step(carry, key):
        (g, gs), (d, ds) = carry

        def d_loss(d):
            fake, _ = game.g.apply(g, gs, game.z, game.cond, train=True)
            real, state = game.d.apply(d, ds, game.x, game.cond, train=True)
            fake, state = game.d.apply(d, state, fake, game.cond, train=True)
            return jnp.mean(jax.nn.softplus(-real.logits) + jax.nn.softplus(fake.logits)), state

        def g_loss(g):
            fake, state = game.g.apply(g, gs, game.z, game.cond, train=True)
            return jnp.mean(jax.nn.softplus(-game.d.apply(d, ds, fake, game.cond, train=True)[0].logits)), state

        (dl, ds_new), d_grad = jax.value_and_grad(d_loss, has_aux=True)(d)
        (gl, gs_new), g_grad = jax.value_and_grad(g_loss, has_aux=True)(g)
        move = lambda p, grad: jax.tree.map(lambda a, b: a - 0.1 * b, p, grad)
        return ((move(g, g_grad), gs_new), (move(d, d_grad), ds_new)), (dl, gl, g_grad, d_grad)

    start = (game.g_vars, game.d_vars)
    end, (d_losses, g_losses, g_grad, d_grad) = quick(lambda s: jax.lax.scan(step, s, jnp.arange(2)))(start)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((end, d_losses, g_losses, g_grad, d_grad)))
    assert d_losses[1] != d_losses[0] and g_losses[1] != g_losses[0]
    for grads in (g_grad, d_grad):
        dead = [jax.tree_util.keystr(p) for p, a in jax.tree_util.tree_leaves_with_path(grads) if not np.any(a)]
        assert set(dead) <= UNUSED, f"parameters that the loss does not reach: {dead}"
    for player in (0, 1):
        new, old = end[player][1], start[player][1]
        for name in old:
            moved = [np.any(a != b) for a, b in zip(jax.tree.leaves(new[name]), jax.tree.leaves(old[name]))]
            assert any(moved), f"the state {name!r} stood still"


# published sizes


def count(module, x, label=False):
    cond = {"label": jnp.zeros(1, int)} if label else None
    params = jax.eval_shape(lambda key: module.init(key, x, cond), KEY)["params"]
    return sum(a.size for a in jax.tree.leaves(params))


def z(n):
    return jnp.zeros((1, n))


def image(size):
    return jnp.zeros((1, size, size, 3))


def test_dcgan_has_the_published_size():
    # 1511.06434, figure 1, at 64 with 64 channels: 4x4 kernels without bias, batch norm with scale and shift
    # after all but the last layer (generator) and all but the first and last (discriminator).
    kernels = 16 * (100 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    assert count(DCGANGenerator((64, 64, 3)), z(100)) == kernels + 2 * (512 + 256 + 128 + 64) == 3576704
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    head = {"name": "linear", "use_bias": False}
    assert count(DCGANDiscriminator(head=head), image(64)) == kernels + 2 * (128 + 256 + 512) == 2765568


def residual(i, hidden, o, skip, norms):
    """Parameters of a residual block: two 3x3 convolutions, a 1x1 shortcut, two norms."""
    return 9 * i * hidden + hidden + 9 * hidden * o + o + skip * (i * o + o) + norms * 2 * (i + hidden)


def test_sngan_and_wgan_gp_have_the_published_sizes():
    # Sums over the layers of 1802.05957, tables 4 and 5, and 1704.00028, appendix F.
    g = lambda base, widths: (
        128 * base**2 * widths[0]
        + base**2 * widths[0]
        + sum(residual(i, o, o, 1, 1) for i, o in pairwise(widths))
        + 2 * widths[-1]
        + 9 * 3 * widths[-1]
        + 3
    )
    assert count(ResNetGenerator((32, 32, 3)), z(128)) == g(4, (256,) * 4)
    assert count(ResNetGenerator((32, 32, 3), width=128), z(128)) == g(4, (128,) * 4)
    stl = ResNetGenerator((48, 48, 3), width=64, multipliers=(8, 4, 2, 1))
    assert count(stl, z(128)) == g(6, (512, 256, 128, 64))
    cifar = residual(3, 128, 128, 1, 0) + residual(128, 128, 128, 1, 0) + 2 * residual(128, 128, 128, 0, 0) + 129
    assert count(ResNetDiscriminator(), image(32)) == cifar
    assert count(ResNetDiscriminator(spectral=0, pool="mean"), image(32)) == cifar
    wide = (64, 128, 256, 512, 1024)
    stl = residual(3, 64, 64, 1, 0) + sum(residual(i, i, o, 1, 0) for i, o in pairwise(wide)) + 1025
    assert count(ResNetDiscriminator(width=64, multipliers=(1, 2, 4, 8, 16), downs=4), image(48)) == stl


def test_biggan_has_the_published_size():
    # 1809.11096, table 1 (158.3 million for both, 96 channels, shared embedding, skipped z). The exact numbers
    # are those that the tests of google/compare_gan hold for its BigGAN and BigGAN-deep at 128x128, 1000 classes.
    g, d = BigGANGenerator((128, 128, 3), num_classes=1000), BigGANDiscriminator(num_classes=1000)
    assert count(g, z(120), True) == 70433988
    assert count(d, image(128), True) == 87982370
    fields = {"width": 128, "deep": True, "num_classes": 1000}
    assert count(BigGANGenerator((128, 128, 3), **fields), z(128), True) == 50244484
    assert count(BigGANDiscriminator(**fields), image(128), True) == 34590210


# forms and symmetries


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_residual_discriminator_does_not_feel_shifts(pool):
    # Zero biases at birth and zeros around a small figure: a shift by a whole stride changes nothing.
    # Catches off-centre padding, and a position that reaches the head.
    module = ResNetDiscriminator(width=4, multipliers=(1, 1), downs=2, spectral=0, pool=pool)
    figure = normal(1, 2, 2, 1)
    at = lambda i, j: jnp.zeros((1, 32, 32, 1)).at[:, i : i + 2, j : j + 2].set(figure)
    variables = quick(module.init)(KEY, at(12, 12))
    run = quick(lambda x: module.apply(variables, x).logits)
    np.testing.assert_allclose(run(at(16, 8)), run(at(12, 12)), rtol=1e-4)
    assert abs(run(at(13, 12)) - run(at(12, 12))) > 1e-6, "the figure is not seen at all"


def test_generator_sizes_and_rows_of_the_virtual_reference():
    for module, size in (
        (DCGANGenerator((16, 16, 2), width=4, norm="virtual", reference=5, num_classes=3), (16, 16, 2)),
        (ResNetGenerator((12, 12, 1), width=4, norm="virtual", reference=5, num_classes=3), (12, 12, 1)),
        (ResNetGenerator((8, 8, 3), width=4, condition="input", embedding_dim=1), (8, 8, 3)),
        (BigGANGenerator((32, 32, 3), width=2), (32, 32, 3)),
    ):
        out = jax.eval_shape(lambda key, module=module: module.init_with_output(key, jnp.ones((2, 7)))[0], KEY)
        assert out.shape == (2, *size)


def test_remat_changes_nothing():
    fields = {"shape": SHAPE, "width": 4, "norm": "batch"}
    plain, remat = ResNetGenerator(**fields), ResNetGenerator(**fields, remat=True)
    x = normal(2, 3)
    params, state = variables_of(linen_net(plain), x)

    def value(module):
        def loss(params):
            out, new = module.apply({**state, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(out**2), new

        return quick(jax.grad(loss, has_aux=True))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), value(plain), value(remat))


def test_scalar_condition_of_the_mlp_pair():
    # A temperature as cond "embedding" [B, 1]: zeros are null, in both players.
    g, d = MLPGenerator((2,), width=8, embedding_dim=1), MLPDiscriminator(width=8, embedding_dim=1)
    points = normal(3, 2)
    for module in (g, d):
        variables = quick(module.init)(KEY, points)
        run = lambda t, module=module, variables=variables: jax.tree.leaves(
            module.apply(variables, points, None if t is None else {"embedding": jnp.full((3, 1), t)})
        )[0]
        np.testing.assert_array_equal(run(0.0), run(None))
        assert np.all(abs(run(1.0) - run(0.0)) > 1e-6)


def test_noise_of_the_discriminator_is_for_training_alone():
    module = MLPDiscriminator(width=8, depth=1, input_noise=0.3, hidden_noise=0.2)
    x = normal(3, 2)
    variables = quick(module.init)(KEY, x)
    run = lambda **kw: module.apply(variables, x, **kw).logits
    np.testing.assert_array_equal(run(), run())
    a, b = (run(train=True, rngs={"noise": jax.random.key(i)}) for i in (1, 2))
    assert np.all(abs(a - b) > 1e-6) and np.all(abs(a - run()) > 1e-6)


def test_spectral_bound_multiplies_the_stored_norms():
    net = linen_net(MLPDiscriminator(width=4, depth=1, spectral=1))
    _, state = net.init(KEY, normal(2, 3))
    sigmas = [float(v["sigma"] if "sigma" in v else v["score"]["sigma"]) for v in state["spectral"].values()]
    np.testing.assert_allclose(spectral_bound(state), np.prod(sigmas))


def test_errors():
    x = jnp.ones((1, 8, 8, 1))
    label = {"label": jnp.zeros(1, int)}
    for module, data, cond, message in (
        (MLPGenerator(), z(2), None, "shape: expected the shape of a sample"),
        (MLPGenerator((2,), output="sigmoid"), z(2), None, "output: expected 'linear' or 'tanh'"),
        (MLPGenerator((2,), activation="relus"), z(2), None, "activation: unknown name 'relus'; did you mean 'relu'"),
        (MLPGenerator((2,)), z(2), label, "set num_classes above 0"),
        (MLPGenerator((2,), num_classes=2), z(2), {"label": jnp.zeros(3, int)}, "cond label: expected shape"),
        (MLPDiscriminator(norm="virtual"), x, None, "norm: expected one without a reference batch"),
        (DCGANGenerator((24, 24, 1)), z(2), None, "shape: expected a size of 4 times a power of two"),
        (DCGANGenerator((8, 16, 1)), z(2), None, "shape: expected a square image"),
        (DCGANDiscriminator(base=3), x, None, "a size of 3 times a power of two"),
        (ResNetGenerator((8, 8, 1), multipliers=(1, 2, 3)), z(2), None, "multipliers: expected 2 for this size, got 3"),
        (ResNetGenerator((8, 8, 1), norm="none", num_classes=2), z(2), None, "condition: expected 'input'"),
        (ResNetDiscriminator(downs=5), x, None, "downs: expected at most 4"),
        (ResNetDiscriminator(head="san"), x, label, "set num_classes above 0"),
        (ResNetDiscriminator(pool="max"), x, None, "pool: unknown name 'max'"),
        (BigGANGenerator((16, 16, 1)), z(2), None, "z: expected at least 3 numbers"),
        (
            BigGANGenerator((16, 16, 1), deep=True, width=1, multipliers=(1, 2, 2)),
            z(2),
            None,
            "widths that do not grow",
        ),
        (BigGANDiscriminator(), x, None, "head: expected num_classes of at least 1 for 'projection'"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(lambda key, module=module, data=data, cond=cond: module.init(key, data, cond), KEY)
