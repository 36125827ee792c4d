"""Every network of the room: shapes, zero start, conditions, features, precision, published sizes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.networks import (
    MLP,
    NETWORKS,
    CNNClassifier,
    DiT,
    EDM2UNet,
    MLPClassifier,
    UNet,
    UViT,
    edm2,
    linen_net,
    transformer,
    unet,
)

TINY = {
    # name: fields of a network that compiles in a second or two
    "mlp": {"width": 16, "depth": 2},
    "unet": {"channels": 8, "head_channels": 8},
    "dit": {"dim": 16, "depth": 2, "noise_dim": 16},
    "uvit": {"dim": 16, "depth": 3},
    "edm2_unet": {"channels": 8, "head_channels": 8},
    "edm2_mlp": {"width": 16, "depth": 2},
}
CLASSIFIERS = {"cnn_classifier": {"channels": 8, "features": 12}, "mlp_classifier": {"width": 16, "features": 12}}
KEY = jax.random.key(1, impl="rbg")  # initializers compile four times faster with it than with the default
X = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
NOISE = jnp.array([-0.8, 0.1, 0.6])


def shaken(params, seed=7):
    """Random parameters, so that what starts at zero takes part."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.normal(size=p.shape), p.dtype), params)


def count(module, shape):
    """Number of parameters, in millions, by shape alone."""
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(shape[:1]))
    return sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"])) / 1e6


@pytest.fixture(scope="module", params=TINY)
def network(request):
    """(name, compiled apply(params, x, noise, cond), fresh parameters), conditional on three classes."""
    module = NETWORKS[request.param](num_classes=3, **TINY[request.param])
    params = jax.jit(module.init)(KEY, X, NOISE, {"label": jnp.zeros(3, int)})
    apply = jax.jit(lambda p, x, noise, label: module.apply(p, x, noise, {"label": label}, return_features=True))
    return request.param, module, apply, params


def test_every_name_is_covered():
    # Catches a network that is added to the table without tests.
    assert set(NETWORKS) == set(TINY) | set(CLASSIFIERS)


def test_starts_at_zero_then_heeds_its_inputs(network):
    # Catches an output that does not start at zero, a condition or noise number that is dropped, samples
    # that leak into each other, and a null label that is read as a class.
    _, _, apply, params = network
    zero = jnp.zeros(3, int)
    out, features = apply(params, X, NOISE, zero)
    assert out.shape == X.shape and out.dtype == X.dtype
    np.testing.assert_array_equal(out, 0)
    assert features and all(f.shape[0] == 3 for f in features.values())

    params = shaken(params)
    out, _ = apply(params, X, NOISE, zero)
    assert float(jnp.abs(out).max()) > 1e-3
    changed = {
        "label": apply(params, X, NOISE, jnp.array([0, 1, 0]))[0],
        "null": apply(params, X, NOISE, jnp.array([0, -1, 0]))[0],
        "noise": apply(params, X, NOISE.at[1].add(0.2), zero)[0],
        "x": apply(params, X.at[1].add(0.3), NOISE, zero)[0],
    }
    for name, other in changed.items():
        gap = jnp.abs(out - other).max(axis=(1, 2, 3))
        assert float(gap[1]) > 1e-4, name
        assert float(jnp.maximum(gap[0], gap[2])) < 1e-4, name
    assert float(jnp.abs(changed["null"] - apply(params, X, NOISE, jnp.array([0, 2, 0]))[0]).max()) > 1e-4


@pytest.mark.parametrize("name", ["mlp", "uvit", "edm2_mlp"])  # one of each way to embed a label
def test_missing_condition_is_the_null_label(name):
    # Catches cond=None that means something other than the label -1.
    module = NETWORKS[name](num_classes=3, **TINY[name])
    params = shaken(jax.jit(module.init)(KEY, X, NOISE))
    none, null = jax.jit(lambda p: [module.apply(p, X, NOISE, c) for c in (None, {"label": jnp.full(3, -1)})])(params)
    np.testing.assert_allclose(none, null, rtol=1e-4, atol=1e-5)


def test_bfloat16_computes_with_float32_parameters(network):
    # Catches parameters born in bfloat16, an output in bfloat16, and a layer that ignores the policy.
    name, module, apply, params = network
    half = module.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(1), X, NOISE, {"label": jnp.zeros(3, int)})
    assert {p.dtype for p in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    params = jax.tree.map(lambda p, q: p + 0.2 * (q - p), params, shaken(params))
    label = jnp.array([0, 1, -1])
    out, features = jax.jit(lambda p: half.apply(p, X, NOISE, {"label": label}, return_features=True))(params)
    assert out.dtype == jnp.float32
    assert {f.dtype for f in features.values()} == {jnp.dtype(jnp.bfloat16)}, name
    exact = apply(params, X, NOISE, label)[0]
    assert float(jnp.abs(out - exact).mean() / jnp.abs(exact).mean()) < 0.1


@pytest.mark.parametrize("name", TINY)
def test_output_channels(name):
    # Catches a learned variance whose doubled channels are ignored.
    module = NETWORKS[name](out_channels=4, **TINY[name])
    out = jax.eval_shape(module.init_with_output, jax.random.key(0), X, NOISE)[0]
    assert out.shape == (*X.shape[:-1], 4)


def test_features_are_sown_by_name():
    module = UNet(**TINY["unet"])
    _, state = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), X, NOISE, mutable=["params", "intermediates"])
    )
    assert {"input", "enc4_0", "middle0", "dec4_1"} <= set(state["intermediates"]["features"])


