"""Reduce, Reuse, Recycle: Compositional Generation with Energy-Based Diffusion Models and MCMC (arXiv 2302.11552).

    genjax reproduce reduce_reuse_recycle

The product of a ring of eight Gaussians (radius 0.5, std 0.075) and a vertical bar, 100 levels of a cosine schedule:
reverse diffusion with summed scores does not sample it, Markov chains at every level do. Measured: sliced W1 to the
true product (drawn by rejection), and the share outside (|x| > 0.25, or farther than 0.25 from every mode). Rules
fixed before the runs:

1. `exact_*`: exact marginals, the bar a mixture of 40 Gaussians (std 0.05), 4,000 samples against 40,000 true ones,
   as the balance of the two main modes alone would else be noise of the size of what is compared. Reverse ancestral
   steps alone (`reverse`), with 10 moves a level of ULA, MALA, UHMC and Metropolis HMC, with 1, 5 and 20 of HMC, and
   with as many more reverse steps as HMC has score evaluations (`longer`). Pass, means over seeds: HMC's W1 at most
   half of reverse's and falling from 1 over 5 to 20 moves; ULA's at most 0.9 of it; `longer` at least 0.8 of it; MALA
   accepts 0.4 to 0.99.
2. `learned`: energies |f - x|^2 of two networks, 96 wide, the bar uniform on |x| < 0.2, |y| < 1, 700 samples. Pass,
   means over seeds: W1 with 10 moves of HMC at most 0.75 of reverse's, its share outside at most 0.7; ULA's W1 at
   most 0.9.

`get_config("paper")`: the energy-based prior's setting at 64x64 on ImageNet, without the energy form of the network,
which is chosen at `guidance.energy_denoiser`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from genjax import build
from genjax.algorithms.diffusion import diffusion
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.cli import runner_guidance as guides
from genjax.core.keys import fold, per_sample
from genjax.guidance import denoiser_of, energy_denoiser, energy_log_density, product_density
from genjax.losses.denoising import denoising
from genjax.losses.times import uniform
from genjax.losses.weightings import eps
from genjax.metrics.distances import directions, wasserstein_1d
from genjax.networks import MLP, linen_net
from genjax.oracles.mixture import Mixture, ring
from genjax.solvers import ddpm, grids, with_moves
from genjax.solvers.mcmc import acceptance, hmc_moves, mala_moves, uhmc_moves, ula_moves

PAPER = {
    "number": 155,
    "title": "Reduce, Reuse, Recycle: Compositional Generation with Energy-Based Diffusion Models and MCMC",
    "year": 2023,
    "arxiv": "2302.11552",
    "family": "guidance",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3
RING = ring(8, 0.5, 0.075)
LEAPFROG = 3


def get_config(scale="small"):
    if scale == "paper":
        return guides.adm_config(540000, 2048, cond=("label",), learning_rate=3e-4)
    return digits.base_config(scale, 3000, process={"name": "cosine"})


ARMS = {
    # name: (kind, moves a level, levels as a multiple)
    "reverse": (None, 0, 1),
    "longer": (None, 0, 1 + 10 * LEAPFROG),
    "ula": ("ula", 10, 1),
    "mala": ("mala", 10, 1),
    "uhmc": ("uhmc", 10, 1),
    "hmc": ("hmc", 10, 1),
    "hmc_1": ("hmc", 1, 1),
    "hmc_5": ("hmc", 5, 1),
    "hmc_20": ("hmc", 20, 1),
}
VARIANTS = {**{f"exact_{name}": {"part": f"exact:{name}"} for name in ARMS}, "learned": {"part": "learned"}}


def bar():
    """The bar as a smooth mixture: 40 Gaussians of std 0.05 in |x| < 0.2, |y| < 1."""
    x, y = np.linspace(-0.15, 0.15, 4), np.linspace(-0.95, 0.95, 10)
    means = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    return Mixture(jnp.asarray(means, jnp.float32), jnp.full(len(means), 0.05), jnp.zeros(len(means)))


def level_density(mixture, process):
    """log q_t of a mixture as a log-density (x, t)."""
    return lambda x, t, cond=None: mixture.log_prob(x, process.alpha(t), process.sigma(t))


def moves_of(kind, count, density):
    """Moves of a name; sizes are shares of sigma_t, as the density at t is no narrower than the data beside it."""
    sizes = {"ula": 0.05, "mala": 0.1, "uhmc": 0.2, "hmc": 0.3}
    if kind in ("ula", "uhmc"):
        return ula_moves(sizes[kind], count) if kind == "ula" else uhmc_moves(sizes[kind], count, LEAPFROG, 0.5)
    made = mala_moves if kind == "mala" else hmc_moves
    return made(density, sizes[kind], count) if kind == "mala" else made(density, sizes[kind], count, LEAPFROG, 0.5)


def draw(key, density, process, kind, count, levels, n):
    """(x [n, 2], mean acceptance) by annealed chains on a log-density."""
    solver = ddpm() if kind is None else with_moves(ddpm(), moves_of(kind, count, density))
    denoiser, grid = denoiser_of(density, process), grids.uniform(process, levels)
    keys = per_sample(key, n)
    x = process.prior(fold(keys, 0), jnp.zeros((n, 2)), grid[0])

    def body(state, i):
        here = fold(fold(keys, 1), i)
        return solver.step(here, denoiser, process, state, grid[i], grid[i + 1])[0], None

    state, _ = jax.lax.scan(body, solver.init(x, grid[0]), jnp.arange(levels))
    return state.x, jnp.ones(()) if kind is None else jnp.mean(acceptance(state.memory))


def true_product(rng, n, inside):
    """n points of the ring, kept with probability `inside` (x [N, 2]) -> [N]."""
    kept = []
    while sum(map(len, kept)) < n:
        x = np.asarray(RING.sample(jax.random.key(int(rng.integers(2**31))), min(20 * n, 200000))[0])
        kept.append(x[rng.random(len(x)) < inside(x)])
    return np.concatenate(kept)[:n]


def sliced_w1(x, y):
    """Mean W1 over 64 fixed directions."""
    return float(np.mean([wasserstein_1d(x @ u, y @ u, 1) for u in directions(2, 64)]))


def report(x, truth, floor):
    """Distances to the truth and the share outside the support."""
    x = np.nan_to_num(np.asarray(x, np.float64), nan=10.0, posinf=10.0, neginf=-10.0)
    far = np.linalg.norm(x[:, None] - np.asarray(RING.means)[None], axis=-1).min(axis=1) > 0.25
    return {
        "w1": sliced_w1(x, truth),
        "outside": np.mean((np.abs(x[:, 0]) > 0.25) | far),
        "floor": sliced_w1(floor, truth),
    }


def measure_exact(config, key, name):
    process, (kind, count, factor) = build.process(config), ARMS[name]
    n, levels = (4000, 100 * factor) if config.scale == "small" else (50, 4)
    wall = bar()
    density = product_density([level_density(RING, process), level_density(wall, process)])
    rng = np.random.default_rng(run.seed_of(fold(key, 9)))
    peak = float(jnp.exp(wall.log_prob(wall.means)).max()) * 1.05
    inside = lambda x: np.exp(np.asarray(wall.log_prob(jnp.asarray(x)))) / peak
    truth, floor = (true_product(rng, count, inside) for count in (10 * n, n))
    x, rate = jax.jit(lambda k: draw(k, density, process, kind, count, levels, n))(fold(key, 0))
    return {**report(x, truth, floor), "acceptance": rate}


NET = {"small": {"width": 96, "depth": 3}, "smoke": {"width": 8, "depth": 1}}


def network(config):
    """fn(params) -> (u, noise, cond, key) -> output of the energies' network, and its Net."""
    net = linen_net(MLP(**NET[config.scale]))
    return net, lambda params: lambda u, noise, cond, key: net.apply(params, {}, u, noise)[0]


