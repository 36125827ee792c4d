"""Critics on laws, the estimate and the pull by hand, gradients of the generator."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.algorithms import games
from genjax.algorithms.gan import gan
from genjax.build.gan import Parts
from genjax.cli import runner_gan as run
from genjax.cli import runner_probes as probes
from genjax.core.keys import normal
from genjax.core.types import Critique, State
from genjax.losses import adversarial
from genjax.networks.functions import function_net

shift = lambda: function_net(lambda p, z, cond: z + p["shift"], {"shift": 2.0})
line = lambda: function_net(lambda p, x, cond: Critique(p["slope"] * x[:, 0], x), {"slope": 0.5})


def test_a_critic_on_a_law_that_stands_still():
    """A linear critic of two normal laws climbs by the gap of their means; the law stays. Catches stale fresh draws."""
    game = gan(shift(), line(), adversarial.wasserstein(), optax.set_to_zero(), optax.sgd(0.01), latent=games.normal(1))
    law = lambda key, n: normal(key, (n, 1))
    fit = jax.jit(lambda key: probes.fit_law(game, law, key, (10, 40), 64, record=lambda s: s.params["discriminator"]))
    states, record = fit(jax.random.key(0))
    slopes = np.asarray(record["slope"])
    assert [int(s.step) for s in states] == [10, 40] and slopes.shape == (40,)
    assert float(states[0].params["generator"]["shift"]) == 2.0
    assert float(states[0].params["discriminator"]["slope"]) == pytest.approx(slopes[9])
    steps = np.diff(slopes)  # -0.01 (mean of generated - mean of reals), 2 but for noise of sqrt(2 / 64)
    assert np.mean(steps) == pytest.approx(-0.02, abs=4 * 0.01 * np.sqrt(2 / 64 / 39))
    assert np.std(steps) == pytest.approx(0.01 * np.sqrt(2 / 64), rel=0.4)


@pytest.mark.parametrize(
    "name, estimate, pull",
    [
        ("wasserstein", lambda s: s * 1.0 - s * 3.0, lambda s: abs(s)),
        ("minimax", lambda s: -np.log1p(np.exp(-s)) - np.log1p(np.exp(3 * s)), lambda s: s / (1 + np.exp(-3 * s))),
    ],
)
def test_estimate_and_pull_by_hand(name, estimate, pull):
    """The critic s x at reals 1 and generated 3. Catches a sign, or the gradient of the wrong player's loss."""
    state = State(0, {"discriminator": {"slope": 0.5}}, (), (), {"net": {"discriminator": {}}})
    parts = Parts(shift(), line(), adversarial.ADVERSARIAL[name](), None, None, None)
    real, fake = jnp.full((4, 1), 1.0), jnp.full((4, 1), 3.0)
    assert float(probes.loss_estimate(parts, state, real, fake)) == pytest.approx(estimate(0.5), rel=1e-5)
    assert float(probes.pull(parts, state, fake)) == pytest.approx(pull(0.5), rel=1e-5)


def test_generator_gradients_are_those_of_the_loss():
    """Their mean against `jax.grad` of the loss on many latents. Catches a critic that moved first."""
    config = run.toy_config("smoke", 10, loss={"name": "wasserstein"}, latent={"name": "normal", "dim": 2})
    _, state, _ = run.fit(config, jax.random.key(0))[-1]
    found = probes.generator_gradients(config, state, jax.random.key(1), 200)
    parts = run.game(config)
    z = jax.random.normal(jax.random.key(2), (20_000, 2))

    def loss(params):
        moved = state._replace(params={**state.params, "generator": params})
        return -jnp.mean(probes.critique_of(parts, moved)(parts.generate(moved)(z)).logits)

    exact = np.concatenate([np.ravel(g) for g in jax.tree.leaves(jax.jit(jax.grad(loss))(state.params["generator"]))])
    error = found.std(axis=0) / np.sqrt(len(found))
    assert np.abs(found.mean(axis=0) - exact).max() < 5 * error.max() + 1e-4
    assert probes.total_variance(found) == pytest.approx(np.trace(np.cov(found.T)))
