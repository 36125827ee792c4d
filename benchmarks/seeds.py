"""N seeds of one training, vmapped into one program, against N runs of it.

  python -m benchmarks.seeds [--seeds 4] [--repeats 5] [--only mlp unet]

Both initialize and take the same steps: seed i has its own keys and its own order of the data, and ends in the
same parameters either way (the largest difference is printed; a test holds it). Programs are compiled with no cache
and timed apart from that. The runs and the vmapped program take turns; medians count. Ratios:

  without compile   vmapped / (N runs of one compiled program)
  one process       (compile + vmapped) / (compile once + N runs)
  N processes       (compile + vmapped) / (N times compile and run), each process compiling for itself

Below 1 the vmapped program is the faster one. How far compiling counts depends on the number of steps, which is
printed: the ratio without it is what a long training tends to.
"""

import argparse
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from benchmarks.train_step import config_of
from genjax import build
from genjax.data.resident import batch_indices

MODELS = {
    # name: (title, fields of the network, batch, steps)
    "mlp": ("MLP, 128 wide, 3 deep, digits", {}, 128, 500),
    "unet": ("U-Net, 16 channels, 8 x 8 digits", {}, 64, 20),
}


def prepare(name, batch, fields):
    """(run(key, arrays, indices [K, B]) -> parameters, arrays): one seed's training from its beginning."""
    config = config_of(name, batch, **fields)
    data = build.dataset(config)
    algorithm = build.algorithm(config, data.spec)
    arrays = {field: jnp.asarray(array) for field, array in data.arrays.items()}

    def run(key, arrays, indices):
        batch_of = lambda i: jax.tree.map(lambda a: a[indices[i]], arrays)
        state = algorithm.init(jax.random.fold_in(key, 0), batch_of(0), {})
        draws = jax.random.fold_in(key, 1)
        step = lambda i, s: algorithm.step(jax.random.fold_in(draws, s.step), s, batch_of(i))[0]
        return jax.lax.fori_loop(0, indices.shape[0], step, state).params

    return run, arrays


def inputs(seeds, steps, size, batch):
    """(keys [N], indices [N, K, B]): each seed with its own order of the data."""
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    rows = lambda key: jax.vmap(lambda i: batch_indices(jax.random.fold_in(key, 2), i, size, batch))(jnp.arange(steps))
    return keys, jax.jit(jax.vmap(rows))(keys)


def compiled(function, *args):
    """(compiled function, seconds that compiling took)."""
    lowered = jax.jit(function).lower(*args)
    began = time.perf_counter()
    program = lowered.compile()
    return program, time.perf_counter() - began


def timed(function):
    """(value, seconds)."""
    began = time.perf_counter()
    value = jax.block_until_ready(function())
    return value, time.perf_counter() - began


def measure(name, seeds, repeats, batch=None, steps=None, fields=None):
    """Medians in seconds: {"compile one", "compile all", "runs", "vmapped", "difference", ...}."""
    _, given, default_batch, default_steps = MODELS[name]
    batch, steps, fields = batch or default_batch, steps or default_steps, {**given, **(fields or {})}
    run, arrays = prepare(name, batch, fields)
    keys, indices = inputs(seeds, steps, len(arrays["x"]), batch)
    one, compile_one = compiled(run, keys[0], arrays, indices[0])
    together, compile_all = compiled(jax.vmap(run, (0, None, 0)), keys, arrays, indices)
    # one process would compile nothing more for the other seeds: same shapes, same program
    turns = {
        "runs": lambda: [one(keys[i], arrays, indices[i]) for i in range(seeds)],
        "vmapped": lambda: together(keys, arrays, indices),
    }
    times, values = {side: [] for side in turns}, {}
    for _ in range(repeats):
        for side, function in turns.items():
            values[side], seconds = timed(function)
            times[side].append(seconds)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *values["runs"])
    apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), stacked, values["vmapped"])
    found = {side: statistics.median(column) for side, column in times.items()}
    found.update({"compile one": compile_one, "compile all": compile_all, "difference": max(jax.tree.leaves(apart))})
    return {**found, "seeds": seeds, "steps": steps, "batch": batch}


def ratios(m):
    """The three ratios of the module's docstring."""
    n, one = m["seeds"], m["runs"] / m["seeds"]
    whole = m["compile all"] + m["vmapped"]
    return {
        "without compile": m["vmapped"] / m["runs"],
        "one process": whole / (m["compile one"] + m["runs"]),
        "N processes": whole / (n * (m["compile one"] + one)),
    }


def report(found):
    head = ["training", "seeds", "steps", "compile, s: one", "all", "run, s: N runs", "vmapped"]
    head += ["ratio without compile", "in one process", "against N processes", "largest difference"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, m in found.items():
        cells = [f"{MODELS[name][0]}, batch {m['batch']}", m["seeds"], m["steps"]]
        cells += [f"{m[what]:.2f}" for what in ("compile one", "compile all", "runs", "vmapped")]
        cells += [f"{value:.2f}" for value in ratios(m).values()] + [f"{m['difference']:.1e}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    device = jax.devices()[0]
    print(f"# Seeds\n\nOn {device.device_kind}; float32.\n")
    found = {}
    for name in args.only:
        found[name] = measure(name, args.seeds, args.repeats)
        print(name, found[name], file=sys.stderr, flush=True)
    print(report(found))


if __name__ == "__main__":
    main()
