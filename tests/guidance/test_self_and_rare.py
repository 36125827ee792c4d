"""Minority scores, clusters as labels, banks of experts; the losses and the recipe that train guides."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.algorithms import supervised
from genjax.core.types import Prediction
from genjax.guidance import (
    draw_labels,
    equal_ranges,
    expert_bank,
    minority_score,
    purity,
    quantile_labels,
    self_label,
    stack_experts,
)
from genjax.losses import (
    feature_reading,
    guided_denoising,
    knowledge_transfer,
    noisy_classification,
    nt_xent,
    times,
    weightings,
)
from genjax.losses.guided import combination_error
from genjax.networks import linen_net
from genjax.networks.lora import lora_init, lora_merge
from genjax.oracles.mixture import Mixture
from genjax.processes import gaussian

PROCESS = gaussian.cosine()
TIMES = times.uniform(PROCESS)
X = jax.random.normal(jax.random.key(3), (6, 2))


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4)


def test_minority_score_of_gaussian_data():
    """Data N(0, s^2): E (x0 - x0(x_t))^2 = (1 - k alpha)^2 x0^2 + k^2 sigma^2 with k the shrinkage, in closed form."""
    s, t = 0.7, 0.6
    data = Mixture(jnp.zeros((1, 1)), jnp.full(1, s), jnp.zeros(1))
    a, u = PROCESS.alpha(t), PROCESS.sigma(t)
    k = a * s**2 / (a**2 * s**2 + u**2)
    x0 = jnp.array([[0.0], [1.0], [3.0]])
    score = jax.jit(lambda: minority_score(jax.random.key(0), data.denoiser(PROCESS), PROCESS, x0, t, 4000))()
    close(score, (1 - k * a) ** 2 * x0[:, 0] ** 2 + k**2 * u**2, 0.15)
    assert score[0] < score[1] < score[2]


def test_quantile_labels():
    """Equal shares in the order of the scores, the largest last."""
    scores = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 0.0])
    assert quantile_labels(scores, 3).tolist() == [2, 0, 2, 1, 1, 0]
    with pytest.raises(ValueError, match="bins: expected from 2 to 6"):
        quantile_labels(scores, 7)


def test_self_label_finds_clusters():
    """Three far directions: pure clusters, frequencies of the data, draws in that proportion."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    x = 5 * np.eye(3)[labels] + 0.1 * rng.standard_normal((100, 3))
    found = self_label(x, 3)
    assert purity(found.ids, labels) == 1.0
    assert sorted(found.frequencies.tolist()) == [0.1, 0.3, 0.6]
    drawn = np.bincount(draw_labels(rng, found.frequencies, 5000), minlength=3) / 5000
    close(drawn, found.frequencies, 0.03)
    many = self_label(np.repeat(x[:4], 5, axis=0), 4)  # duplicates: no cluster stays empty
    assert len(np.unique(many.ids)) == 4
    assert purity([0, 0, 1, 1], [0, 1, 1, 1]) == 0.75
    with pytest.raises(ValueError, match="count: expected from 1 to 100"):
        self_label(x, 101)


def test_expert_bank_picks_by_time():
    """Expert n multiplies by n; an edge belongs to the lower range; per-sample times pick per sample."""
    experts = stack_experts([{"w": jnp.asarray(float(n))} for n in range(5)])
    bank = expert_bank(lambda p: lambda x, t: p["w"] * x, experts, equal_ranges(5))
    close(jax.jit(bank)(X, 0.5), 2 * X)
    close(bank(X, 0.2), 0 * X)
    t = jnp.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.4])
    close(bank(X, t), X * jnp.array([0.0, 1, 2, 3, 4, 1])[:, None])
    with pytest.raises(ValueError, match="edges: expected 4 rising times"):
        expert_bank(lambda p: None, experts, [0.5])


def test_guided_loss_holds_the_combination():
    """With outputs set by hand it is |eps - (1 + w) e_c + w e_0|^2 / (1 + w)^2 + |eps - e_0|^2: the cross term."""
    strong, weak, true = (jax.random.normal(jax.random.key(i), (6, 2)) for i in range(3))
    guided, _plain = combination_error(strong, weak, true, 4.0)
    close(guided, jnp.mean((true - 4 * strong + 3 * weak) ** 2, axis=1))

    def denoiser(x, t, cond=None, key=None):
        value = jnp.where((cond["label"] >= 0)[:, None], 0.3 * x, -0.2 * x)
        return Prediction(x0=x, eps=value)

    batch = {"x": X, "cond": {"label": jnp.arange(6)}}
    for normalize in (True, False):
        loss = guided_denoising(PROCESS, TIMES, 4.0, 0.5, normalize)
        values, aux = loss(jax.random.key(0), {"denoiser": denoiser}, batch)
        close(values, aux["guided_mse"] / (16 if normalize else 1) + 0.5 * aux["eps_mse"])
        heavy = guided_denoising(PROCESS, TIMES, 4.0, 0.5, normalize, weightings.v())
        close(heavy(jax.random.key(0), {"denoiser": denoiser}, batch)[0], values * (1 + jnp.exp(-aux["log_snr"])))
    # at scale 1 the first term is the conditional error alone: equal weights make the cross term vanish
    one, _ = guided_denoising(PROCESS, TIMES, 1.0, 0.0)(jax.random.key(0), {"denoiser": denoiser}, batch)
    same = lambda x, t, cond=None, key=None: Prediction(x0=x, eps=0.3 * x)
    both, _ = guided_denoising(PROCESS, TIMES, 4.0, 0.0, False)(jax.random.key(0), {"denoiser": same}, batch)
    close(one, both)
    with pytest.raises(ValueError, match="scale: expected 0 < low <= high"):
        guided_denoising(PROCESS, TIMES, (2.0, 1.0))
    with pytest.raises(ValueError, match="cond: guided_denoising expected a condition"):
        guided_denoising(PROCESS, TIMES)(jax.random.key(0), {"denoiser": denoiser}, {"x": X})