@pytest.mark.parametrize("name", ["unet", "dit", "uvit"])
def test_tokens_embeddings_and_images_condition(name):
    # Catches a declared condition that does not reach the output.
    module = NETWORKS[name](embedding_dim=3, vocab=5, image_channels=1, **TINY[name])
    cond = {"embedding": jnp.ones((3, 3)), "tokens": jnp.array([[0, 1]] * 3), "image": jnp.ones((3, 2, 2, 1))}
    params = shaken(jax.jit(module.init)(KEY, X, NOISE, cond))
    apply = jax.jit(lambda cond: module.apply(params, X, NOISE, cond))
    out = apply(cond)
    for field, other in {"embedding": 0.5, "tokens": 2, "image": 0.5}.items():
        changed = apply(cond | {field: jnp.full_like(cond[field], other)})
        assert float(jnp.abs(out - changed).max()) > 1e-4, field
    order = apply(cond | {"tokens": cond["tokens"][:, ::-1]})
    assert float(jnp.abs(out - order).max()) > 1e-5


@pytest.mark.parametrize("name", ["unet", "edm2_unet"])
def test_flipping_image_and_kernels_flips_the_output(name):
    # Catches resampling, concatenation or attention that is off by a cell: each part is symmetric.
    fields = {"filter": (1, 3, 3, 1)} if name == "unet" else {}
    module = NETWORKS[name](**fields, **TINY[name])
    params = shaken(jax.jit(module.init)(KEY, X, NOISE))
    flip = lambda p: jnp.flip(p, 1) if p.ndim == 4 else p
    apply = jax.jit(lambda p, x: module.apply(p, x, NOISE))
    a, b = apply(params, X), apply(jax.tree.map(flip, params), jnp.flip(X, 2))
    np.testing.assert_allclose(a, jnp.flip(b, 2), rtol=1e-3, atol=1e-4 * float(jnp.abs(a).max()))


@pytest.mark.parametrize("name", ["unet", "dit", "edm2_unet"])
def test_remat_gives_the_same_gradients(name):
    # Catches a rematerialized block with other parameters' names or values, dropout off.
    fields = TINY[name] | {"num_classes": 3} | ({} if name == "dit" else {"multipliers": (1,)})
    plain, remat = NETWORKS[name](**fields), NETWORKS[name](**fields, remat=True)
    cond = {"label": jnp.array([0, 1, -1])}
    params = shaken(jax.jit(plain.init)(KEY, X, NOISE, cond))
    loss = lambda m, p: jnp.mean(m.apply(p, X, NOISE, cond, train=True) ** 2)
    a, b = jax.jit(lambda p: [jax.grad(loss, 1)(m, p) for m in (plain, remat)])(params)
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(a))
    jax.tree.map(lambda g, h: np.testing.assert_allclose(g, h, rtol=1e-3, atol=1e-5 * scale), a, b)


def test_dropout_acts_in_training_alone():
    module = DiT(dropout=0.5, **TINY["dit"])
    params = shaken(jax.jit(module.init)(KEY, X, NOISE))
    net = linen_net(module)
    run = jax.jit(
        lambda key, train: net.apply(params["params"], {}, X, NOISE, train=train, rngs={"dropout": key})[0],
        static_argnums=1,
    )
    a, b = jax.random.key(2), jax.random.key(3)
    assert float(jnp.abs(run(a, True) - run(b, True)).max()) > 1e-3
    np.testing.assert_array_equal(run(a, False), run(b, False))


@pytest.mark.parametrize(
    ("module", "shape", "millions"),
    [
        (UNet(**unet.PRESETS["ddpmpp_cifar"]), (1, 32, 32, 3), 55.73),
        (UNet(**unet.PRESETS["adm_imagenet64"]), (1, 64, 64, 3), 295.90),
        (EDM2UNet(**edm2.PRESETS["edm2_s"]), (1, 64, 64, 4), 280.21),
        (DiT(**transformer.PRESETS["dit_xl_2"][1]), (1, 32, 32, 4), 675.13 - 0.295),  # theirs counts fixed positions
        (UViT(**transformer.PRESETS["uvit_s_2"][1]), (1, 32, 32, 3), 44.26),
    ],
    ids=["ddpmpp", "adm", "edm2_s", "dit_xl_2", "uvit_s_2"],
)
def test_published_sizes(module, shape, millions):
    # Catches a layer that is missing, doubled or of the wrong width, by the published parameter counts.
    assert abs(count(module, shape) - millions) < 0.01


