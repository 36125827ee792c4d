"""The loop: resumes bit for bit, stops on signals and on NaN, refuses what cannot be trained."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data.spec import Dataset, DataSpec
from genjax.train import feed as feeds
from genjax.train import logs, loop
from genjax.train.loop import Hook, Plan, train

CONFIG = {"network": {"name": "toy", "width": 3}, "train": {"steps": 30}}
PLAN = Plan(steps=30, batch_size=8, steps_per_call=7, log_every=10, checkpoint_every=10)


@pytest.fixture(scope="module")
def whole(toy, feed, tmp_path_factory):
    """An uninterrupted training and its workdir."""
    workdir = tmp_path_factory.mktemp("whole")
    return train(toy, feed, PLAN, workdir, CONFIG, stream=None), workdir


def test_training_equals_a_plain_loop_over_the_same_keys_and_batches(whole, toy, feed, same):
    """Would catch a step run twice or left out, a wrong key, batch or order in the many-step program."""
    arrays, indices = feed.take(0, 30)
    batches = [jax.tree.map(lambda a, i=i: a[i], arrays) for i in indices]
    init_key, key = (jax.random.fold_in(jax.random.key(0), i) for i in (0, 1))
    state = jax.jit(toy.init)(init_key, batches[0])
    step = jax.jit(toy.step)
    losses = []
    for i, batch in enumerate(batches):
        state, metrics = step(jax.random.fold_in(key, i), state, batch)
        losses.append(float(metrics["loss"]))
    (trained, at), workdir = whole
    assert at == 30 and int(trained.step) == 30
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), trained.params, state.params)
    records = logs.read_metrics(workdir / "metrics.jsonl")
    assert [r["step"] for r in records] == [1, 10, 20, 30]
    means = [np.mean(losses[first:end]) for first, end in [(0, 1), (1, 10), (10, 20), (20, 30)]]
    np.testing.assert_allclose([r["loss"] for r in records], means, rtol=1e-4)


def test_every_example_is_seen_equally_often(whole):
    """30 steps of 8 of 32 examples are 7.5 epochs: each example 7 or 8 times."""
    (state, _), _ = whole
    seen = np.asarray(state.extra["seen"])
    assert set(seen) == {7, 8} and seen.sum() == 240


@pytest.mark.parametrize("cut", [10, 13, 29])
def test_resumes_bit_for_bit_wherever_it_was_cut(whole, toy, feed, tmp_path, same, cut):
    """Would catch a key or data position that depends on where the training began, or arithmetic that
    changes with the number of steps of a dispatch."""

    def stop(step, state, log):
        os.kill(os.getpid(), signal.SIGTERM)

    state, at = train(toy, feed, PLAN, tmp_path, CONFIG, hooks=[Hook(cut, stop)], stream=None)
    # the hook of step `cut` runs after the dispatch; the loop leaves at the end of the next
    assert cut <= at < 30 or cut == 29
    state, at = train(toy, feed, PLAN, tmp_path, CONFIG, stream=None)
    assert at == 30
    same(state, whole[0][0])
    steps = [r["step"] for r in logs.read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == sorted(set(steps)) and steps[-1] == 30


def test_metrics_after_a_kill_have_no_duplicates(toy, feed, tmp_path):
    """A training killed after step 20 was logged but before it was saved repeats the steps, not the records."""
    plan = PLAN._replace(checkpoint_every=20, log_every=5)
    train(toy, feed, plan._replace(steps=20), tmp_path, CONFIG, stream=None)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 25, "loss": 1.0}\n{"step": 30, "lo')  # cut short by the kill
    train(toy, feed, plan, tmp_path, CONFIG, stream=None)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 5, 10, 15, 20, 25, 30]


def test_a_finished_training_is_not_run_again(whole, toy, feed, same):
    (state, _), workdir = whole
    again, at = train(toy, feed, PLAN, workdir, CONFIG, stream=None)
    assert at == 30
    same(again, state)


def test_nan_stops_and_keeps_the_last_good_checkpoint(toy, arrays, tmp_path):
    """One NaN example, first met in some step: the message names the metric and the kept checkpoint."""
    poisoned = {**arrays, "y": np.where(arrays["index"] == 3, np.nan, arrays["y"]).astype(np.float32)}
    _, order = feeds.device_feed(poisoned, 4).take(0, 8)
    first = next(i for i in range(8) if 3 in np.asarray(order[i]))
    plan = Plan(steps=20, batch_size=4, steps_per_call=1, log_every=1, checkpoint_every=1)
    with pytest.raises(loop.Diverged, match=r"(loss|norm) became NaN or infinite") as error:
        train(toy, feeds.device_feed(poisoned, 4), plan, tmp_path, CONFIG, stream=None)
    kept = "no checkpoint was written" if first == 0 else f"the checkpoint of step {first} is kept"
    assert kept in str(error.value)
    from genjax.train import checkpoints

    assert checkpoints.newest_intact(tmp_path / "checkpoints") == (first or None)


def test_nan_parameters_are_never_saved(toy, feed, tmp_path):
    """The loss is finite, the parameters after its step are not."""

    def step(key, state, batch):
        state, metrics = toy.step(key, state, batch)
        bad = jnp.where(state.step == 10, jnp.nan, 1.0)
        return state._replace(params=jax.tree.map(lambda p: p * bad, state.params)), metrics

    plan = PLAN._replace(checkpoint_every=5, log_every=10)
    with pytest.raises(loop.Diverged, match=r"a parameter.* before step 10; the checkpoint of step 5 is kept"):
        train(toy._replace(step=step), feed, plan, tmp_path, CONFIG, stream=None)


def test_hooks_run_when_due_and_at_the_end(toy, feed, tmp_path):
    calls = []
    hook = Hook(20, lambda step, state, log: calls.append((step, int(state.step))) or {"score": step / 2})
    train(toy, feed, PLAN, tmp_path, CONFIG, hooks=[hook], stream=None)
    assert calls == [(20, 20), (30, 30)]
    assert [r["score"] for r in logs.read_metrics(tmp_path / "metrics.jsonl") if "score" in r] == [10.0, 15.0]


def test_two_trainings_in_one_workdir(toy, feed, tmp_path):
    """The second is refused while the first is at work, and the message says who is."""
    refused = []

    def hook(step, state, log):
        with pytest.raises(ValueError, match=rf"one training at a time in .*, got process {os.getpid()}") as error:
            train(toy, feed, PLAN, tmp_path, CONFIG, stream=None)
        refused.append(error)

    train(toy, feed, PLAN._replace(steps=3), tmp_path, CONFIG, hooks=[Hook(3, hook)], stream=None)
    assert len(refused) == 1


def test_plan_that_cannot_be_run(toy, feed, tmp_path):
    for field, value in [("steps", 0), ("log_every", 0), ("checkpoint_every", -1), ("batch_size", -4)]:
        with pytest.raises(ValueError, match=rf"train\.{field}: .*got {value}"):
            train(toy, feed, PLAN._replace(**{field: value}), tmp_path / "w", CONFIG, stream=None)
    with pytest.raises(ValueError, match=r"train\.batch_size: expected a multiple of the number of devices, 3, got 8"):
        loop.check_plan(PLAN, devices=3)
    assert not (tmp_path / "w").exists()


def test_a_step_that_changes_a_shape_is_refused_before_compiling(toy, feed, tmp_path):
    def step(key, state, batch):
        state, metrics = toy.step(key, state, batch)
        return state._replace(params={**state.params, "b": jnp.zeros(2)}), metrics

    with pytest.raises(ValueError, match=r"expected params/b as float32\[\] .*got float32\[2\]"):
        train(toy._replace(step=step), feed, PLAN, tmp_path / "w", CONFIG, stream=None)
    assert not (tmp_path / "w").exists()


def test_one_program_whatever_the_number_of_steps(toy, feed, tmp_path):
    """Would catch a recompilation for the last, shorter dispatch."""
    mesh = loop.data_mesh()
    dispatch = loop.make_dispatch(toy.step, mesh)
    arrays, indices = feed.take(0, 4)
    state, _ = loop.start(toy, feed, 0, tmp_path, mesh)
    for count in (4, 2, 1):
        state, _ = dispatch(jax.random.key(1), state, arrays, indices, count)
    assert dispatch._cache_size() == 1 and int(state.step) == 7


@pytest.fixture(scope="module")
def stream(arrays):
    """The same data as a source that is read one example at a time."""

    class Source:
        def __len__(self):
            return 32

        def __getitem__(self, i):
            return {name: a[i] for name, a in arrays.items()}

    return Dataset("toy", DataSpec((5,), range=None, fields=("x", "y", "index")), source=Source())


def test_stream_resumes_bit_for_bit(toy, stream, tmp_path, same):
    """Would catch a loader that starts over, or skips what was read ahead, when a training goes on."""
    plan = PLAN._replace(checkpoint_every=5)
    whole, _ = train(toy, feeds.stream_feed(stream, 8), plan, tmp_path / "a", CONFIG, stream=None)
    train(toy, feeds.stream_feed(stream, 8), plan._replace(steps=13), tmp_path / "b", CONFIG, stream=None)
    resumed, _ = train(toy, feeds.stream_feed(stream, 8), plan, tmp_path / "b", CONFIG, stream=None)
    same(resumed, whole)
    assert set(np.asarray(whole.extra["seen"])) == {7, 8}


@pytest.mark.parametrize("kind", ["device", "stream"])
def test_batches_are_a_function_of_the_step(arrays, stream, kind):
    """Each epoch holds every example once, in another order; any step can be asked for at any time."""
    make = {"device": lambda: feeds.device_feed(arrays, 8, 3), "stream": lambda: feeds.stream_feed(stream, 8, 3)}[kind]

    def batch(feed, step):
        data, indices = feed.take(step, 1)
        return np.asarray(data["index"])[np.asarray(indices[0])]

    feed = make()
    batches = [batch(feed, step) for step in range(12)]
    for epoch in range(3):
        assert sorted(np.concatenate(batches[4 * epoch : 4 * epoch + 4])) == list(range(32))
    assert not np.array_equal(np.concatenate(batches[:4]), np.concatenate(batches[4:8]))
    for step in (7, 2, 3, 0):
        np.testing.assert_array_equal(batch(feed, step), batches[step])
    other = make()
    np.testing.assert_array_equal(batch(other, 9), batches[9])
    feed.close()
    other.close()


def test_batch_larger_than_the_data(arrays, stream):
    for make in (lambda: feeds.device_feed(arrays, 33), lambda: feeds.stream_feed(stream, 33)):
        with pytest.raises(
            ValueError, match=r"train\.batch_size: expected at most 32, the examples of the data, got 33"
        ):
            make()


def test_progress_lines(capsys):
    import sys

    progress = logs.Progress(0, 100, sys.stderr, every=0)
    progress.run(10)
    progress.update(50, {"loss": 0.25})
    progress.update(100, {"loss": 0.125})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 50/100") and "loss 0.25" in lines[0] and "left" in lines[0]
    assert lines[1].startswith("step 100/100") and "0:00 left" in lines[1]
    progress = logs.Progress(0, 100, sys.stderr, every=0, table=("d_loss", "sign_real"))
    progress.update(50, {"loss": 0.25, "sign_real": -0.5, "d_loss": 1.25})
    line = capsys.readouterr().err
    assert line.rstrip().endswith("d_loss 1.25  sign_real -0.5") and "loss 0.25" not in line
    assert logs.duration(3723) == "1:02:03" and logs.duration(125) == "2:05"
