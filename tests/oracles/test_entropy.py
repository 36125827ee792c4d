"""The divergence-entropy function against closed forms, linear programs and small exhaustive searches."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from genjax.oracles import entropy as e

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(12))


def test_entropy_of_known_laws():
    assert e.entropy(np.ones(8)) == pytest.approx(3)
    assert e.entropy([0.5, 0.25, 0.25, 0.0]) == pytest.approx(1.5)
    np.testing.assert_allclose(e.entropy(np.eye(3)), 0, atol=1e-12)


@pytest.mark.parametrize("bits", [0.3, 1.0, 2.5])
def test_tempered_has_the_entropy_and_is_a_power(bits):
    q = e.tempered(P, bits)
    assert e.entropy(q) == pytest.approx(bits, abs=1e-9)
    slope = np.diff(np.log(q[np.argsort(P)])) / np.diff(np.log(np.sort(P)))
    np.testing.assert_allclose(slope, slope[0], rtol=1e-6)
    assert slope[0] > 1


@pytest.mark.parametrize("divergence", ["reverse_kl", "kl", "tv"])
def test_one_step_solves_the_convex_program(divergence):
    """Against a linear program (tv) or the optimality of random feasible directions (KL): a wrong multiplier shows."""
    q_k = e.tempered(RNG.dirichlet(np.ones(12)), 1.5)
    cost, bits = -np.log2(q_k), 1.5
    q = e.STEPS[divergence](P, cost, bits)
    assert q.sum() == pytest.approx(1) and q.min() >= 0 and q @ cost == pytest.approx(bits, abs=1e-8)
    value = lambda q: e.DIVERGENCES[divergence](P, q)
    if divergence == "tv":  # variables q and t >= |q - p|
        eye = np.eye(12)
        upper = np.block([[eye, -eye], [-eye, -eye], [cost[None], np.zeros((1, 12))]])
        found = linprog(
            np.r_[np.zeros(12), np.full(12, 0.5)],
            upper,
            np.r_[P, -P, bits],
            np.r_[np.ones(12), np.zeros(12)][None],
            [1.0],
        )
        assert value(q) == pytest.approx(found.fun, abs=1e-9)
    for other in RNG.dirichlet(np.ones(12) * 0.3, 2000):
        if other @ cost > bits:  # the feasible point on the way from q_k's cheapest atom
            atom = np.eye(12)[np.argmin(cost)]
            share = (bits - cost.min()) / (other @ cost - cost.min())
            other = share * other + (1 - share) * atom
        assert value(0.9 * q + 0.1 * other) >= value(q) - 1e-9


def test_reverse_kl_curve_is_the_tempered_law():
    bits = [0.5, 1.0, 1.5, 2.0, 2.5]
    exact = [e.DIVERGENCES["reverse_kl"](P, e.tempered(P, r)) for r in bits]
    np.testing.assert_allclose(e.divergence_entropy_curve(P, bits, "reverse_kl"), exact, atol=1e-6)


@pytest.mark.parametrize("divergence", ["reverse_kl", "kl", "tv"])
def test_curve_against_a_fine_search_on_three_atoms(divergence):
    """Finds a local optimum of the procedure, or an infeasible answer."""
    p, n = np.array([0.5, 0.3, 0.2]), 400
    grid = np.array([(i, j, n - i - j) for i, j in itertools.product(range(n + 1), repeat=2) if i + j <= n]) / n
    h, values = e.entropy(grid), e.DIVERGENCES[divergence](p, grid)
    bits = [0.0, 0.4, 0.8, 1.2, e.entropy(p)]
    curve = e.divergence_entropy_curve(p, bits, divergence)
    best = [values[h <= r + 1e-12].min() for r in bits]
    finite = np.array(best) < 50  # kl at zero entropy misses atoms
    assert (curve <= np.array(best) + 1e-9)[finite].all()
    np.testing.assert_allclose(curve[finite], np.array(best)[finite], atol=0.02)
    assert (np.diff(curve) <= 1e-12).all() and curve[-1] < 1e-9


@pytest.mark.parametrize("divergence", ["reverse_kl", "kl", "tv"])
def test_quantized_is_the_best_of_all_allocations(divergence):
    p = np.array([0.55, 0.33, 0.12])
    laws = np.array([(i, j, 8 - i - j) for i in range(9) for j in range(9 - i)]) / 8
    q = e.quantized(p, 3, divergence)
    assert (q * 8 == np.round(q * 8)).all() and q.sum() == 1
    assert e.DIVERGENCES[divergence](p, q) == pytest.approx(e.DIVERGENCES[divergence](p, laws).min(), abs=1e-12)


def test_truncated():
    q = e.truncated([0.1, 0.4, 0.2, 0.3], 1.0)
    np.testing.assert_allclose(q, [0, 4 / 7, 0, 3 / 7])
    np.testing.assert_allclose(e.truncated(P, e.entropy(P)), P)


def test_float32_normal_bits_by_counting():
    """The entropy of normal numbers on a coarser float grid (8 bits of mantissa), which samples can fill."""
    x = np.random.default_rng(1).standard_normal(2_000_000).astype(np.float32)
    coarse = (x.view(np.uint32) + (1 << 14)) >> 15  # 8 of 23 bits kept
    _, counts = np.unique(coarse, return_counts=True)
    bias = (len(counts) - 1) / (2 * len(x) * np.log(2))  # Miller-Madow
    assert e.entropy(counts) + bias == pytest.approx(e.float32_normal_bits() - 15, abs=0.02)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: e.tempered([0.5, 0.5], 0.5), "bits"),
        (lambda: e.tempered(P, 9.0), "bits"),
        (lambda: e.divergence_entropy_curve(P, [7.0]), "bits"),
        (lambda: e.divergence_entropy_curve(P, [1.0], "js"), "divergence"),
        (lambda: e.quantized(P, 3, "js"), "divergence"),
        (lambda: e.tempered([-0.1, 1.1], 0.5), "p"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=f"^{message}:"):
        call()
