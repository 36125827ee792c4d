"""Solvers on an exact mixture: error against denoiser evaluations, beside k-diffusion's and diffusers'.

Run: `python benchmarks/solvers.py`. The reference packages are optional (`pip install torch k-diffusion diffusers`,
best in an environment of their own); what is missing is printed. Writes benchmarks/results/solvers.md.

Data: eight Gaussians of std 0.05 on a ring of radius 0.7, denoiser in closed form, EDM's process, double
precision. Deterministic solvers: root-mean-square distance of end points from the exact flow, from the same
latents. Stochastic ones: sliced Wasserstein-2 distance to the data. Every package is given the same grid and
the same denoiser.
"""

import importlib
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.keys import fold, per_sample
from genjax.oracles.mixture import ring
from genjax.processes import gaussian
from genjax.solvers import SOLVERS, generate, grids, ode, unipc
from genjax.solvers.multistep import deis, dpmpp_2m, dpmpp_3m, exponential_multistep, lms

jax.config.update("jax_enable_x64", True)

BUDGETS = (12, 18, 36)
DETERMINISTIC_COUNT, STOCHASTIC_COUNT = 512, 8192
MIXTURE, PROCESS = ring(8, 0.7, 0.05), gaussian.edm()
GRIDS = {"karras": grids.karras, "exponential": grids.log_snr}
OURS_TOO = {
    # grids that the others do not have
    "cosine": grids.cosine,
    "karras, rho 5": lambda p, n: grids.karras(p, n, rho=5.0),
    "exponential, rho 1.25": lambda p, n: grids.exponential(p, n, rho=1.25),
    "exponential, rho 1.5": lambda p, n: grids.exponential(p, n, rho=1.5),
    "logistic(-2.5, 1.3)": lambda p, n: grids.logistic(p, n, -2.5, 1.3),  # between log 0.7 and log 0.05
    "logistic(-2.5, 2)": lambda p, n: grids.logistic(p, n, -2.5, 2.0),
}
MAX_POINTS = 4200


def runner(solver):
    """One compiled program for all grids of a solver."""

    @jax.jit
    def f(x, grid, steps, key):
        denoiser = MIXTURE.denoiser(PROCESS)
        keys = per_sample(key, x.shape[0])

        def body(i, state):
            return solver.step(fold(keys, i), denoiser, PROCESS, state, grid[i], grid[i + 1])[0]

        return jax.lax.fori_loop(0, steps, body, solver.init(x, grid[0])).x

    def run(x, grid):
        padded = jnp.concatenate([grid, jnp.zeros(MAX_POINTS - len(grid))])
        return np.asarray(f(x, padded, len(grid) - 1, jax.random.key(5)))

    return run


def steps_within(solver, budget):
    """The most steps that cost no more than `budget` evaluations on a grid that ends at 0."""
    return 1 + (budget - solver.evals_last) // solver.evals


def latents(count):
    return 80.0 * jax.random.normal(jax.random.key(0), (count, 2))


def reference(x):
    """End points of the exact flow at 0 and at sigma_min: 4,000 fourth-order steps, the first down to sigma = 1e-5."""
    run, process = runner(ode.rk4("sigma")), gaussian.edm(sigma_min=1e-5)
    return run(x, grids.karras(process, 4000)), run(x, grids.karras(PROCESS, 4000, to_zero=False))


def rms(a, b):
    return float(np.sqrt(np.mean(np.sum((a - b) ** 2, axis=-1))))


def sliced_w2(a, b, directions=64):
    """Sliced Wasserstein-2 between two samples of one size."""
    angle = np.pi * np.arange(directions) / directions
    project = np.stack([np.cos(angle), np.sin(angle)])
    return float(np.sqrt(np.mean((np.sort(a @ project, axis=0) - np.sort(b @ project, axis=0)) ** 2)))


# ------------------------------------------------------------------ the other packages


def optional(name):
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken package is as good as a missing one
        print(f"missing: {name} ({type(error).__name__}: {str(error)[:80]})")
        return None


