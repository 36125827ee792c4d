"""The exported sampler, run by a script that imports only JAX, gives the toolkit's own samples."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import build
from genjax.cli import config as configs
from genjax.cli import runtime
from genjax.cli.export import exported
from genjax.cli.main import main
from genjax.data import DataSpec
from genjax.train.generation import draw

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "experiments" / "diffusion" / "edm_digits.py") + ":smoke"
SCRIPT = """
import pathlib, sys
import jax
import numpy as np

sampler = jax.export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes()))
assert sampler.platforms == ("cpu", "cuda", "tpu"), sampler.platforms
for name, n, first in (("five", 5, 0), ("two", 2, 3)):
    number = jax.numpy.arange(first, first + n)
    x = sampler.call(jax.random.key(7), number, *((number % 10,) if sys.argv[2] == "labels" else ()))
    np.save(pathlib.Path(sys.argv[1]).with_name(name + ".npy"), x)
assert not any(name.split(".")[0] in ("genjax", "flax", "optax") for name in sys.modules)
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(runtime, "use_cache", lambda: None)
        yield


def run_alone(path, *argv):
    """What the script draws: samples 0 to 4, and samples 3 and 4 alone."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    argv = [sys.executable, "-c", SCRIPT, str(path), *argv]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=path.parent, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return np.load(path.with_name("five.npy")), np.load(path.with_name("two.npy"))


def test_export(tmp_path, capsys):
    """Would catch weights that are not those averaged, a batch that is fixed, and keys by place in the batch."""
    workdir, out = tmp_path / "run", tmp_path / "sampler.jaxexport"
    changes = ["--config.train.steps=10", "--config.sample.cfg_scale=1.0"]
    assert main(["train", f"--config={CONFIG}", f"--workdir={workdir}", "--quiet", *changes]) == 0
    assert main(["export", f"--workdir={workdir}", f"--out={out}", "--steps=2"]) == 0
    assert f"sampler of step 10 for cpu, cuda, tpu: {out}" in capsys.readouterr().out
    five, two = run_alone(out, "labels")
    config = runtime.stored_config(workdir)
    config.sample.steps = 2
    model = runtime.restore(config, workdir)
    cond = {"label": np.arange(5, dtype=np.int32)}
    expected = draw(model.parts.algorithm, jax.random.key(7), model.state, 5, cond)
    np.testing.assert_allclose(five, expected, atol=1e-5)
    np.testing.assert_allclose(two, expected[3:], atol=1e-5)


def test_unconditional_convolutions(tmp_path):
    """The toolkit's own convolution has another form on each platform; one file holds them all."""
    config = configs.load(CONFIG)
    config.algorithm = {"name": "diffusion"}
    config.network = {"name": "unet", "channels": 8, "multipliers": (1,), "attention": (), "head_channels": 8}
    config.sample = {"solver": "ddpm", "steps": 2}
    spec = DataSpec((4, 4, 1))
    algorithm = build.algorithm(config, spec)
    state = jax.jit(algorithm.init)(jax.random.key(0), {"x": jnp.zeros((1, 4, 4, 1))})
    out = tmp_path / "sampler.jaxexport"
    out.write_bytes(exported(algorithm, state, False).serialize())
    five, two = run_alone(out, "none")
    np.testing.assert_allclose(five, draw(algorithm, jax.random.key(7), state, 5), atol=1e-5)
    np.testing.assert_allclose(two, five[3:], atol=1e-5)


def test_bad_options(tmp_path, capsys):
    assert main(["export", f"--workdir={tmp_path}", f"--out={tmp_path}/x.jaxexport"]) == 2
    assert "--workdir: expected a directory that `genjax train` wrote" in capsys.readouterr().err