def train(config, key, priors):
    if config.part != "learned":
        return {}
    process, (net, _) = build.process(config), network(config)
    steps, n = (2500, 20000) if config.scale == "small" else (20, 500)
    rng = np.random.default_rng(run.seed_of(fold(key, 9)))
    data = {
        "ring": np.asarray(RING.sample(fold(key, 8), n)[0], np.float32),
        "bar": (rng.uniform(-1, 1, (n, 2)) * [0.2, 1.0]).astype(np.float32),
    }
    denoise = lambda fn: energy_denoiser(fn, process, "distance", scale_input=False)
    loss = denoising(process, uniform(process), eps())
    recipe = diffusion(net, denoise, loss, guides.optimizer(steps))
    return {
        name: run.fit(recipe, {"x": x}, fold(key, i), steps, 256 if config.scale == "small" else 16)[-1][1].params[
            "denoiser"
        ]
        for i, (name, x) in enumerate(data.items())
    }


def measure_learned(config, key, trained):
    process, (_, call) = build.process(config), network(config)
    n, levels = (700, 100) if config.scale == "small" else (50, 3)
    rng = np.random.default_rng(run.seed_of(fold(key, 9)))
    in_bar = lambda x: (np.abs(x[:, 0]) < 0.2) & (np.abs(x[:, 1]) < 1)
    truth, floor = (true_product(rng, count, in_bar) for count in (20000, n))
    energy = lambda params: energy_log_density(call(params), process, "distance", scale_input=False)
    metrics = {}
    for name in ("reverse", "ula", "hmc"):
        kind, count, _ = ARMS[name]

        def run_arm(key, a, b, kind=kind, count=count):
            return draw(key, product_density([energy(a), energy(b)]), process, kind, count, levels, n)

        x, rate = jax.jit(run_arm)(fold(key, 0), trained["ring"], trained["bar"])
        metrics |= {f"{name}_{m}": v for m, v in report(x, truth, floor).items()} | {f"{name}_acceptance": rate}
    return metrics


