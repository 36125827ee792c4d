"""A game on one device, data-parallel, FSDP and pmap over four: the same metrics, weights, statistics and samples.

Would catch a coupled term that sees a device's own samples alone, chunks of the critic's updates that differ
between layouts, and draws that depend on the device.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("gan_devices.py")
ROOT = SCRIPT.parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("game") / "out.npz"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(SCRIPT), str(out)], capture_output=True, text=True, timeout=280, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(out))


@pytest.mark.parametrize("name", ["data", "fsdp", "pmap"])
def test_layout(found, name):
    one = found["one/metrics"]
    assert one.shape[0] == 3 and np.all(np.isfinite(one)) and np.std(one[:, 0]) > 0
    np.testing.assert_allclose(found[f"{name}/metrics"], one, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found[f"{name}/state"], found["one/state"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[f"{name}/samples"], found["one/samples"], rtol=0, atol=1e-5)
