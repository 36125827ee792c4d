"""Prompts of a mixture's weights."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.oracles.gaussian import FullMixture, gaussian_data
from genjax.oracles.prompted import Prompted
from genjax.processes import gaussian


def test_a_prompt_is_another_mixture():
    """With prompts of their own, samples are denoised as by the mixtures of those weights; and the gradient to the
    prompt is the change of x0 (finite differences)."""
    means = jnp.array([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
    parts = [gaussian_data(m, jnp.diag(jnp.array([0.3, 0.1 + 0.1 * k]))) for k, m in enumerate(means)]
    law, process = FullMixture.of(parts, jnp.array([0.5, 0.3, 0.2])), gaussian.vp()
    x, t = jax.random.normal(jax.random.key(0), (2, 2)), jnp.array([0.3, 0.5])
    c = jnp.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]])
    denoiser = Prompted(law).denoiser(process)
    pred = denoiser(x, t, {"embedding": c})
    for i in range(2):
        other = law.replace(log_weights=law.log_weights + c[i]).denoiser(process)(x[i : i + 1], t[i])
        np.testing.assert_allclose(pred.x0[i], other.x0[0], atol=1e-5)
        np.testing.assert_allclose(pred.eps[i], other.eps[0], atol=1e-5)
    np.testing.assert_allclose(denoiser(x, t).x0[0], pred.x0[0], atol=1e-6)
    np.testing.assert_allclose(Prompted(law, c[1]).denoiser(process)(x, t).x0[1], pred.x0[1], atol=1e-6)
    np.testing.assert_allclose(Prompted(law, c).weights(0.0).sum(-1), 1, rtol=1e-5)
    value = lambda c: jnp.sum(denoiser(x, t, {"embedding": c}).x0)
    slope, way, step = jax.grad(value)(c), jnp.ones_like(c) * jnp.array([[1.0, -1.0, 0.5]]), 1e-2
    difference = (value(c + step * way) - value(c - step * way)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(slope * way), difference, rtol=1e-2, atol=1e-3)
