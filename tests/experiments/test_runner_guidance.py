"""What the experiments on guidance share: the fitted prior, the guides, the judges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.cli import runner_guidance as guides
from genjax.networks import MLPClassifier
from genjax.processes import gaussian


def test_the_fitted_prior_has_the_data_s_moments():
    """Equal classes, the mean and (up to the floor) the variances of the digits; class weights tilt it."""
    law, classes = guides.digit_mixture()
    x, label = guides.labelled()
    weights = np.asarray(jax.nn.softmax(law.log_weights))
    np.testing.assert_allclose([weights[classes == c].sum() for c in range(10)], 0.1, rtol=1e-4)
    means, variances = (
        np.asarray(law.components.mean),
        np.asarray(jax.vmap(lambda c: jnp.diag(c.covariance()))(law.components)),
    )
    even = np.bincount(label)[label] ** -1.0
    even /= even.sum()
    mean = even @ x
    np.testing.assert_allclose(weights @ means, mean, atol=1e-4)
    np.testing.assert_allclose(weights @ (variances + means**2) - mean**2, even @ (x - mean) ** 2 + 0.01, atol=1e-3)
    tilted, _ = guides.digit_mixture(class_weights=[4.0] * 5 + [1.0] * 5)
    np.testing.assert_allclose(np.asarray(jax.nn.softmax(tilted.log_weights))[classes < 5].sum(), 0.8, rtol=1e-4)


def test_judges_know_the_digits():
    """The judge and the extractor are different networks; the judge puts held-out digits in their classes."""
    from genjax.cli import runner_digits as digits

    x = digits.held_out()
    assert guides.accuracy(x, guides.held_out_labels()) > 0.9
    np.testing.assert_allclose(guides.probabilities(x[:5]).sum(axis=1), 1.0, rtol=1e-6)
    assert guides.features(x[:5]).shape[0] == 5


def test_guides_read_what_they_are_given():
    """A guide of noisy data depends on the level, a classifier of clean data does not; log_prob picks the label's."""
    process, x = gaussian.cosine(), jax.random.normal(jax.random.key(0), (3, 8))
    noisy = guides.guide_net(MLPClassifier(4, 8, 1, 8, noise_input=True), process)
    clean = guides.clean_net(MLPClassifier(4, 8, 1, 8))
    for net, moves in ((noisy, True), (clean, False)):
        params, _ = net.init(jax.random.key(1), x, jnp.full(3, 0.5))
        a, b = (net.apply(params, {}, x, t)[0] for t in (0.3, 0.7))
        assert a.shape == (3, 4) and bool(jnp.any(a != b)) is moves
        labels = jnp.array([0, 3, 1])
        picked = guides.log_prob_of(net, params)(x, 0.3, labels)
        np.testing.assert_allclose(picked, jax.nn.log_softmax(a)[jnp.arange(3), labels], rtol=1e-5)


@pytest.mark.parametrize("scale", ["small", "smoke"])
def test_exact_config(scale):
    config = guides.exact_config(scale, extra=3)
    assert config.extra == 3 and config.process.name == "cosine"
