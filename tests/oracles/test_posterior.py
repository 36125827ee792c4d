"""Exact posteriors against brute-force quadrature, conditioning formulas and perfect sampling."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import oracles, processes, solvers

MATRIX, Y, STD = np.array([[1.0, 0.5]]), np.array([0.4]), 0.3


def prior(shape=(2,), n=3):
    return oracles.random_mixture(jax.random.key(2), n, shape, std=(0.3, 0.6))


def log_likelihood(x):
    """log N(Y; MATRIX x, STD^2) of points [N, 2]."""
    residual = (x @ MATRIX.T - Y[None])[:, 0]
    return -0.5 * (residual / STD) ** 2 - np.log(STD * np.sqrt(2 * np.pi))


def linear_posterior():
    return oracles.posterior(prior(), jnp.asarray(MATRIX), jnp.asarray(Y), STD)


def test_posterior_is_what_quadrature_says(x64):
    # weights, means and covariances all enter these; the density is compared point by point
    @jax.jit
    def answers():
        exact = linear_posterior()
        grid = oracles.grid_posterior(prior().log_prob, log_likelihood, [-6, -6], [6, 6], 500)
        density = exact.log_prob(grid.points[::997]), grid.log_weights[::997] - grid.log_evidence()
        evidence = jax.nn.logsumexp(exact.law.log_weights), grid.log_evidence()
        moments = (exact.mean(), exact.covariance()), (grid.mean(), grid.covariance())
        return density, evidence, moments

    (ours, theirs), (evidence, numeric), (exact, grid) = answers()
    near = theirs > -40  # the tails underflow nothing there
    np.testing.assert_allclose(ours[near], theirs[near], atol=1e-8)
    np.testing.assert_allclose(evidence, numeric, atol=1e-10)
    for a, b in zip(exact, grid):
        np.testing.assert_allclose(a, b, atol=1e-8)


def test_denoiser_and_score_given_y_at_noise(x64):
    # E[x0 | x_t, y] and grad log p_t(x | y) by quadrature over x0 at two noise levels
    process = processes.flow()
    x = jnp.asarray([[0.3, -0.2], [-1.0, 1.5]])

    @jax.jit
    def answers(t):
        exact = linear_posterior()
        alpha, sigma = process.alpha(t), process.sigma(t)
        points = oracles.grid_posterior(prior().log_prob, log_likelihood, [-6, -6], [6, 6], 400)
        log_kernel = lambda x: -0.5 * jnp.sum((x[None] - alpha * points.points) ** 2, axis=-1) / sigma**2
        tilted = jax.vmap(lambda x: points.replace(log_weights=points.log_weights + log_kernel(x)).mean())(x)
        pred = exact.denoiser(process)(x, t)
        return tilted, pred, exact.score(x, alpha, sigma), alpha, sigma

    for t in (0.3, 0.8):
        expected, pred, score, alpha, sigma = answers(jnp.asarray(t))
        np.testing.assert_allclose(pred.x0, expected, atol=1e-8)
        np.testing.assert_allclose(alpha * pred.x0 + sigma * pred.eps, x, atol=1e-10)
        np.testing.assert_allclose(score, (alpha * expected - x) / sigma**2, atol=1e-7)


def test_conditioning_of_joint_gaussians(x64):
    # coloured noise, three of five seen: the textbook formula; rows of zeros change nothing
    rng = np.random.default_rng(0)
    factor, noise = rng.normal(size=(5, 5)), rng.normal(size=(3, 3))
    covariance, noise = factor @ factor.T / 5 + 0.1 * np.eye(5), noise @ noise.T / 3 + 0.1 * np.eye(3)
    mean, a, y = rng.normal(size=5), rng.normal(size=(3, 5)), rng.normal(size=3)
    data = oracles.gaussian_data(jnp.asarray(mean), jnp.asarray(covariance))
    total = a @ covariance @ a.T + noise
    gain = covariance @ a.T @ np.linalg.inv(total)
    mask = np.diag([1.0, 0, 1, 0, 0])

    @jax.jit
    def answers(data, a, y, noise):
        exact = oracles.posterior(data, a, y, noise_covariance=noise)
        seen = oracles.posterior(data, jnp.asarray(mask[[0, 2]]), jnp.asarray([0.5, -1.0]), 0.1)
        padded = oracles.posterior(data, jnp.asarray(mask), jnp.asarray([0.5, 0, -1.0, 0, 0]), 0.1)
        return exact.weights(), *((law.mean(), law.covariance()) for law in (exact, seen, padded))

    weights, (center, spread), seen, padded = answers(data, *(jnp.asarray(v) for v in (a, y, noise)))
    np.testing.assert_allclose(center, mean + gain @ (y - a @ mean), atol=1e-10)
    np.testing.assert_allclose(spread, covariance - gain @ a @ covariance, atol=1e-10)
    np.testing.assert_allclose(weights, [1.0])
    for one, other in zip(seen, padded):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_images_and_vanishing_noise(x64):
    # a mixture of images, the left half seen nearly without noise: the half is y, the rest has its own spread
    data, y = prior((2, 2, 1)), jnp.asarray([[0.5], [-0.3]])
    matrix = jnp.eye(4)[jnp.asarray([0, 2])]

    @jax.jit
    def answers(key):
        exact = oracles.posterior(data, matrix, y, 1e-4)
        x = exact.sample(key, 2000)
        return x, exact.log_prob(x), exact.mean(), exact.means(), exact.covariances()

    x, log_p, mean, means, covariances = answers(jax.random.key(0))
    assert x.shape == (2000, 2, 2, 1) and mean.shape == (2, 2, 1) and means.shape == (3, 2, 2, 1)
    np.testing.assert_allclose(mean[:, 0], y, atol=1e-5)
    np.testing.assert_allclose(x[:, :, 0], np.broadcast_to(y, (2000, 2, 1)), atol=1e-3)
    # unseen pixels of an isotropic component are as the prior has them
    np.testing.assert_allclose(means[:, :, 1], data.means[:, :, 1], atol=1e-9)
    np.testing.assert_allclose(np.asarray(covariances)[:, 1, 1], data.stds**2, atol=1e-9)
    assert log_p.shape == (2000,) and bool(jnp.isfinite(log_p).all())
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.1)


def test_the_exact_denoiser_under_a_solver_samples_the_posterior():
    # the perfect sampler: mean and covariance within the Monte-Carlo error and a small discretization
    process, n = processes.flow(), 4000

    @jax.jit
    def run(key):
        exact = linear_posterior()
        times = jnp.linspace(1.0, 0.0, 33)
        x = process.prior(key, jnp.zeros((n, 2)))
        x = solvers.sample(None, exact.denoiser(process), process, solvers.heun(), times, x)
        drawn = exact.sample(jax.random.fold_in(key, 1), n)
        return x, drawn, exact.mean(), exact.covariance()

    x, drawn, mean, covariance = run(jax.random.key(0))
    for points in (x, drawn):
        np.testing.assert_allclose(points.mean(axis=0), mean, atol=4 * float(jnp.sqrt(covariance.max() / n)))
        np.testing.assert_allclose(np.cov(points.T), covariance, atol=0.05)


def test_a_measurement_for_each_sample(x64):
    # the batch of posteriors is the same as one by one, for scalar and per-sample times
    process, data = processes.vp(), prior((2, 1))
    y, x = jnp.asarray([[0.4], [-1.0], [2.0]]), jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 1)))
    matrix = jnp.asarray(MATRIX)
    batch = jax.jit(lambda y, x, t: oracles.posterior_denoiser(data, matrix, y, STD, process)(x, t))
    one = jax.jit(lambda y, x, t: oracles.posterior(data, matrix, y, STD).denoiser(process)(x, t))
    for t in (jnp.asarray(0.4), jnp.asarray([0.2, 0.5, 0.9])):
        both = batch(y, x, t)
        for i in range(3):
            expected = one(y[i], x[i : i + 1], t.reshape(-1)[i % t.size])
            np.testing.assert_allclose(both.x0[i], expected.x0[0], atol=1e-10)
            np.testing.assert_allclose(both.eps[i], expected.eps[0], atol=1e-10)


MANY = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax, jax.numpy as jnp
from genjax import oracles
keys = jax.random.split(jax.random.key(0), 2)
prior = oracles.Mixture(jax.random.normal(keys[0], (64, 48)), jnp.full(64, 0.2), jnp.zeros(64))
law = lambda y: oracles.posterior(prior, jnp.eye(48), y, 0.1)
answers = jax.jit(jax.vmap(lambda y: (law(y).mean(), law(y).weights(), jnp.trace(law(y).covariance()))))
for _ in range(150):
    jax.block_until_ready(answers(jax.random.normal(keys[1], (3, 48))))
"""


