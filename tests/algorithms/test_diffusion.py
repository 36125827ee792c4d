"""The recipe: it learns, compiles once, and draws the same numbers however the batch is split."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.algorithms.diffusion import diffusion, gaussian_sampler, trained_denoiser
from genjax.algorithms.parts import condition, draws, drop_condition
from genjax.core.denoiser import make_denoiser
from genjax.core.keys import sample_keys
from genjax.core.types import Net
from genjax.losses import denoising, hybrid
from genjax.losses import times as tm
from genjax.losses import weightings as w
from genjax.losses.denoising import with_uncertainty
from genjax.oracles.mixture import Mixture
from genjax.processes import gaussian
from genjax.solvers import grids, ode
from genjax.train import ema as em

PROCESS = gaussian.cosine(8.0, -8.0)
DATA = Mixture(jnp.array([[1.0, 0.0], [-1.0, 0.5]]), jnp.array([0.2, 0.3]), jnp.zeros(2))
EMA = em.constant(0.9)


class Tiny(nn.Module):
    """A small network of (x, noise, cond), with the options that a recipe must thread."""

    outputs: int = 2
    dropout: float = 0.0
    batch_mean: bool = False

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        label = jnp.full(x.shape[:1], -1) if cond is None else cond["label"]
        h = jnp.concatenate([x, noise[:, None], jax.nn.one_hot(label, 2)], axis=-1)
        h = nn.tanh(nn.Dense(32)(h))
        if self.batch_mean:
            mean = self.variable("stats", "mean", jnp.zeros, (32,))
            if train:
                mean.value = 0.9 * mean.value + 0.1 * h.mean(0)
        if self.dropout:
            h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return nn.Dense(self.outputs)(h)


class Level(nn.Module):
    """u(noise) for the learned uncertainty."""

    @nn.compact
    def __call__(self, noise, train=False):
        return nn.Dense(1)(jnp.stack([noise, jnp.ones_like(noise)], axis=-1))[:, 0]


def net_of(module):
    def init(key, *x):
        variables = dict(module.init({"params": key}, *x))
        return variables.pop("params"), variables

    def apply(params, state, *x, train=False, rngs=None):
        if not (train and state):
            return module.apply({"params": params, **state}, *x, train=train, rngs=rngs), state
        return module.apply({"params": params, **state}, *x, train=train, rngs=rngs, mutable=list(state))

    return Net(init, apply)


DENOISE = functools.partial(make_denoiser, process=PROCESS, target="edm", sigma_data=1.0)


def recipe(times=None, loss=None, module=None, optimizer=None, ema=EMA, **kwargs):
    sampler = tm.log_normal(PROCESS, 0.0, 1.2) if times is None else times
    loss = denoising(PROCESS, sampler, w.edm(1.0)) if loss is None else loss
    module, optimizer = module or Tiny(), optimizer or optax.adam(5e-3)
    return diffusion(net_of(module), DENOISE, loss, optimizer, ema, times=sampler, **kwargs)


@pytest.fixture(scope="module")
def batch():
    x, label = DATA.sample(jax.random.key(1), 64)
    return {"x": x, "label": label.astype(jnp.int32)}


@pytest.fixture(scope="module")
def trained(batch):
    """300 steps in one scan, and the mean losses along them."""
    algorithm = recipe(
        cond=("label",),
        drop=0.2,
        sampler=gaussian_sampler(PROCESS, ode.heun(), grids.karras(PROCESS, 12), (2,)),
    )

    @jax.jit
    def run(key):
        state = algorithm.init(key, batch)

        def body(state, i):
            x, label = DATA.sample(jax.random.fold_in(key, i), 64)
            state, metrics = algorithm.step(key, state, {"x": x, "label": label.astype(jnp.int32)})
            return state, metrics

        return jax.lax.scan(body, state, jnp.arange(300))

    state, metrics = run(jax.random.key(0))
    return algorithm, state, metrics


def test_it_learns(trained):
    """The loss falls to near that of the exact denoiser, the average weights denoise well, samples follow the label."""
    algorithm, state, metrics = trained
    assert set(metrics) == {"loss", "grad_norm", "eps_mse"} and int(state.step) == 300
    loss = np.asarray(metrics["loss"])
    assert loss[-50:].mean() < 0.75 * loss[:10].mean()
    x, label = DATA.sample(jax.random.key(5), 2000)
    cond = {"label": label.astype(jnp.int32)}
    t = PROCESS.time(jnp.zeros(2000))
    x_t, true = PROCESS.corrupt(jax.random.key(6), x, t)
    error = lambda d, c: float(jnp.mean((d(x_t, t, c).x0 - true.x0) ** 2))
    model = trained_denoiser(net_of(Tiny()), DENOISE, state, EMA)
    exact = DATA.denoiser(PROCESS)
    # with and without the label: the null condition was trained too
    assert error(model, cond) < 1.6 * error(exact, cond)
    assert error(model, {"label": jnp.full(2000, -1)}) < 1.4 * error(exact, None)
    draw = jax.jit(algorithm.sample, static_argnums=2)
    samples = draw(jax.random.key(7), state, 400, {"label": jnp.zeros(400, jnp.int32)})
    assert samples.shape == (400, 2)
    np.testing.assert_allclose(samples.mean(0), DATA.means[0], atol=0.2)


def test_one_step_descends(batch):
    """On the same batch and draws, a small gradient step lowers the loss by about rate times squared norm."""
    algorithm = recipe(optimizer=optax.sgd(1e-3))
    state = algorithm.init(jax.random.key(0), batch)
    step = jax.jit(algorithm.step)
    after, metrics = step(jax.random.key(1), state, batch)
    _, again = step(jax.random.key(1), after._replace(step=state.step), batch)
    drop = float(metrics["loss"] - again["loss"])
    np.testing.assert_allclose(drop, 1e-3 * float(metrics["grad_norm"]) ** 2, rtol=0.1)


def test_no_second_trace_and_donation(batch):
    """The second call compiles nothing, and the whole state can be donated."""
    algorithm = recipe(
        times=tm.adaptive(PROCESS), loss=denoising(PROCESS, tm.adaptive(PROCESS), w.sigmoid(), measure="log_snr")
    )
    traces = []

    def counted(key, state, batch):
        traces.append(1)
        return algorithm.step(key, state, batch)

    step = jax.jit(counted, donate_argnums=1)
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)
    shapes = jax.tree.map(lambda a: (a.shape, a.dtype), state)
    for _ in range(3):
        state, metrics = step(jax.random.key(1), state, batch)
    assert len(traces) == 1 and bool(jnp.isfinite(metrics["loss"]))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), state) == shapes
    # a state made outside jit has buffers of its own too
    state = algorithm.init(jax.random.key(0), batch)
    pointers = [a.unsafe_buffer_pointer() for a in jax.tree.leaves((state.params, state.ema))]
    assert len(set(pointers)) == len(pointers)


def test_scan_and_vmap_equal_single_steps(batch):
    algorithm = recipe(cond=("label",), drop=0.1)
    key = jax.random.key(3)
    step = jax.jit(algorithm.step)
    seeds = jax.random.split(jax.random.key(0), 2)
    singles = []
    for seed in seeds:
        state = algorithm.init(seed, batch)
        for _ in range(3):
            state, metrics = step(key, state, batch)
        singles.append((state.params, state.ema, metrics["loss"]))

    def run(seed):
        body = lambda state, _: algorithm.step(key, state, batch)
        state, metrics = jax.lax.scan(body, algorithm.init(seed, batch), None, 3)
        return state.params, state.ema, metrics["loss"][-1]

    many = jax.jit(jax.vmap(run))(seeds)
    for i in range(2):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=2e-5), many, singles[i])


@pytest.mark.parametrize("kind", ["log_normal stratified", "adaptive lattice", "second_moment independent"])
def test_a_split_batch_is_the_whole_one(batch, kind):
    """Two parts along a named axis give the loss, update and sampler state of the whole batch.

    Catches keys by local index, gradients not averaged, and a learned sampler that differs between devices.
    """
    name, spread = kind.split()
    times = {
        "log_normal": tm.log_normal,
        "adaptive": tm.adaptive,
        "second_moment": lambda p: tm.second_moment(p, 8, 2),
    }[name](PROCESS)
    loss = denoising(PROCESS, times, w.v(), measure="uniform" if times.learned else "sampler")
    # plain descent: Adam would blow the rounding of small gradients up
    make = functools.partial(
        recipe, times=times, loss=loss, cond=("label",), drop=0.3, spread=spread, optimizer=optax.sgd(0.05)
    )
    key, whole, split = jax.random.key(3), make(), make(axis_name="devices")
    state = other = whole.init(jax.random.key(0), batch)
    halves = jax.tree.map(lambda a: a.reshape(2, -1, *a.shape[1:]), batch)
    step = jax.jit(whole.step)
    parallel = jax.jit(jax.vmap(split.step, (None, None, 0), axis_name="devices"))
    for _ in range(3):
        state, metrics = step(key, state, batch)
        both, both_metrics = parallel(key, other, halves)
        jax.tree.map(lambda a: np.testing.assert_array_equal(a[0], a[1]), (both, both_metrics))
        other = jax.tree.map(lambda a: a[0], both)
        np.testing.assert_allclose(both_metrics["loss"][0], metrics["loss"], rtol=1e-4)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, (other.params, other.ema, other.extra), (state.params, state.ema, state.extra))


def test_learned_sampler_state_is_used(batch):
    """The adaptive state gathers mass from the draws and changes the next step's levels."""
    times = tm.adaptive(PROCESS, 16, 0.9)
    loss = denoising(PROCESS, times, w.sigmoid(), measure="log_snr")
    algorithm = recipe(times=times, loss=loss)
    start = algorithm.init(jax.random.key(0), batch)
    step = jax.jit(algorithm.step)
    after, _ = step(jax.random.key(1), start, batch)
    assert float(start.extra["times"].mass.sum()) == 0 and float(after.extra["times"].mass.min()) > 0
    same, _ = step(jax.random.key(1), after, batch)
    reset, _ = step(jax.random.key(1), after._replace(extra=start.extra), batch)
    assert not np.allclose(same.extra["times"].mean, reset.extra["times"].mean)


