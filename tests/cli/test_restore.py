"""`genjax restore` from images to folders, with a prior trained for some steps; every bad input of issue and user."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from genjax import data
from genjax.cli import restoration, restoration_files, restore
from genjax.cli.main import main
from genjax.inverse import NOISES
from genjax.processes import gaussian

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "experiments" / "diffusion" / "edm_digits.py") + ":smoke"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A prior of digits, trained long enough that it restores better than nothing."""
    folder = tmp_path_factory.mktemp("run")
    argv = ["train", f"--config={CONFIG}", f"--workdir={folder}", "--quiet"]
    argv += ["--config.train.steps=400", "--config.train.log_every=400", "--config.train.checkpoint_every=400"]
    argv += ["--config.train.batch_size=64", "--config.optimizer.learning_rate=4e-3"]
    assert main(argv) == 0
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of ten held-out digits as PNG files, in a folder of each class."""
    folder, held = tmp_path_factory.mktemp("digits"), data.load("digits", split="test").arrays
    for label in range(10):
        (folder / str(label)).mkdir()
        x = held["x"][np.flatnonzero(held["label"] == label)[0], ..., 0]
        Image.fromarray(np.round((x + 1) * 127.5).astype(np.uint8)).save(folder / str(label) / "x.png")
    return folder


def fails(argv, message, capsys):
    """The command ends with code 2 and one line on stderr that holds `message` (a pattern)."""
    capsys.readouterr()
    code = main(argv)
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and re.search(message, err), (code, err)


SR = ["--operator=super_resolution", "--operator.factor=2", "--noise=gaussian", "--noise.std=0.05"]


def test_a_folder_of_images(workdir, digits, tmp_path, capsys):
    """Every file is there and right; the estimate is nearer to the truth than what was measured; draws are kept
    whatever their number and the batch."""
    out = tmp_path / "deep" / "out"
    argv = ["restore", f"--workdir={workdir}", "--degrade", f"--input={digits}", *SR]
    argv += ["--method=pigdm", "--method.data_std=0.5", "--steps=20"]
    assert main([*argv, f"--out={out}", "--samples=6"]) == 0
    printed = capsys.readouterr().out
    names = [f"{label}-x" for label in range(10)]
    files = {"restored.png", "metrics.json", *(f"{n}.png" for n in names), *(f"{n}.npz" for n in names)}
    assert {p.name for p in out.iterdir()} == files and [p.name for p in out.parent.iterdir()] == ["out"]

    record = json.loads((out / "metrics.json").read_text())
    assert record["method"] == {"name": "pigdm", "data_std": 0.5} and record["operator"]["factor"] == 2
    assert record["nfe"] == 20 and record["draws"] == 6 and list(record["images"]) == names
    metrics = {"psnr", "ssim", "feature_distance[digits_vector-mlp-v1]", "psnr_draw", "spread", "residual"}
    assert set(record["mean"]) == metrics and all(metric in printed for metric in metrics)
    assert f"{record['mean']['psnr']:.4f}" in printed and "3-x" in printed

    for name in names:
        arrays = np.load(out / f"{name}.npz")
        draws = np.clip(arrays["draws"], -1, 1)
        assert draws.shape == (6, 8, 8, 1) and arrays["y"].shape == (4, 4, 1)
        np.testing.assert_allclose(arrays["estimate"], draws.mean(0), atol=1e-6)
        np.testing.assert_allclose(arrays["spread"], draws.std(0, ddof=1), atol=1e-6)
        error = np.mean((arrays["estimate"] - arrays["truth"]) ** 2)
        np.testing.assert_allclose(record["images"][name]["psnr"], 10 * np.log10(4 / error), rtol=1e-4)
        shown = np.asarray(Image.open(out / f"{name}.png"))
        assert np.abs(shown - (arrays["estimate"][..., 0] + 1) * 127.5).max() <= 0.51
        block = arrays["truth"].reshape(4, 2, 4, 2, 1).mean((1, 3))
        assert 0.02 < np.std(arrays["y"] - block) < 0.1
    measured = lambda a: np.mean((np.repeat(np.repeat(a["y"], 2, 0), 2, 1) - a["truth"]) ** 2)
    baseline = np.mean([10 * np.log10(4 / measured(np.load(out / f"{n}.npz"))) for n in names])
    assert record["mean"]["psnr"] > baseline + 1.0, (record["mean"], baseline)
    assert 0.01 < record["mean"]["spread"] < 0.5 and record["mean"]["residual"] < 0.2
    assert record["mean"]["psnr"] > record["mean"]["psnr_draw"]  # a mean of draws has less variance than one
    picture = np.asarray(Image.open(out / "restored.png"))
    assert picture.shape[0] == 16 + 10 * 66 + 2 and picture.std() > 10  # ten rows of 64 pixels below the titles

    # two draws, in chunks of three: the first two of the six
    other = tmp_path / "other"
    assert main([*argv, f"--out={other}", "--samples=2", "--batch=3"]) == 0
    a, b = (np.load(folder / "3-x.npz")["draws"][:2] for folder in (out, other))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_measurements_with_and_without_the_truth(workdir, digits, tmp_path, capsys):
    """A masked PNG and its mask: what is seen stays, a missing part is filled in; figures of the truth only with it."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:5] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    argv = ["restore", f"--workdir={workdir}", "--measured", f"--input={digits}/7/x.png"]
    argv += ["--operator=inpaint", f"--operator.mask={tmp_path}/mask.png", "--noise.std=0"]
    argv += ["--method=ddnm", "--steps=10", "--samples=4"]
    assert main([*argv, f"--out={tmp_path}/a"]) == 0
    record, arrays = json.loads((tmp_path / "a" / "metrics.json").read_text()), np.load(tmp_path / "a" / "x.npz")
    assert set(record["mean"]) == {"spread", "residual"} and "truth" not in arrays.files
    truth = np.asarray(Image.open(digits / "7" / "x.png"), np.float32) / 127.5 - 1
    np.testing.assert_allclose(arrays["draws"][:, :5, :, 0], np.broadcast_to(truth[:5], (4, 5, 8)), atol=1e-4)
    assert (arrays["y"][5:] == 0).all() and arrays["spread"][5:].mean() > 0.05 > arrays["spread"][:5].max()
    truth_option = f"--truth={digits}/7/x.png"
    assert main([*argv, f"--out={tmp_path}/b", truth_option]) == 0
    assert "psnr" in json.loads((tmp_path / "b" / "metrics.json").read_text())["mean"]
    fails([*argv, f"--out={tmp_path}/c", f"--truth={digits}"], "--truth: expected 1 images, one a .*, got 10", capsys)
    assert main([*argv, f"--out={tmp_path}/d", "--labels=3", "--cfg-scale=2"]) == 0  # another class: other draws
    assert np.abs(np.load(tmp_path / "d" / "x.npz")["draws"] - arrays["draws"])[:, 5:].max() > 0.01


