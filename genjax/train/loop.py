"""The training loop: any `Algorithm`, many steps a dispatch, resumable at any step.

Step i of a training draws from `fold_in(key, i)` and sees batch i of the feed, so a training that was
interrupted anywhere goes on bit for bit as if it had not been. One dispatch is one XLA program that
runs a traced number of steps: the same program serves every length, so that it does not matter where
a training was cut.
"""

import collections
import contextlib
import functools
import math
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.train import checkpoints
from genjax.train.dispatch import make_dispatch, trace_step
from genjax.train.logs import Log, Progress, Silence
from genjax.train.multihost import any_of, is_main, same, together
from genjax.train.sharding import as_layout, make_mesh
from genjax.train.workdir import check_writable, claim, lock


class Plan(NamedTuple):
    """How long, and how often what. Intervals are in steps; 0 for never."""

    steps: int = 1000
    batch_size: int = 128
    steps_per_call: int = 50  # at most this many steps a dispatch
    log_every: int = 50  # the first step is logged too
    checkpoint_every: int = 500
    keep: int = 2  # newest checkpoints kept
    keep_every: int = 0  # also keep every checkpoint at a multiple of this
    evaluate_every: int = 0
    sample_every: int = 0


class Hook(NamedTuple):
    """Something done during training: `run(step, state, log) -> dict of metrics`, every `every` steps."""

    every: int
    run: Callable


class Diverged(RuntimeError):
    """A loss or a parameter became NaN or infinite."""


def check_plan(plan, devices=1):
    """Raises ValueError, naming the field, for a Plan that cannot be run."""
    for name in ("steps", "batch_size", "steps_per_call", "log_every", "keep"):
        if getattr(plan, name) < 1:
            raise ValueError(f"train.{name}: expected at least 1, got {getattr(plan, name)}")
    for name in ("checkpoint_every", "keep_every", "evaluate_every", "sample_every"):
        if getattr(plan, name) < 0:
            raise ValueError(f"train.{name}: expected 0 (never) or more, got {getattr(plan, name)}")
    if plan.batch_size % devices:
        raise ValueError(
            f"train.batch_size: expected a multiple of the number of devices, {devices}, got {plan.batch_size}"
        )


def data_mesh(devices=None):
    """A mesh of all local devices along its axis "data"."""
    return make_mesh(None, devices or jax.local_devices())


def check_traces(algorithm, feed, priors=None, layout=None):
    """Traces init and step by shape: a config that cannot be trained fails here, in seconds, before a compile.

    Returns:
      The shapes of the State.

    Raises:
      ValueError: the step changes the shape or type of the state.
    """
    init = lambda batch: algorithm.init(jax.random.key(0), batch, priors or {})
    state = jax.eval_shape(init, feed.like)
    after = trace_step(algorithm, layout, state, feed.like)
    before, after = (checkpoints.shapes_of(checkpoints.to_arrays(s)) for s in (state, after))
    checkpoints.check_shapes(after, before, "algorithm: state after one step")
    return state


def size_of(state):
    """Bytes of a pytree of shapes or arrays."""
    return sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in checkpoints.to_arrays(state).values())


@jax.jit
def _all_finite(tree):
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))


class _Stop:
    """Notes SIGTERM and SIGINT, so that the loop can save and leave; the second SIGINT interrupts at once."""

    def __init__(self):
        self.signal = None

    def _note(self, number, frame):
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number

    def __enter__(self):
        self._old = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)


# A program that runs once is not worth optimizing: half the compile time on CPU.
_RUN_ONCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def initial(algorithm, feed, seed, layout, priors=None):
    """The State before the first step, each piece born on the device that the layout gives it to."""
    arrays, indices = feed.take(0, 1)

    def init(key, arrays, indices, priors):
        batch = jax.tree.map(lambda a: a[indices[0]], arrays) if feed.resident else arrays
        return algorithm.init(key, batch, priors)

    args = (jax.random.fold_in(jax.random.key(seed), 0), arrays, indices, priors or {})
    born = as_layout(layout).state(jax.eval_shape(init, *args))
    options = _RUN_ONCE if jax.default_backend() == "cpu" else None
    return together(jax.jit(init, out_shardings=born, compiler_options=options), "init")(*args)


