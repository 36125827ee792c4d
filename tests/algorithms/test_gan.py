"""The recipe of games against dynamics known by hand, and the same under jit, vmap over seeds, pmap and a mesh."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.algorithms import games as g
from genjax.algorithms import gan, players
from genjax.algorithms.stages import carry_over
from genjax.cli.runner_gan import SEEDS
from genjax.core.types import Critique
from genjax.data.augment import AUGMENTS
from genjax.losses import adversarial as a
from genjax.losses import penalties as p
from genjax.networks import linen_net
from genjax.networks.gan import MLPDiscriminator, MLPGenerator
from genjax.train import ema

RATE = 0.05


class Point(nn.Module):
    """A generator of one point, theta, whatever z; it starts at 1."""

    @nn.compact
    def __call__(self, z, cond=None, train=False):
        theta = self.param("theta", nn.initializers.ones, (1,))
        return jnp.broadcast_to(theta[None], (len(z), 1))


class Slope(nn.Module):
    """The critic psi x; it starts at 1."""

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        psi = self.param("psi", nn.initializers.ones, ())
        return Critique(psi * x[:, 0], x)


def dirac(loss, penalties=(), **options):
    """The Dirac game: real data at 0, a generated point theta, D(x) = psi x (1801.04406, section 2)."""
    sgd = optax.sgd(RATE)
    options = {"latent": g.normal(1), "penalties": dict(penalties), "simultaneous": True, **options}
    return gan(linen_net(Point()), linen_net(Slope()), loss, sgd, sgd, **options)


def play(algorithm, steps, batch=None):
    """(theta, psi) after every step, [steps, 2]."""
    batch = {"x": jnp.zeros((4, 1))} if batch is None else batch
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)

    def body(state, _):
        state, metrics = algorithm.step(jax.random.key(1), state, batch)
        found = state.params["generator"]["theta"][0], state.params["discriminator"]["psi"]
        return state, (jnp.stack(found), metrics)

    return jax.jit(lambda state: jax.lax.scan(body, state, length=steps)[1])(state)


@functools.cache
def walks():
    rp = a.relativistic_pairing()
    zero_sum = np.asarray(play(dirac(a.minimax()), 1500)[0])
    return {"zero_sum": zero_sum} | {
        name: np.asarray(play(dirac(rp, penalties), 1500)[0])
        for name, penalties in (
            ("none", {}),
            ("r1", {"r1": p.Penalty(p.r1(), 0.5)}),
            ("both", {"r1": p.Penalty(p.r1(), 0.5), "r2": p.Penalty(p.r2(), 0.5)}),
        )
    }


def test_dirac_gan_cycles_and_converges():
    """The zero-sum game's simultaneous steps spiral outwards; R1, or R1 and R2, bring the relativistic one to (0, 0).

    Unregularised, the relativistic game with its two losses shrinks only as fast as its nonlinearity lets it.
    """
    end = {name: np.linalg.norm(walk[-1]) for name, walk in walks().items()}
    assert end["zero_sum"] >= np.sqrt(2) and end["none"] > 0.1 and end["r1"] < 1e-3 and end["both"] < 1e-3
    theta = walks()["zero_sum"][:, 0]
    assert np.sum(np.diff(np.sign(theta)) != 0) >= 5  # it goes round and round


@pytest.mark.parametrize("name, gamma", [("none", 0.0), ("r1", 0.5), ("both", 1.0)])
def test_dirac_gan_follows_its_jacobian(name, gamma):
    """Step by step the update of the paper: psi' = -(gamma psi + theta s), theta' = psi s, s = sigmoid(psi theta)."""
    theta, psi, by_hand = 1.0, 1.0, []
    for _ in range(200):
        s = 1 / (1 + np.exp(-psi * theta))
        theta, psi = theta + RATE * psi * (1 - s), psi - RATE * (gamma * psi + theta * s)
        by_hand.append((theta, psi))
    np.testing.assert_allclose(walks()[name][:200], by_hand, rtol=1e-3, atol=1e-4)


def test_alternating_steps_see_the_new_critic():
    """Alternating: theta moves by the psi after its update; simultaneous: by the one before."""
    loss = a.wasserstein()  # psi' = -theta, theta' = psi
    for simultaneous, theta in ((True, 1 + RATE * 1.0), (False, 1 + RATE * (1 - RATE))):
        found = play(dirac(loss, simultaneous=simultaneous), 1)[0][0]
        np.testing.assert_allclose(found, [theta, 1 - RATE], rtol=1e-6)


def test_lazy_penalty_keeps_its_schedule():
    """Every third update, three times as strong: the walk by hand, and the reported mean of the penalty."""
    lazy = {"r1": p.Penalty(p.r1(), 0.5, every=3)}
    walk, metrics = play(dirac(a.wasserstein(), lazy), 12)
    theta, psi, reported = 1.0, 1.0, []
    for step, found in enumerate(walk):
        strength = 3 * 0.5 if step % 3 == 0 else 0.0
        reported.append(3 * 0.5 * psi**2 if step % 3 == 0 else 0.0)
        theta, psi = theta + RATE * psi, psi - RATE * (theta + strength * psi)
        np.testing.assert_allclose(found, [theta, psi], rtol=1e-5)
    np.testing.assert_allclose(metrics["r1"], reported, rtol=1e-5)


def test_lazy_penalty_is_a_branch_under_vmap():
    """Under vmap over seeds that share the step it stays a `cond`; a batched predicate would make it a select."""
    algorithm = dirac(a.wasserstein(), {"r1": p.Penalty(p.r1(), 0.5, every=16)})
    batch = {"x": jnp.zeros((4, 1))}
    state = jax.vmap(lambda key: algorithm.init(key, batch), out_axes=SEEDS)(jax.random.split(jax.random.key(0), 3))
    many = jax.vmap(algorithm.step, (0, SEEDS, None), (SEEDS, 0))
    jaxpr = str(jax.make_jaxpr(many)(jax.random.split(jax.random.key(1), 3), state, batch))
    assert " cond[" in jaxpr


def test_n_critic_takes_fresh_reals():
    """Two updates a step: of the even rows, then of the odd ones; the generator moves once, by the last critic."""
    algorithm = dirac(a.wasserstein(), simultaneous=False, n_critic=2)
    batch = {"x": jnp.array([1.0, 5.0, 1.0, 5.0])[:, None]}
    theta, psi = 1.0, 1.0
    for real in (1.0, 5.0):
        psi = psi + RATE * (real - theta)
    found, metrics = play(algorithm, 1, batch)
    np.testing.assert_allclose(found[0], [theta + RATE * psi, psi], rtol=1e-6)
    first = 1.0 - theta
    second = (1 + RATE * first) * (5.0 - theta)
    assert float(metrics["d_loss"][0]) == pytest.approx(-(first * 1.0 + second) / 2, rel=1e-5)  # averaged
    with pytest.raises(ValueError, match="batch: expected a multiple of n_critic = 2 examples, got 3"):
        algorithm.init(jax.random.key(0), batch)  # the size is seen when a step is traced
        jax.eval_shape(
            algorithm.step, jax.random.key(0), algorithm.init(jax.random.key(0), batch), {"x": jnp.zeros((3, 1))}
        )


def test_nash_of_a_quadratic_game():
    """min_theta max_psi psi theta + theta^2 / 4 - psi^2 / 4 from (1, 1): contracts to (0, 0) as its matrix says."""
    l2 = lambda: p.Penalty(lambda keys, player, x: sum(jnp.sum(v**2) for v in jax.tree.leaves(player.params)), 0.25)
    algorithm = dirac(a.wasserstein(), {"l2": l2()}, g_penalties={"l2": l2()})
    walk = np.asarray(play(algorithm, 400)[0])
    matrix = np.eye(2) + RATE * np.array([[-0.5, 1.0], [-1.0, -0.5]])
    by_hand = np.array([np.linalg.matrix_power(matrix, n + 1) @ [1.0, 1.0] for n in range(400)])
    np.testing.assert_allclose(walk, by_hand, atol=2e-5)
    assert np.linalg.norm(walk[-1]) < 1e-3


def test_weights_are_clipped_after_each_update():
    algorithm = dirac(a.wasserstein(), d_post_update=p.clip_weights(0.3))
    assert np.abs(play(algorithm, 20)[0][:, 1]).max() <= 0.3


def test_memory_of_a_penalty_is_carried():
    """LeCam's averages over three updates are those by hand: state goes round, through lazy turns too."""
    algorithm = dirac(a.wasserstein(), {"lecam": p.Penalty(p.lecam(decay=0.5), 0.0, every=2)})
    batch = {"x": jnp.full((4, 1), 2.0)}
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)
    step = jax.jit(algorithm.step)
    expected = np.zeros(2)
    for i in range(3):
        psi, theta = float(state.params["discriminator"]["psi"]), float(state.params["generator"]["theta"][0])
        if i % 2 == 0:
            expected = 0.5 * expected + 0.5 * np.array([2 * psi, theta * psi])
        state, _ = step(jax.random.key(1), state, batch)
        np.testing.assert_allclose(state.extra["penalties"]["lecam"]["mean"], expected, rtol=1e-5)


