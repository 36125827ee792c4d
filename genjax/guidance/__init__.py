"""Guidance: `(Denoiser, Process) -> Denoiser`, stateless."""

from genjax.guidance.clip import clip_x0, dynamic_threshold
from genjax.guidance.compose import chain, null_cond
from genjax.guidance.free import autoguidance, cfg, cfg_pp, cfg_rescale, extrapolate, keep_weak_eps, rescaled
from genjax.guidance.gradient import classifier

GUIDANCE = {
    "cfg": cfg,
    "cfg_rescale": cfg_rescale,
    "cfg_pp": cfg_pp,
    "autoguidance": autoguidance,
    "classifier": classifier,
    "clip": clip_x0,
    "dynamic_threshold": dynamic_threshold,
}

__all__ = [
    "GUIDANCE",
    "autoguidance",
    "cfg",
    "cfg_pp",
    "cfg_rescale",
    "chain",
    "classifier",
    "clip_x0",
    "dynamic_threshold",
    "extrapolate",
    "keep_weak_eps",
    "null_cond",
    "rescaled",
]
