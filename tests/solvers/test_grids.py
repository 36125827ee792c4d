"""Time grids: ends, order, spacing, on every process."""

import jax.numpy as jnp
import numpy as np
import pytest

from genjax.processes import gaussian
from genjax.solvers import GRIDS, SAMPLERS, grids, nfe
from genjax.solvers.ode import heun

PROCESSES = ["vp", "sub_vp", "cosine", "ddpm", "ve", "edm", "flow", "log_linear"]
CONTINUOUS = sorted(set(GRIDS) - {"respaced"})


@pytest.mark.parametrize("process_name", PROCESSES)
def test_ends_and_order(process_name):
    """t_max to t_min exactly, then 0; strictly falling (equal times would make a multistep solver divide by 0)."""
    process = getattr(gaussian, process_name)()
    for name in CONTINUOUS:
        full = np.asarray(GRIDS[name](process, 20))
        open_end = np.asarray(GRIDS[name](process, 19, to_zero=False))
        assert full.shape == (21,) and open_end.shape == (20,), name
        assert full[0] == process.t_max and full[-2] == np.float32(process.t_min) and full[-1] == 0, name
        assert np.all(np.diff(full) < 0), name
        np.testing.assert_array_equal(full[:-1], open_end, err_msg=name)


def test_spacing():
    """Each grid is equally spaced in its own coordinate (EDM: t is the noise level)."""
    process = gaussian.edm()
    coordinate = {
        "uniform": lambda r: r,
        "quadratic": np.sqrt,
        "karras": lambda r: r ** (1 / 7),
        "log_snr": np.log,
        "exponential": np.log,
        "cosine": np.arctan,
        "logistic": lambda r: 1 / (1 + np.exp(-(np.log(r) + 1.2) / 1.5)),
    }
    assert set(coordinate) == set(CONTINUOUS)
    for name, c in coordinate.items():
        r = np.asarray(GRIDS[name](process, 16, to_zero=False), np.float64)
        steps = np.diff(c(r))
        np.testing.assert_allclose(steps, steps.mean(), rtol=5e-3, err_msg=name)


def test_karras_against_the_published_formula():
    i = np.arange(18)
    sigma = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(grids.karras(gaussian.edm(), 18)[:-1], sigma, rtol=2e-5)


@pytest.mark.parametrize(
    "spacing, expected",
    [
        ("linspace", [1000, 750, 500, 251, 1]),
        ("leading", [801, 601, 401, 201, 1]),
        ("trailing", [1000, 800, 600, 400, 200]),
    ],
)
def test_respaced_indices(spacing, expected):
    grid = grids.respaced(gaussian.ddpm(1000), 5, spacing)
    np.testing.assert_allclose(grid, np.array([*expected, 0]) / 1000, atol=1.1e-3 if spacing == "linspace" else 1e-7)
    assert np.allclose(np.asarray(grid) * 1000, np.round(np.asarray(grid) * 1000), atol=1e-3)


def test_respaced_full_chain():
    process = gaussian.ddpm(50)
    np.testing.assert_allclose(grids.respaced(process, 50), np.arange(50, -1, -1) / 50, atol=1e-7)


def test_bad_arguments():
    with pytest.raises(ValueError, match="n: expected at least 2 steps, got 1"):
        grids.uniform(gaussian.vp(), 1)
    with pytest.raises(ValueError, match="process: expected one on a table of levels, got LinearBeta"):
        grids.respaced(gaussian.vp(), 5)
    with pytest.raises(ValueError, match="n: expected from 2 to 50 steps, got 51"):
        grids.respaced(gaussian.ddpm(50), 51)
    with pytest.raises(ValueError, match="spacing: expected one of"):
        grids.respaced(gaussian.ddpm(50), 5, "even")


def test_evaluations():
    """EDM: 2 N - 1 evaluations on a grid that ends at 0, 2 N on one that does not."""
    process = gaussian.edm()
    assert nfe(heun(), grids.karras(process, 18)) == 35
    assert nfe(heun(), grids.karras(process, 18, to_zero=False)) == 36


def test_popular_names():
    """Each name is a solver with a grid that fits the process it is known for."""
    for name, (solver, make) in SAMPLERS.items():
        assert nfe(solver, make(gaussian.edm(), 10)) >= 10, name
        assert jnp.isfinite(make(gaussian.vp(), 10)).all(), name
