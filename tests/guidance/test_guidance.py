"""Guidance on an exact mixture, where the conditional and unconditional denoisers and their scores are closed forms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.keys import draw, sample_keys
from genjax.core.prediction import clip_x0
from genjax.core.types import Prediction
from genjax.guidance import (
    GUIDANCE,
    autoguidance,
    cfg,
    cfg_pp,
    cfg_rescale,
    chain,
    classifier,
    dynamic_threshold,
    null_cond,
    rescaled,
)
from genjax.oracles.mixture import Mixture, ring
from genjax.processes import gaussian
from genjax.solvers import ddim, grids, sample

MIXTURE = ring(4, 1.0, 0.3)
COND = {"label": jnp.array([0, 1, 2, 3, 0, 2])}
X = jax.random.normal(jax.random.key(3), (6, 2))


@pytest.fixture(params=["vp", "edm", "flow"])
def process(request):
    return getattr(gaussian, request.param)()


def close(a, b, atol=2e-6):
    np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5)


def fits(pred, x, process, t, atol=2e-5):
    """The pair satisfies x = alpha x0 + sigma eps."""
    close(process.perturb(pred.x0, pred.eps, t), x, atol)


def test_null_cond_by_dtype():
    """Wrong nulls (label 0 for "no class") would guide towards class 0."""
    cond = {"label": jnp.array([3, 4]), "text": jnp.ones((2, 5)), "nested": {"mask": jnp.ones((2, 3), bool)}}
    null = null_cond(cond)
    assert null["label"].tolist() == [-1, -1] and null["label"].dtype == cond["label"].dtype
    assert not null["text"].any() and null["text"].dtype == jnp.float32
    assert not null["nested"]["mask"].any() and null["nested"]["mask"].dtype == bool
    assert null_cond(None) is None


@pytest.mark.parametrize("one_call", [False, True])
def test_cfg_ends(process, one_call):
    """Scale 1 is the conditional model to the last bit, 0 the unconditional; a per-sample scale does both at once."""
    denoiser, t = MIXTURE.denoiser(process), 0.4
    at = lambda scale: cfg(scale, one_call=one_call)(denoiser, process)(X, t, COND)
    conditional, unconditional = denoiser(X, t, COND), denoiser(X, t)
    if one_call:
        close(at(1.0).x0, conditional.x0)
    else:
        np.testing.assert_array_equal(at(1.0).x0, conditional.x0)
        np.testing.assert_array_equal(at(1.0).eps, conditional.eps)
    close(at(0.0).x0, unconditional.x0)
    mixed = at(jnp.array([1.0, 0, 1, 0, 1, 0]))
    close(mixed.x0[::2], conditional.x0[::2])
    close(mixed.eps[1::2], unconditional.eps[1::2])
    close(at(3.0).x0, unconditional.x0 + 3 * (conditional.x0 - unconditional.x0), 1e-5)
    fits(at(3.0), X, process, t)


def test_cfg_score_is_the_tilted_one(process):
    """The guided score is grad [log p(x) + scale (log p(x|y) - log p(x))], by autodiff of the exact densities."""
    t, scale = 0.5, 2.5
    alpha, sigma = process.alpha(t), process.sigma(t)
    pred = cfg(scale)(MIXTURE.denoiser(process), process)(X, t, COND)
    log_p = lambda x, cond=None: MIXTURE.log_prob(x, alpha, sigma, cond)
    tilted = jax.grad(lambda x: jnp.sum(log_p(x) + scale * (log_p(x, COND) - log_p(x))))(X)
    close(process.score(X, pred, t), tilted, 1e-4)


def test_cfg_without_condition_is_the_denoiser(process):
    denoiser = MIXTURE.denoiser(process)
    np.testing.assert_array_equal(cfg(5.0)(denoiser, process)(X, 0.3).x0, denoiser(X, 0.3).x0)


@pytest.mark.parametrize("batched", [False, True])
def test_interval_in_noise_levels(batched):
    """Guided inside [low, high] of sigma / alpha only, for scalar and per-sample times alike."""
    process = gaussian.vp()
    denoiser = MIXTURE.denoiser(process)
    guided, always = cfg(4.0, (0.2, 2.0))(denoiser, process), cfg(4.0)(denoiser, process)
    for r in (0.1, 0.5, 5.0):
        t = process.time(-2 * jnp.log(r))
        t = jnp.full(6, t) if batched else t
        expected = (always if 0.2 <= r <= 2.0 else denoiser)(X, t, COND)
        close(guided(X, t, COND).x0, expected.x0)
        close(guided(X, t, COND).eps, expected.eps)


def test_interval_skips_the_second_evaluation():
    """Outside the interval only one evaluation runs (a `where` instead of a branch would run both)."""
    process, rows = gaussian.vp(), []
    inner = MIXTURE.denoiser(process)

    def counting(x, t, cond=None, key=None):
        jax.debug.callback(lambda: rows.append(x.shape[0]))
        return inner(x, t, cond, key)

    for one_call in (True, False):
        run = jax.jit(
            lambda t, one_call=one_call: cfg(4.0, (0.2, 2.0), one_call=one_call)(counting, process)(X, t, COND).x0
        )
        counts = []
        for r in (0.1, 0.5):
            rows.clear()
            run(process.time(-2 * jnp.log(r))).block_until_ready()
            jax.effects_barrier()
            counts.append(sum(rows))
        assert counts == [6, 12]


def test_keys_reach_both_halves_alike():
    """A denoiser that draws must draw the same for both predictions of a sample, in a call of 2B or in two."""
    process = gaussian.edm()

    def noisy(x, t, cond=None, key=None):
        z = draw(jax.random.normal, key, x.shape)
        shift = cond["label"][:, None].astype(x.dtype)
        return Prediction(x0=z + shift, eps=(x - z - shift) / process.sigma(0.5))

    keys = sample_keys(jax.random.key(0), 6)
    two = cfg(2.0, one_call=False)(noisy, process)(X, 0.5, COND, keys)
    one = cfg(2.0)(noisy, process)(X, 0.5, COND, keys)
    close(one.x0, two.x0)
    z = draw(jax.random.normal, keys, X.shape)
    close(one.x0 - z, jnp.broadcast_to(2.0 * COND["label"][:, None] + 1.0, X.shape), 1e-5)  # y + (y + 1)


def test_per_sample_result_does_not_depend_on_the_batch(process):
    guided = cfg(3.0, one_call=True)(MIXTURE.denoiser(process), process)
    small = guided(X[:2], 0.4, {"label": COND["label"][:2]})
    close(small.x0, guided(X, 0.4, COND).x0[:2])


def test_chain_order():
    """chain(a, b) applies a first: clipping after guidance is not guidance after clipping."""
    process = gaussian.vp()
    denoiser = MIXTURE.denoiser(process)
    clip, guide = clip_x0(-0.5, 0.5), cfg(6.0)
    out = chain(guide, clip)(denoiser, process)(X, 0.4, COND)
    close(out.x0, clip(guide(denoiser, process), process)(X, 0.4, COND).x0)
    assert jnp.abs(out.x0).max() <= 0.5
    assert jnp.abs(chain(clip, guide)(denoiser, process)(X, 0.4, COND).x0).max() > 0.5


def test_classifier_equals_cfg_on_exact_densities(process):
    """With log p(y|x_t) exact, classifier guidance of the unconditional model at 1 is the conditional model."""
    t = 0.5
    alpha, sigma = process.alpha(t), process.sigma(t)

    def log_posterior(x, t, cond):
        return MIXTURE.log_prob(x, alpha, sigma, cond) - MIXTURE.log_prob(x, alpha, sigma)

    unconditional = lambda x, t, cond=None, key=None: MIXTURE.denoiser(process)(x, t, None, key)
    pred = classifier(log_posterior)(unconditional, process)(X, t, COND)
    exact = MIXTURE.denoiser(process)(X, t, COND)
    close(pred.x0, exact.x0, 1e-4)
    close(pred.eps, exact.eps, 1e-4)


def test_autoguidance(process):
    """strong + (w - 1)(strong - weak); w = 1 leaves the model alone."""
    strong = MIXTURE.denoiser(process)
    weak = Mixture(MIXTURE.means, MIXTURE.stds * 2, MIXTURE.log_weights).denoiser(process)
    t = 0.4
    np.testing.assert_array_equal(autoguidance(weak, 1.0)(strong, process)(X, t).x0, strong(X, t).x0)
    pred = autoguidance(weak, 2.0)(strong, process)(X, t)
    close(pred.x0, 2 * strong(X, t).x0 - weak(X, t).x0, 1e-5)
    fits(pred, X, process, t)


def test_rescale_restores_the_spread():
    """phi = 1 gives x0 the conditional's standard deviation per sample, phi = 0 changes nothing; eps refitted."""
    process = gaussian.vp()
    x0 = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))

    def denoiser(x, t, cond=None, key=None):
        base = jnp.tile(x0, (x.shape[0] // 3, 1, 1, 1))
        value = jnp.where((cond["label"] < 0)[:, None, None, None], 0.2 * base, base)
        return Prediction(value, (x - process.alpha(t) * value) / process.sigma(t))

    x, cond, t = jax.random.normal(jax.random.key(2), x0.shape), {"label": jnp.arange(3)}, 0.5
    full = cfg_rescale(7.0, 1.0)(denoiser, process)(x, t, cond)
    close(jnp.std(full.x0, axis=(1, 2, 3)), jnp.std(x0, axis=(1, 2, 3)), 1e-5)
    fits(full, x, process, t)
    plain = cfg(7.0)(denoiser, process)(x, t, cond)
    assert jnp.all(jnp.std(plain.x0, axis=(1, 2, 3)) > 3 * jnp.std(x0, axis=(1, 2, 3)))
    close(cfg(7.0, combine=rescaled(0.0))(denoiser, process)(x, t, cond).x0, plain.x0, 1e-5)


def test_cfg_pp_keeps_the_unconditional_noise(process):
    denoiser, t = MIXTURE.denoiser(process), 0.4
    pred = cfg_pp(0.6)(denoiser, process)(X, t, COND)
    np.testing.assert_array_equal(pred.eps, denoiser(X, t).eps)
    close(pred.x0, 0.4 * denoiser(X, t).x0 + 0.6 * denoiser(X, t, COND).x0)


def test_dynamic_threshold():
    """In range: untouched. Out of range: the quantile is mapped to the limit, sample by sample."""
    process, t = gaussian.vp(), 0.5
    x0 = jnp.stack([jnp.linspace(-0.5, 0.5, 101), jnp.linspace(-4.0, 4.0, 101)])
    denoiser = lambda x, t, cond=None, key=None: Prediction(x0, jnp.zeros_like(x0))
    x = jax.random.normal(jax.random.key(0), x0.shape)
    out = dynamic_threshold(0.9)(denoiser, process)(x, t)
    close(out.x0[0], x0[0])
    q = jnp.quantile(jnp.abs(x0[1]), 0.9)
    close(out.x0[1], jnp.clip(x0[1], -q, q) / q)
    fits(out, x, process, t)


class Near(NamedTuple):
    """A measurement of x0 itself."""

    y: jax.Array

    def log_prob(self, x0):
        return -jnp.sum((x0 - self.y) ** 2, axis=-1)


@pytest.mark.parametrize("name", sorted(GUIDANCE))
def test_every_guidance_under_a_jitted_sampler(name):
    """Finite, dtype and shape kept, through a solver that ends at 0."""
    process = gaussian.vp()
    arguments = {
        "cfg": (3.0, (0.05, 20.0)),
        "cfg_rescale": (3.0,),
        "cfg_pp": (0.8,),
        "autoguidance": (MIXTURE.denoiser(process), 2.0),
        "classifier": (lambda x, t, cond: -jnp.sum((x - 1.0) ** 2, axis=-1), 0.5),
        "clip": (-1.0, 1.0),
        "dynamic_threshold": (0.9,),
        "cfg_zero": (3.0, 0.9),
        "apg": (3.0, 0.0, 1.0),
        "classifier_x0": (lambda x0, cond: -jnp.sum((x0 - 1.0) ** 2, axis=-1), 0.5),
        "energy": (lambda x0, cond: jnp.sum(x0**2, axis=-1), 0.5, False, 2.0),
        "backward": (lambda x0, cond: jnp.sum(x0**2, axis=-1), 2, 0.1),
        "likelihood": (Near(X), 0.5),
        "late_constraint": (lambda features, t: features, X, 0.5),
        "by_field": ({"label": 2.0},),
        "within": (cfg(3.0), 0.05, 20.0),
    }[name]
    inner = MIXTURE.denoiser(process)
    exact = lambda x, t, cond=None, key=None: (p := inner(x, t, cond))._replace(features=p.x0)
    denoiser = GUIDANCE[name](*arguments)(exact, process)
    grid = grids.log_snr(process, 6)
    out = jax.jit(lambda x: sample(None, denoiser, process, ddim(), grid, x, COND))(X)
    assert out.shape == X.shape and out.dtype == X.dtype
    assert jnp.isfinite(out).all()


def test_stronger_guidance_moves_samples_to_their_class():
    """Sign errors show: the share of samples nearest their class's mean grows with the scale."""
    process = gaussian.vp()
    mixture = ring(4, 1.0, 0.6)  # overlapping classes
    n = 400
    cond = {"label": jnp.arange(n) % 4}
    x = jax.random.normal(jax.random.key(0), (n, 2))

    def accuracy(scale):
        denoiser = cfg(scale)(mixture.denoiser(process), process)
        out = sample(None, denoiser, process, ddim(), grids.log_snr(process, 12), x, cond)
        nearest = jnp.argmin(jnp.sum((out[:, None] - mixture.means[None]) ** 2, axis=-1), axis=-1)
        return jnp.mean(nearest == cond["label"])

    low, one, high = jax.jit(jax.vmap(accuracy))(jnp.array([0.0, 1.0, 3.0]))
    assert low < 0.4 < 0.6 < one < 0.95 < high


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"interval: expected \(low, high\)"):
        cfg(1.0, (0.1,))
    with pytest.raises(ValueError, match="quantile: expected"):
        dynamic_threshold(1.5)
