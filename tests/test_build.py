"""Configs to objects: every field reaches its object, every mistake is named before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from genjax import build
from genjax.train import feed as feeds
from genjax.train import loop


def make(**changes):
    """A small complete config; `changes` are dotted fields with "__" for the dot, None removes."""
    config = ConfigDict(
        {
            "seed": 3,
            "data": {"name": "digits_vector"},
            "process": {"name": "edm", "sigma_max": 50.0},
            "network": {"name": "mlp", "width": 16, "depth": 1},
            "denoiser": {"target": "edm", "sigma_data": 0.75},
            "loss": {
                "name": "denoising",
                "time_sampler": {"name": "log_normal", "mean": -1.0},
                "weighting": {"name": "edm"},
            },
            "algorithm": {"name": "diffusion", "cond": ("label",), "label_drop": 0.1},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-3,
                "clip": 1.0,
                "schedule": {"name": "cosine", "warmup": 5},
            },
            "ema": {"name": "constant", "decay": 0.9},
            "precision": "float32",
            "train": {"steps": 20, "batch_size": 16},
            "sample": {"solver": "heun", "grid": "karras", "steps": 4, "cfg_scale": 1.5},
            "eval": {"num": 10},
        }
    )
    for field, value in changes.items():
        node, *rest = field.split("__")
        target = config
        for part in rest:
            target, node = target[node], part
        with target.unlocked():
            if node in target:
                del target[node]
            if value is not None:
                target[node] = ConfigDict(value) if isinstance(value, dict) else value
    return config


@pytest.fixture(scope="module")
def data():
    return build.dataset(make())


def test_every_field_reaches_its_object(data):
    config = make()
    parts = build.parts(config, data.spec)
    assert build.seed(config) == 3 and float(parts.process.t_max) == 50
    plan = build.plan(config)
    assert (plan.steps, plan.batch_size, plan.log_every) == (20, 16, loop.Plan().log_every)
    feed = build.feed(config, data)
    state = loop.fit(parts.algorithm, feed, 2, seed=3, steps_per_call=2)
    label = state.params["denoiser"]["embed"]["cond"]["label"]
    assert label.shape == (11, 16)  # ten classes of the data and the null one, the network's width
    assert not np.array_equal(jax.tree.leaves(state.ema)[0], jax.tree.leaves(state.params)[0])
    x = parts.algorithm.sample(jax.random.key(0), state, 3, {"label": jnp.arange(3)})
    assert x.shape == (3, 64) and np.isfinite(x).all()
    pred = parts.denoiser(state)(x, jnp.full(3, 0.5), {"label": jnp.arange(3)})
    assert pred.x0.shape == x.shape


def test_numbers_of_the_config_change_what_is_computed(data):
    """Would catch a field that is read and dropped."""
    feed = build.feed(make(), data)
    arrays, indices = feed.take(0, 1)
    batch = {name: a[indices[0]] for name, a in arrays.items()}

    def loss_of(**changes):
        algorithm = build.algorithm(make(**changes), data.spec)
        state = algorithm.init(jax.random.key(0), batch)
        state, metrics = jax.jit(algorithm.step)(jax.random.key(1), state, batch)
        return float(metrics["loss"]), float(jnp.sum(jnp.abs(state.ema["denoiser"]["embed"]["cond"]["label"])))

    base = loss_of()
    for change in (
        {"loss__weighting": "eps"},
        {"loss__time_sampler": "log_snr"},
        {"process__sigma_max": 80.0},
        {"denoiser__sigma_data": 0.4},
        {"denoiser__target": "x0"},
    ):
        assert loss_of(**change)[0] != base[0], change
    for change in ({"ema__decay": 0.5}, {"optimizer__learning_rate": 0.1}, {"optimizer__schedule__warmup": 10}):
        assert loss_of(**change)[1] != base[1], change


def test_sampler_by_solver_and_grid_or_by_popular_name(data):
    """The popular name is the pair: DPM++ 2M Karras is dpmpp_2m on karras; guidance of 1 is none."""
    process = build.process(make())
    exact = lambda x, t, cond=None, key=None: _gaussian(process, x, t)
    like = lambda **options: build.make_sampler(process, (64,), **options)(jax.random.key(0), exact, 2)
    pair = like(solver="dpmpp_2m", grid="karras", steps=6)
    np.testing.assert_array_equal(pair, like(solver="DPM++ 2M Karras", steps=6))
    assert not np.array_equal(pair, like(solver="dpmpp_2m", grid="log_snr", steps=6))
    group = like(solver={"name": "heun_churn", "gamma": 0.0}, steps=6)
    np.testing.assert_allclose(group, like(solver="heun", steps=6), rtol=1e-5, atol=1e-5)
    assert np.abs(like(clip=True, steps=6)).max() <= 1 + 1e-5
    config = make(sample__solver={"name": "ddpm", "variance": "upper"})
    wide = build.sampler(config, process, data.spec)(jax.random.key(0), exact, 2)
    assert not np.array_equal(
        wide, build.sampler(make(sample__solver="ddpm"), process, data.spec)(jax.random.key(0), exact, 2)
    )


def _gaussian(process, x, t):
    from genjax.core.numerics import bcast
    from genjax.core.types import Prediction

    a, s = bcast(process.alpha(t), x), bcast(process.sigma(t), x)
    x0 = a * x * 4 / (a * a * 4 + s * s)  # data N(0, 4)
    return Prediction(x0=x0, eps=(x - a * x0) / s)


def test_precision_and_learned_variance(data):
    parts = build.parts(make(precision="bfloat16"), data.spec)
    feed = build.feed(make(), data)
    state = jax.eval_shape(parts.algorithm.init, jax.random.key(0), feed.like)
    assert {a.dtype for a in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    text = str(jax.make_jaxpr(parts.algorithm.step)(jax.random.key(0), state, feed.like))
    assert "bf16" in text
    assert "bf16" not in str(
        jax.make_jaxpr(build.algorithm(make(), data.spec).step)(jax.random.key(0), state, feed.like)
    )
    config = make(
        denoiser={"target": "eps", "learned_variance": True},
        process={"name": "ddpm", "steps": 50},
        loss={"name": "hybrid", "steps": 50, "time_sampler": {"name": "second_moment", "steps": 50}},
    )
    algorithm = build.algorithm(config, data.spec)
    shapes = loop.check_traces(algorithm, feed)
    assert shapes.params["denoiser"]["output"]["kernel"].shape[-1] == 128


def test_edm2_and_its_uncertainty(data):
    config = make(
        network={"name": "edm2_mlp", "width": 16, "depth": 1},
        uncertainty={"features": 8},
        ema={"name": "power", "stds": (0.05, 0.1)},
        algorithm={"name": "diffusion", "cond": ("label",), "post_update": "force_normalize"},
    )
    shapes = loop.check_traces(build.algorithm(config, data.spec), build.feed(config, data))
    assert set(shapes.params) == {"denoiser", "uncertainty"} and len(shapes.ema) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"netwrok": {"name": "mlp"}}, r"netwrok: unknown key; did you mean 'network'\?"),
        ({"process": None}, "process: expected this group in the config, got none"),
        ({"process__name": "emd"}, r"process\.name: unknown name 'emd'; did you mean 'edm'\?"),
        ({"process__sigma_mx": 1.0}, r"process\.sigma_mx: unknown key; did you mean 'sigma_max'\?"),
        ({"process__sigma_max": "big"}, r"process\.sigma_max: expected a number such as 80\.0, got 'big'"),
        ({"network__name": "mpl"}, r"network\.name: unknown name 'mpl'; did you mean 'mlp'\?"),
        ({"network__widht": 3}, r"network\.widht: unknown key; did you mean 'width'\?"),
        ({"network__width": 3.5}, r"network\.width: expected a whole number such as 128, got 3\.5"),
        ({"network__parent": 3}, r"network\.parent: unknown key"),
        ({"denoiser__target": "epsilon"}, r"denoiser\.target: unknown name 'epsilon'; did you mean 'eps'\?"),
        ({"denoiser__noise_input": "lambda"}, r"denoiser\.noise_input: unknown name 'lambda'"),
        ({"loss__name": "denoise"}, r"loss\.name: unknown name 'denoise'; did you mean 'denoising'\?"),
        ({"loss__weighting": "min_snrr"}, r"loss\.weighting\.name: unknown name 'min_snrr'; did you mean 'min_snr'\?"),
        ({"loss__time_sampler__means": 1.0}, r"loss\.time_sampler\.means: unknown key; did you mean 'mean'\?"),
        ({"loss__time_sampler__std": -1.0}, r"loss\.time_sampler: std: expected a number > 0, got -1"),
        ({"algorithm__name": "difusion"}, r"algorithm\.name: unknown name 'difusion'; did you mean 'diffusion'\?"),
        (
            {"algorithm__cond": ("lable",)},
            r"algorithm\.cond: expected fields of the data, \['label', 'x'\], got 'lable'",
        ),
        ({"algorithm__label_drop": 1.5}, r"algorithm: drop: expected a probability in \[0, 1\], got 1\.5"),
        ({"algorithm__post_update": "normalise"}, r"algorithm\.post_update: unknown name"),
        ({"optimizer__name": "adm"}, r"optimizer\.name: unknown name 'adm'; did you mean 'adam'\?"),
        ({"optimizer__learning_rte": 1.0}, r"optimizer\.learning_rte: unknown key; did you mean 'learning_rate'\?"),
        ({"optimizer__learning_rate": "fast"}, r"optimizer\.learning_rate: expected a number"),
        ({"optimizer__learning_rate": -1.0}, r"optimizer: learning_rate: expected a number > 0, got -1"),
        ({"optimizer__schedule__name": "cosin"}, r"optimizer\.schedule\.name: unknown name 'cosin'"),
        ({"optimizer__schedule__warm": 3}, r"optimizer\.schedule\.warm: unknown key; did you mean 'warmup'\?"),
        ({"ema__name": "constnt"}, r"ema\.name: unknown name 'constnt'; did you mean 'constant'\?"),
        ({"ema__decay": 2.0}, r"ema: decay: expected a number in \[0, 1\), got 2"),
        ({"precision": "float16"}, r"precision: unknown name 'float16'; did you mean 'bfloat16'\?"),
        ({"sample__solver": "huen"}, r"sample\.solver\.name: unknown name 'huen'; did you mean 'heun'\?"),
        ({"sample__grid": "karas"}, r"sample\.grid\.name: unknown name 'karas'; did you mean 'karras'\?"),
        ({"sample__steps": 0}, r"sample\.steps: expected at least 1, got 0"),
        ({"sample__step": 4}, r"sample\.step: unknown key; did you mean 'steps'\?"),
        ({"sample__solver": "DDIM"}, r"sample\.grid: expected none beside the sampler 'DDIM', got 'karras'"),
    ],
)
def test_mistakes_are_named(data, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        build.parts(make(**changes), data.spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("function", "changes", "message"),
    [
        (build.plan, {"train__stps": 3}, r"train\.stps: unknown key; did you mean 'steps'\?"),
        (build.plan, {"train__steps": "ten"}, r"train\.steps: expected a whole number such as 1000, got 'ten'"),
        (build.seed, {"seed": 1.5}, r"seed: expected a whole number such as 0, got 1\.5"),
        (build.dataset, {"data__name": "digit"}, r"data\.name: unknown name 'digit'; did you mean 'digits'\?"),
        (build.dataset, {"data__sed": 3}, r"data\.sed: unknown key; did you mean 'seed'\?"),
        (build.dataset, {"data__seed": "x"}, r"data\.seed: expected a whole number such as 0, got 'x'"),
        (build.dataset, {"data": {"name": "npz"}}, r"data: npz: expected option 'path'"),
        (build.evaluation, {"eval__metrics": ("fid",)}, r"eval\.metrics: unknown name 'fid'; did you mean 'fd'\?"),
        (build.evaluation, {"eval__num": 0}, r"eval\.num: expected at least 1, got 0"),
    ],
)
def test_mistakes_of_the_other_groups(function, changes, message):
    with pytest.raises(ValueError, match=message):
        function(make(**changes))


def test_labels_need_classes():
    config = make(data={"name": "swiss_roll"})
    toy = build.dataset(config)
    with pytest.raises(ValueError, match=r"algorithm\.cond: expected fields of the data|expected data with classes"):
        build.parts(config, toy.spec)
    free = make(data={"name": "swiss_roll"}, algorithm={"name": "diffusion"})
    shapes = loop.check_traces(build.algorithm(free, toy.spec), feeds.device_feed(toy.arrays, 16))
    assert shapes.params["denoiser"]["output"]["kernel"].shape[-1] == 2
