"""The solvers by name, and the popular samplers: each a solver and a grid."""

from genjax.solvers import ancestral, exponential, grids, langevin, multistep, ode, sde, transforms, uni_pc


def heun_churn(gamma=2**0.5 - 1, low=0.0, high=float("inf"), noise=1.0):
    """EDM's stochastic sampler (2206.00364, algorithm 2): Heun under `transforms.churn`."""
    return transforms.churn(ode.heun(), gamma, low, high, noise)


def reverse_diffusion_corrected(snr=0.16, steps=1):
    """The predictor-corrector sampler of 2011.13456: reverse diffusion and Langevin moves."""
    return langevin.predictor_corrector(sde.reverse_diffusion(), snr, steps)


SOLVERS = {
    "ddpm": ancestral.ddpm,
    "ddim": ancestral.ddim,
    "euler": ode.euler,
    "heun": ode.heun,
    "heun_churn": heun_churn,
    "midpoint": ode.midpoint,
    "ralston": ode.ralston,
    "second_order": ode.second_order,
    "rk3": ode.rk3,
    "rk4": ode.rk4,
    "dpm2": ode.dpm2,
    "euler_ancestral": ancestral.euler_ancestral,
    "dpm2_ancestral": exponential.dpm2_ancestral,
    "dpmpp_1": exponential.dpmpp_1,
    "dpmpp_2s": exponential.dpmpp_2s,
    "dpmpp_3s": exponential.dpmpp_3s,
    "dpmpp_2s_ancestral": exponential.dpmpp_2s_ancestral,
    "dpmpp_2m": multistep.dpmpp_2m,
    "dpmpp_3m": multistep.dpmpp_3m,
    "dpmpp_sde": sde.dpmpp_sde,
    "dpmpp_1_sde": multistep.dpmpp_1_sde,
    "dpmpp_2m_sde": multistep.dpmpp_2m_sde,
    "dpmpp_3m_sde": multistep.dpmpp_3m_sde,
    "dpm_solver_2": exponential.dpm_solver_2,
    "dpm_solver_3": exponential.dpm_solver_3,
    "unipc": uni_pc.unipc,
    "lms": multistep.lms,
    "deis": multistep.deis,
    "exponential_single": exponential.exponential_single,
    "exponential_multistep": multistep.exponential_multistep,
    "euler_maruyama": sde.euler_maruyama,
    "reverse_diffusion": sde.reverse_diffusion,
    "predictor_corrector": reverse_diffusion_corrected,
    "annealed_langevin": langevin.annealed_langevin,
}

SAMPLERS = {
    # popular name: (solver, grid)
    "DDPM": (ancestral.ddpm(), grids.uniform),
    "DDIM": (ancestral.ddim(), grids.uniform),
    "Euler": (ode.euler(), grids.uniform),
    "Euler Karras": (ode.euler(), grids.karras),
    "Euler a": (ancestral.euler_ancestral(), grids.uniform),
    "Euler a Karras": (ancestral.euler_ancestral(), grids.karras),
    "Heun": (ode.heun(), grids.uniform),
    "Heun (EDM)": (ode.heun("sigma"), grids.karras),
    "Heun churn (EDM)": (heun_churn(), grids.karras),
    "LMS": (multistep.lms(), grids.uniform),
    "LMS Karras": (multistep.lms(), grids.karras),
    "DPM2": (ode.dpm2(), grids.uniform),
    "DPM2 Karras": (ode.dpm2(), grids.karras),
    "DPM2 a": (exponential.dpm2_ancestral(), grids.uniform),
    "DPM2 a Karras": (exponential.dpm2_ancestral(), grids.karras),
    "DPM-Solver-2": (exponential.dpm_solver_2(), grids.log_snr),
    "DPM-Solver-3": (exponential.dpm_solver_3(), grids.log_snr),
    "DPM++ 2S a": (exponential.dpmpp_2s_ancestral(), grids.uniform),
    "DPM++ 2S a Karras": (exponential.dpmpp_2s_ancestral(), grids.karras),
    "DPM++ 2M": (multistep.dpmpp_2m(), grids.uniform),
    "DPM++ 2M Karras": (multistep.dpmpp_2m(), grids.karras),
    "DPM++ 3M": (multistep.dpmpp_3m(), grids.log_snr),
    "DPM++ SDE": (sde.dpmpp_sde(), grids.uniform),
    "DPM++ SDE Karras": (sde.dpmpp_sde(), grids.karras),
    "DPM++ 2M SDE": (multistep.dpmpp_2m_sde(), grids.uniform),
    "DPM++ 2M SDE Karras": (multistep.dpmpp_2m_sde(), grids.karras),
    "DPM++ 2M SDE Exponential": (multistep.dpmpp_2m_sde(), grids.exponential),
    "DPM++ 3M SDE": (multistep.dpmpp_3m_sde(), grids.uniform),
    "DPM++ 3M SDE Karras": (multistep.dpmpp_3m_sde(), grids.karras),
    "DPM++ 3M SDE Exponential": (multistep.dpmpp_3m_sde(), grids.exponential),
    "UniPC": (uni_pc.unipc(), grids.log_snr),
    "UniPC Karras": (uni_pc.unipc(), grids.karras),
    "DEIS": (multistep.deis(), grids.log_snr),
    "Reverse SDE": (sde.euler_maruyama(), grids.uniform),
    "Predictor-corrector": (reverse_diffusion_corrected(), grids.uniform),
}
