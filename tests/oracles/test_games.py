"""Parallel lines, saddles and the kernel distance of Gaussians: closed forms against sums, simulation, eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.losses.mmd import rbf
from genjax.metrics import wasserstein2
from genjax.oracles import parallel_lines, saddles
from genjax.oracles.kernel_distance import gaussian_mmd2
from genjax.oracles.transport import commuting_w2_squared


def test_parallel_lines():
    """Points lie where they are said to; on one grid of heights the transport is the shift. Catches swapped axes."""
    u = jnp.linspace(0, 1, 20)[:, None]
    here, there = parallel_lines.points(0.0, u), parallel_lines.points(-0.7, u)
    np.testing.assert_allclose(there[:, 0], -0.7)
    np.testing.assert_allclose(here[:, 1], u[:, 0])
    assert wasserstein2(here, there) == pytest.approx(parallel_lines.wasserstein1(-0.7), rel=1e-6)
    assert [parallel_lines.jensen_shannon(t) for t in (0.0, 0.1, -3.0)] == pytest.approx([0, np.log(2), np.log(2)])
    assert parallel_lines.kullback_leibler(0.1) == np.inf and parallel_lines.kullback_leibler(0.0) == 0
    assert [parallel_lines.total_variation(t) for t in (0.0, 0.1)] == [0, 1]


@pytest.mark.parametrize("gap, dim", [(0.0, 1), (1.3, 1), (0.8, 3)])
def test_kernel_distance_of_gaussians(x64, gap, dim):
    """Against averages of the kernel over many draws, in units of their error. Catches a lost factor 2 or dimension."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, x2, y, y2 = (jax.random.normal(key, (200_000, dim)) for key in keys)
    shift = jnp.zeros((1, dim)).at[0, 0].set(gap)
    x, x2, y, y2 = 0.7 * x, 0.7 * x2, shift + 1.4 * y, shift + 1.4 * y2
    k = rbf((1.1,))
    pairs = jax.vmap(lambda a, b: k(a[None], b[None])[0, 0])
    values = np.asarray(pairs(x, x2) + pairs(y, y2) - pairs(x, y) - pairs(x2, y2))
    exact = float(gaussian_mmd2(0.7, 1.4, 1.1, gap, dim))
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(values))
    assert exact > 8 * values.std() / np.sqrt(len(values))


def test_saddle_steps_by_hand(x64):
    """One noiseless step of each function, x down and y up. Catches a sign, and a y that moves after x."""
    keys = jax.random.split(jax.random.key(0), 1)
    path = saddles.descend_ascend(keys, saddles.bilinear, (0.5, -1.0), 0.1, 0.2, 1, noise=0.0)
    np.testing.assert_allclose(path[0, 0], [0.5 - 0.1 * (-1.0 + 0.05), -1.0 + 0.2 * (0.5 + 0.1)])
    path = saddles.descend_ascend(keys, saddles.quartic, (0.5, -1.0), 0.001, lambda n: 0.1 * (n + 1), 2, noise=0.0)
    first = [0.5 - 0.001 * 99, -1 + 0.1 * 2.5]
    np.testing.assert_allclose(path[0, 0], first)
    assert path[0, 1, 1] == pytest.approx(first[1] - 0.2 * 2 * first[1] * (1 + first[0] ** 2))


def test_linear_stability_is_that_of_the_jacobian(x64):
    """The inequality, the eigenvalues and a long path agree. Catches a wrong trace or determinant."""
    rates = np.geomspace(0.01, 1.0, 7)
    keys = jax.random.split(jax.random.key(0), 1)
    end = jax.jit(lambda a, b: saddles.descend_ascend(keys, saddles.bilinear, (1.0, 1.0), a, b, 4000, 0.0)[0, -1])
    for a in rates[::2]:
        for b in rates:
            stable = saddles.bilinear_is_stable(a, b)
            assert (saddles.growth(saddles.bilinear, a, b) < 1) == stable
            size = float(jnp.linalg.norm(end(a, b)))
            assert not np.isfinite(size) or (size < np.sqrt(2)) == stable


def test_decaying_rates():
    rate = saddles.decaying(0.1, 0.5, scale=10.0)
    assert [rate(0), rate(30)] == pytest.approx([0.1, 0.05])


def test_commuting_gaussians():
    """In one dimension W2 is the map x -> x s_b / s_a + shift, whose cost is a sum of squares."""
    u = np.random.default_rng(0).standard_normal(400_000)
    cost = np.mean((0.3 + 2.0 * u - (1.0 + 0.5 * u)) ** 2)
    assert commuting_w2_squared([0.3], [4.0], [1.0], [0.25]) == pytest.approx(cost, rel=0.01)
    assert commuting_w2_squared([0, 1], [4, 9], [1, 1], [1, 1]) == pytest.approx(1 + 1 + 4)
