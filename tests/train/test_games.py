"""What a training of a game says: warnings in words, coverage, walks through the latent space, through the commands."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import build
from genjax.algorithms.games import latent_path
from genjax.cli import config as configs
from genjax.cli.main import main
from genjax.train import games


def test_diagnosis_by_metrics():
    """Certain critic and no gradient: saturated. All taken for real: collapsed. A certain critic alone is no fault."""
    metrics = lambda real, fake, norm: {"sign_real": real, "sign_fake": fake, "g_grad_norm": norm}
    assert "saturated" in games.diagnose(metrics(1.0, -1.0, 1e-4), 1.0)
    assert games.diagnose(metrics(1.0, -1.0, 0.5), 1.0) is None
    assert games.diagnose(metrics(0.3, -0.3, 1e-4), 1.0) is None
    assert "calls everything real" in games.diagnose(metrics(1.0, 0.99, 0.5), 1.0)
    assert games.diagnose({"loss": 1.0}, 1.0) is None


class Listener:
    def __init__(self):
        self.last, self.lines = {}, []

    def say(self, line):
        self.lines.append(line)


def test_a_fault_is_said_once():
    hook, log = games.watch_hook(5, 10), Listener()
    assert hook.every == 10
    log.last = {"sign_real": 0.2, "sign_fake": -0.2, "g_grad_norm": 2.0}
    hook.run(10, None, log)
    log.last = {"sign_real": 1.0, "sign_fake": -1.0, "g_grad_norm": 0.01}
    for step in (20, 30):
        hook.run(step, None, log)
    assert len(log.lines) == 1 and "warning: step 20: the discriminator is saturated" in log.lines[0]


def test_coverage_that_falls():
    """Samples like the data: 1. Two points of the ring only: half the classes' entropy, and a warning after it fell."""
    rng = np.random.default_rng(0)
    centers = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    label = rng.integers(0, 4, 2000)
    x = centers[label] + 0.01 * rng.normal(size=(2000, 2))
    judge = lambda x: np.argmax(x @ centers.T, axis=1)
    coverage = games.Coverage(x, judge, 4)
    good = coverage.measure(x[:500])
    assert good["spread"] == pytest.approx(1, abs=0.05) and good["class_entropy"] == pytest.approx(1, abs=0.02)
    assert coverage.diagnose(good) is None
    two = coverage.measure(x[(label == 0) | (label == 2)])
    assert two["class_entropy"] == pytest.approx(0.5, abs=0.01) and two["spread"] < 1.1
    one = coverage.measure(x[label == 1])
    assert "the entropy of their classes is 0% of what it could be" in coverage.diagnose(one)
    assert games.Coverage(x).measure(x[label == 1])["spread"] < 0.05


def test_latent_path_keeps_the_norm():
    z = jax.random.normal(jax.random.key(0), (2, 200))
    path = jax.jit(lambda a, b: latent_path(a, b, 7))(z[0], z[1])
    np.testing.assert_allclose(path[0], z[0], atol=1e-4)
    np.testing.assert_allclose(path[-1], z[1], atol=1e-4)
    norm = jnp.linalg.norm(path, axis=-1)
    assert float(jnp.abs(norm / norm[0] - 1).max()) < 0.15


def test_commands_play_a_game(tmp_path, capsys):
    """train, sample by label and truncated, evaluate without a likelihood; walks and coverage beside the samples."""
    workdir = tmp_path / "game"
    assert main(["train", "--config=gan/r3gan_digits:smoke", f"--workdir={workdir}"]) == 0
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("d_loss", "g_loss", "sign_real", "r1_r2"))
    assert {p.name for p in (workdir / "interpolations").iterdir()} == {"00000020.png", "00000040.png"}
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert any("coverage/spread" in r for r in records)
    out = tmp_path / "x.npz"
    assert main(["sample", f"--workdir={workdir}", "--num=6", "--labels=1,2", f"--out={out}"]) == 0
    found = np.load(out)
    assert found["x"].shape == (6, 64) and found["label"].tolist() == [1, 1, 1, 2, 2, 2]
    assert main(["evaluate", f"--workdir={workdir}", "--num=20"]) == 0
    assert set(json.loads((workdir / "metrics.json").read_text())["metrics"]) == {"sliced_w2", "energy_distance"}
    assert main(["evaluate", f"--workdir={workdir}", "--num=20", "--metrics=bits_per_dim"]) == 2
    assert "needs a model with a likelihood" in capsys.readouterr().err


def test_the_config_traces():
    config = configs.load("gan/r3gan_digits")
    spec = build.dataset(config).spec
    parts = build.parts(config, spec)
    assert build.metrics(config, parts, spec) == ("fd", "precision_recall", "accuracy")
