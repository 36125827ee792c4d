"""Restoration: the cells of the table are right where the answer is known; both packages run one algorithm."""

import inspect
import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from genjax.core.types import Measurement
from genjax.inverse import POSTERIOR_SAMPLERS, Gaussian
from genjax.inverse.operators import dense
from genjax.metrics import raw_pixels
from genjax.oracles import random_mixture
from genjax.processes import gaussian

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def table(benchmark):
    return benchmark("restore_table")


def test_no_sampler_is_forgotten(table):
    """A sampler that is neither in the table nor said to restore something else."""
    assert {*table.METHODS, *table.OTHERS} == set(POSTERIOR_SAMPLERS)
    assert not {*table.METHODS} & {*table.OTHERS}


def test_what_is_supported(table):
    """From the methods' own needs: matrices for all of them, magnitudes for those that only differentiate."""
    assert all(table.supported("digits", "super_resolution", name) for name in (table.REFERENCE, *table.METHODS))
    few = {name for name in table.METHODS if table.supported("digits", "phase_retrieval", name)}
    assert "dps" in few and "red_diff" in few and not few & {"ddrm", "pigdm", "ddnm", "projection"}
    assert not table.supported("digits", "phase_retrieval", table.REFERENCE)


@pytest.mark.parametrize("method", ["dps", "mcg", "gdp", "red_diff", "pigdm"])
def test_steps_are_carried_over_to_other_norms(table, method):
    """y, A and the noise times 3 restore the same images, by CARRIED or by themselves."""
    oracle, process = random_mixture(jax.random.key(0), shape=(6,)), gaussian.vp()
    once = np.random.default_rng(0).normal(size=(4, 6)) / 3
    y, like = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32), np.zeros((5, 6), np.float32)
    field, power = table.CARRIED.get(method, ("scale", 0))
    make = POSTERIOR_SAMPLERS[method]
    value = table.METHODS[method].get(field, inspect.signature(make).parameters[field].default)
    found = []
    for c in (1.0, 3.0):
        sampler = make(**table.METHODS[method] | {field: value * c**power, "steps": 6})
        m = Measurement(dense(c * once), Gaussian(0.1 * c), c * y)
        run = jax.jit(lambda m, run=sampler: run(jax.random.key(2), oracle.denoiser(process), process, m, like))
        found.append(run(m))
    np.testing.assert_allclose(*found, atol=1e-3)


def test_settings_of_an_operator(table):
    """As they are written for a norm of at most 1, divided by a larger one."""
    assert table.norm("digits", "super_resolution") == table.norm("digits", "hdr") == 1
    assert table.settings("digits", "super_resolution", "dps") is table.METHODS["dps"]
    large = table.norm("digits", "compressed_sensing")
    assert large > 2 and table.settings("digits", "compressed_sensing", "dps") == {"scale": round(1 / large, 6)}
    assert table.settings("digits", "compressed_sensing", "pigdm") is table.METHODS["pigdm"]


def test_distances_of_exact_draws_and_of_others(table):
    """Exact draws are near and nearer the more they are; draws around another mean are not."""

    class Law:
        mean, covariance = lambda self: np.full(3, 0.5), lambda self: np.diag([1.0, 0.5, 0.1])

    rng = np.random.default_rng(0)
    sample = lambda n, shift=0.0, scale=1.0: (
        0.5 + shift + scale * rng.normal(size=(2, n, 3)) * np.sqrt([1.0, 0.5, 0.1])[None, None]
    )
    mean, covariance = table.distance(sample(20000), [Law(), Law()])
    assert mean < 0.02 and covariance < 0.03
    mean, covariance = table.distance(sample(20000, 1.0, 2.0), [Law(), Law()])
    np.testing.assert_allclose(mean, np.sqrt(3 / 1.6), rtol=0.03)
    np.testing.assert_allclose(covariance, 3.0, rtol=0.03)


