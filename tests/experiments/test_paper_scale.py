"""Every published setting can be traced: init and step by shape, nothing computed, no data set needed."""

import jax
import jax.numpy as jnp
import pytest

from genjax import build
from genjax.cli import papers
from genjax.cli.runner import Runner
from genjax.data import DataSpec

EXPERIMENTS = papers.find_experiments()
DATA = {
    # TFDS name: what its DataSpec says
    "cifar10": DataSpec((32, 32, 3), 10, levels=256, fields=("x", "label")),
    "imagenet_resized/64x64": DataSpec((64, 64, 3), 1000, levels=256, fields=("x", "label")),
    "celeb_a_hq/256": DataSpec((256, 256, 3), 0, levels=256),
    "mnist": DataSpec((32, 32, 1), 10, levels=256, fields=("x", "label")),
    "celeb_a": DataSpec((64, 64, 3), 0, levels=256, fields=("x", "index")),
    "oxford_flowers102": DataSpec((1024, 1024, 3), 102, levels=256, fields=("x", "label")),
    "lsun/bedroom": DataSpec((64, 64, 3), 0, levels=256),
    "imagenet512_latents": DataSpec((64, 64, 4), 1000, range=None, fields=("x", "label")),
    "realestate10k/128": DataSpec((128, 128, 3), 0, levels=256),
    "ellipses/256": DataSpec((256, 256, 1)),
    "aapm_ct/256": DataSpec((256, 256, 1)),
    "celeb_a_hq_latents": DataSpec((64, 64, 3), 0, range=None),
}
# number of parameters in millions where the paper gives one, and how near; the U-Net here resamples in residual
# blocks where DDPM and iDDPM have single convolutions
PARAMETERS = {
    "ddpm": (35.7, 0.12),
    "edm": (55.7, 0.02),
    "edm2": (280, 0.02),
    "improved_ddpm": (120, 0.12),
    "adm_classifier_guidance": (296, 0.01),
}
METHODS = [slug for slug, e in EXPERIMENTS.items() if e.paper["kind"] == "method"]


def trace(config):
    """Shapes of the State, before and after a step, and of the metrics."""
    spec = DATA[config.data.dataset]
    algorithm, plan = build.algorithm(config, spec), build.plan(config)
    batch = {"x": jax.ShapeDtypeStruct((plan.batch_size, *spec.shape), jnp.float32)}
    for name in {"label", "index"} & set(spec.fields):
        batch[name] = jax.ShapeDtypeStruct((plan.batch_size,), jnp.int32)
    state = jax.eval_shape(lambda batch: algorithm.init(jax.random.key(0), batch), batch)
    return state, *jax.eval_shape(lambda s, b: algorithm.step(jax.random.key(0), s, b), state, batch)


@pytest.fixture(scope="module")
def traced():
    """config -> `trace`, once for equal configs: methods of sampling share their published priors."""
    found = {}

    def of(config):
        name = repr(config.to_dict())
        if name not in found:
            found[name] = trace(config)
        return found[name]

    return of


@pytest.mark.parametrize("slug", METHODS)
def test_paper_scale_traces(slug, traced):
    """Catches a config that a pod would reject after hours of queueing, and networks of another size than published."""
    state, after, metrics = traced(Runner(EXPERIMENTS).module(slug).get_config("paper"))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
    assert all(m.shape == () for m in metrics.values())
    if slug in PARAMETERS:
        millions, tolerance = PARAMETERS[slug]
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params["denoiser"])) / 1e6
        assert count == pytest.approx(millions, rel=tolerance)
