"""The toolkit's convolution against XLA's own: forward, gradients alone, gradients in a scan, tangents in a scan.

  python -m benchmarks.convolution [--repeats 7] [--native-scan]

Times are medians in milliseconds of one evaluation, the programs taking turns. "gradients" are to the
input and to the kernel. XLA's gradients in a scan are slow on CPU (the reason for the toolkit's own
form), so they run on the first shape alone unless --native-scan.
"""

import argparse
import platform
import statistics
import time

import jax
import jax.numpy as jnp
from jax import lax

from genjax.networks import conv

SHAPES = [(64, 8, 32, 32), (128, 8, 32, 32), (128, 8, 64, 32), (128, 4, 64, 64), (64, 16, 64, 64)]  # B, H = W, C, O
STEPS = 4  # of the scans


def native(x, k):
    return lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def programs(f):
    """name -> (compiled function of (x, k), evaluations a call)."""
    gradients = jax.grad(lambda x, k: 1e-3 * jnp.sum(f(x, k) ** 2), (0, 1))

    def trained(x, k):
        def body(k, _):
            gx, gk = gradients(x, k)
            return k - 1e-6 * gk + 0 * gx.mean(), None

        return lax.scan(body, k, None, length=STEPS)[0]

    def tangents(x, k):
        body = lambda k, _: (k + 1e-6 * jax.jvp(f, (x, k), (x, k))[1].mean(), None)
        return lax.scan(body, k, None, length=STEPS)[0]

    return {
        "forward": (jax.jit(f), 1),
        "gradients": (jax.jit(gradients), 1),
        "gradients in a scan": (jax.jit(trained), STEPS),
        "tangents in a scan": (jax.jit(tangents), STEPS),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--native-scan", action="store_true")
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].platform} ({platform.machine()}), 3x3, float32, ms")
    print(f"{'B x H x W x C -> O':<24}{'':<22}{'toolkit':>9}{'native':>9}{'native/toolkit':>16}")
    for n, (b, h, c, o) in enumerate(SHAPES):
        x = jax.random.normal(jax.random.key(0), (b, h, h, c))
        k = 0.05 * jax.random.normal(jax.random.key(1), (3, 3, c, o))
        forms = {"toolkit": programs(conv), "native": programs(native)}
        for what in forms["toolkit"]:
            skip = what == "gradients in a scan" and n and not options.native_scan
            runs = {form: p[what] for form, p in forms.items() if not (skip and form == "native")}
            times = {form: [] for form in runs}
            for f, _ in runs.values():
                jax.block_until_ready(f(x, k))
            for _ in range(options.repeats):
                for form, (f, count) in runs.items():
                    start = time.perf_counter()
                    jax.block_until_ready(f(x, k))
                    times[form].append(1e3 * (time.perf_counter() - start) / count)
            m = {form: statistics.median(t) for form, t in times.items()}
            line = f"{f'{b} x {h} x {h} x {c} -> {o}':<24}{what:<22}{m['toolkit']:>9.2f}"
            if "native" in m:
                line += f"{m['native']:>9.2f}{m['native'] / m['toolkit']:>16.2f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
