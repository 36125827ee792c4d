"""What guidance costs: operations of one guided step over those of the plain one, and plans over whole runs.

  python -m benchmarks.guidance_cost

An MLP of 128 wide and 3 deep on 64 numbers, DDIM steps, counted on the traced program (`train.flops`): matrix products,
two operations a multiplication and addition. A classifier's own network is not counted: the gradient is of a
quadratic. Where a step has branches the dearest one counts.
"""

import jax
import jax.numpy as jnp

from genjax import guidance
from genjax.core.denoiser import make_denoiser
from genjax.guidance.plan import GuidancePlan
from genjax.networks import MLP, linen_net
from genjax.processes import gaussian
from genjax.solvers import best_of_candidates, ddim, ddpm, posterior_mean_value, with_moves
from genjax.solvers.mcmc import uhmc_moves, ula_moves
from genjax.train.flops import count

BATCH, SIZE = 16, 64


def cost(solver, denoiser, process, x, plain=None, t=0.5, s=0.4):
    """Operations of one step of `solver` from t to s over those of one call of the denoiser `plain` (or of its own).

    Args:
      solver: Solver; a step transform is counted as it is.
      denoiser: Denoiser of the step, guided or not.
      process: Gaussian process.
      x: [B, ...] array or ShapeDtypeStruct.
      plain: the unguided Denoiser, None for `denoiser`.
    """
    key = jax.random.key(0)

    def step(x):
        return solver.step(key, denoiser, process, solver.init(x, t), t, s)[0].x

    return count(step, x) / count(lambda x: (plain or denoiser)(x, t).x0, x)


def cases():
    """name -> (solver, Denoiser), and the plain Denoiser, Process and x they are measured with."""
    process = gaussian.vp()
    net, label = linen_net(MLP(num_classes=10)), {"label": jnp.arange(BATCH) % 10}
    x = jnp.zeros((BATCH, SIZE))
    params, _ = net.init(jax.random.key(0), x, jnp.zeros(BATCH), label)

    def plain(x, t, cond=None, key=None):
        cond = {"label": jnp.full(x.shape[0], -1)} if cond is None else cond
        return make_denoiser(lambda u, c, cond, key: net.apply(params, {}, u, c, cond)[0], process)(x, t, cond, key)

    bound = lambda steer: lambda x, t, cond=None, key=None: steer(plain, process)(x, t, label, key)
    square = lambda x0, cond=None: jnp.sum(x0**2, axis=-1)
    plan = lambda **fields: guidance.planned(ddim(), square, 1.0, GuidancePlan(**fields), 10)
    found = {
        "plain": (ddim(), plain),
        "classifier-free": (ddim(), bound(guidance.cfg(2.0))),
        "APG": (ddim(), bound(guidance.apg(2.0))),
        "CFG-Zero*": (ddim(), bound(guidance.cfg_zero(2.0))),
        "two experts": (ddim(), guidance.product([plain, plain], 1.0, plain)),
        "classifier of noisy x": (ddim(), bound(guidance.classifier(lambda x, t, cond: -square(x)))),
        "loss of x0, eps constant": (ddim(), bound(guidance.energy(square, through=False))),
        "loss of x0, through the denoiser": (ddim(), bound(guidance.energy(square))),
        "plan, one round": (plan(), plain),
        "plan, eps constant": (plan(through=False), plain),
        "reflection": (guidance.reflected(ddim(), plain, 5), plain),
        "10 candidates": (best_of_candidates(ddpm(), posterior_mean_value(square), 10), plain),
        "ULA, 10 moves": (with_moves(ddpm(), ula_moves(0.1, 10)), plain),
        "UHMC, 10 moves of 3": (with_moves(ddpm(), uhmc_moves(0.1, 10, 3)), plain),
    }
    return found, plain, process, x


def main():
    found, plain, process, x = cases()
    print("| step | calls of the denoiser |\n| --- | --- |")
    for name, (solver, denoiser) in found.items():
        print(f"| {name} | {cost(solver, denoiser, process, x, plain):.2f} |")
    full, cheap = GuidancePlan(repeats=4), GuidancePlan(((0.2, 0.8),), repeats=3, windows=((0.2, 0.8),), through=False)
    print("\n| plan of 60 steps | calls of the denoiser |\n| --- | --- |")
    for name, each in (("full, 4 rounds", full), ("20 to 80 %, 3 rounds, eps constant", cheap)):
        print(f"| {name} | {each.cost(60):.0f} |")


if __name__ == "__main__":
    main()
