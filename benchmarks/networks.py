"""Time, FLOPs and parameters of a train step of each default network.

  python -m benchmarks.networks [--batch 128] [--repeats 7] [--steps 8] [--only unet dit]

A step is loss, gradient and Adam update, `--steps` of them in one `lax.scan` as the train loop runs
them. The networks take turns, and the median of the repeats is printed, so that a busy machine
disturbs all of them alike. FLOPs are XLA's count of one step compiled alone.
"""

import argparse
import math
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import optax

from genjax.networks import NETWORKS

VECTOR = ("mlp", "edm2_mlp", "mlp_classifier")  # measured on 64-vectors, the others on 8x8x1 images
CLASSIFIERS = ("cnn_classifier", "mlp_classifier")


def train_step(name, batch, fields):
    """(step: carry -> carry, carry, number of parameters) of the network `name` with extra `fields`."""
    module = NETWORKS[name](num_classes=10, **fields)
    shape = (batch, 64) if name in VECTOR else (batch, 8, 8, 1)
    x = jax.random.normal(jax.random.key(0), shape)
    label = jnp.arange(batch) % 10
    args = (x,) if name in CLASSIFIERS else (x, jnp.linspace(-1, 1, batch), {"label": label})
    params = jax.jit(module.init)(jax.random.key(1, impl="rbg"), *args)
    optimizer = optax.adam(1e-3)

    def loss(params):
        out = module.apply(params, *args)
        if name in CLASSIFIERS:
            return optax.softmax_cross_entropy_with_integer_labels(out[0], label).mean()
        return jnp.mean((out - x) ** 2)

    def step(carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    count = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    return step, (params, optimizer.init(params)), count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS))
    options = parser.parse_args()

    programs = {}
    for name in options.only:
        step, carry, count = train_step(name, options.batch, {})
        flops = jax.jit(step).lower(carry).compile().cost_analysis()["flops"]
        many = jax.jit(lambda c, step=step: jax.lax.scan(lambda c, _: (step(c), None), c, length=options.steps)[0])
        jax.block_until_ready(many(carry))
        programs[name] = (many, carry, count, flops, [])
    for _ in range(options.repeats):
        for many, carry, _, _, times in programs.values():
            start = time.perf_counter()
            jax.block_until_ready(many(carry))
            times.append((time.perf_counter() - start) / options.steps)

    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} ({platform.machine()}), batch {options.batch}, float32")
    print(f"{'network':<16}{'parameters':>12}{'GF a step':>12}{'ms a step':>12}{'GF/s':>8}")
    for name, (_, _, count, flops, times) in programs.items():
        median = statistics.median(times)
        print(f"{name:<16}{count:>12,}{flops / 1e9:>12.2f}{1e3 * median:>12.2f}{flops / median / 1e9:>8.0f}")


if __name__ == "__main__":
    main()