def torch_denoiser(torch):
    """(x, sigma) -> E[x0 | x]: the same closed form."""
    means = torch.tensor(np.asarray(MIXTURE.means))
    std = float(MIXTURE.stds[0])

    def denoise(x, sigma):
        sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1)
        v = std**2 + sigma**2
        residual = x[:, None, :] - means[None]
        weight = torch.softmax(-0.5 * (residual**2).sum(-1) / v, dim=-1)
        return (weight[..., None] * (means[None] + (std**2 / v)[..., None] * residual)).sum(1)

    return denoise


def k_diffusion_run(torch, sampling, function):
    """(x, sigmas) -> end points, by a function of k-diffusion."""
    denoise = torch_denoiser(torch)

    def run(x, sigmas, **kwargs):
        torch.manual_seed(0)
        noisy = {} if function in DETERMINISTIC_K else {"noise_sampler": None}
        if "noise_sampler" in noisy:
            noisy["noise_sampler"] = lambda sigma, sigma_next: torch.randn(x.shape, dtype=torch.float64)
        f = getattr(sampling, function)
        x_0 = torch.tensor(np.asarray(x))
        out = f(lambda x, s: denoise(x, s), x_0, torch.tensor(np.asarray(sigmas)), disable=True, **noisy, **kwargs)
        return out.numpy()

    return run


def diffusers_run(torch, diffusers, scheduler, **config):
    """(x, sigmas) -> end points, by a scheduler of diffusers, its noise levels replaced by `sigmas`.

    Its state is x / sqrt(1 + sigma^2), its model output eps.
    """
    denoise = torch_denoiser(torch)

    def run(x, sigmas):
        s = getattr(diffusers, scheduler)(**config)
        n = len(sigmas) - 1
        s.set_timesteps(n)
        timesteps = torch.arange(n, 0, -1)
        s.timesteps, s.num_inference_steps = timesteps, n
        s.sigmas = torch.tensor(np.asarray(sigmas), dtype=torch.float64)
        state = torch.tensor(np.asarray(x)) / np.sqrt(1 + float(sigmas[0]) ** 2)
        for i, t in enumerate(timesteps):
            sigma = float(sigmas[i])
            y = state * np.sqrt(1 + sigma**2)
            state = s.step((y - denoise(y, sigma)) / sigma, t, state, return_dict=False)[0]
        return state.numpy()

    return run


DETERMINISTIC_K = ("sample_euler", "sample_heun", "sample_dpm_2", "sample_lms", "sample_dpmpp_2m")
MULTI, UNI, DEIS = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"
OPEN = {"lower_order_final": False}  # these are not defined at sigma = 0: compared on grids that end at sigma_min
PAIRS = [
    # name, our solver, package, their name, their settings
    ("Euler", ode.euler(), "k-diffusion", "sample_euler", {}),
    ("Heun", ode.heun("sigma"), "k-diffusion", "sample_heun", {}),
    ("DPM2", ode.dpm2("sigma"), "k-diffusion", "sample_dpm_2", {}),
    ("LMS", lms(4, "sigma"), "k-diffusion", "sample_lms", {}),
    ("DPM++ 2M", dpmpp_2m(), "k-diffusion", "sample_dpmpp_2m", {}),
    ("DPM++ 2M", dpmpp_2m(), "diffusers", MULTI, {"final_sigmas_type": "zero", "solver_type": "midpoint"}),
    (
        "DPM++ 2M (exact rule)",
        dpmpp_2m("exact"),
        "diffusers",
        MULTI,
        {"final_sigmas_type": "zero", "solver_type": "heun"},
    ),
    ("DPM++ 3M", dpmpp_3m, "diffusers", MULTI, {"final_sigmas_type": "zero", "solver_order": 3}),
    ("UniPC 2, B2", unipc(2, "B2"), "diffusers", UNI, {"solver_order": 2, "solver_type": "bh2"}),
    ("UniPC 3, B2", unipc(3, "B2"), "diffusers", UNI, {"solver_order": 3, "solver_type": "bh2"}),
    ("UniPC 3, B1", unipc(3, "B1", None), "diffusers", UNI, {"solver_order": 3, "solver_type": "bh1", **OPEN}),
    ("DEIS 2", deis(2), "diffusers", DEIS, {"solver_order": 2, **OPEN}),
    ("DEIS 3", deis(3), "diffusers", DEIS, {"solver_order": 3, **OPEN}),
]
STOCHASTIC = {
    "euler_ancestral": "sample_euler_ancestral",
    "dpm2_ancestral": "sample_dpm_2_ancestral",
    "dpmpp_2s_ancestral": "sample_dpmpp_2s_ancestral",
    "dpmpp_sde": "sample_dpmpp_sde",
    "dpmpp_2m_sde": "sample_dpmpp_2m_sde",
    "dpmpp_3m_sde": "sample_dpmpp_3m_sde",
    "ddpm": None,
    "dpmpp_1_sde": None,
    "heun_churn": None,
    "euler_maruyama": None,
    "reverse_diffusion": None,
    "predictor_corrector": None,
}
NOT_COMPARED = {"annealed_langevin"}  # many evaluations a level by nature


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows])


