"""Configs of games: every group reaches its object, every mistake is named before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from genjax import build
from genjax.data import DataSpec
from genjax.train import loop
from genjax.train.generation import draw

SPEC = DataSpec((64,), 10, fields=("x", "label"), range=(-1.0, 1.0))


def make(**changes):
    """A small complete config; `changes` are dotted fields with "__" for the dot, None removes."""
    network = {"name": "mlp", "width": 8, "depth": 1}
    config = ConfigDict(
        {
            "data": {"name": "digits_vector"},
            "generator": dict(network),
            "discriminator": {**network, "head": "projection"},
            "latent": {"name": "normal", "dim": 4},
            "loss": {"name": "hinge"},
            "penalties": {"r1": {"weight": 0.5, "every": 4}, "drift": 0.001},
            "algorithm": {"name": "gan", "cond": ("label",), "n_critic": 2},
            "optimizer": {"name": "adam", "learning_rate": 1e-3},
            "d_optimizer": {"name": "adam", "learning_rate": 4e-3, "schedule": {"name": "linear"}},
            "ema": {"name": "constant", "decay": 0.9},
            "train": {"steps": 10, "batch_size": 8},
            "eval": {"num": 10},
        }
    )
    for field, value in changes.items():
        node, *rest = field.split("__")
        target = config
        for part in rest:
            target, node = target[node], part
        with target.unlocked():
            if node in target:
                del target[node]
            if value is not None:
                target[node] = ConfigDict(value) if isinstance(value, dict) else value
    return config


def test_every_group_reaches_its_object():
    config = make(sample={"truncation": 0.5})
    data = build.dataset(config)
    parts = build.parts(config, data.spec)
    assert build.plan(config).batch_size == 16  # of both updates of the critic
    shapes = loop.check_traces(parts.algorithm, build.feed(config, data))
    assert shapes.params["generator"]["layer0"]["kernel"].shape == (14, 8)  # 4 latents beside 10 classes
    assert set(shapes.params["discriminator"]["head"]) == {"score", "classes"}
    assert set(shapes.ema) == {"generator"} and parts.latent.dim == 4
    assert {"r1", "drift", "d_loss", "sign_real"} <= set(build.table(config))
    assert build.metrics(config, parts, data.spec) == ("sliced_w2", "energy")
    state = jax.jit(parts.algorithm.init)(jax.random.key(0), {"x": jnp.zeros((16, 64)), "label": jnp.zeros(16, int)})
    x = draw(parts.algorithm, jax.random.key(0), state, 4)
    assert x.shape == (4, 64) and np.abs(x).max() <= 1  # data in [-1, 1]: tanh
    z = jnp.ones((2, 4))
    assert parts.generate(state)(z, {"label": jnp.array([1, 2])}).shape == (2, 64)


def test_wrapped_losses_and_parts():
    """`base` nests; kernels and augmentations come by name with their numbers; class heads learn the classes."""
    loss = {"name": "feature_matching", "base": {"name": "san", "base": "hinge"}}
    parts = build.parts(make(loss=loss, discriminator__head="san"), SPEC)
    assert parts.loss.real_in_g and set(parts.loss.needs) == {"fun", "dir", "features"}
    kernel = {"name": "rbf", "sigmas": (1.0, 2.0)}
    config = make(
        loss={"name": "mmd", "kernel": kernel},
        penalties={"witness": {"kernel": kernel}, "consistency": {"augment": "instance_noise"}},
        discriminator__head="linear",
        prepare={"tempering": {"r": 0.5}},
    )
    tempered = build.parts(config, SPEC)
    batch = {"x": jax.ShapeDtypeStruct((16, 64), "float32"), "label": jax.ShapeDtypeStruct((16,), "int32")}
    state = jax.eval_shape(tempered.algorithm.init, jax.random.key(0), batch)
    assert state.params["generator"]["layer0"]["kernel"].shape == (15, 8)  # and the temperature
    jax.eval_shape(tempered.algorithm.step, jax.random.key(0), state, batch)
    classes = make(loss__name="am_gan", discriminator__head="extra_class", algorithm__cond=())
    parts = build.parts(classes, SPEC)
    state = jax.eval_shape(parts.algorithm.init, jax.random.key(0), batch)
    assert state.params["discriminator"]["head"]["classes"]["kernel"].shape == (8, 11)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"algorithm__cond": ()}, r"algorithm\.cond: expected 'label' for the head 'projection', got \[\]"),
        ({"algorithm__cond": ("lable",)}, r"algorithm\.cond: expected fields of the data, .*, got 'lable'"),
        ({"algorithm__n_critic": 0}, r"algorithm\.n_critic: expected at least 1, got 0"),
        ({"algorithm__ncritic": 2}, r"algorithm\.ncritic: unknown key; did you mean 'n_critic'\?"),
        ({"algorithm__clip_weights": 0.0}, r"algorithm\.clip_weights: c: expected a number > 0"),
        ({"algorithm__fake_labels": "even"}, r"fake_labels: expected one of"),
        ({"penalties__r11": 1.0}, r"penalties\.r11: unknown penalty; did you mean 'r1'\?"),
        ({"penalties__r1__weight": -1.0}, r"penalties\.r1\.weight: expected a number >= 0, got -1\.0"),
        ({"penalties__r1__every": 0}, r"penalties\.r1\.every: expected at least 1, got 0"),
        ({"penalties__r1__weigth": 2.0}, r"penalties\.r1\.weigth: unknown key"),
        ({"penalties": {"consistency": 1.0}}, r"penalties\.consistency\.augment: expected one of"),
        ({"g_penalties": {"r1": 1.0}}, r"g_penalties\.r1: unknown penalty"),
        ({"loss__name": "hing"}, r"loss\.name: unknown name 'hing'; did you mean 'hinge'\?"),
        ({"loss": {"name": "san", "base": "hing"}}, r"loss\.base\.name: unknown name 'hing'"),
        ({"loss": {"name": "mmd", "kernel": "rqq"}}, r"loss\.kernel\.name: unknown name 'rqq'"),
        ({"latent__name": "gauss"}, r"latent\.name: unknown name 'gauss'"),
        ({"latent__dim": 0}, r"latent: latent\.dim: expected at least 1, got 0"),
        ({"augment": {"name": "adda"}}, r"augment\.name: unknown name 'adda'; did you mean 'ada'\?"),
        ({"process": {"name": "edm"}}, r"process: no group of algorithm 'gan'"),
        ({"generator": None}, r"generator: expected this group in the config, got none"),
        ({"d_optimizer__name": "adm"}, r"d_optimizer\.name: unknown name 'adm'; did you mean 'adam'\?"),
        ({"sample": {"truncation": 0.0}}, r"sample\.truncation: expected a number > 0, got 0"),
        ({"sample": {"solver": "heun"}}, r"sample\.solver: unknown key"),
        ({"prepare": {"tempring": {}}}, r"prepare\.tempring\.name: unknown name 'tempring'"),
        ({"algorithm__name": "gann"}, r"algorithm\.name: unknown name 'gann'; did you mean 'gan'\?"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build.parts(make(**changes), SPEC)


def test_classes_that_the_data_lack():
    with pytest.raises(ValueError, match=r"algorithm\.cond: expected fields of the data"):
        build.parts(make(), DataSpec((64,), 0, fields=("x",)))
    config = make(algorithm__cond=(), discriminator__head="classes", loss__name="label_gan")
    with pytest.raises(ValueError, match=r"discriminator\.head: expected data with classes for 'classes'"):
        build.parts(config, DataSpec((64,), 0, fields=("x",)))


def test_a_growing_pair_needs_a_power_of_two():
    """The resolution is checked where the networks meet the data's shape, by tracing alone."""
    config = make(
        generator={"name": "progressive"}, discriminator={"name": "progressive"}, algorithm__cond=(), penalties={}
    )
    spec = DataSpec((12, 12, 1), 10, fields=("x", "label"), range=(-1.0, 1.0))
    batch = {"x": jax.ShapeDtypeStruct((16, 12, 12, 1), "float32"), "label": jax.ShapeDtypeStruct((16,), "int32")}
    with pytest.raises(ValueError, match=r"shape: expected a size of 4 times a power of two"):
        jax.eval_shape(build.parts(config, spec).algorithm.init, jax.random.key(0), batch)
