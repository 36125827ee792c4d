"""Each experiment runs, two kinds of its variants at the smoke scale (`genjax reproduce --all --smoke` runs all)."""

import math

import pytest

from genjax.cli import papers
from genjax.cli.runner import Runner

EXPERIMENTS = papers.find_experiments()
PARTS = {
    # slug: variants, each of another kind
    "gan_noise_dimension": ("zipf", "gan_2"),
    "ntk_gan": ("width", "ntk"),
    "pac_bayes_wgan": ("exact_500", "ring"),
    "statistical_capacity": ("bounds", "vae"),
    "adm_classifier_guidance": ("exact", "digits", "adagn"),
    "multimodal_priors": ("exact", "coloured"),
    "reduce_reuse_recycle": ("exact_hmc", "exact_ula", "learned"),
    "cfg_aligned_loss": ("plane_aligned", "digits_random"),
    "cheap_guidance": ("cheap",),
    "svdd": ("tokens", "digits"),
    "advdiff": ("digits",),
    "minority_guidance": ("plane", "digits", "mixture"),
    "w2sd_reflection": ("line", "digits"),
    "self_guided_diffusion": ("self",),
    "lacon": ("digits",),
    "ppap": ("digits",),
    "vdmpp": ("theorem", "digits"),
    "unified_perspective": ("identities", "elbo_score"),
    "debias_diffusion": ("lsq_debias",),
    "ddpm": ("bound", "mu", "elbo_importance"),
    "edm": ("solvers", "scaling"),
    "improved_ddpm": ("hybrid_100",),
    "noise_unconditional": ("target_d2", "amplification"),
    "edm2": ("posthoc", "mp_0.02"),
    "min_snr": ("min_snr",),
    "wgan": ("lines_wgan", "curve_gan"),
    "r3gan": ("dirac_r1r2", "stacked_ns_r1r2"),
    "progressive_gan": ("straight", "fade"),
    "projected_gan": ("projected", "pixels_1"),
    "san": ("head_san", "digits_san"),
    "ptgan": ("ptgan", "one_wgan_gp_five"),
    "fastgan": ("reconstruct",),
    "improved_techniques": ("digits_matching", "ring_minibatch"),
    "glo": ("glo", "pca"),
    "am_gan": ("am_predefined", "sets"),
    "equal_gans": ("wgan_gp", "triangles"),
    "regularization_study": ("ls_sn", "ring_r1r2"),
    "studiogan": ("hinge_sn", "cond_d2d", "few_diffaug"),
    "ttur": ("disturbances", "saddle", "ttur_1e-04"),
    "mmd_gan": ("bias", "gradient", "mmd_1e-03"),
    "dps": ("gaussian", "digits"),
    "mcg": ("exact", "digits", "ct"),
    "diffpir": ("exact", "blur"),
    "red_diff": ("gaussian", "modes", "inpaint"),
    "gdp": ("exact", "sr", "blind"),
    "structured_noise": ("gaussian", "digits"),
    "ddfm": ("fusion",),
    "forward_models": ("dfm", "oracle"),
    "diffusion_mbir": ("volumes",),
    "resample": ("tasks",),
    "p2l": ("average", "balanced"),
    "ddip": ("volumes",),
}


def test_every_experiment_is_here():
    assert set(PARTS) == set(EXPERIMENTS), "give each experiment a line in PARTS: variants that differ in kind"


@pytest.fixture(scope="module")
def runner():
    return Runner(EXPERIMENTS, cache=None, scale="smoke")


@pytest.mark.parametrize("slug, variant", [(s, v) for s, variants in PARTS.items() for v in variants])
def test_smoke(runner, slug, variant):
    """Catches an experiment that a change in any room has broken."""
    measurement, _ = runner.measure(slug, variant, 0, runner.priors(slug))
    assert measurement.metrics
    bad = [name for name, value in measurement.metrics.items() if not math.isfinite(value)]
    assert not bad, bad
