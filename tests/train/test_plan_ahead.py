"""Operations, communication and memory of programs that are only compiled."""

import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import pytest

from genjax.cli import compile as command
from genjax.cli.main import main
from genjax.networks.convolution import conv
from genjax.train import flops, plan_ahead
from genjax.train.collectives import collectives, summary

SHAPE = jax.ShapeDtypeStruct


def test_operations_of_matrix_products():
    a, b = SHAPE((3, 5, 7), "float32"), SHAPE((3, 7, 11), "float32")
    assert flops.count(jnp.matmul, a, b) == 2 * 3 * 5 * 7 * 11
    # backward: a product for each operand
    loss = lambda a, b: jnp.sum(jnp.sin(a @ b))
    assert flops.count(jax.grad(loss, (0, 1)), a, b) == 3 * 2 * 3 * 5 * 7 * 11


def test_operations_of_convolutions():
    """Ours and XLA's count alike, forward and both gradients, with strides and groups."""
    x, k = SHAPE((2, 8, 8, 6), "float32"), SHAPE((3, 3, 6, 4), "float32")
    once = 2 * (2 * 4 * 4 * 4) * 3 * 3 * 6  # of an output of 4 x 4
    ours = lambda x, k: jnp.sum(jnp.sin(conv(x, k, 2)))
    layout = ("NHWC", "HWIO", "NHWC")
    xla = lambda x, k: jax.lax.conv_general_dilated(x, k, (2, 2), "SAME", dimension_numbers=layout)
    assert flops.count(ours, x, k) == flops.count(xla, x, k) == once
    assert flops.count(jax.grad(ours, (0, 1)), x, k) == 3 * once
    grouped = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (2, 2), "SAME", dimension_numbers=layout, feature_group_count=3
    )
    assert flops.count(grouped, x, SHAPE((3, 3, 2, 6), "float32")) == 2 * (2 * 4 * 4 * 6) * 3 * 3 * 2
    many = jax.vmap(jax.grad(ours, (0, 1)))
    assert flops.count(many, SHAPE((5, *x.shape), "float32"), SHAPE((5, *k.shape), "float32")) == 5 * 3 * once


def test_operations_of_loops_and_branches():
    """XLA's own count takes a loop's body once."""
    w, x = SHAPE((8, 8), "float32"), SHAPE((4, 8), "float32")
    once = 2 * 4 * 8 * 8
    scan = lambda w, x: jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=10)[0]
    assert flops.count(scan, w, x) == 10 * once
    branch = lambda w, x: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w)
    assert flops.count(branch, w, x) == 2 * once
    assert flops.count(jax.jit(lambda w, x: scan(w, jax.checkpoint(lambda x: x @ w)(x))), w, x) == 11 * once
    compiled = jax.jit(lambda w, x: x @ w).lower(w, x).compile()
    assert compiled.cost_analysis()["flops"] == pytest.approx(once, rel=0.05)


HLO = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (input: f32[1024,8]) -> f32[256,8] {
  %all-reduce.9 = f32[1024,8]{1,0} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %piece = f32[256,8]{1,0} dynamic-slice(%all-reduce.9, %i, %z), dynamic_slice_sizes={256,8}
}

%body (p: (s32[], bf16[64,16])) -> (s32[], bf16[64,16]) {
  %all-gather.3 = bf16[64,16]{1,0:T(8,128)(2,1)} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %t = (s32[], bf16[64,16]) tuple(%i, %all-gather.3)
}

