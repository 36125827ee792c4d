"""Layers of games against closed forms: spectral norm, norms, minibatch statistics, attention, heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from genjax.construct import construct
from genjax.networks import conv, linen_net
from genjax.networks.gan import (
    DISCRIMINATORS,
    HEADS,
    INITS,
    MinibatchDiscrimination,
    MLPDiscriminator,
    MLPGenerator,
    Norm,
    SelfAttention,
    SpectralDense,
    make_head,
    minibatch_stddev,
    spectral_norm,
    standing_statistics,
)
from genjax.networks.gan.norms import virtual_statistics
from genjax.networks.gan.spectral import power_iteration, up_conv

KEY = jax.random.key(0)
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is the cost here


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.result_type(float))


# spectral norm


def test_spectral_norm_and_its_gradient_against_svd(x64):
    # Catches a wrong reshape of the kernel, a gradient through u or v, or a gradient that ignores sigma.
    w = normal(3, 3, 2, 5)
    left, s, right = np.linalg.svd(np.asarray(w).reshape(-1, 5), full_matrices=False)
    value, grad = quick(jax.value_and_grad(lambda w: spectral_norm(w, jnp.ones(5), 200)[0]))(w)
    np.testing.assert_allclose(value, s[0], rtol=1e-10)
    np.testing.assert_allclose(grad.reshape(-1, 5), np.outer(left[:, 0], right[0]), atol=1e-8)


def test_one_power_step_by_hand(x64):
    # Catches steps = 0 that still moves u, and sigma taken with a stale v.
    w, u = normal(4, 3), normal(3, seed=1) / np.linalg.norm(normal(3, seed=1))
    v = w @ u / np.linalg.norm(w @ u)
    new = w.T @ v / np.linalg.norm(w.T @ v)
    np.testing.assert_allclose(power_iteration(w, u, 0)[1], u)
    np.testing.assert_allclose(power_iteration(w, u, 1)[1], new, rtol=1e-12)
    np.testing.assert_allclose(spectral_norm(w, u, 1)[0], np.linalg.norm(w @ new), rtol=1e-12)


def test_spectral_dense_threads_its_state():
    # Catches a state that train=False writes, that train=True loses, or that depends on being stored.
    net, x = linen_net(SpectralDense(6, use_bias=False)), normal(4, 5)
    params, state = quick(net.init)(KEY, x)
    largest = np.linalg.svd(params["kernel"], compute_uv=False)[0]
    assert abs(state["spectral"]["sigma"] / largest - 1) < 0.05, "the state is not sane at birth"
    train = quick(lambda p, s: net.apply(p, s, x, train=True))
    fixed = quick(lambda p, s: net.apply(p, s, x, train=False))
    out, kept = fixed(params, state)
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    far = jax.tree.map(lambda w: w + 3 * jnp.eye(5, 6), params)  # an optimizer moved the kernel far away
    for _ in range(60):
        out, state = train(far, state)
    exact = np.linalg.svd(far["kernel"], compute_uv=False)[0]
    np.testing.assert_allclose(state["spectral"]["sigma"], exact, rtol=1e-4)
    np.testing.assert_allclose(out, np.asarray(x @ far["kernel"]) / exact, rtol=1e-3, atol=1e-5)
    # with u stored, a rescaled kernel (a moving average is smaller) gives the same layer
    scaled = jax.tree.map(lambda w: 0.5 * w, far)
    np.testing.assert_allclose(fixed(scaled, state)[0], out, rtol=1e-4, atol=1e-6)
    module = SpectralDense(6, use_bias=False)
    alone = module.apply({"params": far, **state}, x, train=True)  # nothing mutable: computed, not stored
    np.testing.assert_allclose(alone, out, rtol=1e-4, atol=1e-6)


def test_spectral_state_under_vmap_over_seeds():
    # Catches a state shared between seeds.
    net, x = linen_net(MLPDiscriminator(width=4, depth=1, spectral=1)), normal(3, 2)
    keys = jax.random.split(KEY, 2)
    init = quick(net.init)
    params, state = quick(jax.vmap(net.init, (0, None)))(keys, x)
    out, state = quick(jax.vmap(lambda p, s: net.apply(p, s, x, train=True)))(params, state)
    for i in range(2):
        one, new = net.apply(*init(keys[i], x), x, train=True)
        np.testing.assert_allclose(out.logits[i], one.logits, rtol=1e-4, atol=1e-5)
        mine = jax.tree.map(lambda a, i=i: a[i], state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), mine, new)


def test_up_conv_is_the_transpose_of_the_strided_convolution(x64):
    # Catches a wrong tap or parity: <up(x), y> = <x, down(y)>, for every x and y.
    x, y, w = normal(2, 3, 5, 2), normal(2, 6, 10, 3, seed=1), normal(4, 4, 2, 3, seed=2)
    down = conv(y, w.swapaxes(-1, -2), strides=2, padding=1)
    np.testing.assert_allclose(jnp.vdot(up_conv(x, w), y), jnp.vdot(x, down), rtol=1e-12)


def test_orthogonal_initialization():
    # Catches a reshape that is orthogonal over the wrong axes of a kernel.
    w = INITS["orthogonal"](KEY, (3, 3, 2, 5)).reshape(-1, 5)
    np.testing.assert_allclose(w.T @ w, np.eye(5), atol=1e-5)


# norms


def test_batch_norm_by_hand_with_running_statistics():
    x = np.asarray(2 + 3 * normal(6, 4, 4, 3))
    module = Norm()
    variables = module.init(KEY, x)
    out, new = module.apply(variables, x, train=True, mutable=["batch_stats"])
    mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    np.testing.assert_allclose(out, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-4)
    stored = {**variables, "batch_stats": {"mean": mean, "var": var}}
    np.testing.assert_allclose(module.apply(stored, x, train=False), out, rtol=1e-4, atol=1e-4)


def test_batch_norm_over_devices_is_that_of_the_whole_batch():
    # Catches variances that forget the spread between devices.
    x = normal(8, 2, 3) + jnp.arange(8.0).reshape(8, 1, 1)
    variables = Norm().init(KEY, x)
    whole, state = Norm().apply(variables, x, train=True, mutable=["batch_stats"])
    spread = Norm(axis_name="devices")
    parts, states = jax.vmap(
        lambda x: spread.apply(variables, x, train=True, mutable=["batch_stats"]), axis_name="devices"
    )(x.reshape(4, 2, 2, 3))
    np.testing.assert_allclose(parts.reshape(x.shape), whole, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4), states, state)


def test_conditional_batch_norm_by_hand():
    # Catches gains that are not 1 + W c, tables transposed, and a null label that modulates.
    x, label = normal(5, 2, 2, 3), jnp.array([0, 1, 1, 0, -1])
    rows = jax.nn.one_hot(label, 2)
    module = Norm(affine=False)
    variables = module.init(KEY, x, cond=rows)
    params = {"scale": {"kernel": normal(2, 3, seed=1)}, "shift": {"kernel": normal(2, 3, seed=2)}}
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(jnp.shape, params)
    out, _ = module.apply({**variables, "params": params}, x, True, rows, mutable=["batch_stats"])
    plain, _ = module.apply({"batch_stats": variables["batch_stats"]}, x, True, mutable=["batch_stats"])
    for i, y in enumerate([0, 1, 1, 0]):
        gain, shift = 1 + params["scale"]["kernel"][y], params["shift"]["kernel"][y]
        np.testing.assert_allclose(out[i], plain[i] * gain[None, None] + shift[None, None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out[4], plain[4], rtol=1e-5, atol=1e-6)


def test_virtual_statistics_are_those_of_the_reference_with_the_example():
    x = normal(7, 3, 2) + jnp.arange(7.0).reshape(7, 1, 1)
    mean, var = virtual_statistics(x, 4)
    for i in range(7):
        own = x[:4] if i < 4 else jnp.concatenate([x[:4], x[i : i + 1]])
        np.testing.assert_allclose(mean[i, 0], own.mean((0, 1)), rtol=1e-5)
        np.testing.assert_allclose(var[i, 0], own.var((0, 1)), rtol=1e-4)


@pytest.mark.parametrize("norm", ["virtual", "batch"])
def test_virtual_norm_makes_an_example_independent_of_its_batch(norm):
    # Catches statistics of the batch in virtual norm; batch norm must show that the test can fail.
    net = linen_net(MLPGenerator(shape=(2,), width=8, depth=2, norm=norm, reference=5))
    z, other = normal(4, 3), normal(4, 3, seed=1).at[0].set(normal(4, 3)[0])
    params, state = quick(net.init)(KEY, z)
    run = quick(lambda z: net.apply(params, state, z, train=True)[0])
    gap = abs(run(z)[0] - run(other)[0]).max()
    assert gap < 1e-6 if norm == "virtual" else gap > 1e-3
    assert run(z).shape == (4, 2)


def test_layer_and_instance_norm():
    x = 1 + 2 * normal(3, 4, 5)
    for kind, axes in (("layer", (1, 2)), ("instance", (1,))):
        y = Norm(kind, affine=False).apply({}, x)
        np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
        np.testing.assert_allclose(y.std(axes), 1, rtol=1e-3)
    assert Norm("none").apply({}, x) is x


def test_standing_statistics_are_plain_means_whatever_the_momentum():
    # Catches averages that remember the old statistics or the module's momentum.
    x = normal(5, 8, 3) * jnp.arange(1.0, 6).reshape(5, 1, 1)
    for momentum in (0.9, 0.99):
        module = Norm(momentum=momentum)
        old = {"mean": jnp.full(3, 7.0), "var": jnp.full(3, 9.0)}

        def update(stats, x, module=module):
            variables = {"params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}, "batch_stats": stats}
            return module.apply(variables, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]

        stats = quick(lambda old, x, update=update: standing_statistics(update, old, x))(old, x)
        np.testing.assert_allclose(stats["mean"], x.mean((0, 1)), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(stats["var"], x.var(1).mean(0), rtol=1e-3)


def test_norm_errors():
    x = jnp.ones((2, 3))
    for module, message in (
        (Norm("batchnorm"), "norm: expected one of"),
        (Norm("virtual"), "reference: expected 1 to 2 rows"),
        (Norm("instance"), "norm: expected x with space"),
    ):
        with pytest.raises(ValueError, match=message):
            module.init(KEY, x)


# minibatch statistics and attention


def test_minibatch_discrimination_by_hand_and_over_devices():
    f, t = normal(4, 3), 0.3 * normal(3, 2, 5, seed=1)
    m = np.einsum("ia,abc->ibc", f, t)
    expected = [[sum(np.exp(-np.abs(m[i, b] - m[j, b]).sum()) for j in range(4)) for b in range(2)] for i in range(4)]
    variables = {"params": {"kernel": t}}
    out = MinibatchDiscrimination(2, 5).apply(variables, f)
    np.testing.assert_allclose(out[:, :3], f)
    np.testing.assert_allclose(out[:, 3:], expected, rtol=1e-5)
    spread = MinibatchDiscrimination(2, 5, axis_name="devices")
    parts = jax.vmap(lambda f: spread.apply(variables, f), axis_name="devices")(f.reshape(2, 2, 3))
    np.testing.assert_allclose(parts.reshape(4, 5), out, rtol=1e-5)


@pytest.mark.parametrize("interleaved", [False, True])
def test_minibatch_stddev_by_hand_and_over_devices(interleaved):
    # Catches groups of the wrong members, parts of the channels mixed up, and groups cut by devices.
    x = normal(8, 3, 3, 4)
    out = minibatch_stddev(x, 4, 2, interleaved)
    assert out.shape == (8, 3, 3, 6)
    np.testing.assert_allclose(out[..., :4], x)
    for i in range(8):
        members = np.arange(i % 2, 8, 2) if interleaved else np.arange(4) + 4 * (i // 4)
        deviations = np.sqrt(np.asarray(x)[members].var(0) + 1e-8)
        for part in range(2):
            expected = deviations[..., 2 * part : 2 * part + 2].mean()
            np.testing.assert_allclose(out[i, ..., 4 + part], np.full((3, 3), expected), rtol=1e-4)
    for devices in (2, 4):  # whole groups on a device, and halves of a group
        spread = jax.vmap(lambda x: minibatch_stddev(x, 4, 2, interleaved, "d"), axis_name="d")
        parts = spread(x.reshape(devices, -1, 3, 3, 4))
        np.testing.assert_allclose(parts.reshape(out.shape), out, rtol=1e-4)


def test_minibatch_stddev_errors():
    with pytest.raises(ValueError, match="group: expected a divisor of the batch 6, got 4"):
        minibatch_stddev(jnp.ones((6, 2, 2, 4)))
    with pytest.raises(ValueError, match="channels: expected a divisor of 4, got 3"):
        minibatch_stddev(jnp.ones((6, 2, 2, 4)), 3, 3)


def test_self_attention_starts_as_identity_and_follows_its_formula():
    x = normal(2, 3, 3, 8)  # odd: nothing is pooled
    module = SelfAttention(spectral=0)
    params = module.init(KEY, x)["params"]
    np.testing.assert_array_equal(module.apply({"params": params}, x), x)
    on = {**params, "gamma": jnp.asarray(0.7)}
    kernel = lambda name: np.asarray(params[name]["kernel"])[0, 0]
    tokens = np.asarray(x).reshape(2, 9, 8)
    scores = np.einsum("bqc,bkc->bqk", tokens @ kernel("query"), tokens @ kernel("key"))
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = tokens + 0.7 * (weights @ (tokens @ kernel("value"))) @ kernel("out")
    np.testing.assert_allclose(module.apply({"params": on}, x), expected.reshape(x.shape), rtol=1e-4, atol=1e-5)


def test_self_attention_is_equivariant_to_cyclic_shifts():
    # Catches tokens that know their place; pooled keys allow shifts by two pixels.
    x, module = normal(1, 4, 6, 8), SelfAttention(spectral=0)
    params = {**module.init(KEY, x)["params"], "gamma": jnp.ones(())}
    run = quick(lambda x: module.apply({"params": params}, x))
    shift = lambda v: jnp.roll(v, (2, 4), (1, 2))
    np.testing.assert_allclose(run(shift(x)), shift(run(x)), rtol=1e-4, atol=1e-5)
    assert abs(run(x) - x).max() > 1e-3


# heads

LABEL = jnp.array([0, 2, 1, -1])


def head_of(name, f, **fields):
    head = make_head({"name": name, **fields}, num_classes=3)
    variables = quick(head.init)(KEY, f, LABEL)
    return quick(lambda params, f: head.apply({**variables, "params": params}, f, LABEL)), variables["params"]


def test_linear_and_vector_heads():
    f = normal(4, 5)
    run, params = head_of("linear", f, use_bias=False)
    out = run(params, f)
    np.testing.assert_allclose(out.logits, (f @ params["score"]["kernel"])[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(out.features, f)
    run, params = head_of("vector", f, dim=7)
    assert run(params, f).logits.shape == (4, 7)


def test_projection_head_formula():
    f = normal(4, 5)
    run, params = head_of("projection", f)
    psi = (f @ params["score"]["kernel"])[:, 0] + params["score"]["bias"]
    table = params["classes"]["kernel"]
    expected = [psi[i] + (table[y] @ f[i] if y >= 0 else 0) for i, y in enumerate(LABEL)]
    np.testing.assert_allclose(run(params, f).logits, jnp.stack(expected), rtol=1e-5)


def test_auxiliary_head():
    f = normal(4, 5)
    run, params = head_of("auxiliary", f)
    out = run(params, f)
    np.testing.assert_allclose(out.extra["class_logits"], f @ params["classes"]["kernel"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(out.extra["label"], LABEL)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_san_head_stops_the_gradients_of_the_paper(num_classes):
    # Spec: the loss on `fun` cannot turn omega, the one on `dir` cannot move h, scale or b; the output is both.
    f, head = normal(4, 5), make_head("san", num_classes)
    params = {
        "bias": normal(5, seed=1),
        "scale": jnp.full((), 1.7, jnp.float32),
        "direction": normal(num_classes + 1, 5, seed=2),
    }
    assert jax.eval_shape(head.init, KEY, f, LABEL)["params"] == jax.eval_shape(lambda: params)
    apply = lambda p, f: head.apply({"params": p}, f, LABEL)

    @quick
    def everything(p, f):
        value = lambda name: lambda p, f: jnp.sum(jnp.sin(apply(p, f).extra[name]))
        pair = [jax.grad(value(name), (0, 1))(p, f) for name in ("fun", "dir")]
        return *pair, apply(p, f), jax.grad(lambda f: apply(p, f).logits.sum())(f)

    (fun_p, fun_f), (dir_p, dir_f), out, generator = everything(params, f)
    assert not np.any(fun_p["direction"]) and np.any(fun_p["scale"]) and np.any(fun_p["bias"]) and np.all(fun_f)
    assert np.any(dir_p["direction"]) and not np.any(dir_f) and not np.any(dir_p["scale"]) and not np.any(dir_p["bias"])
    np.testing.assert_allclose(out.extra["fun"], out.logits, rtol=1e-6)
    np.testing.assert_allclose(out.extra["dir"], out.logits, rtol=1e-6)
    omega = params["direction"] / np.linalg.norm(params["direction"], axis=1, keepdims=True)
    rows = omega[np.where(LABEL < 0, 3, LABEL)] if num_classes else omega
    expected = 1.7 * np.sum((f + params["bias"][None]) * np.broadcast_to(rows, f.shape), -1)
    np.testing.assert_allclose(out.logits, expected, rtol=1e-5)
    # the generator's gradient passes through everything
    np.testing.assert_allclose(generator, 1.7 * np.broadcast_to(rows, f.shape), rtol=1e-5)


def test_class_heads_are_shares_of_a_softmax():
    # Catches a fake logit on the wrong side: p(real) = sigmoid(logits) in both forms.
    f = normal(4, 5)
    run, params = head_of("classes", f)
    out = run(params, f)
    z = np.exp(out.extra["class_logits"]).sum(-1)
    np.testing.assert_allclose(jax.nn.sigmoid(out.logits), z / (z + 1), rtol=1e-5)
    run, params = head_of("extra_class", f)
    out = run(params, f)
    shares = jax.nn.softmax(out.extra["class_logits"])
    assert shares.shape == (4, 4)
    np.testing.assert_allclose(jax.nn.sigmoid(out.logits), shares[:, :3].sum(-1), rtol=1e-5)


def test_contrastive_head_gives_unit_vectors():
    f = normal(4, 5)
    run, params = head_of("contrastive", f, dim=6)
    extra = run(params, f).extra
    np.testing.assert_allclose(np.linalg.norm(extra["embedding"], axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(extra["proxies"], axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(extra["proxy"][:3], extra["proxies"][np.array([0, 2, 1])], rtol=1e-6)
    assert not np.any(extra["proxy"][3])


def test_head_errors():
    for head, classes, message in (
        ("projection", 0, "head: expected num_classes of at least 1 for 'projection', got 0"),
        ("projector", 3, "head.name: unknown name 'projector'; did you mean"),
        (3, 0, "head: expected a name or a group with a name, got 3"),
        ({"name": "vector", "dims": 3}, 0, "head.dims: unknown key; did you mean"),
    ):
        with pytest.raises(ValueError, match=message):
            make_head(head, classes)
    assert {make_head(name, num_classes=2).name for name in HEADS} == {"head"}


def test_head_of_a_config_group():
    # Catches fields of a discriminator that a config can give as a name alone.
    group = ConfigDict({"name": "mlp", "width": 4, "depth": 1, "head": {"name": "vector", "dim": 3}})
    module = construct(DISCRIMINATORS, group, "discriminator", hidden=("parent", "name"))
    out, _ = quick(module.init_with_output)(KEY, normal(2, 5))
    assert out.logits.shape == (2, 3)