def test_conditions():
    """All fields of a sample drop at once, at the given rate, to what means nothing; a missing field is named."""
    keys = sample_keys(jax.random.key(0), 4000)
    cond = {"label": jnp.full(4000, 3), "text": jnp.ones((4000, 2, 5))}
    out = drop_condition(keys, cond, 0.25)
    gone = np.asarray(out["label"]) == -1
    assert abs(gone.mean() - 0.25) < 0.03
    np.testing.assert_array_equal(np.asarray(out["text"]).any((1, 2)), ~gone)
    assert set(np.unique(out["label"])) == {-1, 3}
    assert drop_condition(keys, None, 0.5) is None and drop_condition(keys, cond, 0.0) is cond
    assert drop_condition(keys, cond, 1.0)["label"].max() == -1
    assert condition({"x": 1}, ()) is None
    with pytest.raises(ValueError, match="'colour'"):
        condition({"x": 1, "label": 2}, ("colour",))


def test_draws_change_with_step_and_place_alone():
    key = jax.random.key(0)
    a, b = draws(key, 3, 8), draws(key, 4, 8)
    data = lambda k: np.asarray(jax.random.key_data(k))
    assert not np.any(np.all(data(a.keys)[:, None] == data(b.keys)[None], axis=-1))
    np.testing.assert_array_equal(data(draws(key, 3, 4).keys), data(a.keys)[:4])
    parts = jax.vmap(lambda i: draws(key, 3, 4, "d"), axis_name="d")(jnp.arange(2))
    np.testing.assert_array_equal(data(parts.keys).reshape(8, -1), data(a.keys))
    np.testing.assert_array_equal(data(parts.shared)[0], data(parts.shared)[1])
    assert np.any(data(parts.local)[0] != data(parts.local)[1])
    np.testing.assert_array_equal(parts.total, [8, 8])