def same_name_table(x, exact, exact_open, torch, sampling, diffusers):
    """Errors of each name, ours and theirs, on both grids; the largest ratio; their errors by (name, grid, budget)."""
    rows, worst, theirs_all = [], 0.0, {}
    for name, solver, package, their_name, config in PAIRS:
        module = sampling if package == "k-diffusion" else diffusers
        # diffusers lowers the order of 3M's last but one step on grids of fewer than 15 steps
        at = lambda n, make=solver: make(final_order=2 if n < 15 else None) if callable(make) else make
        runners = {n: runner(at(n)) for n in BUDGETS} if callable(solver) else dict.fromkeys(BUDGETS, runner(solver))
        if module is None:
            theirs = None
        elif package == "k-diffusion":
            theirs = k_diffusion_run(torch, sampling, their_name)
        else:
            theirs = diffusers_run(torch, diffusers, their_name, **config)
        for grid_name, make in GRIDS.items():
            cells = []
            for budget in BUDGETS:
                is_open = OPEN.items() <= config.items()
                n = budget // at(budget).evals if is_open else steps_within(at(budget), budget)
                grid, end = make(PROCESS, n, to_zero=not is_open), exact_open if is_open else exact
                a = rms(runners[budget](x, grid), end)
                b = rms(theirs(x, grid), end) if theirs else float("nan")
                cells.append(f"{a:.2e} / {b:.2e}")
                if np.isfinite(b):
                    worst = max(worst, a / b)
                    if not is_open:
                        theirs_all[f"{name} ({package}), {grid_name}", budget] = b
            rows.append([name, package, grid_name, *cells])
    return (
        table(["solver", "package", "grid", *(f"{b} evals, ours / theirs" for b in BUDGETS)], rows),
        worst,
        theirs_all,
    )


def all_table(x, exact):
    """Errors of every deterministic solver of ours on every grid: rows, and (name, budget) -> error."""
    rows, errors = [], {}
    candidates = {name: make() for name, make in SOLVERS.items() if name not in STOCHASTIC and name not in NOT_COMPARED}
    candidates |= {
        "unipc 2": unipc(2),
        "unipc 4": unipc(4, final_order=None),
        "unipc, full order": unipc(final_order=None),
        "exponential_multistep 4": exponential_multistep(4),
    }
    for name, solver in candidates.items():
        ours = runner(solver)
        for grid_name, make in {**GRIDS, **OURS_TOO}.items():
            cells = []
            for budget in BUDGETS:
                error = rms(ours(x, make(PROCESS, steps_within(solver, budget))), exact)
                errors[f"{name}, {grid_name}", budget] = error
                cells.append(f"{error:.2e}")
            rows.append([name, grid_name, *cells])
    return table(["solver", "grid", *(f"{b} evals" for b in BUDGETS)], rows), errors


def stochastic_table(torch, sampling):
    data, _ = MIXTURE.sample(jax.random.key(9), STOCHASTIC_COUNT)
    other, _ = MIXTURE.sample(jax.random.key(10), STOCHASTIC_COUNT)
    data, x = np.asarray(data), latents(STOCHASTIC_COUNT)
    rows = []
    for name, their_name in STOCHASTIC.items():
        solver = SOLVERS[name]()
        ours, cells = runner(solver), []
        for budget in BUDGETS:
            grid = grids.karras(PROCESS, steps_within(solver, budget))
            a, b = sliced_w2(ours(x, grid), data), float("nan")
            if sampling is not None and their_name:
                b = sliced_w2(k_diffusion_run(torch, sampling, their_name)(x, grid), data)
            cells.append(f"{a:.4f} / {b:.4f}" if np.isfinite(b) else f"{a:.4f} / -")
        rows.append([name, *cells])
    return table(["solver", *(f"{b} evals, ours / theirs" for b in BUDGETS)], rows), sliced_w2(np.asarray(other), data)


