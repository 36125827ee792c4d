"""One device, data-parallel, FSDP, tensor-parallel and pmap: the same losses, parameters and samples.

Trained by eight_devices.py in a process with eight simulated devices. Would catch a draw that depends on the
device, a mean over the wrong axis, a collective left out, and a checkpoint that fits one mesh alone.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(900)  # a minute where nothing else runs; all of it is in one fixture
SCRIPT = Path(__file__).with_name("eight_devices.py")
ROOT = SCRIPT.parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-W", "error::DeprecationWarning", str(SCRIPT), str(folder / "out.npz"), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=800, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(folder / "out.npz"))


PAIRS = [("data", "one"), ("fsdp", "one"), ("pmap", "one"), ("dit_tensor", "dit_one"), ("moved", "one")]


@pytest.mark.parametrize("name, reference", PAIRS)
def test_losses_and_parameters(found, name, reference):
    """ "moved" was cut after two steps under FSDP on eight devices and went on in another mesh of four."""
    losses = found[f"{reference}/loss"]
    assert len(losses) == 5 and len(set(losses)) == 5
    np.testing.assert_allclose(found[f"{name}/loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(found[f"{name}/params"], found[f"{reference}/params"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, reference", PAIRS[:-1])
def test_samples(found, name, reference):
    """A stochastic sampler: each sample draws from a key of its own, wherever it is drawn."""
    samples = found[f"{reference}/samples"]
    assert samples.std() > 0.1 and not np.allclose(samples[0], samples[10])
    np.testing.assert_allclose(found[f"{name}/samples"], samples, rtol=0, atol=1e-5)


def test_commands_on_a_mesh(found):
    """`genjax sample` and `genjax evaluate` of an FSDP training: on one device, and on eight with the weights split.
    Would catch a checkpoint that only its own mesh can read, a draw that depends on the device, and --mesh being
    ignored."""
    drawn = found["command_one/drawn"]
    assert drawn.std() > 0.1 and not np.allclose(drawn[0], drawn[-1])
    np.testing.assert_allclose(found["command_mesh/drawn"], drawn, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["command_mesh/metrics"], found["command_one/metrics"], rtol=1e-4)
    facts = json.loads(str(found["facts"]))
    kernel = "params/denoiser/block0_in/kernel"
    whole, piece = facts["command_mesh"][kernel]
    assert np.prod(whole) == 4 * np.prod(piece) and facts["command_one"][kernel] == [whole, whole]


def test_what_is_split(found):
    """FSDP would be a name alone if the optimizer state or the average were whole on every device."""
    facts = json.loads(str(found["facts"]))
    facts.pop("sent")
    split = {name: {path for path, (a, b) in facts[name].items() if a != b} for name in facts}
    assert not split["one"] and not split["data"] and not split["pmap"] and not split["dit_one"]
    for name, kernel, parts in [
        ("fsdp", "block0_in/kernel", 8),
        ("moved", "block0_in/kernel", 2),
        ("dit_tensor", "block0/mlp_in/kernel", 4),
        ("dit_tensor", "block0/attention/out/kernel", 4),
    ]:
        at = {path: np.prod(a) / np.prod(b) for path, (a, b) in facts[name].items() if path.endswith(kernel)}
        assert len(at) == 4 and set(at.values()) == {parts}  # parameters, two moments, average


def test_convolutions_gather_parameters_and_not_the_batch(found):
    """Left to itself, XLA keeps a split kernel in place and gathers the batch instead: thirty times the bytes."""
    sent = json.loads(str(found["facts"]))["sent"]
    assert 0 < sent["data"] < sent["fsdp"] < 3 * sent["data"]
