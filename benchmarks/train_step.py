"""The train step through the toolkit against the same step written by hand in JAX, Flax and Optax.

  python -m benchmarks.train_step [--only mlp unet dit] [--seconds 30] [--batch 128]

Both train one network module on digits by EDM's loss (2206.00364) with label dropping, gradient clipping,
Adam and a weight average with a half-life, and report the loss and the norm of the gradient. The toolkit's
step is made by `build.algorithm` from a config, the other is `by_hand` below. Compared are

  work   FLOPs and bytes accessed of one compiled step, XLA's count;
  step   time of one call of the jitted step, its state donated;
  loop   time a step of the program that `train.loop` dispatches, against a `fori_loop` by hand.

The programs take turns, now the one first, now the other, and medians are compared, so that a busy machine
disturbs both alike; beside wall-clock time stands the ratio of CPU time, of all threads. The two draw their
random numbers differently (a key a sample against one for the batch); given the same numbers they take the
same steps, which the tests check.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from genjax import build
from genjax.networks import NETWORKS
from genjax.train.feed import device_feed
from genjax.train.loop import data_mesh, initial, make_dispatch

MODELS = {
    "mlp": {"data": "digits_vector", "width": 128, "depth": 3},
    "unet": {"data": "digits", "channels": 16, "multipliers": (1, 2), "num_blocks": 1},
    "dit": {"data": "digits", "dim": 96, "depth": 4, "heads": 3},
}
SIGMA_DATA, DROP, CLIP, LEARNING_RATE, HALF_LIFE, RAMP_UP = 0.75, 0.1, 1.0, 1e-3, 200.0, 0.05
P_MEAN, P_STD = -1.2, 1.2
LOOP_STEPS = {"mlp": 20, "unet": 2, "dit": 2}  # a dispatch
WORK_GOAL, TIME_GOAL = 1.01, 1.05


def config_of(name, batch_size=128, **fields):
    """The toolkit's config of model `name`, with other `fields` of the network."""
    values = {**MODELS[name], **fields}
    data = values.pop("data")
    return ConfigDict(
        {
            "data": {"name": data},
            "process": {"name": "edm"},
            "network": {"name": name, **values},
            "denoiser": {"target": "edm", "sigma_data": SIGMA_DATA},
            "loss": {
                "name": "denoising",
                "time_sampler": {"name": "log_normal", "mean": P_MEAN, "std": P_STD},
                "weighting": {"name": "edm", "sigma_data": SIGMA_DATA},
            },
            "algorithm": {"name": "diffusion", "cond": ("label",), "label_drop": DROP},
            "optimizer": {"name": "adam", "learning_rate": LEARNING_RATE, "clip": CLIP},
            "ema": {"name": "half_life", "steps": HALF_LIFE, "ramp_up": RAMP_UP},
            "train": {"steps": 1000, "batch_size": batch_size},
        }
    )


def draw(key, step, x):
    """Random numbers of a step as one writes them by hand: (sigma [B], eps, dropped [B], key of dropout)."""
    level, noise, drop, dropout = jax.random.split(jax.random.fold_in(key, step), 4)
    sigma = jnp.exp(P_MEAN + P_STD * jax.random.normal(level, x.shape[:1]))
    dropped = jax.random.uniform(drop, x.shape[:1]) < DROP
    return sigma, jax.random.normal(noise, x.shape), dropped, dropout


def by_hand(module, draw=draw):
    """(init(params) -> state, step(key, state, batch) -> (state, metrics)) without the toolkit.

    Args:
      module: Flax module called as (x, ln(sigma) / 4, {"label": [B]}, train).
      draw: (key, step, x) -> (sigma, eps, dropped, dropout key).
    """
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(LEARNING_RATE))

    def init(params):
        copy = jax.tree.map(jnp.copy, params)
        return {"step": jnp.zeros((), jnp.int32), "params": params, "opt": optimizer.init(params), "ema": copy}

    def loss(params, x, label, sigma, eps, dropout):
        s = sigma.reshape(-1, *(1,) * (x.ndim - 1))
        total = s**2 + SIGMA_DATA**2
        noisy = x + s * eps
        out = module.apply(
            {"params": params},
            noisy / jnp.sqrt(total),
            jnp.log(sigma) / 4,
            {"label": label},
            train=True,
            rngs={"dropout": dropout},
        )
        x0 = SIGMA_DATA**2 / total * noisy + s * SIGMA_DATA / jnp.sqrt(total) * out
        return jnp.mean(total / (s * SIGMA_DATA) ** 2 * (x0 - x) ** 2)

    def step(key, state, batch):
        sigma, eps, dropped, dropout = draw(key, state["step"], batch["x"])
        label = jnp.where(dropped, -1, batch["label"])
        value, grads = jax.value_and_grad(loss)(state["params"], batch["x"], label, sigma, eps, dropout)
        updates, opt = optimizer.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        count = state["step"] + 1
        keep = 0.5 ** (1 / jnp.minimum(HALF_LIFE, RAMP_UP * count))
        ema = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, state["ema"], params)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return {"step": count, "params": params, "opt": opt, "ema": ema}, metrics

    return init, step


def loop_by_hand(step):
    """(key, state, arrays, indices [K, B], count) -> (state, summed metrics): K steps in one program."""

    def many(key, state, arrays, indices, count):
        def body(i, carry):
            state, sums = carry
            batch = {name: array[indices[i]] for name, array in arrays.items()}
            state, metrics = step(key, state, batch)
            return state, {name: sums[name] + value for name, value in metrics.items()}

        zeros = {"loss": jnp.zeros(()), "grad_norm": jnp.zeros(())}
        return jax.lax.fori_loop(0, count, body, (state, zeros))

    return jax.jit(many, donate_argnums=1)