def test_arrays_that_are_no_images(workdir, tmp_path, capsys):
    """Projections come as .npz, and give what the same images give when they are measured first."""
    truth = data.load("digits", split="test").arrays["x"][:2]
    np.savez(tmp_path / "x.npz", x=truth)
    argv = ["restore", f"--workdir={workdir}", "--degrade", f"--input={tmp_path}/x.npz", "--operator=radon"]
    argv += ["--operator.views=4", "--noise.std=0.1", "--method=dps", "--steps=3"]
    assert main([*argv, "--samples=2", "--labels=3,7", f"--out={tmp_path}/a"]) == 0
    y = np.stack([np.load(tmp_path / "a" / f"000{i}.npz")["y"] for i in range(2)])
    np.savez(tmp_path / "y.npz", y=y)
    argv[2:4] = ["--measured", f"--input={tmp_path}/y.npz"]
    assert main([*argv, "--samples=2", "--labels=3,7", f"--out={tmp_path}/b"]) == 0
    a, b = (np.load(tmp_path / name / "0001.npz")["draws"] for name in "ab")
    np.testing.assert_allclose(a, b, atol=1e-4)
    np.savez(tmp_path / "y.npz", y=1000 * y)
    fails([*argv, f"--out={tmp_path}/c"], r"y: expected values up to about .* got", capsys)
    argv[3] = f"--input={tmp_path}/x.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    fails([*argv, f"--out={tmp_path}/c"], r"--input: expected a file \.npz with the array 'y'", capsys)


@pytest.mark.parametrize(
    "method",
    [["deep_prior", "--method.updates=1", "--method.cg_steps=2"], ["smc", "--method.particles=3", "--labels=3"]],
)
def test_methods_with_more_than_one_state_a_draw(method, workdir, digits, tmp_path):
    """Adapters are put on the trained weights of a workdir; particles share the class of their draw."""
    argv = ["restore", f"--workdir={workdir}", "--degrade", f"--input={digits}/3/x.png", *SR]
    argv += [f"--method={method[0]}", *method[1:], "--steps=3", "--samples=2", f"--out={tmp_path}/a"]
    assert main(argv) == 0
    assert np.isfinite(np.load(tmp_path / "a" / "x.npz")["draws"]).all()


