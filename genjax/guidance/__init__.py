"""Guidance: `(Denoiser, Process) -> Denoiser`, stateless; and what of it acts on steps, `Solver -> Solver`."""

from genjax.guidance.adversarial import restarted, wrong_class, wrong_log_prob
from genjax.guidance.clip import clip_x0, dynamic_threshold
from genjax.guidance.compose import (
    by_field,
    chain,
    combine_experts,
    null_cond,
    product,
    product_of_normals,
    product_steps,
)
from genjax.guidance.densities import (
    ENERGIES,
    conditional_density,
    denoiser_of,
    energy_denoiser,
    energy_log_density,
    mixture_density,
    product_density,
)
from genjax.guidance.experts import equal_ranges, expert_bank, stack_experts
from genjax.guidance.features import late_constraint
from genjax.guidance.free import autoguidance, cfg, cfg_pp, cfg_rescale, extrapolate, keep_weak_eps, rescaled
from genjax.guidance.gradient import (
    backward,
    bounded,
    classifier,
    classifier_x0,
    energy,
    likelihood,
    tilted,
    within,
)
from genjax.guidance.minority import minority_score, quantile_labels
from genjax.guidance.plan import GuidancePlan, counted, planned
from genjax.guidance.projected import apg, apg_momentum, cfg_zero, optimized_scale, projected
from genjax.guidance.self_labels import SelfLabels, draw_labels, purity, self_label
from genjax.guidance.steps import mean_shift, nudged, reflect, reflected

GUIDANCE = {
    "cfg": cfg,
    "cfg_rescale": cfg_rescale,
    "cfg_pp": cfg_pp,
    "cfg_zero": cfg_zero,
    "apg": apg,
    "autoguidance": autoguidance,
    "classifier": classifier,
    "classifier_x0": classifier_x0,
    "energy": energy,
    "backward": backward,
    "likelihood": likelihood,
    "late_constraint": late_constraint,
    "by_field": by_field,
    "within": within,
    "clip": clip_x0,
    "dynamic_threshold": dynamic_threshold,
}

STEP_GUIDANCE = {
    # Solver -> Solver; the solver is the first argument
    "mean_shift": mean_shift,
    "nudged": nudged,
    "reflected": reflected,
    "planned": planned,
    "apg_momentum": apg_momentum,
    "product_steps": product_steps,
}

__all__ = [
    "ENERGIES",
    "GUIDANCE",
    "STEP_GUIDANCE",
    "GuidancePlan",
    "SelfLabels",
    "apg",
    "apg_momentum",
    "autoguidance",
    "backward",
    "bounded",
    "by_field",
    "cfg",
    "cfg_pp",
    "cfg_rescale",
    "cfg_zero",
    "chain",
    "classifier",
    "classifier_x0",
    "clip_x0",
    "combine_experts",
    "conditional_density",
    "counted",
    "denoiser_of",
    "draw_labels",
    "dynamic_threshold",
    "energy",
    "energy_denoiser",
    "energy_log_density",
    "equal_ranges",
    "expert_bank",
    "extrapolate",
    "keep_weak_eps",
    "late_constraint",
    "likelihood",
    "mean_shift",
    "minority_score",
    "mixture_density",
    "nudged",
    "null_cond",
    "optimized_scale",
    "planned",
    "product",
    "product_density",
    "product_of_normals",
    "product_steps",
    "projected",
    "purity",
    "quantile_labels",
    "reflect",
    "reflected",
    "rescaled",
    "restarted",
    "self_label",
    "stack_experts",
    "tilted",
    "within",
    "wrong_class",
    "wrong_log_prob",
]
