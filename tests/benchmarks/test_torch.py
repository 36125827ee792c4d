"""Networks and games beside PyTorch: both sides compute one thing, what is kept is reported."""

import json
import pathlib

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


SMALL = {
    # model: what makes it small
    "ddpmpp": ({"channels": 16, "multipliers": (1, 2), "attention": (4,)}, (8, 8, 3), 0, ("heun", "karras", 3)),
    "adm": (
        {"channels": 16, "multipliers": (1, 2), "attention": (4,), "head_channels": 16},
        (8, 8, 3),
        5,
        ("heun", "karras", 2),
    ),
    "dit": ({"dim": 32, "depth": 2, "heads": 2, "noise_dim": 16}, (8, 8, 4), 5, ("ddim", "uniform", 3)),
}


def small(networks, name):
    fields, shape, classes, sampler = SMALL[name]
    model = networks.MODELS[name]
    network = {**model.network, **fields}
    return model._replace(network=network, shape=shape, classes=classes, batch=3, sampler=sampler)


def test_the_toolkits_step(benchmark):
    """What is timed runs without PyTorch: the loss is finite, weights move, numbers are drawn for each sample."""
    networks = benchmark("torch_networks")
    model = small(networks, "dit")
    side = networks.ours(model._replace(network={**model.network, "depth": 1}))
    key = jax.random.key(1)
    numbers = networks.drawn(side, key)
    assert set(numbers) == {"t", "alpha", "sigma", "eps", "label"} and all(len(v) == 3 for v in numbers.values())
    before = [np.asarray(p) for p in jax.tree.leaves(side.state.params)]
    assert all(p.any() for p in before)  # no weight is left without a gradient
    step = networks.dispatched(side, key)
    assert np.isfinite(step()["loss"])
    assert all(np.any(a != b) for a, b in zip(before, jax.tree.leaves(step.state[0].params)))


@pytest.mark.parametrize("name", SMALL)
def test_networks_are_the_same_in_both(benchmark, name):
    """Images, losses and gradients of both packages to 1e-4; another network or loss would make the ratio void."""
    pytest.importorskip("torch")
    networks = benchmark("torch_networks")
    networks.MODELS[name] = small(networks, name)
    found = networks.compare(name, 1)  # raises where they differ
    assert set(found["agree"]) == {"images", "loss", "gradient", "gradient of one weight"}
    assert all(value < 1e-4 for value in found["agree"].values())
    with pytest.raises(AssertionError, match="the loss of both sides"):
        networks.check(name, {"loss": float("nan")})


SMALL_GAMES = {
    "r3gan": ({"widths": (16,), "groups": (4,), "blocks": 1}, {"widths": (16,), "groups": (4,), "blocks": 1}),
    "stylegan2": ({"channels": 64, "width": 16, "style": 16, "layers": 2}, {"channels": 64, "width": 16}),
}


def small_game(speed, name):
    generator, discriminator = SMALL_GAMES[name]
    game = speed.GAMES[name]
    made = {**game.generator, "shape": (8, 8, 3), **generator}
    return game._replace(generator=made, discriminator={**game.discriminator, **discriminator}, dim=16)


@pytest.mark.parametrize("name", SMALL_GAMES)
def test_games_are_the_same_in_both(benchmark, name):
    """Losses and gradients of both players, all penalties in them."""
    pytest.importorskip("torch")
    speed = benchmark("gan_speed")
    game = small_game(speed, name)
    params, key = speed.weights(game), jax.random.key(1)
    ours, theirs = speed.dispatched(game, params, key), speed.torch_step(game, params)
    found = speed.agreement(game, ours, theirs, key)
    assert len(found) == 4 and all(value < 1e-4 for value in found.values()), found
    for number in game.steps:
        metrics = ours(number)
        if name == "stylegan2":
            assert (metrics["r1"] > 0, metrics["g_path_length"] > 0) == (number == 0, number in (0, 4))


def test_sixteen_steps_of_the_game_make_a_round(benchmark):
    """The steps that are timed apart are those of their numbers, and as many as the penalties' intervals make."""
    speed = benchmark("gan_speed")
    for game in speed.GAMES.values():
        assert sum(share for _, share in game.steps.values()) == 16
    path, both = ([n % every == 0 for n in range(16)] for every in (speed.PATH_EVERY, speed.R1_EVERY))
    shares = {number: share for number, (_, share) in speed.GAMES["stylegan2"].steps.items()}
    assert shares == {1: 16 - sum(path), 4: sum(path) - sum(both), 0: sum(both)}


def test_weights_of_games_have_their_size(benchmark):
    """No weight is zero, and those with an equalized learning rate have its size."""
    speed = benchmark("gan_speed")
    for name in SMALL_GAMES:
        params = speed.weights(small_game(speed, name))
        assert all(np.asarray(p).any() for p in jax.tree.leaves(params))
    kernel = params["generator"]["mapping"]["layer0"]["kernel"]
    assert 80 < np.std(kernel) < 120 and 0.8 < np.std(params["discriminator"]["conv"]["kernel"]) < 1.2


def test_what_is_kept_is_measured_once(benchmark, tmp_path):
    """Only what is missing, or named, is measured; the file keeps the order of the models."""
    networks = benchmark("torch_networks")
    kept, asked = tmp_path / "kept.json", []

    def measure(name):
        asked.append(name)
        return {"n": len(asked)}

    assert networks.measured(kept, ("a", "b"), ["b"], measure) == {"b": {"n": 1}}
    assert list(networks.measured(kept, ("a", "b"), None, measure)) == ["a", "b"]
    networks.measured(kept, ("a", "b"), ["a"], measure)
    assert asked == ["b", "a", "a"] and json.loads(kept.read_text()) == {"a": {"n": 3}, "b": {"n": 1}}


def test_reports(benchmark):
    """Ratios in the table, goals in the form that `run` gathers."""
    networks, speed, run = benchmark("torch_networks"), benchmark("gan_speed"), benchmark("run")
    times = {"toolkit": np.array([[3.0, 2.0]] * 3), "PyTorch": np.array([[1.0, 1.0]] * 3)}
    found = networks.medians(times)
    assert (found["cpu"], found["wall"], found["turns"]) == (2.0, 3.0, 3)
    result = {"batch": 4, "goal": 1.0, "agree": {"loss": 1e-6}, "times": {"step": found}}
    text = networks.report({"dit": result}, 1)
    assert "| dit, batch 4 | step | 2.000 | 1.000 | 2.000 | 3.000 |" in text
    assert run.goals(text) == [("dit, step, CPU time over PyTorch's", 2.0, 1.0)]
    text = speed.report({"r3gan": {**result, "means": {"toolkit": 0.5, "PyTorch": 1.0}}}, 1)
    assert "8.00 images a second of CPU here, 4.00 in PyTorch" in text
    assert run.goals(text) == [("r3gan, a step, CPU time over PyTorch's", 0.5, 1.0)]