def program_table():
    """Memory and compile time of a 1,000-step sampler against a 10-step one, and programs shared by numbers."""
    like, results = jnp.zeros((64, 2), jnp.float32), {}
    traces = []

    def run(key, mixture, process, grid):
        traces.append(1)
        return generate(key, mixture.denoiser(process), process, SOLVERS["dpmpp_2m"](), grid, like)

    arguments = lambda n: (jax.random.key(0), MIXTURE, PROCESS, grids.karras(PROCESS, n))
    jax.jit(run).lower(*arguments(7)).compile()  # warm the compiler
    seconds = {10: [], 1000: []}
    for _ in range(8):  # interleaved, processor time: the machine may be shared
        for n in seconds:
            jax.clear_caches()
            lowered = jax.jit(run).lower(*arguments(n))
            start = time.process_time()
            compiled = lowered.compile()
            seconds[n].append(time.process_time() - start)
            memory = compiled.memory_analysis()
            results[n] = min(seconds[n]), memory.temp_size_in_bytes, memory.argument_size_in_bytes
    f = jax.jit(run)
    traces.clear()
    f(*arguments(10))
    f(jax.random.key(1), ring(8, 0.9, 0.1), gaussian.edm(0.01, 50.0), grids.karras(PROCESS, 10, rho=5.0))
    rows = [[n, f"{cost:.2f}", temp, arg] for n, (cost, temp, arg) in results.items()]
    text = table(["steps", "compile, processor s", "temporary bytes", "argument bytes"], rows)
    ratio = results[1000][0] / results[10][0]
    shared = f"programs traced for two variants that differ in numbers: {len(traces)}."
    return f"{text}\n\nCompile time ratio {ratio:.2f} (goal 1.2); {shared}"


def main():
    torch = optional("torch")
    sampling = optional("k_diffusion.sampling") if torch else None
    diffusers = optional("diffusers") if torch else None
    x = latents(DETERMINISTIC_COUNT)
    exact, exact_open = reference(x)
    same, worst, theirs = same_name_table(x, exact, exact_open, torch, sampling, diffusers)
    every, ours = all_table(x, exact)
    best_rows = []
    for budget in BUDGETS:
        name, error = min(((k[0], v) for k, v in ours.items() if k[1] == budget), key=lambda kv: kv[1])
        row = [budget, name, f"{error:.2e}"]
        if theirs:
            other, other_error = min(((k[0], v) for k, v in theirs.items() if k[1] == budget), key=lambda kv: kv[1])
            row += [other, f"{other_error:.2e}", f"{error / other_error:.2f}"]
        else:
            row += ["-", "-", "-"]
        best_rows.append(row)
    best = table(["evals", "our best", "error", "their best", "error", "ratio"], best_rows)
    noisy, floor = stochastic_table(torch, sampling)
    text = f"""# Solvers

Errors on an exact mixture (see `benchmarks/solvers.py`), {DETERMINISTIC_COUNT} latents, double precision.

## The same name

End-point error, ours / theirs. Largest ratio ours / theirs: {worst:.3f} (goal: at most 1.02).

{same}

On grids of fewer than 15 steps diffusers lowers the order of DPM++ 3M's last but one step; ours is given that option.

## The best

Ours on any grid of the toolkit, the logistic one's center chosen for these data; theirs on their own two grids. The
grid makes most of the difference: solvers of one name agree on one grid, as the table above shows.

{best}

## Every deterministic solver

{every}

## Stochastic solvers

Sliced Wasserstein-2 to {STOCHASTIC_COUNT} draws of the data, Karras grid; two draws of the data: {floor:.4f}.

{noisy}

## Programs

DPM++ 2M, batch 64.

{program_table()}
"""
    print(text)
    out = pathlib.Path(__file__).parent / "results" / "solvers.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text(text)


if __name__ == "__main__":
    main()