def test_many_components_never_wait_for_each_other():
    # two cores and independent batches of factorizations in one program: the runtime's threads can block for ever
    subprocess.run([sys.executable, "-c", MANY], check=True, timeout=120)


def test_nonlinear_measurement_by_grid_and_by_weights():
    # y = |x| is blind to the sign: a symmetric prior gives two equal modes; both brute-force ways agree within error
    data = oracles.Mixture(jnp.asarray([[-1.0], [1.0]]), jnp.asarray([0.5, 0.5]), jnp.zeros(2))
    likelihood = lambda x: -0.5 * ((jnp.abs(x[:, 0]) - 0.7) / 0.2) ** 2

    @jax.jit
    def run(key):
        grid = oracles.grid_posterior(data.log_prob, likelihood, [-4.0], [4.0], 2000)
        points = oracles.importance_posterior(data.sample(key, 20000)[0], likelihood)
        square = lambda x: x**2
        law = grid.sample(jax.random.fold_in(key, 1), 20000)
        resampled = points.sample(key, 99)
        return grid.expect(square)[0], points.expect(square), points.effective(), grid.mean(), law, resampled

    exact, (estimate, error), effective, mean, law, resampled = run(jax.random.key(0))
    assert 2000 < effective < 20000
    assert 0.001 < float(error[0]) < 0.01
    assert abs(float(estimate[0] - exact[0])) < 4 * float(error[0])
    np.testing.assert_allclose(mean, 0, atol=1e-4)
    np.testing.assert_allclose(jnp.mean(law > 0), 0.5, atol=0.02)
    np.testing.assert_allclose(jnp.mean(law**2), exact[0], rtol=0.02)
    assert resampled.shape == (99, 1) and 0.3 < float(jnp.abs(resampled).mean()) < 1.1


