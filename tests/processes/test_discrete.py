"""Token processes against direct sums over the transition matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import processes
from genjax.core import Prediction

V = 3
BUILD = {
    "masked_linear": lambda: processes.masked(V),
    "masked_cosine": lambda: processes.masked(V, "cosine"),
    "masked_by_token": lambda: processes.masked(V, processes.PowerRate(jnp.asarray([0.5, 1.0, 2.5]))),
    "uniform_linear": lambda: processes.uniform_tokens(V),
    "uniform_polynomial": lambda: processes.uniform_tokens(V, "polynomial"),
}


@pytest.fixture(params=list(BUILD))
def process(request, x64):
    return BUILD[request.param]()


def matrix(process, t, s):
    """q(x_s = j | x_t = i) as a matrix [states, states]."""
    states = jnp.arange(process.states)[:, None]
    return np.exp(np.asarray(jax.nn.log_softmax(process.transition(states, t, s).logits)))[:, 0]


def emission(process, t):
    """q(x_t = j | x0 = v), [V, states]."""
    return np.exp(np.asarray(process.log_emission(jnp.arange(process.states)[:, None], t)))[:, 0].T


def test_laws_are_normalized(process):
    np.testing.assert_allclose(emission(process, 0.37).sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(matrix(process, 0.2, 0.37).sum(-1), 1, rtol=1e-12)


def test_transitions_compose(process):
    # Chapman-Kolmogorov, and 0 -> s -> t is the marginal: catches a wrong alpha_t / alpha_s
    np.testing.assert_allclose(
        matrix(process, 0.2, 0.5) @ matrix(process, 0.5, 0.9), matrix(process, 0.2, 0.9), atol=1e-12
    )
    np.testing.assert_allclose(emission(process, 0.2) @ matrix(process, 0.2, 0.9), emission(process, 0.9), atol=1e-12)
    np.testing.assert_allclose(matrix(process, 0.0, 0.4)[:V], emission(process, 0.4), atol=1e-12)


@pytest.mark.parametrize("s", [0.0, 0.3])
def test_posterior_is_bayes(process, s):
    # p(x_s | x_t) = sum_v p(v | x_t) q(x_s | v) q(x_t | x_s) / q(x_t | v), summed by hand
    t = 0.8
    mu = np.array([0.2, 0.5, 0.3])
    x = jnp.arange(process.states)[:, None]
    law = process.posterior(x, Prediction(logits=jnp.log(jnp.broadcast_to(mu, (process.states, 1, V)))), t, s)
    probs = np.exp(np.asarray(jax.nn.log_softmax(law.logits)))[:, 0]
    at_s = np.eye(V, process.states) if s == 0 else emission(process, s)
    at_t, step = emission(process, t), matrix(process, s, t)
    for i in range(process.states):
        reachable = at_t[:, i] > 0  # a known token excludes the others, whatever the network says
        share = np.where(reachable, mu, 0) / np.where(reachable, mu, 0).sum()
        bayes = sum(share[v] * at_s[v] * step[:, i] / at_t[v, i] for v in range(V) if reachable[v])
        np.testing.assert_allclose(probs[i], bayes, atol=1e-12)


def test_corrupt_has_its_marginal(process):
    # frequencies of the drawn states against q(x_t | x0), and one draw a sample whatever the batch
    key, t = jax.random.key(0), 0.6
    x0 = jnp.tile(jnp.arange(V), 4000)[:, None]
    x, truth = process.corrupt(key, x0, t)
    np.testing.assert_array_equal(truth.x0, x0)
    for v in range(V):
        counts = np.bincount(np.asarray(x[v::V, 0]), minlength=process.states) / 4000
        np.testing.assert_allclose(counts, emission(process, t)[v], atol=4 * 0.5 / 4000**0.5)
    np.testing.assert_array_equal(process.corrupt(key, x0[:7], t)[0], x[:7])


def test_ends(process):
    key, x0 = jax.random.key(1), jnp.tile(jnp.arange(V), 3000)[:, None]
    np.testing.assert_array_equal(process.corrupt(key, x0, 0.0)[0], x0)
    end, prior = process.corrupt(key, x0, 1.0)[0], process.prior(jax.random.key(2), x0)
    counts = lambda x: np.bincount(np.asarray(x).ravel(), minlength=process.states) / len(x0)
    np.testing.assert_allclose(counts(end), counts(prior), atol=0.04)
    assert end.shape == prior.shape and jnp.issubdtype(prior.dtype, jnp.integer)


@pytest.mark.parametrize("name", ["masked_linear", "masked_cosine", "uniform_polynomial"])
def test_time_inverts_log_snr(name, x64):
    process, t = BUILD[name](), jnp.linspace(0.001, 0.999, 21)
    np.testing.assert_allclose(process.time(process.log_snr(t)), t, rtol=1e-10)
    np.testing.assert_allclose(process.rate(t) + process.alpha(t), 1, rtol=1e-12)


def test_times_of_a_batch():
    # t [B] with tokens of any rank equals the same times one by one
    process = BUILD["masked_by_token"]()
    x = jnp.full((2, 3, 4), V)
    pred = Prediction(logits=jnp.zeros((2, 3, 4, V)))
    t, s = jnp.asarray([0.5, 0.9]), jnp.asarray([0.1, 0.3])
    whole = process.posterior(x, pred, t, s).logits
    one = process.posterior(x[1:], Prediction(logits=pred.logits[1:]), t[1], s[1]).logits
    np.testing.assert_allclose(whole[1:], one, rtol=1e-6)
    assert process.perturb(x * 0, jnp.full(x.shape, 0.6), t).tolist()[0][0][0] == V


def test_learned_rates_have_finite_gradients():
    # GenMD4 learns the powers: catches log(0) at t = 0 and s = 0
    def loss(power):
        process = processes.masked(V, processes.PowerRate(power))
        x = jnp.full((2, 4), V)
        law = process.posterior(
            x, Prediction(logits=jnp.zeros((2, 4, V))), jnp.asarray([0.5, 0.9]), jnp.asarray([0.2, 0.4])
        )
        return (
            jnp.sum(law.log_prob(jnp.ones((2, 4), int)))
            + jnp.sum(process.alpha(0.0, 2))
            + jnp.sum(process.rate(0.0, 2))
        )

    assert bool(jnp.all(jnp.isfinite(jax.grad(loss)(jnp.asarray([0.5, 1.0, 2.0])))))


def test_bad_input():
    process = processes.masked(V)
    with pytest.raises(ValueError, match=r"schedule: expected one of .* got 'lin'"):
        processes.masked(V, "lin")
    with pytest.raises(ValueError, match=r"eta: expected 1, .* got 0.0"):
        process.posterior(jnp.zeros((1, 2), int), Prediction(logits=jnp.zeros((1, 2, V))), 0.5, 0.2, 0.0)
    with pytest.raises(TypeError, match="bind: a masked process takes no context"):
        process.bind(x1=0)
