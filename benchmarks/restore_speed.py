"""DPS and DiffPIR beside the same algorithms in plain PyTorch: time of a run, and memory against steps.

  python -m benchmarks.restore_speed [--steps 100] [--batch 64] [--seconds 20]

Same weights (a residual network of 64 numbers), same mask, same times, same number of evaluations; both run on all
cores, eagerly in PyTorch and as one compiled program here, compile time left out. PyTorch comes with the extra
`bench`; without it only the memory is measured. Both sides agree on a run without random numbers (tests).
"""

import argparse
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.train_step import take_turns
from genjax.core.denoiser import make_denoiser
from genjax.core.keys import fold, per_sample
from genjax.inverse import POSTERIOR_SAMPLERS, Gaussian, measure
from genjax.inverse.operators import random
from genjax.processes import gaussian
from genjax.solvers import GRIDS

SHAPE, STD, SCALE, FLOOR = (8, 8, 1), 0.1, 0.5, 1e-3
METHODS = {
    # name: (settings, those of a run without random numbers)
    "dps": ({"scale": SCALE}, {"eta": 0.0}),
    "diffpir": ({"floor": FLOOR}, {"zeta": 0.0}),
}
TIME_GOAL, MEMORY_GOAL, MEMORY_STEPS = 0.667, 1.01, (10, 100)


def weights(width=256, depth=3, seed=0):
    """Arrays of a residual network that predicts x0, of the size that networks start with."""
    rng = np.random.default_rng(seed)
    dense = lambda n, m: (rng.normal(size=(n, m)) / np.sqrt(n)).astype(np.float32)
    blocks = [(dense(width, width), dense(1, width), dense(width, width)) for _ in range(depth)]
    return {"input": dense(64, width), "blocks": blocks, "output": dense(width, 64)}


def network(w, x, c, silu):
    """x0 of x [B, 64] at c [B, 1], for arrays of either package."""
    h = x @ w["input"]
    for a, b, d in w["blocks"]:
        h = h + silu(h @ a + c @ b) @ d
    return h @ w["output"]


def problem(batch):
    """(process, measurement)."""
    operator = random(SHAPE, 0.5)
    truth = jnp.tanh(jax.random.normal(jax.random.key(1), (batch, *SHAPE)))
    return gaussian.vp(), measure(jax.random.key(2), operator, Gaussian(STD), truth)


def toolkit(name, steps, batch, fixed=False):
    """(compiled program, its arguments)."""
    process, m = problem(batch)
    settings, quiet = METHODS[name]
    method = POSTERIOR_SAMPLERS[name](**settings, **(quiet if fixed else {}), steps=steps)

    def program(key, w, process, m):
        def fn(x, noise, cond, key):
            return network(w, x.reshape(batch, -1), noise[:, None], jax.nn.silu).reshape(x.shape)

        denoiser = make_denoiser(fn, process, "x0", scale_input=False)
        return method(key, denoiser, process, m, jnp.zeros((batch, *SHAPE)))

    arguments = jax.random.key(0), jax.tree.map(jnp.asarray, weights()), process, m
    return jax.jit(program).lower(*arguments).compile(), arguments


def levels(process, steps):
    """(alpha [N + 1], sigma [N + 1], what the network is told of the noise [N]) at the times of a run, as NumPy."""
    ts = GRIDS["cosine"](process, steps)
    at = [np.asarray(f(ts), np.float64) for f in (process.alpha, process.sigma)]
    return *at, np.asarray(-process.log_snr(ts[:-1]) / 8, np.float64)


def start(process, steps, batch):
    """What the toolkit's run with this key starts from."""
    keys = fold(per_sample(jax.random.key(0), batch), 0)  # as in `inverse.sampler.run_solver`
    return np.asarray(process.prior(keys, jnp.zeros((batch, *SHAPE)), GRIDS["cosine"](process, steps)[0]))


def plain(name, steps, batch, fixed=False):
    """A function without arguments that runs the algorithm in PyTorch."""
    import torch

    process, m = problem(batch)
    alpha, sigma, noise = levels(process, steps)
    tensor = lambda a: torch.tensor(np.asarray(a, np.float32))
    w = jax.tree.map(tensor, weights())
    y, mask = (tensor(np.asarray(a).reshape(-1, 64)) for a in (m.y, m.operator.mask))
    first = tensor(start(process, steps, batch).reshape(batch, 64))

    def predict(x, i):
        x0 = network(w, x, torch.full((batch, 1), float(noise[i])), torch.nn.functional.silu)
        return x0, (x - float(alpha[i]) * x0) / float(sigma[i])

    def dps():
        x = first
        for i in range(steps):
            a, s, b, r = (float(v) for v in (alpha[i], sigma[i], alpha[i + 1], sigma[i + 1]))
            x = x.detach().requires_grad_()
            x0, eps = predict(x, i)
            norm = ((y - mask * x0) ** 2).sum(1).sqrt()
            (gradient,) = torch.autograd.grad(norm.sum(), x)
            std = 0.0 if fixed else r / s * max(1 - (a / b) ** 2, 0) ** 0.5
            new = b * x0.detach() + max(r**2 - std**2, 0) ** 0.5 * eps.detach()
            x = new + std * torch.randn_like(new) - SCALE * gradient
        return x

    @torch.no_grad()
    def diffpir():
        x = first
        for i in range(steps):
            a, s, b, r = (float(v) for v in (alpha[i], sigma[i], alpha[i + 1], sigma[i + 1]))
            x0, _ = predict(x, i)
            rho = max(STD, FLOOR) ** 2 * (a / s) ** 2
            x0 = (mask * y + rho * x0) / (mask + rho)
            mixed = (x - a * x0) / s if fixed else torch.randn_like(x)
            x = b * x0 + r * mixed
        return x

    return {"dps": dps, "diffpir": diffpir}[name]


def memory(name, batch):
    """Bytes of temporaries of the programs of `MEMORY_STEPS`."""
    return [toolkit(name, n, batch)[0].memory_analysis().temp_size_in_bytes for n in MEMORY_STEPS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    print("# Restoration\n")
    few, many = MEMORY_STEPS
    for name in METHODS:
        one, other = memory(name, options.batch)
        print(f"- {name}, memory of {many} steps over {few}: {other / one:.4f} (goal: at most {MEMORY_GOAL})")
    if importlib.util.find_spec("torch") is None:
        print("\nPyTorch is not installed: times are not compared.")
        return
    for name in METHODS:
        compiled, arguments = toolkit(name, options.steps, options.batch)
        run = functools.partial(lambda f, a: jax.block_until_ready(f(*a)), compiled, arguments)
        times = take_turns({"toolkit": run, "PyTorch": plain(name, options.steps, options.batch)}, options.seconds)
        ours, theirs = (np.median(t, axis=0) for t in (times["toolkit"], times["PyTorch"]))
        print(
            f"\n{name}, {options.steps} evaluations of {options.batch} images, medians of {len(times['toolkit'])} runs:"
        )
        print(f"{ours[0]:.4f} s here (CPU {ours[1]:.4f}), {theirs[0]:.4f} s in PyTorch (CPU {theirs[1]:.4f}).\n")
        print(f"- {name}, time over PyTorch's: {ours[0] / theirs[0]:.3f} (goal: at most {TIME_GOAL})")


if __name__ == "__main__":
    main()