def prepare(name, batch_size=128, draw=draw, **fields):
    """Both steps on the same data from the same weights.

    Returns:
      (steps, states, feed, mesh); `steps` and `states` are dicts with "toolkit" and "by hand".
    """
    config = config_of(name, batch_size, **fields)
    dataset, mesh = build.dataset(config), data_mesh(jax.local_devices()[:1])
    algorithm = build.algorithm(config, dataset.spec)
    feed = device_feed(dataset.arrays, batch_size)
    state = initial(algorithm, feed, 0, mesh)
    values = {key: value for key, value in config.network.items() if key != "name"}
    init, step = by_hand(NETWORKS[name](num_classes=dataset.spec.num_classes, **values), draw)
    hand = init(jax.tree.map(jnp.copy, state.params["denoiser"]))
    return {"toolkit": algorithm.step, "by hand": step}, {"toolkit": state, "by hand": hand}, feed, mesh


def work(step, state, batch):
    """FLOPs, bytes accessed and memory (state, batch and temporaries) of one compiled step, its state donated."""
    compiled = jax.jit(step, donate_argnums=1).lower(jax.random.key(1), state, batch).compile()
    costs, m = compiled.cost_analysis(), compiled.memory_analysis()
    memory = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes + m.temp_size_in_bytes
    return {"FLOPs": costs["flops"], "bytes accessed": costs["bytes accessed"], "bytes of memory": memory}


def take_turns(calls, seconds, least=15, before=2):
    """Times of functions of no arguments: name -> [turns, 2], wall clock and CPU; who goes first alternates.

    `before` calls of each are not counted: with a jitted function two, as the first one's state may come from
    elsewhere and cost a second compile.
    """
    names, times = list(calls), {name: [] for name in calls}
    for name in before * names:
        calls[name]()
    end, turn = time.perf_counter() + seconds, 0
    while turn < least or time.perf_counter() < end:
        for name in names if turn % 2 else names[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            calls[name]()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        turn += 1
    return {name: np.array(found) for name, found in times.items()}


def carried(program, state, *args):
    """A function of no arguments that runs `program(key, state, *args)` on the state that the last call left."""
    key, carry = jax.random.key(1), [jax.tree.map(jnp.copy, state)]

    def call():
        carry[0], metrics = program(key, carry[0], *args)
        jax.block_until_ready((carry[0], metrics))

    return call


def standard_error(pairs):
    """Of the median of [n] ratios, by their middle half as if they were normal."""
    low, high = np.percentile(pairs, (25, 75))
    return 1.25 * (high - low) / 1.35 / len(pairs) ** 0.5


def measure(name, batch_size, seconds, **fields):
    """{"work": {side: ...}, "step": times, "loop": times} of one model."""
    steps, states, feed, mesh = prepare(name, batch_size, **fields)
    count = LOOP_STEPS[name]
    arrays, indices = feed.take(0, count)
    batch = jax.tree.map(lambda a: a[indices[0]], arrays)
    result = {"work": {side: work(step, states[side], batch) for side, step in steps.items()}}
    single = {side: carried(jax.jit(step, donate_argnums=1), states[side], batch) for side, step in steps.items()}
    result["step"] = take_turns(single, seconds)
    programs = {"toolkit": make_dispatch(steps["toolkit"], mesh), "by hand": loop_by_hand(steps["by hand"])}
    calls = {side: carried(program, states[side], arrays, indices, count) for side, program in programs.items()}
    result["loop"] = {side: times / count for side, times in take_turns(calls, seconds).items()}
    return result


def report(results, batch_size):
    """The tables and goals as Markdown."""
    lines = ["| network | one compiled step | toolkit | by hand | ratio |", "| --- | --- | --- | --- | --- |"]
    goals = []
    for name, result in results.items():
        for what in result["work"]["toolkit"]:
            ours, theirs = (result["work"][side][what] for side in ("toolkit", "by hand"))
            lines.append(f"| {name} | 10^6 {what} | {ours / 1e6:.2f} | {theirs / 1e6:.2f} | {ours / theirs:.4f} |")
            if what in ("FLOPs", "bytes accessed"):
                goals.append(f"- {name}, {what}, toolkit over by hand: {ours / theirs:.4f} (goal: at most {WORK_GOAL})")
    lines += ["", "| network | | toolkit, ms | by hand, ms | ratio | of CPU time | standard error | turns |"]
    lines += ["| --- " * 8 + "|"]
    for name, result in results.items():
        for what in ("step", "loop"):
            times = result[what]
            ours, theirs = (np.median(times[side], axis=0) for side in ("toolkit", "by hand"))
            wall, cpu = ours / theirs
            error = standard_error(times["toolkit"][:, 0] / times["by hand"][:, 0])
            row = [name, what, f"{1e3 * ours[0]:.2f}", f"{1e3 * theirs[0]:.2f}", f"{wall:.3f}", f"{cpu:.3f}"]
            lines.append("| " + " | ".join([*row, f"{error:.3f}", str(len(times["toolkit"]))]) + " |")
            goals.append(f"- {name}, time of a {what}, toolkit over by hand: {wall:.3f} (goal: at most {TIME_GOAL})")
    return "\n".join([f"Batch {batch_size}, float32; medians of calls that take turns.", "", *lines, "", *goals])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seconds", type=float, default=30.0, help="spent on each pair of programs")
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    results = {name: measure(name, options.batch, options.seconds) for name in options.only}
    print("# Train step\n")
    print(report(results, options.batch))


if __name__ == "__main__":
    main()
