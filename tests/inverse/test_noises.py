"""Noises against SciPy's laws; measurements that are made and those that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from genjax import inverse, oracles
from genjax.core import Measurement
from genjax.inverse import operators as O

# built within a test, in its precision
NOISES = {
    "gaussian": lambda: inverse.Gaussian(0.3),
    "laplace": lambda: inverse.Laplace(0.2),
    "poisson": lambda: inverse.Poisson(30.0),
    "structured": lambda: inverse.Structured(oracles.random_mixture(jax.random.key(3), 3, (4,)), 0.5, power=1.0),
}


@pytest.mark.parametrize("name", ["gaussian", "laplace", "poisson"])
def test_density_and_moments(name, x64):
    noise, mean = NOISES[name](), jnp.tile(jnp.asarray([[-0.6, 0.1, 0.9]]), (20000, 1))
    y = jax.jit(noise.sample)(jax.random.key(0), mean)
    spread = np.sqrt(np.broadcast_to(noise.variance(mean), mean.shape)[0])
    np.testing.assert_allclose(y.mean(axis=0), mean[0], atol=4 * spread.max() / 20000**0.5)
    np.testing.assert_allclose(y.std(axis=0), spread, rtol=0.04)
    laws = {
        "gaussian": lambda y: scipy.stats.norm.logpdf(y, mean[:5], 0.3),
        "laplace": lambda y: scipy.stats.laplace.logpdf(y, mean[:5], 0.2),
        "poisson": lambda y: scipy.stats.poisson.logpmf(np.round(15 * (y + 1)), 15 * (mean[:5] + 1)),
    }
    expected = laws[name](np.asarray(y[:5])).sum(axis=1)
    np.testing.assert_allclose(noise.log_prob(y[:5] - mean[:5], mean[:5]), expected, rtol=1e-9)


def test_poisson_in_the_dark():
    # no light gives no count, with probability 1, and gradients of the mean that are finite wherever there is light
    noise, dark = inverse.Poisson(50.0), jnp.full((2, 3), -1.0)
    y = noise.sample(jax.random.key(0), dark)
    np.testing.assert_allclose(y, -1)
    np.testing.assert_allclose(noise.log_prob(y - dark, dark), 0, atol=1e-5)
    lit = jnp.full((2, 3), -0.5)
    y = noise.sample(jax.random.key(1), lit)
    slope = jax.grad(lambda mean: jnp.sum(noise.log_prob(y - mean, mean)))(lit)
    np.testing.assert_allclose(slope, (25 * (y + 1)) / (lit + 1) - 25, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="mean: Poisson noise needs"):
        noise.log_prob(y - lit)


def test_structured_noise_is_its_law(x64):
    # the density of scale n is law(r / scale) / scale^D; the shape is the measurement's
    noise = NOISES["structured"]()
    mean = jnp.zeros((6, 2, 2, 1))
    y = noise.sample(jax.random.key(0), mean)
    assert y.shape == mean.shape
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(6))
    np.testing.assert_allclose(y.reshape(6, 4), 0.5 * noise.law.sample(keys, 6)[0], atol=1e-12)
    expected = noise.law.log_prob(2 * y.reshape(6, 4)) + 4 * np.log(2)
    np.testing.assert_allclose(noise.log_prob(y - mean), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="law: expected samples of 9 elements"):
        noise.sample(jax.random.key(0), jnp.zeros((6, 9)))


@pytest.mark.parametrize("name", sorted(NOISES))
def test_draws_belong_to_the_sample(name):
    # the same sample in another batch is measured the same
    noise, mean = NOISES[name](), jnp.linspace(-0.5, 0.5, 12).reshape(3, 4)
    keys, sample = jax.random.split(jax.random.key(0), 3), jax.jit(noise.sample)
    np.testing.assert_array_equal(sample(keys, mean)[2], sample(keys[2:], mean[2:])[0])
    assert float(jnp.abs(sample(keys, mean)[2] - sample(keys[::-1], mean)[2]).max()) > 0


def test_measure_and_its_density(x64):
    operator, x = O.box((4, 4, 1)), jnp.tanh(jax.random.normal(jax.random.key(0), (3, 4, 4, 1)))
    measure = jax.jit(inverse.measure)
    made = measure(jax.random.key(1), operator, inverse.Gaussian(0.1), x)
    hole = np.asarray(operator.mask) == 0
    assert hole.sum() == 4
    np.testing.assert_array_equal(made.y[:, hole], 0)
    seen = ~hole
    difference = np.asarray(made.y - x)[:, seen]
    assert 0.05 < difference.std() < 0.15
    # what is not seen adds a constant
    density = made.log_prob(x) - made.log_prob(jnp.zeros_like(x))
    expected = scipy.stats.norm.logpdf(np.asarray(made.y)[:, seen], np.asarray(x)[:, seen], 0.1).sum(axis=1)
    nothing = scipy.stats.norm.logpdf(np.asarray(made.y)[:, seen], 0, 0.1).sum(axis=1)
    np.testing.assert_allclose(density, expected - nothing, rtol=1e-9)
    # Poisson noise sees the mean
    lit = measure(jax.random.key(1), O.identity((4, 4, 1)), inverse.Poisson(30.0), x)
    counts, rates = np.round(15 * (np.asarray(lit.y) + 1)), 15 * (np.asarray(x) + 1)
    np.testing.assert_allclose(
        lit.log_prob(x), scipy.stats.poisson.logpmf(counts, rates).sum(axis=(1, 2, 3)), rtol=1e-9
    )
    assert inverse.check_measurement(made, x, bound=1.0) is made
    # a blind operator's true parameters
    dim = O.low_light((4, 4, 1))
    phi = {"log_gain": jnp.log(jnp.full(3, 0.5)), "offset": jnp.zeros((3, 1, 1, 1))}
    exact = measure(jax.random.key(2), dim, inverse.Gaussian(0.0), x, phi)
    np.testing.assert_allclose(exact.y, 0.5 * (x + 1) - 1, atol=1e-12)
    assert bool((exact._replace(noise=inverse.Gaussian(0.1)).log_prob(x, phi) > 0).all())


IDENTITY = O.identity((4, 4, 1))
Y = np.zeros((2, 4, 4, 1), np.float32)


def checked_range(y, bound):
    return inverse.check_measurement(Measurement(IDENTITY, inverse.Gaussian(0.05), y), bound=bound)


BAD = [
    (lambda: inverse.check_measurement(Measurement(IDENTITY, None, Y[:, 1:])), "y: expected shape"),
    (lambda: inverse.check_measurement(Measurement(IDENTITY, None, Y.astype(np.uint8))), "y: expected real numbers"),
    (lambda: inverse.check_measurement(Measurement(IDENTITY, None, Y / 0)), "y: expected finite"),
    (lambda: inverse.check_measurement(Measurement(IDENTITY, None, Y), Y[:1]), "y: expected one measurement a sample"),
    (lambda: inverse.check_measurement(Measurement(IDENTITY, None, Y), Y[:, :2]), "x: expected shape"),
    (lambda: checked_range(255 * Y + 200, 1.0), "y: expected values up to about 1.1"),
    (lambda: inverse.Gaussian(-0.1), "std: expected >= 0"),
    (lambda: inverse.Laplace(0.0), "scale: expected > 0"),
    (lambda: inverse.Poisson(0), "rate: expected > 0"),
    (lambda: inverse.gaussian_std(inverse.Gaussian(0.0), "dps", zero=False), "std: dps divides by the noise level"),
    (lambda: inverse.gaussian_std(inverse.Poisson(5.0), "ddrm"), "noise: ddrm needs Gaussian noise, got Poisson"),
]


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("make, message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    assert inverse.gaussian_std(inverse.Gaussian(0.2), "dps", zero=False) == np.float32(0.2)