def test_cells_are_kept_and_shown(table, tmp_path, monkeypatch):
    """A cell that is there is not missing; a page holds every figure of it, and a picture."""
    monkeypatch.setattr(table, "SETS", {"digits": table.SETS["digits"]})
    monkeypatch.setattr(table, "POINTS", 12)
    monkeypatch.setattr(table, "PROBLEMS", {"super_resolution": {"factor": 2}, "hdr": {"gain": 2.0}})
    monkeypatch.setattr(table, "METHODS", {"diffpir": {}, "sdedit": {}})
    place = lambda method: table.place("digits", "super_resolution", method, folder)
    folder, docs = tmp_path / "kept", tmp_path / "docs"
    folder.mkdir()
    assert len(table.missing(folder)) == 5
    for method in (table.REFERENCE, "diffpir"):
        found = table.cell("digits", "super_resolution", method, raw_pixels(), images=2, draws=8, steps=3)
        assert found["finite"] and 0 < found["ssim"] <= 1 and found["psnr"] > 5
        assert found["nfe"] == (0 if method == table.REFERENCE else 3)
        place(method).write_text(json.dumps(found))
    place("sdedit").write_text(json.dumps({"finite": False}))
    assert table.missing(folder) == [("digits", "hdr", "diffpir"), ("digits", "hdr", "sdedit")]
    table.assemble(folder, docs)
    page = (docs / "restoration.md").read_text()
    assert f"| diffpir | **{found['psnr']:.1f}** | ... |" in page and "| sdedit | diverged | ... |" in page
    assert f"| {found['psnr']:.2f} | " in page and f"| diffpir | **{found['mean']:.2f}** |\n" in page
    (made,) = (docs / "images").glob("*.png")
    assert f"images/{made.name}" in page
    # a column each for the truth, y, the exact draws and diffpir; rows for the mean, a draw and the spread
    shown = np.asarray(Image.open(made))
    assert shown.shape[0] == 16 + 2 + 3 * 66 and 0 <= shown.shape[1] - (2 + 4 * 66) < 80
    monkeypatch.setattr(table, "STD", 0.2)
    assert len(table.missing(folder)) == 5  # other numbers, other cells
    jax.clear_caches()


def test_a_cell_in_colour(table, monkeypatch):
    """Shapes go the same way, with their channels; what is shown is of one image."""
    few = table.SETS["shapes"].options | {"n": 16}
    monkeypatch.setitem(table.SETS, "shapes", table.SETS["shapes"]._replace(options=few))
    monkeypatch.setattr(table, "POINTS", 16)
    found = table.cell("shapes", "hdr", "sdedit", raw_pixels(), images=2, draws=4, steps=4)
    assert found["finite"] and "mean" not in found and np.shape(found["shown"]["spread"]) == (8, 8, 3)
    assert table.picture("shapes", "hdr", {"sdedit": found, "dps": None}).std(axis=2).max() > 20


def test_sets_do_not_share_cells(table):
    """Names apart, and other options of the data other cells."""
    places = {table.place(name, "blur", "dps").name for name in table.SETS}
    assert len(places) == len(table.SETS)
    table.SETS["shapes"].options["seed"] = 1
    assert table.place("shapes", "blur", "dps").name not in places


@pytest.mark.parametrize("name", ["dps", "diffpir"])
def test_both_packages_run_one_algorithm(benchmark, name):
    """Without random numbers the runs end in the same images; another step or network would make the ratio mean
    nothing."""
    pytest.importorskip("torch")
    speed = benchmark("restore_speed")
    compiled, arguments = speed.toolkit(name, 12, 3, fixed=True)
    ours, theirs = np.asarray(compiled(*arguments)), speed.plain(name, 12, 3, fixed=True)()
    np.testing.assert_allclose(ours.reshape(3, 64), theirs.detach().numpy(), atol=2e-3)
    assert np.abs(ours).max() > 0.1


def test_memory_does_not_grow_with_steps(benchmark):
    """A run that kept its path, or the residuals of a gradient, would show here."""
    speed = benchmark("restore_speed")
    one, other = speed.memory("dps", 4)
    assert 0 <= other - one <= 16 * 90  # the times; one image of 64 numbers a step would be 4 * 256 * 90