def small(axis_name=None, **options):
    """A conditional game that uses most of what there is: spectral norm, batch norm, coupled and lazy penalties."""
    generator = MLPGenerator(shape=(2,), width=8, depth=1, norm="batch", num_classes=3, axis_name=axis_name)
    critic = MLPDiscriminator(width=8, depth=1, spectral=1, head="projection", num_classes=3, axis_name=axis_name)
    penalties = {
        "r1": p.Penalty(p.r1(), 0.1),
        "dragan": p.Penalty(p.dragan(axis_name=axis_name), 0.1, every=2),
        "lecam": p.Penalty(p.lecam(axis_name=axis_name), 0.1),
    }
    sgd = optax.sgd(0.05, momentum=0.5)  # under Adam a gradient that is 0 but for rounding would move all the same
    options = {
        "latent": g.normal(3),
        "penalties": penalties,
        "g_penalties": {"path": p.Penalty(p.path_length(axis_name=axis_name), 0.1, every=2)},
        "n_critic": 2,
        "ema": ema.constant(0.9),
        "cond": ("label",),
        "num_classes": 3,
        **options,
    }
    loss = a.relativistic_average(axis_name)
    return gan(linen_net(generator), linen_net(critic), loss, sgd, sgd, axis_name=axis_name, **options)