def test_mutable_collections_and_dropout(batch):
    """Statistics move in training; dropout is on in training and off in evaluation."""
    module = Tiny(dropout=0.5, batch_mean=True)
    algorithm = recipe(module=module)
    state = algorithm.init(jax.random.key(0), batch)
    after, _ = jax.jit(algorithm.step)(jax.random.key(1), state, batch)
    assert np.any(np.asarray(after.extra["net"]["denoiser"]["stats"]["mean"]) != 0)
    d = trained_denoiser(net_of(module), DENOISE, after)
    t = jnp.full(64, 0.5)
    np.testing.assert_array_equal(d(batch["x"], t).x0, d(batch["x"], t).x0)
    still = after._replace(step=state.step + 5)
    first, second = (
        jax.jit(algorithm.step)(jax.random.key(1), s._replace(params=after.params), batch)[1] for s in (after, still)
    )
    assert float(first["loss"]) != float(second["loss"])


def test_post_update_and_priors(batch):
    """Forced normalization holds at the start and after every step; a prior's weights are where training starts."""
    unit = lambda params: jax.tree.map(lambda p: p / jnp.linalg.norm(p) if p.ndim == 2 else p, params)
    algorithm = recipe(post_update=unit)
    state = algorithm.init(jax.random.key(0), batch)
    norms = lambda s: [float(jnp.linalg.norm(p)) for p in jax.tree.leaves(s.params["denoiser"]) if p.ndim == 2]
    np.testing.assert_allclose(norms(state), 1, rtol=1e-5)
    state, _ = jax.jit(algorithm.step)(jax.random.key(1), state, batch)
    np.testing.assert_allclose(norms(state), 1, rtol=1e-5)
    again = recipe().init(jax.random.key(9), batch, priors={"denoiser": state.params["denoiser"]})
    jax.tree.map(np.testing.assert_array_equal, again.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, again.ema, state.params)


