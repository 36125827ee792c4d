"""What every posterior sampler in the table must keep: shapes, independence of neighbours and of the process's scale,
the plain sampler where the measurement has no weight, agreement with exact measurements, and clear errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.types import Measurement
from genjax.inverse import POSTERIOR_SAMPLERS, Adaptable, Gaussian, Poisson, TwoSensors, on_slices
from genjax.inverse.operators import hdr, low_light, radon, slices, super_resolution
from genjax.oracles.mixture import Mixture
from genjax.processes import gaussian
from genjax.solvers import generate, grids
from genjax.solvers.ancestral import ddim

SHAPE, LATENT, DEPTH = (4, 4, 1), (3,), 3
IMAGES = Mixture(0.6 * jax.random.normal(jax.random.key(0), (3, *SHAPE)), jnp.array([0.2, 0.3, 0.25]), jnp.zeros(3))
LATENTS = Mixture(jax.random.normal(jax.random.key(1), (4, *LATENT)), jnp.full(4, 0.3), jnp.zeros(4))
NOISES = Mixture(0.5 * jax.random.normal(jax.random.key(2), (2, 2, 2, 1)), jnp.full(2, 0.2), jnp.zeros(2))
WEIGHTS = jnp.asarray(np.linalg.qr(np.random.default_rng(3).normal(size=(16, 3)))[0], jnp.float32)
SR = super_resolution(SHAPE, 2)
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is the cost


def decode(z):
    return jnp.tanh(z @ WEIGHTS.T).reshape(-1, *SHAPE)


def encode(x):
    return jnp.arctanh(jnp.clip(x, -0.99, 0.99)).reshape(x.shape[0], -1) @ WEIGHTS


def prompted(process):
    """A latent denoiser conditioned on the logits of its components."""

    def denoiser(x, t, cond=None, key=None):
        logits = cond["embedding"]
        one = lambda x, logits: LATENTS.replace(log_weights=logits).denoiser(process)(x[None], t)
        pred = jax.vmap(one)(x, logits)
        return pred._replace(x0=pred.x0[:, 0], eps=pred.eps[:, 0])

    return denoiser


def adaptable(process):
    """The exact denoiser, with one number to adapt: a brightness of x0."""

    def make(adapters):
        def denoiser(x, t, cond=None, key=None):
            pred = IMAGES.denoiser(process)(x, t)
            return pred._replace(x0=pred.x0 + adapters["shift"])

        return denoiser

    return Adaptable(make, {"shift": jnp.zeros(())})


images = lambda process: IMAGES.denoiser(process)
latents = lambda process: LATENTS.denoiser(process)

# name -> (constructor arguments, operator, process -> denoiser)
HALVES = {"encode": encode, "decode": decode}
SETTINGS = {
    "joint": ({}, SR, images),
    "gdp": ({"scale": 0.1, "rates": 0.5}, low_light(SHAPE), images),
    "diffusion_mbir": ({}, slices(SR, DEPTH), images),
    "latent_dps": (HALVES, SR, latents),
    "resample": ({**HALVES, "every": 2, "lookahead": 2, "inner_steps": 4}, SR, latents),
    "p2l": ({**HALVES, "embedding": jnp.zeros(4), "every": 2}, SR, prompted),
    "deep_prior": ({"slices": 2, "updates": 2, "rate": 1e-2}, slices(SR, DEPTH), adaptable),
    "ddfm": ({}, TwoSensors(SHAPE), images),
    "smc": ({"particles": 3}, SR, images),
    "repaint": ({"times": 2}, SR, images),
    "daps": ({"inner_steps": 4, "ode_steps": 2}, SR, images),
    "diffpir": ({"zeta": 0.5}, hdr(SHAPE), images),
}


def setting(name, process, **extra):
    """(sampler, denoiser, operator)."""
    arguments, operator, prior = SETTINGS.get(name, ({}, SR, images))
    if name == "joint":
        arguments = {"noise_prior": NOISES.denoiser(process)}
    return POSTERIOR_SAMPLERS[name](steps=6, grid="cosine", **arguments, **extra), prior(process), operator


def runner(name, scale, **extra):
    """y -> restored, compiled; the same key for every call."""
    process = gaussian.log_linear(8.0, -8.0, scale=scale)
    restore, denoiser, operator = setting(name, process, **extra)

    def f(y):
        like = jnp.zeros((y.shape[0], *operator.in_shape), y.dtype)
        return restore(jax.random.key(5), denoiser, process, Measurement(operator, Gaussian(0.2), y), like)

    return compiled(f), operator


@pytest.mark.parametrize("name", sorted(POSTERIOR_SAMPLERS))
def test_neighbours_and_scales(name):
    """Finite, of the right shape; a sample's result is its own, bit for bit, and the same under vp and flow.

    The two processes have the same noise levels, so x_t differs by a factor alone: any coefficient that is right
    in vp coordinates only gives another sample under flow.
    """
    f, operator = runner(name, "vp")
    y = 0.4 * jax.random.normal(jax.random.key(7), (3, *operator.out_shape))
    other = y.at[1:].set(-y[1:] + 0.1)
    x = f(y)
    assert x.shape == (3, *operator.in_shape) and x.dtype == y.dtype and np.isfinite(x).all()
    np.testing.assert_array_equal(x[0], f(other)[0])
    assert np.abs(x[1] - f(other)[1]).max() > 1e-6 or name == "sdedit"
    g, _ = runner(name, "flow")
    np.testing.assert_allclose(g(y), x, atol=3e-3, rtol=3e-3)


IDENTITIES = {
    "dps": {"scale": 0.0, "eta": 0.0},
    "pigdm": {"scale": 0.0, "eta": 0.0},
    "ddnm": {"weight": 0.0, "eta": 0.0},
    "gdp": {"scale": 0.0, "eta": 0.0, "clip": None},
    "diffusion_mbir": {"weight": 0.0, "rho": 0.0, "cg_steps": 0, "eta": 0.0, "grid": "cosine"},
    "deep_prior": {"updates": 0, "cg_steps": 0, "eta": 0.0},
    "p2l": {"scale": 0.0, "tune_steps": 0, "every": None, "eta": 0.0},
}


@pytest.mark.parametrize("name", sorted(IDENTITIES))
def test_without_weight_it_is_the_plain_sampler(name):
    """The measurement's weight at zero leaves deterministic DDIM from the same start."""
    process = gaussian.log_linear(8.0, -8.0)
    fixed = {k: v for k, v in SETTINGS.get(name, ({},))[0].items() if k in ("encode", "decode", "embedding")}
    restore = POSTERIOR_SAMPLERS[name](steps=6, **{**fixed, **IDENTITIES[name]})
    _, operator, prior = SETTINGS.get(name, ({}, SR, images))
    denoiser = prior(process)
    y = jnp.ones((2, *operator.out_shape))
    plain, shape, finish = denoiser, operator.in_shape, lambda x: x
    if name in ("diffusion_mbir", "deep_prior"):
        plain = on_slices(denoiser)
    if name == "p2l":
        plain = lambda x, t, cond=None, key=None: denoiser(x, t, {"embedding": jnp.zeros((2, 4))})
        shape, finish = LATENT, decode

    @compiled
    def both(key):
        like = jnp.zeros((2, *operator.in_shape))
        x = restore(key, denoiser, process, Measurement(operator, Gaussian(0.2), y), like)
        ts = grids.cosine(process, 6)
        return x, finish(generate(key, plain, process, ddim(0.0), ts, jnp.zeros((2, *shape))))

    x, expected = both(jax.random.key(0))
    np.testing.assert_allclose(x, expected, atol=2e-5)