CASES = {
    "size": (["--input={tmp}/big.png"], r"--input: .*big\.png: expected 8x8 pixels, the prior's size, got 12x9"),
    "text": (["--input={tmp}/text.png"], r"--input: image file cannot be read: .*text\.png"),
    "no input": (["--input=nowhere"], "--input: no such file or folder: nowhere"),
    "no images": (["--input={tmp}/empty"], "--input: folder: no images"),
    "npz key": (["--input={tmp}/z.npz"], r"--input: .*z\.npz: expected an array 'x', got none"),
    "npz shape": (["--input={tmp}/shape.npz"], r"x: expected shape \[N, 8, 8, 1\], the prior's shape, got \(2, 7, 7\)"),
    "npz range": (["--input={tmp}/range.npz"], r"--input: 0001: expected values in \[-1, 1\] \(or bytes\), got 0 to 3"),
    "npz broken": (["--input={tmp}/broken.npz"], r"--input: .*broken\.npz cannot be read"),
    "operator": (["--operator=super_resolutoin"], "--operator: unknown name .*did you mean 'super_resolution'"),
    "pairs": (["--operator=mixture"], "--operator: mixture measures pairs of images"),
    "setting": (["--operator.facter=2"], r"--operator\.facter: unknown key; did you mean 'factor'"),
    "number": (["--operator.factor=3"], r"--operator: factor: expected a divisor of both sides \(8, 8\), got 3"),
    "type": (["--operator.factor=a"], r"--operator\.factor: expected a whole number such as 2, got 'a'"),
    "twice": (["--noise.std=1", "--noise.std=2"], r"--noise\.std: expected once, got 1 and 2"),
    "gray": (["--operator=colorization"], "at least two channels"),
    "no mask": (["--operator=inpaint"], "mask: expected an image file, white where the image is seen, got none"),
    "zeros": (["--operator=inpaint", "--operator.mask={tmp}/zeros.png"], "expected at least one measured .* all zeros"),
    "mask size": (["--operator=inpaint", "--operator.mask={tmp}/big.png"], r"mask: expected shape \(8, 8, 1\)"),
    "noise": (["--noise=gauss"], "--noise: unknown name 'gauss'; did you mean 'gaussian'"),
    "level": (["--noise.std=-1"], "--noise: std: expected >= 0, got -1"),
    "method": (["--method=dpss"], "--method: unknown name 'dpss'; did you mean 'dps'"),
    "method setting": (["--method.scael=1"], r"--method\.scael: unknown key; did you mean 'scale'"),
    "only code": (["--method=gdp", "--method.quality=x"], r"--method\.quality: unknown key"),
    "two steps": (["--steps=3", "--method.steps=4"], r"--steps: expected this or --method\.steps, got both"),
    "few steps": (["--steps=1"], "--method: steps: expected >= 2, got 1"),
    "svd": (["--operator=hdr", "--method=ddrm"], "operator: ddrm needs svd, which Clip does not have"),
    "pinv": (["--operator=jpeg", "--method=mcg"], "operator: mcg needs pinv, which Jpeg does not have"),
    "divides": (["--method=smc", "--noise.std=0"], "std: smc divides by the noise level, expected > 0, got 0"),
    "poisson": (["--method=pigdm", "--noise=poisson"], "noise: pigdm needs Gaussian noise, got Poisson"),
    "latent": (["--method=p2l"], "--method: p2l needs an autoencoder, expected a prior of latents, got one of images"),
    "volumes": (["--method=diffusion_mbir"], "--method: diffusion_mbir needs volumes"),
    "labels": (["--labels=1,2,3"], "--labels: expected one class, or one for each of 1 images, got 3"),
    "class": (["--labels=11"], r"--labels: expected classes 0 \.\.\. 9 or their names, got '11'"),
    "no data": (["--labels=data"], "--labels: expected an input with classes"),
    "guidance": (["--cfg-scale=2"], "--cfg-scale: expected --labels, by which it guides, got none"),
    "adapted": (["--method=deep_prior", "--labels=3"], "--labels: deep_prior tunes the prior without a class"),
    "samples": (["--samples=0"], "--samples: expected at least 1, got 0"),
    "truth": (["--truth=x.png"], "--truth: expected only with --measured"),
    "both": (["--measured"], "not allowed with argument"),
    "out file": (["--out={tmp}/text.png"], "--out: expected a new or empty folder, got a file"),
    "out full": (["--out={tmp}"], "--out: expected a new or empty folder, got one that holds files"),
    "out place": (["--out={tmp}/text.png/out"], "expected a directory that can be written to"),
    "workdir": (["--workdir=nowhere"], "--workdir: expected a directory that `genjax train` wrote"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, workdir, digits, tmp_path, capsys, monkeypatch):
    """Told in one line before anything is compiled, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((12, 9), np.uint8)).save("big.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("zeros.png")
    Path("text.png").write_text("no image")
    Path("broken.npz").write_text("no zip")
    Path("empty").mkdir()
    np.savez("z.npz", z=np.zeros((2, 8, 8, 1)))
    np.savez("shape.npz", x=np.zeros((2, 7, 7)))
    np.savez("range.npz", x=np.stack([np.zeros((8, 8, 1)), np.linspace(0, 3, 64).reshape(8, 8, 1)]))
    before = sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.setattr(restoration, "restore", lambda *args: pytest.fail("the restoration began"))
    options = [option.replace("{tmp}", str(tmp_path)) for option in CASES[case][0]]
    given = {option.split("=")[0].split(".")[0] for option in options}
    base = [f"--workdir={workdir}", "--degrade", f"--input={digits}/3/x.png", "--out=out", "--method=dps"]
    base += ["--operator=super_resolution"]
    argv = [word for word in base if word.split("=")[0] not in {o.split("=")[0] for o in options}]
    assert given
    fails(["restore", *argv, *options], CASES[case][1], capsys)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_unwritable_folders_leave_nothing(workdir, digits, tmp_path, capsys, monkeypatch):
    """A disk that fills up at the last file: one line, and no half of a folder."""

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restoration_files, "write_json", full)
    argv = ["restore", f"--workdir={workdir}", "--degrade", f"--input={digits}/3/x.png", *SR]
    argv += ["--method=ddrm", "--steps=2", "--samples=1", f"--out={tmp_path}/out"]
    fails(argv, "No space left on device", capsys)
    assert list(tmp_path.iterdir()) == []


def test_resized_images_and_diverging_methods(workdir, tmp_path, capsys):
    Image.fromarray(np.full((24, 20), 200, np.uint8)).save(tmp_path / "big.png")
    argv = ["restore", f"--workdir={workdir}", "--degrade", f"--input={tmp_path}/big.png", "--resize", *SR]
    argv += ["--method=dps", "--steps=3", "--samples=1"]
    assert main([*argv, f"--out={tmp_path}/a"]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "a" / "big.npz")["truth"], 200 / 127.5 - 1, atol=1e-6)
    fails([*argv, "--method.scale=1e38", f"--out={tmp_path}/b"], "dps diverged: 1 of 1 draws are not finite", capsys)


def test_a_prior_without_classes(tmp_path, capsys):
    """It takes no labels, and restores."""
    plain = ["--config.algorithm={'name': 'diffusion'}", "--config.train.steps=6", "--config.sample.cfg_scale=1.0"]
    assert main(["train", f"--config={CONFIG}", f"--workdir={tmp_path}/w", "--quiet", *plain]) == 0
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 8, 8, 1), np.float32))
    argv = ["restore", f"--workdir={tmp_path}/w", "--degrade", f"--input={tmp_path}/x.npz"]
    argv += ["--steps=3", "--samples=1", f"--out={tmp_path}/a", *SR]
    fails([*argv, "--labels=3"], "--labels: the prior of this workdir is unconditional", capsys)
    fails([*argv, "--cfg-scale=2"], "--cfg-scale: the prior .* is unconditional", capsys)
    assert main([*argv, "--method=red_diff"]) == 0


def test_other_models():
    """A prior trained with classes alone wants them; points, bytes and players of a game are no priors of images."""
    spec, process = data.DataSpec((8, 8, 1), 10), gaussian.vp()
    config = ConfigDict({"algorithm": {"name": "diffusion", "cond": ("label",)}})
    model = lambda spec, parts: SimpleNamespace(data=SimpleNamespace(spec=spec), parts=parts, config=config, state=None)
    parts = SimpleNamespace(process=process, denoiser=lambda state: None)
    prior = restoration.prior_of(model(spec, parts))
    found, method = restoration_files.Images(["a"], None), restoration.method_of("dps", {})
    assert prior.num_classes == 10 and not prior.null
    with pytest.raises(ValueError, match="--labels: expected the class of each image, as the prior was trained with"):
        restoration.labels_of(None, prior, found, method)
    assert restoration.labels_of("7", prior, found, method).tolist() == [7]
    assert restoration.labels_of(None, prior._replace(null=True), found, method).tolist() == [-1]
    for wrong in (
        data.DataSpec((2,)),
        data.DataSpec((8, 8, 1), range=(0.0, 1.0)),
        data.DataSpec((8, 8, 1), range=None),
    ):
        with pytest.raises(ValueError, match=r"--workdir: expected a prior of images in \[-1, 1\]"):
            restoration.prior_of(model(wrong, parts))
    with pytest.raises(ValueError, match="--workdir: expected a diffusion model"):
        restoration.prior_of(model(spec, SimpleNamespace(generate=None)))


def test_help_lists_what_there_is():
    """The text is static, so that help imports nothing; it must not drift from the tables."""
    words = lambda name: set(re.search(rf"^{name}: (.*?)(?=;|\n\S)", restore.__doc__, re.M | re.S)[1].split())
    assert words("operators") == set(restoration.CLI_OPERATORS)
    assert words("methods") == set(restoration.METHODS)
    assert words("noises") == set(NOISES)
