"""Gradient guidance, projected guidance and guidance by features against closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.prediction import predict
from genjax.core.types import Measurement, Prediction
from genjax.guidance import (
    apg,
    apg_momentum,
    backward,
    bounded,
    cfg,
    cfg_zero,
    chain,
    classifier,
    classifier_x0,
    energy,
    late_constraint,
    likelihood,
    null_cond,
    within,
)
from genjax.inverse import Gaussian, measure
from genjax.inverse.operators import OPERATORS
from genjax.oracles.mixture import Mixture, ring
from genjax.processes import gaussian
from genjax.solvers import ddim, ddpm, dpmpp_2m, euler, grids, heun, sample

MIXTURE = ring(4, 1.0, 0.3)
COND = {"label": jnp.array([0, 1, 2, 3, 0, 2])}
X = jax.random.normal(jax.random.key(3), (6, 2))
TARGET = jnp.array([[0.5, -0.2]])
LOSS = lambda x0, cond=None: jnp.sum((x0 - TARGET) ** 2, axis=-1)


@pytest.fixture(params=["vp", "edm", "flow"])
def process(request):
    return getattr(gaussian, request.param)()


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4)


def gain(pred, plain, x, process, t):
    """What guidance added to the score."""
    return process.score(x, pred, t) - process.score(x, plain, t)


def test_energy_is_the_gradient_of_the_loss_of_x0(process):
    """Through the denoiser the score gains -scale d loss(x0(x)) / dx, by autodiff of the whole; the pair fits x."""
    denoiser, t = MIXTURE.denoiser(process), 0.5
    pred = jax.jit(lambda x: energy(LOSS, 0.7)(denoiser, process)(x, t))(X)
    exact = -0.7 * jax.grad(lambda x: jnp.sum(LOSS(denoiser(x, t).x0)))(X)
    close(gain(pred, denoiser(X, t), X, process, t), exact, 2e-4)
    close(process.perturb(pred.x0, pred.eps, t), X)
    same = classifier_x0(lambda x0, cond: -LOSS(x0), 0.7)(denoiser, process)(X, t)
    np.testing.assert_allclose(same.x0, pred.x0, rtol=1e-5, atol=1e-6)


def test_energy_with_eps_constant(process):
    """Without the Jacobian: d x0 / d x_t = 1 / alpha. At scale 0 nothing changes."""
    denoiser, t = MIXTURE.denoiser(process), 0.5
    plain = denoiser(X, t)
    pred = energy(LOSS, 0.3, through=False)(denoiser, process)(X, t)
    close(gain(pred, plain, X, process, t), -0.3 * 2 * (plain.x0 - TARGET) / process.alpha(t), 2e-4)
    for through in (True, False):
        np.testing.assert_array_equal(energy(LOSS, 0.0, through)(denoiser, process)(X, t).eps, plain.eps)


def test_bounded():
    """sigma |g| stays below the limit, small gradients pass, directions stay; a wrong axis would mix samples."""
    process, t = gaussian.vp(), 0.5
    g = X * jnp.array([1e-4, 1e-4, 1.0, 1.0, 1e4, 1e4])[:, None]
    out = bounded(g, process, t, 8.0)
    norm = process.sigma(t) * jnp.linalg.norm(out, axis=1)
    assert jnp.all(norm < 8) and jnp.all(norm[4:] > 7.9)
    close(out[:2], g[:2], 1e-9)
    close(jnp.sum(out * g, axis=1), jnp.linalg.norm(out, axis=1) * jnp.linalg.norm(g, axis=1), 1e-3)
    assert bounded(g, process, t) is g


def test_likelihood_is_dps_on_gaussian_data(process):
    """Data N(0, s^2): J = alpha s^2 / v, so the score gains J (y - x0) / std^2."""
    s, t, std = 0.8, 0.5, 0.4
    data = Mixture(jnp.zeros((1, 2)), jnp.full(1, s), jnp.zeros(1))
    y = jnp.broadcast_to(TARGET, X.shape)

    class Same:
        in_shape = out_shape = (2,)

        def forward(self, x, phi=None):
            return x

    measurement = Measurement(Same(), Gaussian(std), y)
    denoiser = data.denoiser(process)
    plain = denoiser(X, t)
    alpha, sigma = process.alpha(t), process.sigma(t)
    jacobian = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
    pred = likelihood(measurement)(denoiser, process)(X, t)
    close(gain(pred, plain, X, process, t), jacobian * (y - plain.x0) / std**2, 1e-3)


def test_the_chain_of_the_manual_under_several_solvers():
    """cfg, a classifier and a measurement in one chain: finite, and the measured half of x is drawn towards y."""
    process = gaussian.vp()
    data = ring(4, 1.0, 0.3)
    x = jax.random.normal(jax.random.key(1), (8, 4, 4, 1))
    images = Mixture(jnp.tile(data.means.reshape(4, 1, 2, 1), (1, 4, 2, 1)), data.stds, data.log_weights)
    operator = OPERATORS["box"]((4, 4, 1)) if "box" in OPERATORS else next(iter(OPERATORS.values()))((4, 4, 1))
    measurement = measure(jax.random.key(2), operator, Gaussian(0.1), x)
    cond = {"label": jnp.arange(8) % 4}
    log_prob = lambda x, t, cond: -jnp.mean((x - 0.1) ** 2, axis=(1, 2, 3))
    steer = chain(cfg(7.5, interval=(0.2, 0.8)), classifier(log_prob), likelihood(measurement, 0.01))
    denoiser = steer(images.denoiser(process), process)
    for solver in (ddim(), ddpm(), heun(), dpmpp_2m()):
        grid = grids.log_snr(process, 4)
        out = jax.jit(lambda k, s=solver, g=grid: sample(k, denoiser, process, s, g, x, cond))(jax.random.key(0))
        assert out.shape == x.shape and jnp.isfinite(out).all()


def test_backward_descends_on_x0(process):
    """On |x0 - y|^2, m steps of size r leave (1 - 2 r)^m of the distance; eps is refitted."""
    denoiser, t = MIXTURE.denoiser(process), 0.5
    pred = backward(LOSS, 3, 0.1)(denoiser, process)(X, t)
    close(pred.x0 - TARGET, 0.8**3 * (denoiser(X, t).x0 - TARGET))
    close(process.perturb(pred.x0, pred.eps, t), X)


@pytest.mark.parametrize("batched", [False, True])
def test_within_a_range_of_noise(batched):
    """Guided inside, the plain denoiser outside, for scalar and per-sample times."""
    process = gaussian.vp()
    denoiser = MIXTURE.denoiser(process)
    inside, outside = (process.time(-2 * jnp.log(r)) for r in (0.5, 5.0))
    guided = within(energy(LOSS, 1.0), 0.2, 2.0)(denoiser, process)
    if batched:
        t = jnp.array([inside, outside] * 3)
        close(guided(X, t).x0[::2], energy(LOSS, 1.0)(denoiser, process)(X, t).x0[::2])
        close(guided(X, t).x0[1::2], denoiser(X, t).x0[1::2])
    else:
        close(guided(X, outside).x0, denoiser(X, outside).x0)
        close(guided(X, inside).x0, energy(LOSS, 1.0)(denoiser, process)(X, inside).x0)


def test_apg_ends_and_direction(process):
    """eta = 1 is CFG, scale 1 the conditional model; eta = 0 adds only what is orthogonal to x0, within the radius."""
    denoiser, t = MIXTURE.denoiser(process), 0.5
    at = lambda guidance: guidance(denoiser, process)(X, t, COND)
    close(at(apg(3.0, eta=1.0)).x0, at(cfg(3.0)).x0)
    strong = denoiser(X, t, COND)
    close(at(apg(1.0)).x0, strong.x0)
    added = at(apg(3.0)).x0 - strong.x0
    close(jnp.sum(added * strong.x0, axis=1), jnp.zeros(6))
    assert jnp.abs(added).max() > 1e-2
    short = at(apg(3.0, eta=1.0, radius=0.1)).x0 - strong.x0
    assert jnp.linalg.norm(short, axis=1).max() <= 0.2 + 1e-5  # (scale - 1) radius
    close(process.perturb(at(apg(3.0)).x0, at(apg(3.0)).eps, t), X)


def test_apg_momentum_is_a_running_sum():
    """With momentum 0 it is `apg`; else the recursion d_k + beta d_{k-1} of a loop written out."""
    process = gaussian.vp()
    denoiser, grid = MIXTURE.denoiser(process), grids.log_snr(process, 4)
    run = lambda solver, d: jax.jit(lambda: sample(None, d, process, solver, grid, X))()
    plain = lambda x, t, cond=None, key=None: apg(3.0, radius=0.5)(denoiser, process)(x, t, COND)
    close(run(apg_momentum(ddim(), COND, 3.0, radius=0.5, momentum=0.0), denoiser), run(ddim(), plain))
    x, average = X, jnp.zeros_like(X)
    for t, s in itertools.pairwise(grid):
        strong, weak = denoiser(x, t, COND), denoiser(x, t)
        average = strong.x0 - weak.x0 - 0.5 * average
        x0 = strong.x0 + 2.0 * average
        x = process.alpha(s) * x0 + process.sigma(s) * (x - process.alpha(t) * x0) / process.sigma(t)
    close(run(apg_momentum(ddim(), COND, 3.0, eta=1.0), denoiser), x, 5e-4)
    with pytest.raises(ValueError, match=r"momentum: expected a number in \(-1, 1\), got 1.0"):
        apg_momentum(ddim(), COND, 3.0, momentum=1.0)


def test_cfg_zero_scales_the_weak_velocity(process):
    """The guided velocity is s u + w (v - s u) with s = <v, u> / |u|^2; w = 1 is the conditional model."""
    denoiser, t = MIXTURE.denoiser(process), 0.5
    v, u = (process.velocity(X, denoiser(X, t, c), t) for c in (COND, null_cond(COND)))
    u = jnp.sum(v * u, axis=1, keepdims=True) / jnp.sum(u * u, axis=1, keepdims=True) * u
    pred = cfg_zero(3.0)(denoiser, process)(X, t, COND)
    close(process.velocity(X, pred, t), u + 3 * (v - u), 1e-3)
    close(cfg_zero(1.0)(denoiser, process)(X, t, COND).x0, denoiser(X, t, COND).x0, 1e-4)


def test_cfg_zero_stands_still_at_first():
    """From zero_from on a flow does not move and the model is not asked; below it does."""
    process, asked = gaussian.flow(), []
    inner = MIXTURE.denoiser(process)

    def denoiser(x, t, cond=None, key=None):
        jax.debug.callback(lambda t: asked.append(float(np.ravel(t)[0])), t)
        return inner(x, t, cond, key)

    guided = cfg_zero(2.0, zero_from=0.9)(denoiser, process)
    grid = jnp.array([1.0, 0.95, 0.9, 0.85])
    _, path = jax.jit(lambda: sample(None, guided, process, euler(), grid, X, COND, path=True))()
    jax.effects_barrier()
    close(path[1], X, 1e-6)
    assert jnp.abs(path[2] - X).max() < 1e-6 and asked == []
    last = guided(X, 0.5, COND)
    close(last.x0, cfg_zero(2.0)(inner, process)(X, 0.5, COND).x0)
    still = predict("velocity", jnp.zeros_like(X), X, process, 0.95)
    close(guided(X, 0.95, COND).x0, still.x0)


def test_late_constraint_direction_and_size():
    """With x0 itself as the feature: along the gradient of the misfit, as long as scale |eps - x|, above its time."""
    process = gaussian.vp()
    exact = MIXTURE.denoiser(process)

    def denoiser(x, t, cond=None, key=None):
        pred = exact(x, t, cond)
        return pred._replace(features={"x0": pred.x0})

    read = lambda features, t: features["x0"] + 0 * t[:, None]
    t = 0.7
    pred = jax.jit(lambda x: late_constraint(read, TARGET, 0.5)(denoiser, process)(x, t))(X)
    plain = exact(X, t)
    slope = jax.grad(lambda x: jnp.sum(LOSS(exact(x, t).x0)))(X)
    unit = lambda v: v / jnp.linalg.norm(v, axis=1, keepdims=True)
    expected = 0.5 * jnp.linalg.norm(plain.eps - X, axis=1, keepdims=True) * unit(slope)
    close(pred.eps - plain.eps, expected, 1e-4)
    close(process.perturb(pred.x0, pred.eps, t), X)
    raw = late_constraint([read, read], [TARGET, TARGET], 0.5, normalize=False)(denoiser, process)(X, t)
    close(raw.eps - plain.eps, 0.5 * slope, 1e-4)  # two means over two elements
    close(late_constraint(read, TARGET, 0.5)(denoiser, process)(X, 0.4).eps, exact(X, 0.4).eps)


def test_scales_may_be_mapped_and_given_per_sample():
    """vmap over a scale, and a scale of each sample, are the scalar ones one by one: no hidden batch statistics."""
    process, t, scales = gaussian.vp(), 0.5, jnp.array([0.0, 0.5, 2.0, 1.0, 0.3, 4.0])
    denoiser = MIXTURE.denoiser(process)
    makers = {
        "energy": lambda s: energy(LOSS, s, limit=2.0),
        "held eps": lambda s: energy(LOSS, s, through=False),
        "classifier": lambda s: classifier(lambda x, t, cond: -jnp.sum(x**2, axis=-1), s),
        "apg": lambda s: apg(s, radius=0.3),
        "cfg_zero": cfg_zero,
    }

    @jax.jit
    def run(scales):
        at = {name: lambda s, make=make: make(s)(denoiser, process)(X, t, COND).eps for name, make in makers.items()}
        return {name: (jax.vmap(f)(scales), f(scales), f(scales[2])) for name, f in at.items()}

    for name, (mapped, each, one) in run(scales).items():
        own = mapped[jnp.arange(6), jnp.arange(6)]
        np.testing.assert_allclose(each, own, rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(one, mapped[2], rtol=1e-4, atol=1e-5, err_msg=name)


def test_bad_arguments():
    process = gaussian.vp()
    blind = lambda x, t, cond=None, key=None: Prediction(x, x)
    with pytest.raises(ValueError, match="low, high: expected low < high"):
        within(cfg(2.0), 1.0, 0.5)
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        backward(LOSS, 0)
    with pytest.raises(ValueError, match="targets: expected one an aligner"):
        late_constraint([lambda f, t: f], [])
    with pytest.raises(ValueError, match="denoiser: late_constraint expected predictions with features"):
        late_constraint(lambda f, t: f, TARGET)(blind, process)(X, 0.9)