EXACT = {
    "projection": 1e-5,
    "repaint": 1e-5,
    "mcg": 1e-5,
    "ddnm": 1e-5,
    "ddnm_plus": 1e-5,
    "ddrm": 1e-5,
    "diffpir": 5e-3,  # its floor of the noise
    "pigdm": 1e-3,
}


@pytest.mark.parametrize("name", sorted(EXACT))
def test_exact_measurements_are_met(name):
    """Without noise A x = y at the end, and the rest is not just the pseudo-inverse."""
    process = gaussian.vp()
    restore = POSTERIOR_SAMPLERS[name](steps=20)
    truth = IMAGES.sample(jax.random.key(3), 4)[0]
    m = Measurement(SR, Gaussian(0.0), SR.forward(truth))
    x = compiled(lambda key: restore(key, images(process), process, m, truth))(jax.random.key(1))
    assert np.abs(SR.forward(x) - m.y).max() < EXACT[name]
    assert np.abs(x - SR.pinv(m.y)).max() > 0.1


def test_dps_does_not_meet_exact_measurements():
    """The control of the test above: DPS leaves a residual."""
    process, truth = gaussian.vp(), IMAGES.sample(jax.random.key(3), 4)[0]
    m = Measurement(SR, Gaussian(0.0), SR.forward(truth))
    restore = POSTERIOR_SAMPLERS["dps"](scale=0.3, steps=20)
    x = compiled(lambda key: restore(key, images(process), process, m, truth))(jax.random.key(1))
    assert np.abs(SR.forward(x) - m.y).max() > 0.02


def call(restore, operator=SR, noise=None, y=None, like=None, denoiser=None):
    y = jnp.zeros((2, *operator.out_shape)) if y is None else y
    like = jnp.zeros((2, *operator.in_shape)) if like is None else like
    process = gaussian.vp()
    denoiser = images(process) if denoiser is None else denoiser
    return restore(jax.random.key(0), denoiser, process, Measurement(operator, noise or Gaussian(0.1), y), like)