def test_uncertainty_is_trained_with_the_denoiser(batch):
    """e^u moves to the mean loss of its level, both networks move, and the extra network is reported."""
    times = tm.log_normal(PROCESS, 0.0, 1.2)
    loss = with_uncertainty(denoising(PROCESS, times, w.edm(1.0)))
    algorithm = recipe(times=times, loss=loss, uncertainty=net_of(Level()), optimizer=optax.adam(1e-2))
    state = algorithm.init(jax.random.key(0), batch)

    @jax.jit
    def run(state):
        return jax.lax.scan(lambda s, _: algorithm.step(jax.random.key(1), s, batch), state, None, 400)

    after, metrics = run(state)
    level = Level().apply({"params": after.params["uncertainty"]}, jnp.array([-0.5, 0.5]))
    # EDM's F error is larger where there is little noise left to see structure in: u is not constant
    assert abs(float(level[0] - level[1])) > 0.1
    late = slice(300, 400)
    ratio = np.asarray(metrics["loss"][late]) - np.asarray(metrics["uncertainty"][late])
    np.testing.assert_allclose(ratio.mean(), 1.0, atol=0.15)  # E[loss e^-u] = 1 at the optimum


def test_hybrid_loss_trains(batch):
    """Two heads, one chain: the bound goes down and is reported."""
    process = gaussian.ddpm(20, betas="cosine")
    times = tm.discrete(process, 20)
    denoise = functools.partial(make_denoiser, process=process, target="eps", learned_variance=True)
    loss = hybrid(process, 20, times, levels=0, scale=0.05)
    algorithm = diffusion(net_of(Tiny(outputs=4)), denoise, loss, optax.adam(5e-3), times=times)
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: algorithm.step(jax.random.key(1), s, batch), s, None, 200)[1])
    metrics = run(algorithm.init(jax.random.key(0), batch))
    assert metrics["vlb"][-30:].mean() < metrics["vlb"][:10].mean() - 0.1


def test_bad_input(batch):
    with pytest.raises(ValueError, match="drop"):
        recipe(cond=("label",), drop=1.5)
    with pytest.raises(ValueError, match="cond"):
        recipe(drop=0.1)
    with pytest.raises(ValueError, match=r"spread.*'even'"):
        recipe(spread="even")
    with pytest.raises(ValueError, match="sampler"):
        recipe().sample(jax.random.key(0), None, 4)
    with pytest.raises(ValueError, match="'age'"):
        recipe(cond=("age",)).init(jax.random.key(0), batch)