%condition (p: (s32[], bf16[64,16])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (w: f32[1024,8]) -> f32[256,8] {
  %while.1 = (s32[], bf16[64,16]) while(%init), condition=%condition, body=%body, TRIPS
  %ar = (f32[10], f32[30]) all-reduce(%g0, %g1), GROUPS, to_apply=%add
  %cp = (f32[100], f32[100]) collective-permute-start(%y), source_target_pairs={{0,1},{1,0}}
  %cpd = f32[100] collective-permute-done(%cp)
  %alone = f32[9] all-reduce(%g3), replica_groups={{0},{1}}, to_apply=%add
  ROOT %fusion.1 = f32[256,8]{1,0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
HLO = HLO.replace("TRIPS", 'backend_config={"known_trip_count":{"n":"12"}}')
HLO = HLO.replace("GROUPS", "replica_groups=mesh['a'=2,'b'=1,'c'=4], device_ids=([4,2]T(1,0)) {'c'}")


def test_collectives_of_a_program():
    """All forms of groups, loops by their length, fused forms; what happens within one device is none."""
    found = summary(collectives(HLO, 8))
    gathered, reduced = 64 * 16 * 2 * 12, 40 * 4
    assert found == {
        "all-reduce": (1, reduced, 2 * reduced * 3 / 4),
        "all-gather": (12, gathered, gathered * 3 / 4),
        "reduce-scatter": (1, 1024 * 8 * 4, 1024 * 8 * 4 * 3 / 4),
        "collective-permute": (1, 400, 400.0),
    }


def test_estimate_is_the_longest_and_the_sum():
    chip = plan_ahead.Chip(flops=100.0, hbm=1e3, bandwidth=10.0, links=5.0)
    program = plan_ahead.Program({"peak": 500}, 4000.0, 50.0, {"all-reduce": (1, 8, 10.0)}, chips=4)
    time = plan_ahead.estimate(program, chip)
    assert tuple(time) == (10.0, 5.0, 2.0) and time.least == 10.0 and time.most == 17.0
    lines = "\n".join(command.report("train step", program, chip))
    assert "yes, 50% of 1.00 kB" in lines and "100% ... 59%" in lines


@pytest.mark.parametrize(
    "message, peak",
    [
        ("Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm. Exceeded", 17.5 * 2**30),
        ("the total memory required for HLO temporaries (18.00G) exceeds available HBM (15.75G).", 18 * 2**30 + 7),
    ],
)
def test_too_little_memory_is_a_row(message, peak):
    """Both of the compiler's accounts; the second is of what stands beside the arguments."""

    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {message}")

    program = plan_ahead._program(Lowered(), {"parameters": 7}, 1.0, 4)
    assert not program.fits and program.memory == {"parameters": 7, "peak": peak}


@pytest.mark.parametrize(
    "options, message",
    [
        (["--topology=v9:2x2"], r"--topology: expected CHIP:AxB .*\['v4', 'v5e', 'v5p', 'v6e'\], got 'v9:2x2'"),
        (["--topology=v5e:16"], "--topology: expected CHIP:AxB"),
        (["--topology=v5e:2x2", "--mesh=data:2"], "--mesh: expected axes such as data=-1,fsdp=8, got 'data:2'"),
        (["--topology=v5e:2x2", "--shape=8,x"], "--shape: expected sizes such as 64,64,3, got '8,x'"),
        (["--topology=v5e:2x2", "--samples=0"], "--samples: expected at least 1, got 0"),
    ],
)
def test_bad_options(options, message, capsys):
    assert main(["compile", "--config=edm_digits:smoke", *options]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_without_the_compiler(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["compile", "--config=edm_digits:smoke", "--topology=v5e:2x2"]) == 2
    assert "expected the package libtpu, the compiler for TPUs" in capsys.readouterr().err


def test_a_slice_that_is_not_here(capsys, tmp_path):
    """On the TPU's compiler: data-parallel training sums exactly the gradients; FSDP splits what is kept."""
    pytest.importorskip("libtpu")
    base = ["compile", "--config=edm_digits:smoke", "--shape=64", "--classes=10", "--topology=v5e:2x2", "--no-sampler"]
    small = "--config.sharding={'min_size': 64}"
    found = {}
    for name, mesh in [("data", "data=4"), ("fsdp", "data=1,fsdp=4")]:
        out = tmp_path / f"{name}.json"
        assert main([*base, f"--mesh={mesh}", small, f"--out={out}"]) == 0
        assert "yes, " in capsys.readouterr().out
        found[name] = json.loads(out.read_text())["programs"]["train step"]
    data, fsdp = found["data"], found["fsdp"]
    params = data["memory"]["parameters"]
    assert data["memory"]["optimizer"] == pytest.approx(2 * params, rel=0.01)
    assert params <= data["collectives"]["all-reduce"]["bytes"] <= 1.02 * params
    assert set(data["collectives"]) == {"all-reduce"}
    for what in ("parameters", "optimizer", "averages"):
        assert fsdp["memory"][what] == pytest.approx(data["memory"][what] / 4, rel=0.1)
    assert fsdp["operations"] == data["operations"] and "all-gather" in fsdp["collectives"]


def test_unknown_slice(capsys):
    pytest.importorskip("libtpu")
    assert main(["compile", "--config=edm_digits:smoke", "--topology=v5e:3x7"]) == 2
    assert "--topology: the compiler knows no slice 'v5e:3x7'" in capsys.readouterr().err