def test_optimum_of_the_guided_loss():
    """Linear data: the minimizer over (eps_c, eps_0) has g = e_c and eps_0 = e_0, so its gap is 1 / scale of the true.

    Checked on a network of two constants, whose conditional means are known: labels 0, 1 carry eps of mean -1, 1.
    """
    rng = np.random.default_rng(0)
    label = np.arange(4000) % 2
    true = np.where(label, 1.0, -1.0)[:, None] + rng.standard_normal((4000, 1))

    def value(p):
        strong = jnp.where(jnp.asarray(label)[:, None] == 1, p[1], p[0]) * jnp.ones((4000, 1))
        guided, plain = combination_error(strong, p[2] * jnp.ones((4000, 1)), jnp.asarray(true), 4.0)
        return jnp.mean(guided / 16 + plain)

    hessian = jax.hessian(value)(jnp.zeros(3))
    optimum = jnp.linalg.solve(hessian, -jax.grad(value)(jnp.zeros(3)))
    close(optimum, jnp.array([-0.25, 0.25, 0.0]), 0.05)


def test_losses_of_guides():
    """Cross-entropy and KL by their definitions; the control sees clean x; no label is read by the transfer."""
    w = jax.random.normal(jax.random.key(1), (2, 3))
    guide = lambda x, t: x @ w
    label = jnp.array([0, 1, 2, 0, 1, 2])
    loss = noisy_classification(PROCESS, TIMES, noisy=False)
    values, _aux = loss(jax.random.key(0), {"guide": guide}, {"x": X, "label": label})
    close(values, optax.softmax_cross_entropy_with_integer_labels(X @ w, label))
    seen = noisy_classification(PROCESS, TIMES)(jax.random.key(0), {"guide": guide}, {"x": X, "label": label})[0]
    assert jnp.abs(seen - values).max() > 1e-2
    models = {"guide": lambda x, t: 0 * x @ w, "teacher": lambda x: x @ w}
    transfer, _ = knowledge_transfer(PROCESS, TIMES, 0.5)(jax.random.key(0), models, {"x": X})
    p = jax.nn.softmax(X @ w / 0.5)
    close(transfer, jnp.log(3.0) + jnp.sum(p * jnp.log(p), axis=1))  # against the uniform law
    models = {"guide": lambda f, t: f["h"], "denoiser": lambda x, t, c, k: Prediction(x, x, features={"h": 0 * x + 2})}
    read, _ = feature_reading(PROCESS, TIMES)(jax.random.key(0), models, {"x": X, "target": jnp.ones((6, 2))})
    close(read, jnp.ones(6))


def test_nt_xent():
    """Against the formula written as a loop; equal pairs of far directions cost least."""
    a, b = jax.random.normal(jax.random.key(0), (4, 3)), jax.random.normal(jax.random.key(1), (4, 3))
    z = np.concatenate([a, b]) / np.linalg.norm(np.concatenate([a, b]), axis=1, keepdims=True)
    terms = []
    for i in range(8):
        others = np.exp([z[i] @ z[j] / 0.5 for j in range(8) if j != i])
        terms.append(-np.log(np.exp(z[i] @ z[(i + 4) % 8] / 0.5) / others.sum()))
    close(nt_xent(a, b), (np.array(terms[:4]) + np.array(terms[4:])) / 2)
    with pytest.raises(ValueError, match="views: expected two arrays"):
        nt_xent(a, b[:2])


class Small(nn.Module):
    @nn.compact
    def __call__(self, x, t, train=False):
        return nn.Dense(2)(jnp.tanh(nn.Dense(8)(x) + t[:, None]))


def test_supervised_trains_all_or_the_adapters_alone():
    """The loss falls; with adapters the frozen weights stay to the last bit, and the whole is theirs plus low rank."""
    net, key = linen_net(Small()), jax.random.key(0)
    label = (X[:, 0] > 0).astype(jnp.int32)
    batch = {"x": X, "label": label}
    loss = noisy_classification(PROCESS, TIMES, noisy=False)
    inputs = lambda batch: (batch["x"], jnp.zeros(1))
    adapters = (lambda p: lora_init(key, p, 2), lora_merge)
    for trainable in (None, adapters):
        algorithm = supervised(net, loss, optax.adam(0.05), inputs=inputs, trainable=trainable)
        state = algorithm.init(key, batch)

        @jax.jit
        def train(state, algorithm=algorithm):
            return jax.lax.scan(lambda s, _: algorithm.step(key, s, batch), state, None, length=60)

        after, metrics = train(state)
        assert metrics["loss"][-1] < 0.3 < metrics["loss"][0]
        assert metrics["accuracy"][-1] == 1.0
        if trainable is not None:
            jax.tree.map(np.testing.assert_array_equal, after.frozen, state.frozen)
            whole = lora_merge(after.frozen["guide"], after.params["guide"])
            gap = whole["Dense_0"]["kernel"] - after.frozen["guide"]["Dense_0"]["kernel"]
            assert 0 < jnp.linalg.matrix_rank(gap, 1e-4) <= 2
    with pytest.raises(ValueError, match="sample: expected a recipe of a generator"):
        algorithm.sample(key, state, 3)