def start(algorithm, feed, seed, directory, layout, priors=None, say=print):
    """The State to begin with: of the newest intact checkpoint, or a new one.

    Returns:
      (state, step).
    """
    layout, step = as_layout(layout), -1
    if is_main():
        step = checkpoints.newest_intact(directory, say)
        step = -1 if step is None else step
        checkpoints.set_aside(directory, step)
    step = same(step)  # the others wait here, and go by what the first one found
    if step < 0:
        return initial(algorithm, feed, seed, layout, priors), 0
    init = functools.partial(algorithm.init, jax.random.key(seed))
    like = checkpoints.abstract_like(init, feed.like, priors or {}, sharding=layout.state)
    return checkpoints.restore(directory, step, like)[0], step


def fit(algorithm, feed, steps, *, seed=0, steps_per_call=100, priors=None, layout=None, report=None):
    """Trains in memory, without a workdir: the same steps as `train` takes.

    Args:
      algorithm: an Algorithm.
      feed: a Feed.
      steps: number of steps.
      seed: of initialization and training draws.
      steps_per_call: at most this many steps a dispatch.
      priors: what `Algorithm.init` is given.
      layout: a Layout, or a mesh with an axis "data"; all devices along "data" by default.
      report: is called with (step, metrics averaged over the dispatch) after each dispatch.

    Returns:
      The State.

    Raises:
      Diverged: a parameter became NaN or infinite.
    """
    layout = as_layout(layout)
    check_plan(Plan(steps, feed.batch_size, steps_per_call), layout.parts)
    state = initial(algorithm, feed, seed, layout, priors)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    dispatch = together(make_dispatch(algorithm.step, layout, layout.state(state), feed.resident), "train")
    most = min(steps_per_call, feed.most or steps_per_call)
    for step in range(0, steps, most):
        count = min(most, steps - step)
        arrays, indices = feed.take(step, most)
        state, sums = dispatch(key, state, arrays, indices, count)
        if report:
            report(step + count, {name: float(np.mean(value)) / count for name, value in sums.items()})
    if not _all_finite(state.params):
        raise Diverged(f"training diverged: a parameter became NaN or infinite before step {steps}")
    return state


def train(
    algorithm,
    feed,
    plan,
    workdir,
    config,
    *,
    seed=0,
    hooks=(),
    priors=None,
    layout=None,
    stream=sys.stderr,
    table=(),
):
    """Trains to `plan.steps`, from the newest checkpoint of the workdir where there is one.

    Args:
      algorithm: an Algorithm.
      feed: a Feed of `plan.batch_size`.
      plan: a Plan.
      workdir: directory of the run, made where missing; where several processes train, one that all of them see.
      config: what is trained, a nested dict of JSON values; kept in the workdir and compared on resume.
      seed: of initialization and training draws.
      hooks: Hooks, each run every so many steps and at the end.
      priors: what `Algorithm.init` is given.
      layout: a Layout, or a mesh with an axis "data"; all devices along "data" by default.
      stream: where progress is shown; None for silence.
      table: names of metrics that progress shows; the loss where there are none.

    Returns:
      (state, step). `step < plan.steps` where a signal asked to stop; the state is saved then too.

    Raises:
      ValueError: a Plan, workdir or checkpoint that does not fit.
      OSError: the workdir cannot be written. The newest checkpoint that was written stays.
      Diverged: NaN or infinity. The last good checkpoint stays.
    """
    layout = as_layout(layout)
    check_plan(plan, layout.parts)
    plan = plan._replace(steps_per_call=min(plan.steps_per_call, feed.most or plan.steps_per_call))
    shapes = check_traces(algorithm, feed, priors, layout)
    workdir = Path(workdir)
    directory = workdir / "checkpoints"
    stream = stream if is_main() else None
    with contextlib.ExitStack() as held:
        if is_main():
            check_writable(workdir, size_of(shapes))
            held.enter_context(lock(workdir))
            claim(workdir, config)
        say = lambda line: print(line, file=stream) if stream else None
        state, step = start(algorithm, feed, seed, directory, layout, priors, say)
        if step:
            say(f"resumed {workdir} at step {step}")
        log, progress = (
            (Log(workdir, step) if is_main() else Silence()),
            Progress(step, plan.steps, stream, table=table),
        )
        log.say = progress.say
        try:
            with _Stop() as stop, checkpoints.Writer(directory, plan.keep, plan.keep_every or None) as writer:
                return _run(
                    algorithm, feed, plan, config, seed, hooks, layout, state, step, log, progress, writer, stop
                )
        finally:
            progress.close()
            log.close()
            feed.close()


