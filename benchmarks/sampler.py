"""What a sampling program of a network costs: memory and compile time against steps, programs shared by numbers.

  python -m benchmarks.sampler [--repeats 5]

DPM++ 2M with classifier-free guidance around an MLP of 128 wide and 3 deep, 64 samples of 64 numbers,
weights, process, grid and guidance scale being arguments of the program. (`benchmarks.solvers` measures the
same of an exact denoiser.)
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from genjax.core.denoiser import make_denoiser
from genjax.guidance import cfg
from genjax.networks import MLP, linen_net
from genjax.processes import gaussian
from genjax.solvers import SOLVERS, generate, grids

STEPS, COMPILE_GOAL, MEMORY_GOAL = (10, 1000), 1.2, 1.01


def make(batch=64, width=128, depth=3):
    """(run(key, params, process, grid, scale) -> samples, params)."""
    net = linen_net(MLP(width=width, depth=depth, num_classes=10))
    label = {"label": jnp.arange(batch) % 10}
    like = jnp.zeros((batch, 64))
    params, _ = jax.jit(net.init)(jax.random.key(0), like, jnp.zeros(batch), label)

    def run(key, params, process, grid, scale):
        fn = lambda x, noise, cond, key: net.apply(params, {}, x, noise, cond)[0]
        denoiser = cfg(scale)(make_denoiser(fn, process, "edm", sigma_data=0.75), process)
        return generate(key, denoiser, process, SOLVERS["dpmpp_2m"](), grid, like, label)

    return run, params


def arguments(params, steps):
    process = gaussian.edm()
    return jax.random.key(0), params, process, grids.karras(process, steps), jnp.float32(2.0)


def programs(run, params, repeats=5):
    """steps -> (CPU seconds of compiling, bytes of temporaries, bytes in all)."""
    jax.jit(run).lower(*arguments(params, 7)).compile()  # warms the compiler
    times, memory = {n: [] for n in STEPS}, {}
    for i in range(repeats):
        for n in STEPS if i % 2 else STEPS[::-1]:
            jax.clear_caches()
            lowered = jax.jit(run).lower(*arguments(params, n))
            start = time.process_time()  # of all threads: compiling waits for nothing else
            m = lowered.compile().memory_analysis()
            times[n].append(time.process_time() - start)
            every = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes
            memory[n] = m.temp_size_in_bytes, every
    return {n: (times[n], *memory[n]) for n in STEPS}


def shared(run, params):
    """Programs compiled for two processes, grids and guidance scales that differ in numbers."""
    f = jax.jit(run)
    f(*arguments(params, 10))
    other = gaussian.edm(0.01, 50.0)
    f(jax.random.key(1), params, other, grids.karras(other, 10, rho=5.0), jnp.float32(3.0))
    return f._cache_size()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    run, params = make()
    found = programs(run, params, options.repeats)
    few, many = (found[n] for n in STEPS)
    print("# Sampler\n")
    print("| steps | compile, CPU s | bytes of temporaries | bytes in all |\n| --- | --- | --- | --- |")
    for n, (times, temporary, every) in found.items():
        print(f"| {n} | {statistics.median(times):.2f} | {temporary:,} | {every:,} |")
    seconds = statistics.median(many[0]) / statistics.median(few[0])
    print(f"\n- memory of {STEPS[1]} steps over {STEPS[0]}: {many[2] / few[2]:.4f} (goal: at most {MEMORY_GOAL})")
    print(f"- compile time of {STEPS[1]} steps over {STEPS[0]}: {seconds:.3f} (goal: at most {COMPILE_GOAL})")
    print(f"- programs of two variants that differ in numbers alone: {shared(run, params)} (goal: at most 1)")


if __name__ == "__main__":
    main()
