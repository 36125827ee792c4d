"""Where parameters, optimizer states and averages lie on a mesh; every mistake in a mesh or a rule."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from genjax import build
from genjax.core.types import State
from genjax.train import workdir
from genjax.train.sharding import (
    as_layout,
    axis_sizes,
    check_rules,
    default_spec,
    make_layout,
    param_spec,
    state_specs,
)

SIZES = {"data": 2, "fsdp": 4, "tensor": 2}


@pytest.mark.parametrize(
    "shape, sizes",
    [
        (None, (8, 1, 1)),
        ({"fsdp": 4}, (2, 4, 1)),
        ({"data": -1, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
        ({"data": 1, "fsdp": -1}, (1, 8, 1)),
        ({"data": 8}, (8, 1, 1)),
    ],
)
def test_sizes_of_the_axes(shape, sizes):
    assert tuple(axis_sizes(shape, 8).values()) == sizes


@pytest.mark.parametrize(
    "shape, message",
    [
        ({"model": 2}, r"mesh: expected axes of \['data', 'fsdp', 'tensor'\], got 'model'"),
        ({"fsdp": 0}, r"mesh\.fsdp: expected a whole number from 1, or -1 for the rest, got 0"),
        ({"fsdp": 2.0}, r"mesh\.fsdp: expected a whole number .*, got 2\.0"),
        ({"data": -1, "fsdp": -1}, r"mesh: expected one axis of -1 at most, got \['data', 'fsdp'\]"),
        ({"fsdp": 3}, r"mesh: expected axes that divide 8 devices, got fsdp 3 = 3"),
        ({"data": 2, "fsdp": 2}, r"mesh: expected axes whose product is 8 devices, got data 2 x fsdp 2 = 4"),
    ],
)
def test_meshes_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        axis_sizes(shape, 8)


def test_default_is_the_largest_axis_that_divides():
    assert default_spec((3, 3, 64, 128), SIZES) == P(None, None, None, "fsdp")
    assert default_spec((3, 3, 128, 64), SIZES) == P(None, None, "fsdp", None)
    assert default_spec((128, 130), SIZES) == P("fsdp", None)  # four does not divide 130
    assert default_spec((97, 99), SIZES) == P()
    assert default_spec((64,), SIZES) == P()  # small
    assert default_spec((128, 128), {**SIZES, "fsdp": 1}) == P()


def test_transformer_matrices_are_split_by_columns_then_by_rows():
    """A block then needs one sum over `tensor` for each of its two branches."""
    at = lambda path, shape: param_spec(f"denoiser/block3/{path}", shape, SIZES)
    assert at("attention/qkv/kernel", (64, 192)) == P("fsdp", "tensor")
    assert at("attention/qkv/bias", (192,)) == P("tensor")
    assert at("attention/out/kernel", (64, 64)) == P("tensor", "fsdp")
    assert at("mlp_in/kernel", (64, 256)) == P("fsdp", "tensor")
    assert at("mlp_out/kernel", (256, 64)) == P("tensor", "fsdp")
    assert at("mlp_out/bias", (64,)) == P()
    assert at("mlp_in/kernel", (66, 256)) == P(None, "tensor")  # four does not divide 66
    assert at("modulation/kernel", (64, 384)) == P(None, "fsdp")


def test_the_first_rule_decides():
    rules = ((r"head/kernel$", (None, "fsdp")), (r"kernel$", ("tensor",)), (r"mlp", ()))
    assert param_spec("d/head/kernel", (8, 8), SIZES, rules) == P(None, "fsdp")
    assert param_spec("d/conv/kernel", (3, 3, 8, 8), SIZES, rules) == P(None, None, None, "tensor")
    assert param_spec("d/mlp_in/bias", (512,), SIZES, rules) == P(None)
    assert param_spec("d/x/kernel", (8, 16), SIZES, ((r"x", ("data", ("fsdp", "tensor"))),)) == P(
        "data", ("fsdp", "tensor")
    )
    with pytest.raises(ValueError, match=r"expected axis 1 of d/head/kernel to be a multiple of 4 .*got \(8, 6\)"):
        param_spec("d/head/kernel", (8, 6), SIZES, rules)
    with pytest.raises(ValueError, match=r"expected at most 1 axes for d/head/kernel \(8,\)"):
        param_spec("d/head/kernel", (8,), SIZES, rules)


@pytest.mark.parametrize(
    "rule, message",
    [
        ("kernel", r"expected pairs \(regular expression, axes\), got 'kernel'"),
        (("(", ("fsdp",)), r"expected a regular expression, got '\('"),
        (("x", "fsdp"), r"expected a tuple of mesh axes for 'x', got 'fsdp'"),
        (("x", ("model",)), r"expected each of .* once at most for 'x', got \('model',\)"),
        (("x", ("fsdp", "fsdp")), r"once at most for 'x'"),
    ],
)
def test_rules_that_are_none(rule, message):
    with pytest.raises(ValueError, match=message):
        check_rules((rule,))


def test_a_game_of_two_networks():
    """Would catch an optimizer state placed like the other network's layer of the same name, a buffer split by
    accident, and a frozen reference that is whole on every device."""
    networks = {
        "generator": {"Dense_0": {"kernel": jnp.zeros((64, 128)), "bias": jnp.zeros(128)}},
        "critic": {"Dense_0": {"kernel": jnp.zeros((64, 128)), "bias": jnp.zeros(128)}},
    }
    opts = {name: optax.adam(1e-3).init(p) for name, p in networks.items()}
    extra = {"buffer": jnp.zeros((1024, 64)), "target": {"critic": networks["critic"]}, "key": jax.random.key(0)}
    frozen = {"judge": {"conv": jnp.zeros((3, 3, 64, 64))}}
    state = State(jnp.int32(0), networks, opts, (networks, networks), extra, frozen)
    rules = ((r"^critic/.*kernel", (None, "tensor")), (r"^generator/.*kernel", ("fsdp", None)))
    specs = state_specs(jax.eval_shape(lambda: state), SIZES, rules)
    assert jax.tree.structure(specs, is_leaf=lambda s: isinstance(s, P)) == jax.tree.structure(state)
    expected = {"generator": P("fsdp", None), "critic": P(None, "tensor")}
    for name, spec in expected.items():
        adam = specs.opt[name][0]
        copies = [specs.params[name], adam.mu, adam.nu, specs.ema[0][name], specs.ema[1][name]]
        assert all(copy["Dense_0"] == {"kernel": spec, "bias": P()} for copy in copies)
        assert adam.count == P()
    assert specs.extra["target"]["critic"]["Dense_0"]["kernel"] == P(None, "tensor")
    assert specs.extra["buffer"] == specs.extra["key"] == specs.step == P()
    assert specs.frozen["judge"]["conv"] == P(None, None, None, "fsdp")


def test_any_pytree_is_placed_as_parameters():
    assert state_specs({"w": jnp.zeros((64, 128)), "n": jnp.zeros(())}, SIZES) == {"w": P(None, "fsdp"), "n": P()}


def test_layouts_that_are_none():
    for options, message in [
        ({"parallel": "vmap"}, "parallel: expected 'mesh' or 'pmap', got 'vmap'"),
        ({"parallel": "pmap", "mesh": {"fsdp": 2}}, "expected 'mesh' where parameters are split, got 'pmap'"),
        ({"parallel": "pmap", "rules": (("x", ("fsdp",)),)}, "expected 'mesh' where parameters are split"),
        ({"min_size": 0}, r"sharding\.min_size: expected at least 1, got 0"),
        ({"mesh": {"data": 1, "fsdp": 3}}, "expected axes whose product is 1 devices, got data 1 x fsdp 3 = 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_layout(**options, devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="mesh: expected the axis 'data'"):
        as_layout(jax.make_mesh((1,), ("x",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1]))


def test_groups_of_a_config():
    made = build.layout(ConfigDict({"mesh": {"fsdp": -1}, "sharding": {"rules": (("x", ("fsdp",)),), "min_size": 7}}))
    assert made.rules == (("x", ("fsdp",)),) and made.min_size == 7 and made.axis_name is None
    assert made.mesh.shape["fsdp"] == made.parts == jax.device_count()
    assert build.layout(ConfigDict({"parallel": "pmap"})).axis_name == build.axis_name(ConfigDict({"parallel": "pmap"}))
    assert build.layout(ConfigDict({})).parts == jax.device_count() and build.axis_name(ConfigDict({})) is None
    for config, message in [
        ({"mesh": 8}, "mesh: expected"),
        ({"sharding": {"rule": ()}}, r"sharding\.rule: unknown key; did you mean 'rules'"),
        ({"sharding": {"devices": 3}}, r"sharding\.devices: unknown key"),
    ]:
        with pytest.raises(ValueError, match=message):
            build.layout(ConfigDict(config))


def test_resuming_elsewhere_is_the_same_training(tmp_path):
    """Where a training runs is not what is trained: another mesh does not bar a workdir, another network does."""
    config = {"network": {"width": 3}, "mesh": {"data": 8}}
    workdir.claim(tmp_path, config)
    (tmp_path / "checkpoints" / "00000001").mkdir(parents=True)
    workdir.claim(tmp_path, {"network": {"width": 3}, "mesh": {"fsdp": 2}, "parallel": "pmap"})
    with pytest.raises(ValueError, match=r"network\.width is 3 there and 4 here"):
        workdir.claim(tmp_path, {"network": {"width": 4}, "mesh": {"data": 8}})