def _next_stop(step, plan, hooks):
    """The step at which the coming dispatch ends: the next at which something is due, at most steps_per_call on.

    The first step comes alone, so that a training is seen to work, or not to, as soon as it is compiled.
    """
    due = [plan.steps, step + plan.steps_per_call if step else 1]
    for every in (plan.log_every, plan.checkpoint_every, *(hook.every for hook in hooks)):
        if every:
            due.append((step // every + 1) * every)
    return min(due)


def _run(algorithm, feed, plan, config, seed, hooks, layout, state, step, log, progress, writer, stop):
    key = jax.random.fold_in(jax.random.key(seed), 1)
    dispatch = together(make_dispatch(algorithm.step, layout, layout.state(state), feed.resident), "train")
    in_flight = collections.deque()
    sums, since = None, step  # metrics summed since the last log point
    meta = {"config": config, "seed": seed}

    def save():
        if not _all_finite(state.params):
            raise Diverged(_diverged("a parameter", step, writer))
        writer.save(step, state, {**meta, "examples": step * plan.batch_size})

    due = lambda every: every and step % every == 0
    while step < plan.steps:
        end = _next_stop(step, plan, hooks)
        arrays, indices = feed.take(step, plan.steps_per_call)  # those beyond `end` are not used
        state, total = dispatch(key, state, arrays, indices, end - step)
        # the host may run two dispatches ahead, no more: what it hands over takes memory
        in_flight.append(total)
        if len(in_flight) > 2:
            jax.block_until_ready(in_flight.popleft())
        sums = total if sums is None else jax.tree.map(jnp.add, sums, total)
        if not progress.running:
            jax.block_until_ready(sums)  # compiled now: the clock of the rate starts after the first dispatch
            progress.run(end)
        step = end
        logged = due(plan.log_every) or step in (1, plan.steps)
        # several processes leave together, so they agree, and where they wait for the device anyway
        halt = any_of(stop.signal or 0) if logged or jax.process_count() == 1 else 0
        if logged or halt:
            metrics = {name: float(np.mean(value)) / (step - since) for name, value in jax.device_get(sums).items()}
            bad = [name for name, value in metrics.items() if not math.isfinite(value)]
            if bad:
                raise Diverged(_diverged(bad[0], step, writer))
            log.write(step, metrics)
            progress.update(step, metrics)
            sums, since = None, step
        if due(plan.checkpoint_every) or step == plan.steps or halt:
            save()
        if halt:
            writer.wait()
            progress.say(f"{signal.Signals(halt).name}: saved step {step} of {plan.steps}; run again to go on")
            return state, step
        for hook in hooks:
            if due(hook.every) or step == plan.steps:
                metrics = hook.run(step, state, log)
                if metrics:
                    log.write(step, metrics)
    return state, step


def _diverged(what, step, writer):
    writer.wait()
    kept = writer.newest()
    kept = "no checkpoint was written before" if kept is None else f"the checkpoint of step {kept} is kept"
    return f"training diverged: {what} became NaN or infinite before step {step}; {kept}"
