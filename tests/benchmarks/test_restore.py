"""Restoration: the cells of the table are right where the answer is known; both packages run one algorithm."""

import json
import pathlib

import jax
import numpy as np
import pytest

from genjax.inverse import POSTERIOR_SAMPLERS
from genjax.metrics import raw_pixels

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
    assert all(table.supported("super_resolution", name) for name in (table.REFERENCE, *table.METHODS))
    few = {name for name in table.METHODS if table.supported("phase_retrieval", name)}
    assert "dps" in few and "red_diff" in few and not few & {"ddrm", "pigdm", "ddnm", "projection"}
    assert not table.supported("phase_retrieval", table.REFERENCE)


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
    monkeypatch.setattr(table, "POINTS", 12)
    monkeypatch.setattr(table, "PROBLEMS", {"super_resolution": {"factor": 2}})
    monkeypatch.setattr(table, "METHODS", {"diffpir": {}})
    table.exact.cache_clear()
    folder, docs = tmp_path / "kept", tmp_path / "docs"
    folder.mkdir()
    assert table.missing(folder) == [("super_resolution", table.REFERENCE), ("super_resolution", "diffpir")]
    for method in (table.REFERENCE, "diffpir"):
        found = table.cell("super_resolution", method, raw_pixels(), images=2, draws=8, steps=3)
        assert found["finite"] and 0 < found["ssim"] <= 1 and found["psnr"] > 5
        assert found["nfe"] == (0 if method == table.REFERENCE else 3)
        table.place("super_resolution", method, folder).write_text(json.dumps(found))
    assert table.missing(folder) == []
    table.assemble(folder, docs)
    page = (docs / "restoration.md").read_text()
    assert "| diffpir | " in page and f"{found['psnr']:.2f}" in page and "restore_super_resolution.png" in page
    assert (docs / "images" / "restore_super_resolution.png").stat().st_size > 500
    monkeypatch.setattr(table, "STD", 0.2)
    assert len(table.missing(folder)) == 2  # other numbers, other cells
    jax.clear_caches()


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
