"""Solvers: one step (t -> s), and the loop that scans it over a grid of times."""

from genjax.solvers.ancestral import ddim, ddpm, euler_ancestral
from genjax.solvers.base import from_proposal, from_step, from_update, generate, nfe, sample
from genjax.solvers.candidates import best_of_candidates, best_of_runs, posterior_mean_value
from genjax.solvers.exponential import (
    dpm2_ancestral,
    dpm_solver_2,
    dpm_solver_3,
    dpmpp_1,
    dpmpp_2s,
    dpmpp_2s_ancestral,
    dpmpp_3s,
    exponential_single,
)
from genjax.solvers.grids import GRIDS
from genjax.solvers.langevin import annealed_langevin, mala, predictor_corrector, ula
from genjax.solvers.likelihood import log_likelihood
from genjax.solvers.mcmc import MOVES, acceptance, hmc, uhmc, with_moves
from genjax.solvers.multistep import (
    deis,
    dpmpp_1_sde,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_3m,
    dpmpp_3m_sde,
    exponential_multistep,
    lms,
)
from genjax.solvers.ode import dpm2, euler, heun, midpoint, ralston, rk3, rk4, runge_kutta, second_order
from genjax.solvers.sde import dpmpp_sde, euler_maruyama, reverse_diffusion
from genjax.solvers.table import SAMPLERS, SOLVERS
from genjax.solvers.transforms import after_step, churn, map_law, project, resample
from genjax.solvers.uni_pc import unipc

__all__ = [
    "GRIDS",
    "MOVES",
    "SAMPLERS",
    "SOLVERS",
    "acceptance",
    "after_step",
    "annealed_langevin",
    "best_of_candidates",
    "best_of_runs",
    "churn",
    "ddim",
    "ddpm",
    "deis",
    "dpm2",
    "dpm2_ancestral",
    "dpm_solver_2",
    "dpm_solver_3",
    "dpmpp_1",
    "dpmpp_1_sde",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_2s_ancestral",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "dpmpp_3s",
    "dpmpp_sde",
    "euler",
    "euler_ancestral",
    "euler_maruyama",
    "exponential_multistep",
    "exponential_single",
    "from_proposal",
    "from_step",
    "from_update",
    "generate",
    "heun",
    "hmc",
    "lms",
    "log_likelihood",
    "mala",
    "map_law",
    "midpoint",
    "nfe",
    "posterior_mean_value",
    "predictor_corrector",
    "project",
    "ralston",
    "resample",
    "reverse_diffusion",
    "rk3",
    "rk4",
    "runge_kutta",
    "sample",
    "second_order",
    "uhmc",
    "ula",
    "unipc",
    "with_moves",
]