def data(n=16):
    rng = np.random.default_rng(0)
    return {"x": jnp.asarray(rng.normal(size=(n, 2)), jnp.float32), "label": jnp.asarray(rng.integers(0, 3, n))}


STEPS = 3


@pytest.fixture(scope="module")
def trained():
    """(first State, State after STEPS, metrics) of the small game under jit."""
    algorithm = small()
    first = jax.jit(algorithm.init)(jax.random.key(0), data())
    step, state = jax.jit(algorithm.step), first
    for i in range(STEPS):
        state, metrics = step(jax.random.fold_in(jax.random.key(1), i), state, data())
    assert step._cache_size() == 1  # no retrace: types and structure of the state stay
    return first, state, metrics


def near(one, two, rtol=2e-4, atol=2e-5):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def test_parts_of_an_axis_are_the_whole_batch(trained):
    """Two devices' halves under a mapped axis: losses, statistics, memories and parameters as of the whole batch."""
    first, whole, metrics = trained
    algorithm = small(axis_name="part")
    halves = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), data())
    run = jax.jit(jax.vmap(algorithm.step, (None, None, 0), 0, axis_name="part"))
    state = first
    for i in range(STEPS):
        state, found = run(jax.random.fold_in(jax.random.key(1), i), state, halves)
        near(jax.tree.map(lambda x: x[0], state.params), jax.tree.map(lambda x: x[1], state.params))
        state = jax.tree.map(lambda x: x[0], state)
    near(state.params, whole.params)
    near(state.extra, whole.extra)
    near({k: v[0] for k, v in found.items()}, metrics)


def test_seeds_in_one_program_are_the_runs_apart(trained):
    first, whole, _ = trained
    algorithm = small()
    many = jax.tree.map(lambda x: jnp.stack([x, x + 0 if x.dtype == jnp.int32 else 0.5 * x]), first)
    many = many._replace(step=first.step)
    run = jax.jit(jax.vmap(algorithm.step, (0, SEEDS, None), (SEEDS, 0)))
    for i in range(STEPS):
        keys = jnp.stack([jax.random.fold_in(jax.random.key(1), i), jax.random.fold_in(jax.random.key(9), i)])
        many, _ = run(keys, many, data())
    near(jax.tree.map(lambda x: x[0], many.params), whole.params)
    assert not np.allclose(*many.params["generator"]["output"]["kernel"])