def test_stated_error_covers(x64):
    # self-normalized estimates with a few hundred points: the stated error is the spread over repetitions
    data, matrix = prior(), jnp.asarray(MATRIX)
    exact = oracles.posterior(data, matrix, jnp.asarray(Y), STD).mean()

    def one(key):
        value, error = oracles.importance_posterior(data.sample(key, 2000)[0], log_likelihood).expect(lambda x: x)
        return (value - exact) / error

    z = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 200))
    assert float(jnp.abs(z.mean(axis=0)).max()) < 0.4
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.25)


BAD = [
    (lambda: oracles.posterior(prior(), MATRIX[:, :1], Y, STD), ValueError, "matrix: expected shape"),
    (lambda: oracles.posterior(prior(), MATRIX, Y, 0.0), ValueError, "noise_std: expected > 0"),
    (lambda: oracles.posterior(prior(), MATRIX, Y), ValueError, "noise_std, noise_covariance: expected one"),
    (lambda: oracles.posterior("ring", MATRIX, Y, STD), TypeError, "prior: expected a Mixture"),
    (lambda: oracles.grid_posterior(len, len, [0.0] * 3, [1.0] * 3), ValueError, "low, high: expected one or two"),
]


@pytest.mark.parametrize("make, error, message", BAD, ids=[message for *_, message in BAD])
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