def test_errors():
    """Each wrong combination is told before anything is compiled, with the field and what was expected."""
    make = POSTERIOR_SAMPLERS
    cases = [
        (lambda: call(make["ddrm"](), operator=hdr(SHAPE)), "operator: ddrm needs svd, which Clip does not have"),
        (lambda: call(make["mcg"](), operator=hdr(SHAPE)), "operator: mcg needs pinv"),
        (lambda: call(make["pigdm"](), operator=hdr(SHAPE)), "operator: pigdm needs adjoint and prox"),
        (lambda: call(make["pigdm"](), noise=Poisson(50.0)), "noise: pigdm needs Gaussian noise, got Poisson"),
        (lambda: call(make["smc"](), noise=Gaussian(0.0)), "std: smc divides by the noise level"),
        (lambda: call(make["daps"](), noise=Gaussian(0.0)), "std: daps divides by the noise level"),
        (lambda: call(make["dps"](), y=jnp.zeros((2, 3, 3, 1))), "y: expected shape"),
        (lambda: call(make["dps"](), y=jnp.full((2, 2, 2, 1), jnp.nan)), "y: expected finite"),
        (lambda: call(make["dps"](), like=jnp.zeros((3, *SHAPE))), "y: expected one measurement a sample"),
        (lambda: call(make["gdp"](rates=1.0)), "operator: gdp needs phi_init"),
        (lambda: make["dps"](scale=-1.0), "scale: expected >= 0, got -1.0"),
        (lambda: make["tmpd"](scale=jnp.array([1.0, -1.0])), "scale: expected >= 0, got"),
        (lambda: make["red_diff"](strength=-0.1), "strength: expected >= 0, got -0.1"),
        (lambda: call(make["deep_prior"]()), "denoiser: deep_prior expected an Adaptable"),
        (lambda: make["resample"](), "encode, decode: resample expected the two halves of an autoencoder"),
        (lambda: make["p2l"](encode=encode, decode=decode), "embedding: p2l expected the null condition"),
        (lambda: make["joint"](), "noise_prior: joint expected a Denoiser"),
        (lambda: make["joint"](noise_prior=images, method="x"), "method: expected one of"),
        (lambda: make["dps"](steps=1), "steps: expected >= 2, got 1"),
        (lambda: make["dps"](grid="cosin"), "grid: unknown name 'cosin'"),
        (lambda: make["pigdm"](covariance="full"), "covariance: expected one of .* got 'full'"),
        (lambda: make["daps"](inner="hmc"), "inner: expected one of"),
        (lambda: make["sdedit"](strength=0.0), "strength: expected in"),
        (lambda: make["gdp"](form="mu"), "form: expected one of"),
        (lambda: make["ddfm"](form="mu"), "form: expected one of"),
        (lambda: make["red_diff"](order="up"), "order: expected one of"),
        (lambda: make["smc"](particles=0), "particles: expected >= 1"),
        (lambda: make["repaint"](times=0), "times: expected >= 1"),
    ]
    for f, message in cases:
        with pytest.raises(ValueError, match=message):
            f()


COSTS = {
    "dps": {},
    "repaint": {"times": 3},
    "daps": {"ode_steps": 3, "inner": "prox"},
    "deep_prior": {"updates": 2, "low": 0.0, "high": 1e9},
}


@pytest.mark.parametrize("name", sorted(COSTS))
def test_costs_are_what_is_called(name):
    """`nfe` against a denoiser that reports each call from inside the compiled loop."""
    process, calls = gaussian.vp(), []
    _, operator, prior = SETTINGS.get(name, ({}, SR, images))

    def counting(denoiser):
        def counted(x, t, cond=None, key=None):
            jax.debug.callback(lambda t: calls.append(float(t)), t)
            return denoiser(x, t)

        return counted

    restore, denoiser = POSTERIOR_SAMPLERS[name](steps=3, **COSTS[name]), prior(process)
    if name == "deep_prior":
        denoiser = Adaptable(lambda adapters: counting(adaptable(process).make(adapters)), denoiser.adapters)
    else:
        denoiser = counting(denoiser)
    m = Measurement(operator, Gaussian(0.1), jnp.zeros((1, *operator.out_shape)))
    compiled(lambda key: restore(key, denoiser, process, m, jnp.zeros((1, *operator.in_shape))))(jax.random.key(0))
    jax.effects_barrier()
    assert len(calls) == restore.nfe


def test_under_vmap():
    """Several keys at once are several runs."""
    process, restore = gaussian.vp(), POSTERIOR_SAMPLERS["dps"](steps=4)
    m = Measurement(SR, Gaussian(0.1), jnp.full((2, *SR.out_shape), 0.3))
    f = lambda key: restore(key, images(process), process, m, jnp.zeros((2, *SHAPE)))
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_allclose(compiled(jax.vmap(f))(keys)[1], compiled(f)(keys[1]), atol=1e-5)


def test_tomography():
    """Masks, projections and matrices pass through the same samplers; here three views of an image."""
    process, restore, operator = gaussian.vp(), POSTERIOR_SAMPLERS["diffpir"](steps=5), radon(SHAPE, views=3)
    truth = IMAGES.sample(jax.random.key(3), 2)[0]
    m = Measurement(operator, Gaussian(0.05), operator.forward(truth))
    x = compiled(lambda key: restore(key, images(process), process, m, truth))(jax.random.key(0))
    assert np.abs(operator.forward(x) - m.y).mean() < 0.3 * np.abs(m.y).mean()