def test_metrics(trained):
    """Both losses, logits, signs, norms and penalties by name; `loss` is the sum of what both minimise."""
    _, _, metrics = trained
    wanted = {"loss", "d_loss", "g_loss", "logit_real", "logit_fake", "sign_real", "sign_fake", "d_grad_norm"}
    assert wanted | {"g_grad_norm", "r1", "dragan", "lecam", "g_path"} == set(metrics)
    assert all(jnp.ndim(v) == 0 and np.isfinite(v) for v in metrics.values())
    assert -1 <= metrics["sign_fake"] <= 1


def test_critic_state_is_threaded_and_frozen():
    """Power iteration: one turn at the reals, one at the fakes, none in penalties or the generator's update."""
    net = linen_net(MLPDiscriminator(width=8, depth=1, spectral=1))
    generator = linen_net(MLPGenerator(shape=(2,), width=8, depth=1))
    sgd = optax.sgd(0.0)
    penalties = {"r1_r2": p.Penalty(p.PENALTIES["r1_r2"](), 0.1)}
    algorithm = gan(generator, net, a.relativistic_pairing(), sgd, sgd, latent=g.normal(2), penalties=penalties)
    batch = {"x": data()["x"]}
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)
    before = state.extra["net"]["discriminator"]
    after = jax.jit(algorithm.step)(jax.random.key(1), state, batch)[0].extra["net"]["discriminator"]

    @jax.jit
    def two_turns(params, collections):
        for _ in range(2):
            _, collections = net.apply(params, collections, batch["x"], train=True)
        return collections

    twice = two_turns(state.params["discriminator"], before)
    near(after, twice, rtol=1e-5, atol=1e-6)
    u = lambda s: np.asarray(s["spectral"]["layer0"]["u"])
    assert not np.allclose(u(before), u(after), atol=1e-6)


def test_sampling(trained):
    """Sample i depends on the key, i and its label alone; averaged weights; truncated latents."""
    _, state, _ = trained
    algorithm = small()
    label = {"label": jnp.array([0, 1, 2, 0])}
    sample = jax.jit(algorithm.sample, static_argnums=2)
    x = sample(jax.random.key(3), state, 4, label)
    np.testing.assert_allclose(sample(jax.random.key(3), state, 2, {"label": label["label"][:2]}), x[:2], atol=1e-6)
    assert not np.allclose(x, sample(jax.random.key(3), state, 4, {"label": jnp.array([1, 1, 2, 0])}))
    raw = state._replace(ema={"generator": state.params["generator"]})
    assert not np.allclose(x, sample(jax.random.key(3), raw, 4, label))
    assert sample(jax.random.key(3), state, 4).shape == (4, 2)  # labels drawn
    z = g.normal(5).sample(jax.random.key(0), 100, 0.5)
    assert np.abs(z).max() <= 0.5
    with pytest.raises(ValueError, match="truncation: expected normal latents, got 'uniform'"):
        g.uniform(3).sample(jax.random.key(0), 4, 0.5)


def test_refresh_takes_statistics_anew(trained):
    """Running averages lag behind; after `refresh` they are those of the averaged weights, whatever they were."""
    _, state, _ = trained
    algorithm = small()
    stale = jax.tree.map(lambda s: s + 7.0, state.extra["net"]["generator"])
    wrong = state._replace(extra={**state.extra, "net": {**state.extra["net"], "generator": stale}})
    refresh = jax.jit(algorithm.refresh)
    fresh = refresh(jax.random.key(0), state)
    near(fresh.extra, refresh(jax.random.key(0), wrong).extra)
    stats = fresh.extra["net"]["generator"]["batch_stats"]["norm0"]
    kernel, bias = (state.ema["generator"]["layer0"][k] for k in ("kernel", "bias"))
    mean = bias + kernel[3:].mean(axis=0)  # latents have mean 0, labels are even
    std = np.sqrt(np.sum(kernel**2, axis=0))
    assert np.all(np.abs(stats["mean"] - mean) < 0.15 * std + 0.02)
    near(fresh.params, state.params)


