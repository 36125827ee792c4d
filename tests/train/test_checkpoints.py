"""Checkpoints: every bit back, damage found and named, failures of the disk reported in one line."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest

from genjax.core.types import State
from genjax.train import checkpoints
from genjax.train.checkpoints import Writer, abstract_like, newest_intact, restore, set_aside

META = {"config": {"a": 1}, "seed": 0}


def make_state(key=None):
    """A State with every kind of leaf: floats of two widths, integers, booleans, key arrays, empty nodes."""
    key = jax.random.key(3) if key is None else key
    params = {"net": {"layer/0": {"kernel": jax.random.normal(key, (7, 5)), "half": jnp.ones(3, jnp.bfloat16) / 3}}}
    extra = {"keys": jax.random.split(jax.random.key(1, impl="rbg"), 4), "mask": jnp.arange(5) > 2, "none": ()}
    return State(jnp.int32(5), params, (), ema=[jnp.float32(0.1), jnp.arange(4, dtype=jnp.uint8)], extra=extra)


def save_all(directory, steps, **options):
    state = make_state()
    with Writer(directory, **options) as writer:
        for step in steps:
            writer.save(step, state._replace(step=jnp.int32(step)), META)


def flip_bit(path, position=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    path.write_bytes(bytes(data))


def biggest(directory):
    return max((p for p in directory.rglob("*") if p.is_file() and p.name != "manifest.json"), key=os.path.getsize)


def test_every_bit_comes_back(tmp_path, same):
    """Would catch a lost dtype, key kind, shape or structure."""
    save_all(tmp_path, [5])
    state, meta = restore(tmp_path, 5, abstract_like(make_state))
    same(state, make_state())
    assert isinstance(state, State) and jax.random.key_impl(state.extra["keys"]) == jax.random.key_impl(
        make_state().extra["keys"]
    )
    assert meta["step"] == 5 and meta["config"] == {"a": 1} and meta["versions"]["jax"] == jax.__version__


def test_saved_buffers_may_be_donated_at_once(tmp_path):
    """The write is in the background; would catch a checkpoint of the values after the next step."""
    advance = jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)
    state = {"x": jnp.zeros((1500, 1500))}
    with Writer(tmp_path, keep=3) as writer:
        for step in range(3):
            writer.save(step, state, META)
            state = advance(state)
    for step in range(3):
        saved, _ = restore(tmp_path, step, abstract_like(lambda: {"x": jnp.zeros((1500, 1500))}))
        assert float(saved["x"].min()) == float(saved["x"].max()) == step


def test_keep_policy(tmp_path):
    save_all(tmp_path, [10, 20, 30, 40, 50], keep=2, keep_every=20)
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == [20, 40, 50]


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "no manifest", "broken manifest"])
def test_damage_is_found_named_and_the_one_before_is_used(tmp_path, same, harm):
    save_all(tmp_path, [1, 2])
    newest = tmp_path / "00000002"
    victim = biggest(newest)
    if harm == "flip":
        flip_bit(victim)
    elif harm == "truncate":
        victim.write_bytes(victim.read_bytes()[:-1])
    elif harm == "remove":
        victim.unlink()
    elif harm == "no manifest":
        (newest / "manifest.json").unlink()
    else:
        (newest / "manifest.json").write_text('{"state')
    lines = []
    assert newest_intact(tmp_path, lines.append) == 1
    named = "manifest.json" if "manifest" in harm else str(victim.relative_to(newest))
    assert len(lines) == 1 and str(newest) in lines[0] and named in lines[0] and "one before" in lines[0]
    same(restore(tmp_path, 1, abstract_like(make_state))[0], make_state()._replace(step=jnp.int32(1)))
    set_aside(tmp_path, 1)
    assert not newest.exists() and (tmp_path / "00000002.damaged").exists()
    save_all(tmp_path, [2])  # the step can be written again
    assert newest_intact(tmp_path) == 2


def test_any_flipped_bit_is_found(tmp_path):
    """Every file of a checkpoint is covered, the first and the last byte too."""
    save_all(tmp_path, [1])
    directory = tmp_path / "00000001"
    for path in sorted(p for item in checkpoints.ITEMS for p in (directory / item).rglob("*") if p.is_file()):
        for position in (0, -1) if path.stat().st_size else ():
            flip_bit(path, position)
            assert str(path.relative_to(directory)) in checkpoints.damage(directory)
            flip_bit(path, position)
    assert checkpoints.damage(directory) is None


def test_nothing_to_restore(tmp_path):
    assert newest_intact(tmp_path / "none") is None
    save_all(tmp_path, [1])
    (tmp_path / "00000001" / "manifest.json").unlink()
    assert newest_intact(tmp_path, None) is None


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    save_all(tmp_path, [1])
    other = lambda: make_state()._replace(ema=[jnp.float32(0), jnp.zeros(3, jnp.uint8)])
    with pytest.raises(ValueError, match=r"expected ema/1 as uint8\[3\] \(by the config\), got uint8\[4\]"):
        restore(tmp_path, 1, abstract_like(other))
    with pytest.raises(ValueError, match=r"expected frozen/w as float32\[2\] \(by the config\), got nothing"):
        restore(tmp_path, 1, abstract_like(lambda: make_state()._replace(frozen={"w": jnp.zeros(2)})))


FULL = """
    import resource, sys
    import jax.numpy as jnp
    import numpy as np
    from genjax.train.checkpoints import Writer, newest_intact, restore, abstract_like

    rng = np.random.default_rng(0)
    small, big = (lambda n=n: {"x": jnp.asarray(rng.normal(size=n), jnp.float32)} for n in (100, 300_000))
    try:
        with Writer(sys.argv[1]) as writer:
            writer.save(1, small(), {})
            writer.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
            writer.save(2, big(), {})
    except OSError as error:
        assert "\\n" not in str(error), error
        print("error:", error)
    print("newest", newest_intact(sys.argv[1]))
"""


def test_a_disk_that_fills_up_costs_only_the_checkpoint_being_written(tmp_path):
    """The system refuses to write beyond 200 kB: one line, and the checkpoint before is whole."""
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path / "c")], capture_output=True, text=True, timeout=120
    )
    assert "error: checkpoint" in out.stdout and "00000002: could not be written" in out.stdout, out.stdout + out.stderr
    assert out.stdout.strip().endswith("newest 1")


def test_manifest_is_json_of_hashes(tmp_path):
    save_all(tmp_path, [1])
    manifest = json.loads((tmp_path / "00000001" / "manifest.json").read_text())
    assert any(name.startswith("state/") for name in manifest) and any(name.startswith("meta/") for name in manifest)
    assert all(len(value) == 64 for value in manifest.values())