def measure(config, key, priors):
    part, _, name = config.part.partition(":")
    return (
        measure_exact(config, key, name)
        if part == "exact"
        else measure_learned(config, key, priors["reduce_reuse_recycle"])
    )


def _w1(table, name):
    return table[f"exact_{name}"]["w1"].mean()


def _learned(table, metric):
    return table["learned"][metric].mean()


CLAIMS = {
    "exact_chains": (
        "exact marginals: the W1 with HMC is at most half of reverse diffusion's, with ULA at most 0.9",
        lambda t: _w1(t, "hmc") <= 0.5 * _w1(t, "reverse") and _w1(t, "ula") <= 0.9 * _w1(t, "reverse"),
    ),
    "exact_converges": (
        "the W1 with HMC falls from 1 over 5 to 20 moves a level",
        lambda t: _w1(t, "hmc_1") > _w1(t, "hmc_5") > _w1(t, "hmc_20"),
    ),
    "not_the_steps": (
        "as many more reverse steps without chains leave at least 0.8 of the W1",
        lambda t: _w1(t, "longer") >= 0.8 * _w1(t, "reverse"),
    ),
    "acceptance": (
        "MALA accepts between 0.4 and 0.99 of its moves",
        lambda t: bool(((t["exact_mala"]["acceptance"] >= 0.4) & (t["exact_mala"]["acceptance"] <= 0.99)).all()),
    ),
    "learned_chains": (
        "learned energies: HMC's W1 at most 0.75 of reverse diffusion's, its share outside 0.7; ULA's W1 0.9",
        lambda t: (
            _learned(t, "hmc_w1") <= 0.75 * _learned(t, "reverse_w1")
            and _learned(t, "hmc_outside") <= 0.7 * _learned(t, "reverse_outside")
            and _learned(t, "ula_w1") <= 0.9 * _learned(t, "reverse_w1")
        ),
    ),
}
