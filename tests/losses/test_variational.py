"""Training on the bound: which gradients flow where, and that importance sampling keeps the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.keys import fold, sample_keys
from genjax.core.prediction import with_eps
from genjax.core.types import Prediction
from genjax.losses import elbo, hybrid, variational
from genjax.losses import times as tm
from genjax.losses.denoising import denoising
from genjax.losses.weightings import v as v_error
from genjax.oracles.mixture import Mixture
from genjax.processes import gaussian

STEPS = 12
PROCESS = gaussian.ddpm(STEPS, betas="cosine")
X = jnp.round(jax.random.uniform(jax.random.key(9), (STEPS, 3)) * 16) / 8 - 1  # 17 levels in [-1, 1]


def denoiser_of(params, process=PROCESS):
    """eps = a x, v = b: two numbers, so that gradients are two numbers."""

    def denoiser(x, t, cond=None, key=None):
        return with_eps(Prediction(v=params["b"] * jnp.ones_like(x)), params["a"] * x, x, process, t)

    return denoiser


def each_level(keys):
    """Sample i at level i + 1."""
    t = tm._levels(PROCESS, STEPS)
    return t, tm.discrete(PROCESS, STEPS).log_density((), t)


def test_terms_are_those_of_the_chain():
    """One sample at each level: KL between the laws of the step, in bits an element times T; 1 the decoder."""
    key, params = jax.random.key(0), {"a": 0.3, "b": 0.4}
    models = {"denoiser": denoiser_of(params), "times": each_level}
    value, aux = jax.jit(lambda key: variational(PROCESS, STEPS, levels=17)(key, models, {"x": X}))(key)
    t = tm._levels(PROCESS, STEPS)
    s = jnp.concatenate([t[:1], t[:-1]])
    x_t, true = PROCESS.corrupt(fold(sample_keys(key, STEPS), 2), X, t)
    pred = denoiser_of(params)(x_t, t)
    q = PROCESS.posterior(x_t[1:], true._replace(x0=X[1:], eps=true.eps[1:]), t[1:], s[1:])
    p = PROCESS.posterior(x_t[1:], Prediction(x0=pred.x0[1:], eps=pred.eps[1:], v=pred.v[1:]), t[1:], s[1:])
    ratio = (q.std / p.std) ** 2
    kl = jnp.mean(0.5 * (ratio - 1 - jnp.log(ratio)) + 0.5 * ((q.mean - p.mean) / p.std) ** 2, axis=1)
    np.testing.assert_allclose(value[1:], STEPS * kl / np.log(2), rtol=2e-3)
    sigma = float(PROCESS.sigma(t[0]) / PROCESS.alpha(t[0]))
    low = float(PROCESS.posterior_std_range(t[1], t[0])[0] / PROCESS.alpha(t[0]))
    std = np.exp(0.6 * np.log(low) + 0.4 * np.log(sigma))
    decoder = -jnp.mean(elbo.discretized_log_prob(X[0], pred.x0[0], std, 17))
    np.testing.assert_allclose(value[0], STEPS * decoder / np.log(2), rtol=1e-3)
    np.testing.assert_allclose(aux["vlb"], value, rtol=1e-6)


def test_fixed_variances_are_the_ends_of_the_learned_one():
    """Upper is v = 1 at every level, whatever the network says; lower is v = 0, with the decoder of v = 1."""
    key = jax.random.key(2)

    def value(b, variance="predicted"):
        models = {"denoiser": denoiser_of({"a": 0.3, "b": b}), "times": each_level}
        return variational(PROCESS, STEPS, levels=17, variance=variance)(key, models, {"x": X})[0]

    low, high = value(0.0), value(1.0)
    np.testing.assert_allclose(value(0.4, "upper"), high, rtol=1e-5)
    np.testing.assert_allclose(value(0.4, "lower")[1:], low[1:], rtol=1e-5)
    np.testing.assert_allclose(value(0.4, "lower")[0], high[0], rtol=1e-5)
    assert np.abs(low[1:] / high[1:] - 1).min() > 0.01


def test_hybrid_trains_the_mean_by_the_simple_loss_alone():
    """d/d(mean) is that of L_simple exactly, d/d(variance) that of scale L_vlb: catches a missing stop-gradient."""
    key, params = jax.random.key(1), {"a": 0.3, "b": 0.4}

    def grad(loss):
        value = lambda p: loss(key, {"denoiser": denoiser_of(p), "times": each_level}, {"x": X})[0].mean()
        return jax.jit(jax.grad(value))(params)

    simple = grad(variational(PROCESS, STEPS, levels=17, simple=1.0, scale=0.0))
    mixed = grad(hybrid(PROCESS, STEPS, levels=17, scale=1e-3))
    bound = grad(variational(PROCESS, STEPS, levels=17))
    assert simple["b"] == 0 and abs(float(bound["a"])) > 1
    np.testing.assert_allclose(mixed["a"], simple["a"], rtol=1e-6)
    np.testing.assert_allclose(mixed["b"], 1e-3 * bound["b"], rtol=1e-5)
    assert abs(float(bound["b"])) > 1e-3
    weighted = grad(hybrid(PROCESS, STEPS, levels=17, weighting=v_error(), scale=1e-3))
    alone = grad(denoising(PROCESS, tm.discrete(PROCESS, STEPS), v_error()))
    assert abs(float(alone["a"] / simple["a"]) - 1) > 0.1
    np.testing.assert_allclose(weighted["a"], alone["a"], rtol=1e-5)
    np.testing.assert_allclose(weighted["b"], mixed["b"], rtol=1e-6)


def test_learned_variance_lies_between_its_bounds():
    t, s = jnp.array([0.5, 1.0]), jnp.array([0.25, 0.75])
    low, high = PROCESS.posterior_std_range(t, s)
    for v in (0.0, 0.3, 1.0):
        pred = Prediction(x0=jnp.zeros((2, 3)), eps=jnp.zeros((2, 3)), v=jnp.full((2, 3), v))
        std = PROCESS.posterior(jnp.zeros((2, 3)), pred, t, s).std
        assert bool(jnp.all((std >= 0.9999 * low[:, None]) & (std <= 1.0001 * high[:, None])))
        expected = jnp.exp((1 - v) * jnp.log(low) + v * jnp.log(high))[:, None]
        np.testing.assert_allclose(std, jnp.broadcast_to(expected, std.shape), rtol=1e-4)


def test_best_variance_is_the_analytic_one(x64):
    """With the exact mean on Gaussian data, the v that minimizes the KL gives the true variance of x_s given x_t."""
    data_std = 0.5
    data = Mixture(jnp.zeros((1, 1)), jnp.full(1, data_std), jnp.zeros(1))
    process = gaussian.vp()
    t, s = jnp.asarray(0.4), jnp.asarray(0.25)
    x0 = data.sample(jax.random.key(0), 40000)[0]
    x_t, true = process.corrupt(jax.random.key(1), x0, t)
    pred = data.denoiser(process)(x_t, t)
    kl = jax.jit(lambda v: elbo.transition_kl(process, pred._replace(v=v), true, t, s, "predicted").mean())
    v = jnp.asarray(0.5)
    for _ in range(8):
        v = v - jax.grad(kl)(v) / jax.hessian(kl)(v)
    low, high = process.posterior_std_range(t, s)
    std = jnp.exp((1 - v) * jnp.log(low) + v * jnp.log(high))
    # (x_s, x_t) is jointly Gaussian: var(x_s) - cov^2 / var(x_t)
    var = lambda u: process.alpha(u) ** 2 * data_std**2 + process.sigma(u) ** 2
    ratio = process.alpha(t) / process.alpha(s)
    exact = var(s) - (ratio * var(s)) ** 2 / var(t)
    assert 0.02 < float(v) < 0.98
    np.testing.assert_allclose(std**2, exact, rtol=5e-3)


def test_importance_sampling_keeps_the_mean_and_lowers_the_variance():
    """iDDPM's claim for L_vlb: the same mean with less spread, once the history is full."""
    data = Mixture(jnp.array([[0.8, 0.0, -0.4], [-0.8, 0.3, 0.5]]), jnp.array([0.1, 0.2]), jnp.zeros(2))
    process = gaussian.ddpm(50)
    x = data.sample(jax.random.key(0), 4000)[0]
    sampler = tm.second_moment(process, 50)
    losses = {
        name: variational(process, 50, times, levels=0) for name, times in (("plain", None), ("learned", sampler))
    }
    models = {"denoiser": denoiser_of({"a": 0.5, "b": 0.5}, process)}

    @jax.jit
    def run(key, state):
        def draw(keys):
            t = sampler.sample(state, tm.independent(keys, keys.shape[0]))
            return t, sampler.log_density(state, t)

        value, aux = losses["learned"](key, {**models, "times": draw}, {"x": x})
        return value, sampler.update(state, aux["t"], aux["integrand"])

    _, state = run(jax.random.key(1), sampler.init())
    assert int(state.count.min()) >= 10
    learned = np.asarray(run(jax.random.key(2), state)[0], np.float64)
    plain = np.asarray(jax.jit(lambda k: losses["plain"](k, models, {"x": x})[0])(jax.random.key(3)), np.float64)
    error = np.sqrt((learned.var() + plain.var()) / 4000)
    assert abs(learned.mean() - plain.mean()) < 4 * error
    assert learned.var() < 0.7 * plain.var()


def test_bad_steps():
    with pytest.raises(ValueError, match="variance: expected one of"):
        variational(PROCESS, STEPS, variance="beta")
    with pytest.raises(ValueError, match="steps"):
        variational(PROCESS, 1)
    with pytest.raises(ValueError, match=f"times: expected a sampler of {STEPS} levels"):
        variational(PROCESS, STEPS, tm.uniform(PROCESS))
