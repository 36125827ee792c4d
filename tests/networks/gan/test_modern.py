"""R3GAN, StyleGAN2 and progressive growing: exact pieces, published sizes, what training needs of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from genjax.networks import linen_net
from genjax.networks.gan.equalized import EqualConv, EqualDense, pixel_norm
from genjax.networks.gan.grouped import grouped_conv
from genjax.networks.gan.progressive import (
    ProgressiveDiscriminator,
    ProgressiveGenerator,
    faded,
    progressive_schedule,
)
from genjax.networks.gan.r3gan import R3GAN_PRESETS, R3Discriminator, R3Generator, ResNeXtBlock
from genjax.networks.gan.stylegan2 import (
    STYLEGAN2_PRESETS,
    Mapping,
    StyleGAN2Generator,
    StyleLayer,
    modulated_conv,
)
from genjax.networks.gan.stylegan2_discriminator import StyleGAN2Discriminator

KEY = jax.random.key(1, impl="rbg")  # initializers compile faster with it than with the default
LABELS = {"label": jnp.asarray([0, 1, 2, -1])}

# name: (generator, discriminator) for 8x8 images, small
PAIRS = {
    "r3gan": (
        R3Generator((8, 8, 2), widths=(16, 8), groups=(4,), blocks=1, num_classes=3, label_dim=4),
        R3Discriminator(widths=(16, 8), groups=(4,), blocks=1, num_classes=3),
    ),
    "stylegan2": (
        StyleGAN2Generator((8, 8, 2), style=8, layers=2, width=8, num_classes=3),
        StyleGAN2Discriminator(width=8, group=2, layers=2, num_classes=3),
    ),
    "progressive": (
        ProgressiveGenerator((8, 8, 2), width=8, num_classes=3),
        ProgressiveDiscriminator((8, 8, 2), width=8, group=2, num_classes=3, head="projection"),
    ),
}


def count(module, *args, **kwargs):
    """Number of parameters, from shapes alone."""
    variables = jax.eval_shape(lambda: module.init(KEY, *args, **kwargs))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.fixture(scope="module", params=sorted(PAIRS))
def pair(request):
    """(name, generator, discriminator, their variables, latents [4, 6])."""
    generator, discriminator = PAIRS[request.param]
    z, x = jax.random.normal(jax.random.key(0), (4, 6)), jnp.zeros((4, 8, 8, 2))
    variables = jax.jit(lambda: (generator.init(KEY, z, LABELS), discriminator.init(KEY, x, LABELS)))()
    return request.param, generator, discriminator, variables, z


def test_a_game_inside_a_scan(pair):
    # Catches gradients of a gradient penalty that are not finite or do not reach some parameter, and state that
    # changes its structure from step to step.
    name, generator, discriminator, variables, z = pair
    g, d = linen_net(generator), linen_net(discriminator)
    params = dict(zip("gd", (v["params"] for v in variables)))
    g_state, d_state = ({k: v for k, v in tree.items() if k != "params"} for tree in variables)
    # away from the points where layers start at zero, so that every parameter has a gradient
    params = jax.tree.map(lambda v: v + 0.1 * np.sin(np.arange(v.size) + 1.0).reshape(v.shape), params)

    def loss(params, g_state, key):
        fake, new = g.apply(params["g"], g_state, z, LABELS, train=True, rngs={"noise": key})
        logits = lambda v: d.apply(params["d"], d_state, v, LABELS, train=True)[0].logits
        slope = jax.grad(lambda v: jnp.sum(logits(v)))(fake)
        return jnp.mean(jax.nn.softplus(logits(fake))) + jnp.mean(jnp.sum(slope**2, (1, 2, 3))), new

    def step(carry, key):
        params, g_state, _ = carry
        grads, new = jax.grad(loss, has_aux=True)(params, g_state, key)
        return (jax.tree.map(lambda p, q: p - 1e-3 * q, params, grads), new, grads), None

    run = jax.jit(lambda carry, keys: lax.scan(step, carry, keys)[0])
    _, state, grads = run((params, g_state, params), jax.random.split(jax.random.key(2), 2))
    assert all(np.isfinite(v).all() for v in jax.tree.leaves((state, grads)))
    dead = {jax.tree_util.keystr(k[1:]) for k, v in jax.tree_util.tree_leaves_with_path(grads) if not v.any()}
    faded_out = {"['rgb0']['bias']", "['rgb0']['kernel']"}  # the resolution below the last one
    assert dead == (faded_out if name == "progressive" else set())


def test_shapes_half_precision_and_conditions(pair):
    # Catches wrong shapes, a layer that ignores dtype or overflows in it (half precision must agree with single
    # precision to its own accuracy), labels that are not read, and no condition that is not the null label.
    _, generator, discriminator, (g, d), z = pair
    labels = jnp.asarray([0, 1, 2, -1, 1, 2, 0, 0])

    @jax.jit
    def run():
        z2, cond = jnp.concatenate([z, z]), {"label": labels}
        x = generator.apply(g, z2, cond)
        half_x = generator.clone(dtype=jnp.bfloat16).apply(g, z2, cond)
        images = jnp.concatenate([x[:4], x[:4]])
        critique = discriminator.apply(d, images, cond)
        return x, half_x, critique, discriminator.clone(dtype=jnp.bfloat16).apply(d, images, cond).logits

    x, half_x, critique, half = run()
    assert x.shape == (8, 8, 8, 2) and x.dtype == half_x.dtype == jnp.float32
    assert critique.logits.shape == (8,) and critique.logits.dtype == half.dtype == jnp.float32
    assert critique.features.shape[0] == 8 and critique.features.ndim == 2 and critique.features.dtype == jnp.float32
    np.testing.assert_allclose(half_x, x, atol=0.1 * float(x.std()))
    np.testing.assert_allclose(half, critique.logits, atol=0.1 * float(jnp.abs(critique.logits).max()))
    assert np.abs(x[:4] - x[4:]).max(axis=(1, 2, 3)).min() > 1e-3
    assert np.abs(critique.logits[:4] - critique.logits[4:]).min() > 1e-5
    np.testing.assert_allclose(jax.jit(generator.apply)(g, z)[3], x[3], atol=1e-5)


def test_grouped_convolution_is_xlas(x64):
    # Catches groups mixed up or outputs in another order, in value and in every gradient up to the second.
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 6))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 12))

    def native(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, feature_group_count=3)

    def everything(f):
        slope = lambda x, k: jax.grad(lambda x: jnp.sum(jnp.sin(f(x, k))))(x)
        return f(x, kernel), jax.grad(lambda x, k: jnp.sum(slope(x, k) ** 2), (0, 1))(x, kernel)

    ours, theirs = jax.jit(lambda: (everything(lambda x, k: grouped_conv(x, k, 3)), everything(native)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), ours, theirs)
    with pytest.raises(ValueError, match=r"groups: expected a divisor of 6 and 12 channels, got 4"):
        grouped_conv(x, kernel, 4)
    with pytest.raises(ValueError, match=r"kernel: expected 1 input channels a group, got 2"):
        grouped_conv(x, kernel, 6)


def test_r3gan_starts_as_the_identity():
    # Catches a last layer that is not zero, a wrong gain or fan-in: at init each block is the identity, and
    # with a random last layer of the same rule L blocks keep the scale (Fixup; the specification's check E).
    x = jax.random.normal(jax.random.key(0), (8, 4, 4, 32))
    block = ResNeXtBlock(groups=4, depth=8)
    params = block.init(KEY, x)
    np.testing.assert_array_equal(block.apply(params, x), x)
    kernel = params["params"]["kernel"]
    expected = np.sqrt(2 / 1.04) * 8**-0.25 / np.sqrt(9 * 16)
    np.testing.assert_allclose(kernel.std(), expected, rtol=0.03)
    assert kernel.shape == (3, 3, 16, 64)

    def layer(x, key):
        p = block.init(key, x)["params"]
        project = p["expand"]["kernel"].swapaxes(-1, -2) / np.sqrt(2)  # by the rule too: the fan-in is 64
        return block.apply({"params": p | {"project": {"kernel": project}}}, x), None

    deep = jax.jit(lambda x: lax.scan(layer, x, jax.random.split(jax.random.key(0), 8))[0])(x)
    assert 1 <= float(deep.std()) < 2.5


def test_r3gan_sizes():
    # Parameters of the released presets, in millions. FFHQ-256: 23.058 and 23.010, the paper's configuration E;
    # the others by hand: a block of width c and g groups has 4 c^2 + 36 c^2 / g + 4 c.
    z, y = jnp.zeros((1, 64)), {"label": jnp.zeros(1, int)}

    def sizes(name, size, classes):
        preset, x = R3GAN_PRESETS[name], jnp.zeros((1, size, size, 3))
        cond = y if classes else None
        g = count(R3Generator((size, size, 3), num_classes=classes, **preset), z, cond)
        return g, count(R3Discriminator(num_classes=classes, **preset), x, cond)

    def by_hand(widths, groups, classes):
        blocks = sum(2 * (4 * c * c + 36 * c * c // g + 4 * c) for c, g in zip(widths, groups))
        changes = sum(a * b for a, b in itertools.pairwise(widths) if a != b)
        first, last, embedding = widths[0], widths[-1], 64 if classes else 0
        g = blocks + changes + 16 * first + (64 + embedding) * first + embedding * classes + 3 * last
        dim = first if classes else 0
        return g, blocks + changes + 16 * first + (first * dim + dim * classes if classes else first) + 3 * last

    g, d = sizes("ffhq256", 256, 0)
    assert (round(g / 1e6, 3), round(d / 1e6, 3)) == (23.058, 23.010)
    for name, size, classes in (
        ("cifar10", 32, 10),
        ("ffhq64", 64, 0),
        ("imagenet32", 32, 1000),
        ("imagenet64", 64, 1000),
    ):
        assert sizes(name, size, classes) == by_hand(*R3GAN_PRESETS[name].values(), classes), name


def test_stylegan2_sizes():
    # The totals that the published code prints for configuration F at 1024 (30,370,060 and 29,012,513) and for
    # half its channels at 256 ("paper256": 24,767,458 and 24,001,089).
    z = jnp.zeros((4, 512))
    for name, size, published in (
        ("config_f", 1024, (30_370_060, 29_012_513)),
        ("config_e", 256, (24_767_458, 24_001_089)),
    ):
        preset, x = STYLEGAN2_PRESETS[name], jnp.zeros((4, size, size, 3))
        found = count(StyleGAN2Generator((size, size, 3), **preset), z), count(StyleGAN2Discriminator(**preset), x)
        assert found == published


def test_progressive_sizes():
    # Table 2 of 1710.10196: 23.1 million in each network at 1024 (there without the smaller toRGB layers).
    z, x = jnp.zeros((4, 512)), jnp.zeros((4, 1024, 1024, 3))
    assert round(count(ProgressiveGenerator((1024, 1024, 3)), z) / 1e6, 1) == 23.1
    assert round(count(ProgressiveDiscriminator((1024, 1024, 3)), x) / 1e6, 1) == 23.1


def test_modulated_convolution_is_a_kernel_a_sample(x64):
    # Catches a wrong demodulation, or one that forgets a factor: exactly the published form with a kernel of
    # its own for each sample, in value and gradients.
    x, kernel, styles = (
        jax.random.normal(jax.random.key(i), s) for i, s in enumerate(((3, 6, 5, 4), (3, 3, 4, 7), (3, 4)))
    )

    def reference(x, kernel, styles, demodulate):
        w = kernel[None] * styles[:, None, None, :, None]
        if demodulate:
            w = w * lax.rsqrt(jnp.sum(w**2, axis=(1, 2, 3), keepdims=True) + 1e-8)
        layout = ("NHWC", "HWIO", "NHWC")
        one = lambda x, w: lax.conv_general_dilated(x[None], w, (1, 1), "SAME", dimension_numbers=layout)[0]
        return jnp.stack([one(x[i], w[i]) for i in range(3)])

    def everything(f):
        values = [f(x, kernel, styles, demodulate) for demodulate in (True, False)]
        return values, jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a, True))), (0, 1, 2))(x, kernel, styles)

    ours, theirs = jax.jit(lambda: (everything(modulated_conv), everything(reference)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), ours, theirs)


def test_demodulation_gives_unit_variance():
    # Catches a statistic over the wrong axes: for unit inputs outputs have unit variance, whatever the styles.
    x = jax.random.normal(jax.random.key(0), (4, 40, 40, 8))
    kernel = 5 * jax.random.normal(jax.random.key(1), (3, 3, 8, 6))
    styles = jnp.exp(2 * jax.random.normal(jax.random.key(2), (4, 8)))
    y = modulated_conv(x, kernel, styles)[:, 1:-1, 1:-1]
    np.testing.assert_allclose(y.std((1, 2)), np.ones((4, 6)), atol=0.12)


def test_equalized_learning_rate():
    # Catches a scale at init instead of run time: stored values have unit variance, or 1 / multiplier, outputs
    # the variance gain^2; with `plain` the outputs are the same in law but the stored values carry the scale.
    x = jax.random.normal(jax.random.key(0), (2000, 50))
    for layer, stored, out in (
        (EqualDense(60, gain=2.0, bias=None), 1, 2),
        (EqualDense(60, multiplier=0.01, bias=None), 100, 1),
        (EqualDense(60, gain=2.0, bias=None, plain=True), 2 / np.sqrt(50), 2),
    ):
        params = layer.init(KEY, x)
        np.testing.assert_allclose(params["params"]["kernel"].std(), stored, rtol=0.05)
        np.testing.assert_allclose(layer.apply(params, x).std(), out, rtol=0.05)
    image = jax.random.normal(jax.random.key(0), (20, 12, 12, 16))
    conv = EqualConv(32, gain=np.sqrt(2), use_bias=False)
    params = conv.init(KEY, image)
    np.testing.assert_allclose(params["params"]["kernel"].std(), 1, rtol=0.05)
    np.testing.assert_allclose(conv.apply(params, image)[:, 1:-1, 1:-1].std(), np.sqrt(2), rtol=0.05)
    bias = EqualDense(3, bias=1.0, multiplier=0.1)
    np.testing.assert_allclose(bias.apply(bias.init(KEY, x), 0 * x), 1, atol=1e-6)
    y = pixel_norm(3 * image)
    np.testing.assert_allclose((y**2).mean(-1), 1, atol=1e-4)


def test_stylegan2_noise_mixing_and_truncation():
    # Catches noise that is shared by the batch or drawn at sampling time, mixing at the wrong end of the layers
    # or in the running mean, and a truncation that does not end in the mean style.
    g = StyleGAN2Generator((8, 8, 1), style=6, layers=1, width=4, mixing=1.0, decay=0.5)
    z = jax.random.normal(jax.random.key(0), (64, 5))
    rngs = {"noise": jax.random.key(3)}

    @jax.jit
    def run():
        variables = g.init(KEY, z[:2])
        mapping = Mapping(6, 1)
        w = mapping.apply({"params": variables["params"]["mapping"]}, z)
        train, new = g.apply(variables, z, None, True, method="styles", rngs=rngs, mutable=["w_avg"])
        both = {"params": variables["params"], **new}
        plain = g.apply(both, z, method="styles")
        drawn = g.apply(both, z, None, False, 0.3, 2, method="styles")
        collapsed = g.apply(both, z, psi=0.0)
        twice = [g.apply(variables, z) for _ in range(2)]
        return w, train, new["w_avg"]["w"], plain, drawn, collapsed, twice

    w, train, mean, plain, drawn, collapsed, twice = jax.tree.map(np.asarray, run())
    np.testing.assert_allclose(mean, 0.5 * w.mean(0), atol=1e-5)
    np.testing.assert_allclose(plain, np.broadcast_to(w[:, None], (64, 4, 6)), atol=1e-5)
    own = (np.abs(train - w[:, None]).max(-1) < 1e-6).astype(int)
    assert (own[:, 0] == 1).all() and (own[:, -1] == 0).all() and (np.diff(own, axis=1) <= 0).all()
    assert set(own.sum(1)) == {1, 2, 3}
    np.testing.assert_allclose(drawn[:, :2], mean + 0.3 * (plain[:, :2] - mean), atol=1e-5)
    np.testing.assert_allclose(drawn[:, 2:], plain[:, 2:], atol=1e-6)
    np.testing.assert_allclose(collapsed, np.broadcast_to(collapsed[:1], collapsed.shape), atol=1e-5)
    np.testing.assert_array_equal(*twice)

    layer, x, w = StyleLayer(3, 0), jnp.ones((2, 8, 8, 4)), jnp.ones((2, 6))
    params = layer.init(KEY, x, w)
    loud = {"params": params["params"] | {"noise_strength": jnp.asarray(1.0)}}
    noisy = [layer.apply(loud, x, w, rngs={"noise": jax.random.key(i)}) for i in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert np.abs(noisy[0] - noisy[2]).max() > 0.1 and np.abs(noisy[0][0] - noisy[0][1]).max() > 0.1
    constant = layer.clone(noise="constant").apply(loud, x, w, rngs=rngs)
    np.testing.assert_allclose(constant[0], constant[1], atol=1e-6)
    np.testing.assert_array_equal(constant, layer.apply(loud, x, w))  # without a stream, outside training
    silent = layer.clone(noise="none").apply(params, x, w)
    np.testing.assert_allclose(silent, layer.apply(params, x, w, rngs=rngs), atol=1e-6)  # strength starts at 0


def test_progressive_fades():
    # Catches a jump where a resolution enters: at alpha = 0 the generator shows the previous stage's image
    # doubled and the discriminator says what it said of the halved one (1e-5), and at alpha = 1 the old way
    # has no gradient at all. Catches parameters that depend on the stage.
    g = ProgressiveGenerator((16, 16, 2), widths=(8, 6, 4))
    d = ProgressiveDiscriminator((16, 16, 2), widths=(8, 6, 4), group=2)
    z, x = jax.random.normal(jax.random.key(0), (4, 5)), jax.random.normal(jax.random.key(1), (4, 16, 16, 2))
    halved = x.reshape(4, 8, 2, 8, 2, 2).mean((2, 4))

    @jax.jit
    def run():
        gp, dp = g.init(KEY, z), d.init(KEY, x)
        images = g.apply(gp, z, alpha=0.0), g.clone(stage=1).apply(gp, z)
        logits = d.apply(dp, x, alpha=0.0).logits, d.clone(stage=1).apply(dp, halved).logits
        g_slope = lambda a: jax.grad(lambda p: jnp.sum(g.apply(p, z, alpha=a) ** 2))(gp)["params"]["rgb1"]
        d_slope = lambda a: jax.grad(lambda p: jnp.sum(d.apply(p, x, alpha=a).logits))(dp)["params"]["rgb1"]
        slopes = [jax.vmap(slope)(jnp.asarray([1.0, 0.5]))["kernel"] for slope in (g_slope, d_slope)]
        return images, logits, slopes

    (new, old), logits, slopes = run()
    np.testing.assert_allclose(new, np.repeat(np.repeat(old, 2, 1), 2, 2), atol=1e-5)
    np.testing.assert_allclose(*logits, atol=1e-5)
    for end, half in slopes:
        assert np.abs(end).max() == 0 and np.abs(half).max() > 0
    for module, arg in ((g, z), (d, x)):
        trees = [
            jax.eval_shape(lambda m=m, a=a: m.init(KEY, a))
            for m, a in ((module, arg), (module.clone(stage=0), arg if arg is z else x[:, :4, :4]))
        ]
        assert jax.tree.map(lambda v: v.shape, trees[0]) == jax.tree.map(lambda v: v.shape, trees[1])
    np.testing.assert_allclose(faded(x, 1), halved, atol=1e-6)
    mixed = 0.75 * np.repeat(np.repeat(halved, 2, 1), 2, 2) + 0.25 * x
    np.testing.assert_allclose(faded(x, 2, 0.25), mixed, atol=1e-6)


def test_progressive_schedule_by_hand():
    # Catches an off-by-one phase and a schedule that runs past the last stage, for numbers and traced ones.
    expected = {0: (0, 1.0), 99: (0, 1.0), 100: (1, 0.0), 125: (1, 0.5), 150: (1, 1.0), 249: (1, 1.0)}
    expected |= {260: (2, 0.2), 300: (2, 1.0), 450: (2, 1.0), 10_000: (2, 1.0)}
    traced = jax.jit(jax.vmap(lambda n: progressive_schedule(n, 2, 100, 50)))(jnp.asarray(list(expected)))
    for i, (nimg, (stage, alpha)) in enumerate(expected.items()):
        found = progressive_schedule(nimg, 2, 100, 50)
        assert found == pytest.approx((stage, alpha)) and isinstance(found[0], int)
        assert (int(traced[0][i]), float(traced[1][i])) == pytest.approx((stage, alpha))


def test_bad_input():
    z, x = jnp.zeros((2, 4)), jnp.zeros((2, 12, 12, 1))
    init = lambda module, *args: jax.eval_shape(lambda: module.init(KEY, *args))
    with pytest.raises(ValueError, match=r"shape: expected a size of 4 times a power of two, at least 2, got 12"):
        init(ProgressiveGenerator((12, 12, 1)), z)
    with pytest.raises(ValueError, match=r"shape: expected a size of 4 times a power of two, at least 2, got 24"):
        init(StyleGAN2Generator((24, 24, 1)), z)
    with pytest.raises(ValueError, match=r"x: expected a size of 4 times a power of two, at least 2, got 12"):
        init(StyleGAN2Discriminator(), x)
    with pytest.raises(ValueError, match=r"stage: expected 0 to 1, got 2"):
        init(ProgressiveGenerator((8, 8, 1), stage=2), z)
    with pytest.raises(ValueError, match=r"x: expected images of shape \(4, 4, 1\) at stage 0, got \(12, 12, 1\)"):
        init(ProgressiveDiscriminator((8, 8, 1), stage=0), x)
    with pytest.raises(ValueError, match=r"widths: expected 2 entries for size 8, got 1"):
        init(ProgressiveGenerator((8, 8, 1), widths=(4,)), z)
    with pytest.raises(ValueError, match=r"widths: expected 1 or 2 entries for size 12, got 3"):
        init(R3Discriminator(widths=(8, 8, 8)), x[:, :12])
    with pytest.raises(ValueError, match=r"shape: expected a size of 4 to 7 times a power of two, or 2 or 3, got 9"):
        init(R3Generator((9, 9, 1)), z)
    with pytest.raises(ValueError, match=r"shape: expected a square image \(H, H, C\), got \(8, 4, 1\)"):
        init(R3Generator((8, 4, 1)), z)
    with pytest.raises(ValueError, match=r"noise: expected 'random', 'constant' or 'none', got 'white'"):
        init(StyleGAN2Generator((8, 8, 1), noise="white"), z)
    with pytest.raises(ValueError, match=r"cond: the network takes no 'label'; set num_classes above 0"):
        init(R3Generator((8, 8, 1)), z, {"label": jnp.zeros(2, int)})
    with pytest.raises(ValueError, match=r"head: expected num_classes of at least 1 for 'projection', got 0"):
        init(StyleGAN2Discriminator(head="projection"), jnp.zeros((2, 8, 8, 1)))
    with pytest.raises(ValueError, match=r"last: expected at least 0, got -1"):
        progressive_schedule(0, -1)
