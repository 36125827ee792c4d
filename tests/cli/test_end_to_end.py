"""Train, sample and evaluate through the command line on real digits; every bad input of issue and user."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genjax.cli.main import main
from genjax.cli.train import UNFINISHED
from genjax.train import checkpoints
from genjax.train.logs import read_metrics

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "experiments" / "diffusion" / "edm_digits.py") + ":smoke"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    assert main(["train", f"--config={CONFIG}", f"--workdir={workdir}", "--quiet"]) == 0
    return workdir


def fails(argv, message, capsys):
    """The command ends with code 2 and one line on stderr that holds `message` (a pattern)."""
    capsys.readouterr()
    code = main(argv)
    err = capsys.readouterr().err
    last = err.strip().splitlines()[-1] if err.strip() else ""
    assert code == 2 and re.search(message, last), (code, err)
    assert "Traceback" not in err and err.count("error:") == 1


def test_training_learns_and_leaves_what_it_should(trained, cache):
    records = [r for r in read_metrics(trained / "metrics.jsonl") if "loss" in r]
    assert [r["step"] for r in records] == [1, 20, 40, 60]
    assert records[-1]["loss"] < records[0]["loss"]
    assert checkpoints.newest_intact(trained / "checkpoints") == 60
    assert json.loads((trained / "config.json").read_text())["data"]["name"] == "digits_vector"
    assert any((trained / "events").iterdir()) and any((cache / "compiled").iterdir())


def test_samples_as_picture_and_as_arrays(trained, tmp_path):
    argv = ["sample", f"--workdir={trained}", "--steps=3"]
    assert main([*argv, "--num=20", f"--out={tmp_path}/a.png"]) == 0
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.ndim == 3 and picture.std() > 10 and picture.shape[0] > 10 * 32  # ten rows, a class each
    assert main([*argv, "--num=6", "--labels=3,7", f"--out={tmp_path}/b.npz"]) == 0
    arrays = np.load(tmp_path / "b.npz")
    assert arrays["x"].shape == (6, 64) and arrays["label"].tolist() == [3, 3, 3, 7, 7, 7]
    assert np.isfinite(arrays["x"]).all()
    # the same seed and label give the same sample whatever else is drawn; another seed another one
    assert main([*argv, "--num=2", "--labels=3", f"--out={tmp_path}/c.npz"]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "c.npz")["x"], arrays["x"][:2], atol=1e-4)
    assert main([*argv, "--num=2", "--labels=3", "--seed=1", f"--out={tmp_path}/d.npz"]) == 0
    assert np.abs(np.load(tmp_path / "d.npz")["x"] - arrays["x"][:2]).max() > 0.1
    for name, option in {"e": "--cfg-scale=4", "f": "--solver=DPM++ 2M Karras", "g": "--grid=log_snr"}.items():
        assert main([*argv, "--num=2", "--labels=3", option, f"--out={tmp_path}/{name}.npz"]) == 0
        assert np.abs(np.load(tmp_path / f"{name}.npz")["x"] - arrays["x"][:2]).max() > 1e-3
    # what an option says, the config's own spelling says too
    long = ["sample", f"--workdir={trained}", "--num=2", "--labels=3"]
    long += ["--config.sample.steps=3", "--config.sample.solver=DPM++ 2M Karras", f"--out={tmp_path}/h.npz"]
    assert main(long) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "h.npz")["x"], np.load(tmp_path / "f.npz")["x"])
    (tmp_path / "h.npz").unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", *(f"{n}.npz" for n in "bcdefg")]


def test_evaluation_prints_a_table_and_writes_json(trained, tmp_path, capsys):
    out = tmp_path / "metrics.json"
    metrics = "sliced_w2,energy,mmd,bits_per_dim"
    argv = ["evaluate", f"--workdir={trained}", f"--metrics={metrics}", "--num=40", f"--out={out}"]
    assert main([*argv, "--config.sample.steps=3", "--config.eval.draws=4", f"--curve={tmp_path}/loss.png"]) == 0
    record = json.loads(out.read_text())
    assert set(record["metrics"]) == {"sliced_w2", "energy_distance", "mmd2", "bits_per_dim[bound, test]"}
    assert record["num"] == 40 and record["step"] == 60 and record["sample"]["steps"] == 3
    assert main([*argv[:-1], f"--out={tmp_path}/short.json", "--steps=3", "--config.eval.draws=4"]) == 0
    assert json.loads((tmp_path / "short.json").read_text()) == record
    table = capsys.readouterr().out
    assert all(f"{name}" in table and f"{value:.4f}" in table for name, value in record["metrics"].items())
    # a bound on discrete data lies between 0 and, for 17 levels and this little training, a few times log2(17)
    assert 0 < record["metrics"]["bits_per_dim[bound, test]"] < 20
    assert np.asarray(Image.open(tmp_path / "loss.png")).std() > 0


def test_hooks_write_grids_and_metrics(tmp_path):
    argv = ["train", f"--config={CONFIG}", f"--workdir={tmp_path}/w", "--quiet", "--config.train.steps=20"]
    groups = ["--config.train={'steps': 20, 'batch_size': 32, 'sample_every': 10, 'evaluate_every': 20}"]
    groups += ["--config.eval={'num': 20, 'metrics': ['sliced_w2']}", "--config.sample.steps=2"]
    assert main([*argv, *groups]) == 0
    assert sorted(p.name for p in (tmp_path / "w" / "samples").iterdir()) == ["00000010.png", "00000020.png"]
    assert [r["step"] for r in read_metrics(tmp_path / "w" / "metrics.jsonl") if "sliced_w2" in r] == [20]


def test_sigterm_saves_and_a_rerun_equals_an_uninterrupted_training(trained, tmp_path):
    """A real process, a real signal: the state after the second run has the bits of the run never stopped."""
    workdir = tmp_path / "run"
    argv = [sys.executable, "-m", "genjax.cli.main", "train", f"--config={CONFIG}", f"--workdir={workdir}"]
    argv += ["--config.train.steps_per_call=1", "--config.train.log_every=1"]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while len(read_metrics(workdir / "metrics.jsonl")) < 5:
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    step = checkpoints.newest_intact(workdir / "checkpoints")
    assert f"SIGTERM: saved step {step} of 60" in err or step == 60, err
    assert process.returncode == (UNFINISHED if step < 60 else 0), err
    overrides = ["--config.train.steps_per_call=1", "--config.train.log_every=1"]
    assert main(["train", f"--config={CONFIG}", f"--workdir={workdir}", "--quiet", *overrides]) == 0
    assert [r["step"] for r in read_metrics(workdir / "metrics.jsonl")] == list(range(1, 61))
    one, other = (_arrays(path) for path in (trained, workdir))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def _arrays(workdir):
    from genjax.cli import runtime

    model = runtime.restore(runtime.stored_config(workdir), workdir)
    return {name: np.asarray(a) for name, a in checkpoints.to_arrays(model.state).items()}


def test_damaged_newest_checkpoint_falls_back(tmp_path, capsys):
    workdir = tmp_path / "run"
    argv = ["train", f"--config={CONFIG}", f"--workdir={workdir}"]
    assert main([*argv, "--quiet"]) == 0
    before = _arrays(workdir)
    newest = workdir / "checkpoints" / "00000060"
    victim = max((p for p in (newest / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-7])
    capsys.readouterr()
    assert main(["sample", f"--workdir={workdir}", "--num=2", "--steps=2", f"--out={tmp_path}/x.npz"]) == 0
    out = capsys.readouterr().out
    assert "00000060 is damaged" in out and "samples of step 40" in out
    assert main(argv) == 0  # trains steps 41 to 60 again
    assert "resumed" in capsys.readouterr().err
    after = _arrays(workdir)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_nan_stops_the_training(tmp_path, capsys):
    argv = ["train", f"--config={CONFIG}", f"--workdir={tmp_path}/w", "--quiet"]
    options = [
        "--config.optimizer.learning_rate=1e30",
        "--config.optimizer.clip=0.0",
        "--config.optimizer.schedule=none",
    ]
    assert main([*argv, *options]) == 1
    err = capsys.readouterr().err
    assert "training diverged" in err and "became NaN or infinite before step" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.network.widht=3"], r"network\.widht: unknown key; did you mean 'width'\?"),
        (["--config.netwrok.width=3"], r"unknown key 'netwrok'; did you mean 'network'\?"),
        (["--config.network.name=mpl"], r"network\.name: unknown name 'mpl'; did you mean 'mlp'\?"),
        (["--config.train.stops=3"], r"train\.stops: unknown key; did you mean 'steps'\?"),
        (["--config.train.steps=many"], r"--config\.train\.steps: expected int such as 60, got 'many'"),
        (["--config.train.batch_size=2000"], r"batch_size: expected at most 1438, the examples of the data, got 2000"),
        (["--config.data.name=digit"], r"data\.name: unknown name 'digit'"),
        (["--config.data={'name': 'folder', 'path': 'no/such'}"], r"no/such"),
        (["--config.data={'name': 'npz', 'path': 'no/such.npz'}"], r"no/such\.npz"),
        (["--config.eval.metrics=fdd"], r"eval\.metrics: unknown name 'fdd'"),
        (["--config.sample.solver=huen"], r"sample\.solver\.name: unknown name 'huen'"),
        (["--config.data={'name': 'swiss_roll'}"], r"algorithm\.cond|classes"),
        (["--config.network={'name': 'unet'}"], r"."),  # vectors into a network of images
    ],
)
def test_bad_configs_end_before_training(overrides, message, tmp_path, capsys):
    workdir = tmp_path / "w"
    fails(["train", f"--config={CONFIG}", f"--workdir={workdir}", *overrides], message, capsys)
    assert not workdir.exists()


def _npz(path, **arrays):
    np.savez(path, **arrays)
    return ["--config.data={'name': 'npz', 'path': '" + str(path) + "'}"]


def test_bad_data_files(tmp_path, capsys):
    workdir = tmp_path / "w"
    base = ["train", f"--config={CONFIG}", f"--workdir={workdir}"]
    x, label = np.zeros((40, 8), np.float32), np.arange(40) % 10
    fails([*base, *_npz(tmp_path / "a.npz", y=x)], "expected a field|'x'", capsys)
    fails([*base, *_npz(tmp_path / "b.npz", x=np.where(np.eye(40, 8), np.nan, x), label=label)], "finite", capsys)
    fails([*base, *_npz(tmp_path / "c.npz", x=x, label=label - 1)], r"label: expected", capsys)
    (tmp_path / "d.npz").write_bytes(b"PK not a zip")
    fails([*base, "--config.data={'name': 'npz', 'path': '" + str(tmp_path / "d.npz") + "'}"], r"d\.npz", capsys)
    images = tmp_path / "images"
    for name, size in {"a": 8, "b": 12}.items():
        (images / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.zeros((size, size), np.uint8)).save(images / name / f"{i}.png")
    folder = ["--config.data={'name': 'folder', 'path': '" + str(images) + "'}"]
    fails([*base, *folder], r"size|shape", capsys)
    (images / "b" / "0.png").write_bytes(b"no picture")
    fails([*base, *folder], r"0\.png|size|shape", capsys)
    assert not workdir.exists()


def test_workdir_of_another_config_is_refused_and_kept(trained, capsys):
    before = {p: p.stat().st_mtime_ns for p in (trained / "checkpoints").rglob("*")}
    argv = ["train", f"--config={CONFIG}", f"--workdir={trained}", "--config.optimizer.learning_rate=0.5"]
    fails(argv, r"workdir: .* holds another config: optimizer\.learning_rate is 0\.001 there and 0\.5 here", capsys)
    assert {p: p.stat().st_mtime_ns for p in (trained / "checkpoints").rglob("*")} == before


def test_places_that_cannot_be_written(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    base = ["train", f"--config={CONFIG}"]
    fails([*base, f"--workdir={tmp_path}/file/w"], "expected a directory that can be written to", capsys)
    sample = ["sample", f"--workdir={trained}", "--num=2"]
    fails([*sample, f"--out={tmp_path}/file/x.png"], "expected a directory that can be written to", capsys)
    evaluate = ["evaluate", f"--workdir={trained}", "--metrics=energy"]
    fails([*evaluate, f"--out={tmp_path}/file/m.json"], "expected a directory that can be written to", capsys)


def test_a_disk_without_room_is_found_before_training(tmp_path, capsys, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    fails(
        ["train", f"--config={CONFIG}", f"--workdir={tmp_path}/w"], r"expected room for [\d,]+ bytes, got 1,000", capsys
    )
    assert list((tmp_path / "w").iterdir()) == []


FULL = """
import resource, sys
from genjax.cli.main import main
argv = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(main(argv))
"""


def test_a_disk_that_fills_up_while_training(tmp_path):
    """No file may grow beyond 30 kB: the checkpoint cannot be written; one line says so, code 2."""
    argv = [sys.executable, "-c", FULL, "train", f"--config={CONFIG}", f"--workdir={tmp_path}/w", "--quiet"]
    env = {**os.environ, "GENJAX_CACHE": str(tmp_path / "cache"), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    out = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=180, env=env)
    errors = [line for line in out.stderr.splitlines() if line.startswith("genjax train: error:")]
    assert out.returncode == 2 and len(errors) == 1 and "Traceback" not in out.stderr, out.stderr
    assert re.search(r"checkpoint .*/00000020: could not be written", errors[0]), out.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels=11"], r"--labels: expected classes 0 \.\.\. 9, got 11"),
        (["--labels=a"], "--labels: expected classes such as 0,3,7 or 0-9, got 'a'"),
        (["--labels=3-1"], r"--labels: expected a range from its lower end, such as 1-3, got '3-1'"),
        (["--labels=0,3-1"], r"--labels: expected a range from its lower end, such as 1-3, got '3-1'"),
        (["--steps=3", "--config.sample.steps=3"], r"--steps: expected this or --config\.sample\.steps, got both"),
        (["--config.sample.stps=3"], r"sample\.stps: unknown key; did you mean 'steps'\?"),
        (["--config.network.width=3"], "only sample can be changed of a trained model"),
        (["--labels=0,1,2,3,4"], "--labels: expected 1 to 4 classes for 4 samples, got 5"),
        (["--solver=huen"], r"unknown name 'huen'; did you mean 'heun'\?"),
        (["--steps=0"], r"sample\.steps: expected at least 1, got 0"),
        (["--steps=x"], "argument --steps: invalid int value: 'x'"),
        (["--num=0"], "--num: expected at least 1, got 0"),
        (["--out=x.gif"], r"--out: expected a file that ends in \.png or \.npz, got 'x\.gif'"),
    ],
)
def test_bad_sampling_options(trained, options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(["sample", f"--workdir={trained}", "--num=4", "--out=x.npz", *options], message, capsys)
    assert list(tmp_path.iterdir()) == []


def test_bad_evaluation_options(trained, capsys):
    base = ["evaluate", f"--workdir={trained}"]
    fails([*base, "--metrics=fdd"], r"eval\.metrics: unknown name 'fdd'", capsys)
    fails([*base, "--num=1"], "--num: expected at least 2, got 1", capsys)
    fails([*base, "--config.network.width=3"], "only eval and sample can be changed", capsys)
    assert not (trained / "metrics.json").exists()


def test_labels_for_an_unconditional_model(tmp_path, capsys):
    workdir = tmp_path / "w"
    changes = ["--config.algorithm={'name': 'diffusion'}", "--config.train.steps=6", "--config.sample.cfg_scale=1.0"]
    assert main(["train", f"--config={CONFIG}", f"--workdir={workdir}", "--quiet", *changes]) == 0
    argv = ["sample", f"--workdir={workdir}", "--num=2", f"--out={tmp_path}/x.npz"]
    fails([*argv, "--labels=1"], "--labels: the model of this workdir is unconditional", capsys)
    assert main([*argv, "--steps=2"]) == 0
    assert np.load(tmp_path / "x.npz").files == ["x"]


def _on_eight_devices(*argv):
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    argv = [sys.executable, "-m", "genjax.cli.main", "train", f"--config={CONFIG}", "--quiet", *argv]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=180, env=env)


def test_eight_devices_give_the_losses_of_one(trained, tmp_path):
    """The batch is split over the devices; every sample keeps its key, so only the order of sums differs."""
    out = _on_eight_devices(f"--workdir={tmp_path}/w")
    assert out.returncode == 0 and "8 device(s)" in out.stdout, out.stderr
    one, eight = ([r["loss"] for r in read_metrics(path / "metrics.jsonl")] for path in (trained, tmp_path / "w"))
    np.testing.assert_allclose(one, eight, rtol=1e-3)


def test_batch_not_divisible_by_the_devices(tmp_path):
    out = _on_eight_devices(f"--workdir={tmp_path}/w", "--config.train.batch_size=30")
    message = "train.batch_size: expected a multiple of the number of devices, 8, got 30"
    assert out.returncode == 2 and out.stderr == f"genjax train: error: {message}\n"
    assert not (tmp_path / "w").exists()