def test_tempered_game_mixes_pairs():
    """q = alpha x + (1 - alpha) x', tau its temperature; the point between lies on the pair's line."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 2)), jnp.float32)
    prepare = jax.jit(lambda key, x, z: g.tempering(r=0.5)(0, key, g.Round(x, z, {}, {}, {})))
    found = prepare(jax.random.key(0), x, jnp.zeros((64, 3)))
    tau = np.asarray(found.cond["embedding"])[:, 0]
    data_law = np.all(np.asarray(found.x) == np.asarray(x), axis=1)
    assert 0.3 < data_law.mean() < 0.7
    np.testing.assert_allclose(tau[data_law], 0, atol=1e-6)
    other = np.roll(np.asarray(x), -1, axis=0)
    alpha = np.sum((np.asarray(found.x) - other) * (x - other), axis=1) / np.sum((x - other) ** 2, axis=1)
    np.testing.assert_allclose(tau, 1 - 2 * np.abs(alpha - 0.5), atol=1e-4)
    line = np.asarray(found.points["direction"])
    pair = np.asarray(x) - other
    np.testing.assert_allclose(line[:, 0] * pair[:, 1], line[:, 1] * pair[:, 0], atol=1e-5)


def test_tempered_and_augmented_games_step():
    """PTGAN's penalty, ADA's controller and instance noise through the recipe: finite, and the controllers move."""
    generator = linen_net(MLPGenerator(shape=(2,), width=8, depth=1, embedding_dim=1))
    critic = linen_net(MLPDiscriminator(width=8, depth=1, embedding_dim=1))
    adam = optax.adam(1e-2)
    algorithm = gan(
        generator, critic, a.wasserstein(), adam, adam,
        latent=g.normal(2), prepare=(g.tempering(0.9),), penalties={"h": p.Penalty(p.coherency(), 100.0)},
        augment=g.instance_noise(0.3, steps=10),
    )  # fmt: skip
    batch = {"x": data()["x"]}
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)
    state, metrics = jax.jit(algorithm.step)(jax.random.key(1), state, batch)
    assert metrics["h"] > 0 and np.isfinite(metrics["loss"]) and float(state.extra["augment"]) == 1.0
    images = {"x": jnp.zeros((8, 4, 4, 1))}
    generator = linen_net(MLPGenerator(shape=(4, 4, 1), width=8, depth=1))
    ada = AUGMENTS["ada"](kimg=0.02, interval=1, target=-1.0, transforms=("blit",))
    algorithm = gan(
        generator, linen_net(MLPDiscriminator(width=8, depth=1)), a.hinge(), adam, adam, latent=g.normal(2), augment=ada
    )
    state = jax.jit(algorithm.init)(jax.random.key(0), images)
    state, _ = jax.jit(algorithm.step)(jax.random.key(1), state, images)
    assert float(state.extra["augment"].p) >= 0


def test_stages_hand_over(trained):
    """Weights, average and statistics go on, optimizers and the count of steps start anew."""
    _, state, _ = trained
    new = jax.jit(carry_over(small()))(jax.random.key(5), state, data())
    near(new.params, state.params)
    near(new.ema, state.ema)
    near(new.extra["net"], state.extra["net"])
    assert int(new.step) == 0 and not any(np.any(x) for x in jax.tree.leaves(new.opt))


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"n_critic": 0}, ValueError, "n_critic: expected a whole number >= 1, got 0"),
        ({"n_critic": 2, "simultaneous": True}, ValueError, "simultaneous: expected n_critic = 1, got 2"),
        ({"penalties": {"r1": p.r1()}}, TypeError, "penalties.r1: expected a Penalty"),
        (
            {"penalties": {"r1": p.Penalty(p.r1(), 1.0, 0)}},
            ValueError,
            r"penalties.r1.every: expected a whole number >= 1",
        ),
        ({"fake_labels": "even"}, ValueError, "fake_labels: expected one of"),
        ({"cond": (), "d_cond": ("label",)}, ValueError, "d_cond: expected a generator that is given the label too"),
        ({"truncate": "w"}, ValueError, "truncate: expected 'latent' or 'style', got 'w'"),
        ({"latent": 3}, TypeError, "latent: expected a Latent, got 3"),
    ],
)
def test_what_does_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        small(**options)


def test_loss_without_its_head_is_named():
    """A class-aware loss on a plain critic fails when the state is made, before anything is compiled."""
    generator, critic = (linen_net(m) for m in (MLPGenerator(shape=(2,), width=8, depth=1), MLPDiscriminator(8, 1)))
    sgd = optax.sgd(0.1)
    algorithm = gan(generator, critic, a.auxiliary(a.hinge()), sgd, sgd, latent=g.normal(2))
    with pytest.raises(ValueError, match="loss: expected 'fake_label' from the discriminator"):
        jax.eval_shape(lambda batch: algorithm.init(jax.random.key(0), batch), data())
    assert players.check_penalties({}, "penalties") == {}