def test_u_net_takes_lines_and_volumes():
    for shape in ((2, 8, 3), (2, 4, 4, 2, 1)):
        out = jax.eval_shape(UNet(**TINY["unet"]).init_with_output, jax.random.key(0), jnp.zeros(shape), NOISE[:2])[0]
        assert out.shape == shape


def test_mlp_reads_the_length_of_its_input():
    # Catches a normalization of the raw input, which would hide the noise level from a blind network.
    module = MLP(width=32, depth=1)
    x = jax.random.normal(jax.random.key(0), (1, 6))
    params = shaken(module.init(KEY, x, NOISE[:1]))
    h = lambda scale: module.apply(params, scale * x, NOISE[:1], return_features=True)[1]["block0"]
    assert float(jnp.linalg.norm(h(10.0)) / jnp.linalg.norm(h(1.0))) > 3


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_learn_and_return_features(name):
    # Catches features that are not those the logits are read from, and gradients that do not flow.
    module = NETWORKS[name](num_classes=3, **CLASSIFIERS[name])
    net = linen_net(module)
    params, state = net.init(KEY, X)
    label = jnp.array([2, 0, 1])

    def loss(p):
        (logits, _), _ = net.apply(p, state, X)
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(label, 3), -1))

    step = jax.jit(lambda p: jax.tree.map(lambda a, g: a - 0.1 * g, p, jax.grad(loss)(p)))
    start = float(loss(params))
    for _ in range(20):
        params = step(params)
    (logits, features), _ = net.apply(params, state, X)
    assert float(loss(params)) < 0.5 * start
    assert logits.shape == (3, 3) and features.shape == (3, 12) and features.dtype == jnp.float32
    last = params["logits"]
    np.testing.assert_allclose(logits, features @ last["kernel"] + last["bias"][None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", [CNNClassifier, MLPClassifier])
def test_classifier_of_noisy_images_heeds_the_noise(cls):
    module = cls(num_classes=3, noise_input=True)
    params = module.init(KEY, X, NOISE)
    a, b = (module.apply(params, X, n)[0] for n in (NOISE, NOISE + 0.3))
    assert float(jnp.abs(a - b).max()) > 1e-3
    with pytest.raises(ValueError, match="noise: expected \\[B\\]"):
        module.apply(params, X)
    with pytest.raises(ValueError, match="set noise_input=True"):
        cls(num_classes=3).init(jax.random.key(0), X, NOISE)


def test_linen_net_threads_mutable_state():
    # Catches batch statistics that are lost in training or changed in evaluation.
    from flax import linen as nn

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)

    net = linen_net(Normed())
    params, state = net.init(KEY, X)
    _, after = net.apply(params, state, X + 2, train=True)
    mean = after["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.5 * (X + 2).mean((0, 1, 2)), rtol=1e-5)
    _, same = net.apply(params, after, X)
    assert same is after


EMBED = dict.fromkeys(("mlp", "unet", "dit"), "embed/cond/") | {"uvit": "cond/"}
PARAMETERS = {
    # field of the network: (parameter that it adds, by network; rows of it more than the field says)
    "num_classes": ({n: f"{p}label" for n, p in EMBED.items()}, 1),
    "embedding_dim": ({n: f"{p}embedding/kernel" for n, p in EMBED.items()}, 0),
    "vocab": (dict.fromkeys(("unet", "dit", "uvit"), "tokens/table"), 1),
    "token_dim": (dict.fromkeys(("unet", "dit", "uvit"), "tokens/project/kernel"), 0),
}
PARAMETERS["num_classes"][0].update(dict.fromkeys(("edm2_unet", "edm2_mlp"), "embed/label/mp_kernel"))


@pytest.mark.parametrize("field", PARAMETERS)
def test_conditions_keep_their_parameters(field):
    # Catches a parameter of a condition that is renamed, moved or resized: stored checkpoints would not fit any more;
    # and a network with such a field that takes nothing by it.
    added, more = PARAMETERS[field]
    assert set(added) == {name for name in TINY if hasattr(NETWORKS[name], field)}

    def tree(name, **fields):
        module = NETWORKS[name](**TINY[name], **fields)
        found = jax.eval_shape(module.init, jax.random.key(0), X, NOISE)["params"]
        return {"/".join(k.key for k in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(found)}

    for name, path in added.items():
        without, found = tree(name), tree(name, **{field: 5})
        assert set(found) > set(without) and path not in without
        assert found[path][0] == 5 + more and found[path][1:] == tree(name, **{field: 3})[path][1:]


def test_bad_sizes_name_the_field():
    init = lambda m, x=X: jax.eval_shape(m.init, jax.random.key(0), x, NOISE)
    with pytest.raises(ValueError, match=r"x: expected sizes divisible by 8 \(levels 4\)"):
        init(UNet(multipliers=(1, 1, 1, 1)))
    with pytest.raises(ValueError, match="decoder_attention: expected 'all' or 'last', got 'none'"):
        init(UNet(decoder_attention="none"))
    with pytest.raises(ValueError, match="heads: expected a divisor of 16 channels, got 3"):
        init(DiT(dim=16, heads=3))
    with pytest.raises(ValueError, match="depth: expected an odd number of blocks, got 4"):
        init(UViT(depth=4))
