"""Every Gaussian process against its own definitions, at random times, in single and double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import processes
from genjax.core import Prediction, predict
from genjax.core.prediction import TARGETS, target_coefficients

BUILD = {
    "vp": processes.vp,
    "sub_vp": processes.sub_vp,
    "cosine": lambda: processes.cosine(shift=0.25),
    "ddpm": processes.ddpm,
    "ve": processes.ve,
    "edm": processes.edm,
    "flow": lambda: processes.flow(shift=3.0),
    "trigonometric": processes.trigonometric,
    "log_linear": lambda: processes.log_linear(scale="flow"),
    "learned": lambda: processes.learned(jnp.asarray(np.random.default_rng(0).normal(size=12))),
    "interpolant": lambda: processes.interpolant(lambda t: 1 - t, lambda t: t * (2 - t)),
}
NAMES = list(BUILD)


def times(process, n=64):
    """Random times inside the range, spread over log-SNR, away from the ends and (for tables) from the knots."""
    u = np.random.default_rng(1).uniform(0.02, 0.98, n)
    low, high = process.log_snr(process.t_max), process.log_snr(process.t_min)
    low, high = max(float(low), -14.0), min(float(high), 14.0)
    return process.time(jnp.asarray(low + u * (high - low)))


@pytest.fixture(params=NAMES)
def process64(request, x64):
    return BUILD[request.param]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_time_inverts_log_snr(name, precision):
    # catches a wrong inverse, and formulas that lose their digits near the ends
    with jax.enable_x64(precision == "float64"):
        process = BUILD[name]()
        t = jnp.concatenate([times(process), jnp.stack([jnp.asarray(process.t_min), jnp.asarray(process.t_max)])])
        level = process.log_snr(t)
        back = process.time(level)
        assert back.dtype == t.dtype
        # rounding of the level, 1 + |lambda|, over the slope of the curve, and of the time itself
        allowed = 16 * jnp.finfo(t.dtype).eps * (t + (1 + jnp.abs(level)) / jnp.abs(process.log_snr_rate(t)))
        assert bool(jnp.all(jnp.abs(back - t) <= allowed)), jnp.max(jnp.abs(back - t) / allowed)


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64(name):
    # catches cancellation: coefficients, rates and posterior scales of float32 against double precision
    def values(dtype):
        process = BUILD[name]()
        t = jnp.asarray(grid, dtype)
        s = t * 0.9
        law = process.posterior(
            jnp.ones((len(t), 1)), Prediction(x0=jnp.ones((len(t), 1)), eps=jnp.ones((len(t), 1))), t, s
        )
        return [
            np.asarray(v) for v in (process.alpha(t), process.sigma(t), process.diffusion(t) ** 2, law.mean, law.std)
        ]

    with jax.enable_x64(True):
        process = BUILD[name]()
        grid = np.asarray(times(process, 32), np.float32).astype(np.float64)
        expected = values(jnp.float64)
    for single, double in zip(values(jnp.float32), expected, strict=True):
        assert single.dtype == np.float32
        # near t = 1 the relative error of alpha = 1 - t is that of t itself
        np.testing.assert_allclose(single, double, rtol=2e-4, atol=1e-6)


def test_scale_family_holds(x64):
    # catches a scale family whose alpha and sigma do not satisfy its defining relation
    for name, process in ((name, BUILD[name]()) for name in NAMES):
        t = times(process)
        a, s = process.alpha(t), process.sigma(t)
        np.testing.assert_allclose(2 * jnp.log(a / s), process.log_snr(t), rtol=1e-9, atol=1e-9)
        relation = {
            "vp": a**2 + s**2 - 1,
            "ve": a - 1,
            "flow": a + s - 1,
            "sub_vp": a**2 + s - 1,
            "curve": s - t * (2 - t),
        }
        np.testing.assert_allclose(relation[process.scale], 0, atol=1e-12, err_msg=name)


def test_closed_forms(x64):
    # catches a curve that is self-consistent but not the published one
    t = jnp.linspace(0.01, 0.99, 9)
    integral = 0.1 * t + 0.5 * t**2 * 19.9
    np.testing.assert_allclose(processes.vp().alpha(t), jnp.exp(-integral / 2), rtol=1e-12)
    np.testing.assert_allclose(processes.sub_vp().sigma(t), 1 - jnp.exp(-integral), rtol=1e-12)
    beta = 0.1 + 19.9 * t
    np.testing.assert_allclose(processes.vp().diffusion(t) ** 2, beta, rtol=1e-9)
    np.testing.assert_allclose(processes.sub_vp().diffusion(t) ** 2, beta * -jnp.expm1(-2 * integral), rtol=1e-9)
    np.testing.assert_allclose(processes.ve().sigma(t), 0.01 * 5000**t, rtol=1e-12)
    np.testing.assert_allclose(processes.edm().sigma(t), t, rtol=1e-12)
    np.testing.assert_allclose(processes.flow().alpha(t), 1 - t, rtol=1e-12)
    np.testing.assert_allclose(processes.trigonometric().alpha(t), jnp.cos(jnp.pi * t / 2), rtol=1e-12)
    shifted = 3 * t / (1 + 2 * t)
    np.testing.assert_allclose(processes.flow(shift=3.0).sigma(t), shifted, rtol=1e-12)
    betas = np.linspace(1e-4, 0.02, 1000)
    i = np.array([1, 2, 500, 1000])
    np.testing.assert_allclose(
        processes.ddpm().alpha(jnp.asarray(i / 1000)) ** 2, np.cumprod(1 - betas)[i - 1], rtol=1e-10
    )
    lower, upper = processes.ddpm().posterior_std_range(jnp.asarray(0.5), jnp.asarray(0.499))
    bar = np.cumprod(1 - betas)
    np.testing.assert_allclose(upper**2, betas[499], rtol=1e-8)
    np.testing.assert_allclose(lower**2, betas[499] * (1 - bar[498]) / (1 - bar[499]), rtol=1e-8)


def test_sde_matches_alpha_and_sigma(process64):
    # catches a drift or diffusion that does not belong to the marginals: d sigma^2/dt = 2 f sigma^2 + g^2
    p, t = process64, times(process64)
    h = 1e-6 * t
    derivative = lambda fn: (fn(t + h) - fn(t - h)) / (2 * h)
    f, g2 = p.drift(t), p.diffusion(t) ** 2
    np.testing.assert_allclose(f, derivative(p.log_alpha), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        2 * f * p.sigma(t) ** 2 + g2, derivative(lambda t: p.sigma(t) ** 2), rtol=1e-5, atol=1e-9
    )
    d_alpha, d_sigma = p.velocity_coefficients(t)
    np.testing.assert_allclose(d_alpha, derivative(p.alpha), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d_sigma, derivative(p.sigma), rtol=1e-5, atol=1e-7)


def three_times(process):
    t = jnp.sort(times(process, 30).reshape(3, 10), axis=0)
    return t[0], t[1], t[2]


def test_transitions_compose(process64):
    # Chapman-Kolmogorov: 0 -> s -> t is 0 -> t, and s -> m -> t is s -> t
    p = process64
    s, m, t = three_times(p)
    one = jnp.ones((10, 1))
    for law_s, final in (
        ((p.alpha(s), p.sigma(s)), (p.alpha(t), p.sigma(t))),
        (
            (p.transition(one, s, m).mean[:, 0], p.transition(one, s, m).std[:, 0]),
            (p.transition(one, s, t).mean[:, 0], p.transition(one, s, t).std[:, 0]),
        ),
    ):
        start = s if final[1].tolist() == p.sigma(t).tolist() else m
        step = p.transition(one, start, t)
        np.testing.assert_allclose(step.mean[:, 0] * law_s[0], final[0], rtol=1e-9)
        np.testing.assert_allclose((step.mean[:, 0] * law_s[1]) ** 2 + step.std[:, 0] ** 2, final[1] ** 2, rtol=1e-9)


def test_transition_from_data(process64):
    # catches NaN at t = 0, where the log-SNR is infinite
    t = times(process64, 8)
    law = process64.transition(jnp.ones((8, 1)), jnp.zeros(8), t)
    np.testing.assert_allclose(law.mean[:, 0], process64.alpha(t), rtol=1e-9)
    np.testing.assert_allclose(law.std[:, 0], process64.sigma(t), rtol=1e-9)


def test_posterior_is_bayes(process64):
    # the joint Gaussian of (x_s, x_t) given x0 and its conditional, by textbook algebra
    p = process64
    s, _, t = three_times(p)
    rng = np.random.default_rng(2)
    x0, x = jnp.asarray(rng.normal(size=(10, 3))), jnp.asarray(rng.normal(size=(10, 3)))
    col = lambda v: v[:, None]
    ratio = col(p.alpha(t) / p.alpha(s))
    var_s, var_t = col(p.sigma(s)) ** 2, col(p.sigma(t)) ** 2
    gain = ratio * var_s / var_t
    mean = col(p.alpha(s)) * x0 + gain * (x - col(p.alpha(t)) * x0)
    var = var_s - gain * ratio * var_s
    law = p.posterior(x, predict("x0", x0, x, p, t), t, s)
    np.testing.assert_allclose(law.mean, mean, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(jnp.broadcast_to(law.std, x.shape) ** 2, jnp.broadcast_to(var, x.shape), rtol=1e-6)


def test_posterior_with_eta_keeps_the_marginal(process64):
    # for any eta the step must carry q(x_t | x0) to q(x_s | x0): catches a wrong share of eps
    p = process64
    s, _, t = three_times(p)
    zero, one = jnp.zeros((10, 1)), jnp.ones((10, 1))
    for eta in (0.0, 0.4, 1.0):
        eps_share = p.posterior(zero, Prediction(x0=zero, eps=one), t, s, eta)
        total = eps_share.mean**2 + eps_share.std**2
        np.testing.assert_allclose(total[:, 0], p.sigma(s) ** 2, rtol=1e-9)


def test_deterministic_moves_both_ways(process64):
    # eta = 0 with the true pair lands on the same path, up and down, and at the data
    p = process64
    s, _, t = three_times(p)
    rng = np.random.default_rng(3)
    pred = Prediction(x0=jnp.asarray(rng.normal(size=(10, 2))), eps=jnp.asarray(rng.normal(size=(10, 2))))
    for a, b in ((t, s), (s, t), (t, jnp.zeros(10)), (jnp.zeros(10), s), (jnp.zeros(10), jnp.zeros(10))):
        law = p.posterior(p.perturb(pred.x0, pred.eps, a), pred, a, b, 0.0)
        np.testing.assert_allclose(law.mean, p.perturb(pred.x0, pred.eps, b), rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(law.std, jnp.zeros_like(law.std))
    up = p.posterior(p.perturb(pred.x0, pred.eps, s), pred, s, t, 1.0)
    np.testing.assert_allclose(up.mean, p.perturb(pred.x0, pred.eps, t), rtol=1e-9)
    np.testing.assert_array_equal(up.std, jnp.zeros_like(up.std))


def test_learned_variance_range(process64):
    # v = 0 and 1 are the ends of the range, 1/2 their geometric mean, and a step to the data is noiseless
    p = process64
    s, _, t = three_times(p)
    x = jnp.ones((10, 2))
    std = lambda v, s: p.posterior(x, Prediction(x0=x, eps=x, v=jnp.full((10, 2), v)), t, s).std
    lower, upper = p.posterior_std_range(t, s)
    np.testing.assert_allclose(std(0.0, s)[:, 0], lower, rtol=1e-9)
    np.testing.assert_allclose(std(1.0, s)[:, 0], upper, rtol=1e-9)
    np.testing.assert_allclose(std(0.5, s)[:, 0], jnp.sqrt(lower * upper), rtol=1e-9)
    np.testing.assert_array_equal(std(1.0, jnp.zeros(10)), jnp.zeros((10, 2)))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_gives_the_pair_back(target, process64):
    # f = c x0 + d eps, then the solve: catches wrong coefficients in any prediction type
    p, t = process64, times(process64, 16)
    rng = np.random.default_rng(4)
    x0, eps = jnp.asarray(rng.normal(size=(16, 3))), jnp.asarray(rng.normal(size=(16, 3)))
    x = p.perturb(x0, eps, t)
    col = lambda v: v[:, None]
    a, s = col(p.alpha(t)), col(p.sigma(t))
    sd = 0.7
    if target == "velocity":
        h = 1e-6 * t
        f = (p.perturb(x0, eps, t + h) - p.perturb(x0, eps, t - h)) / col(2 * h)
    else:
        total = a**2 * sd**2 + s**2
        skip, out = a * sd**2 / total, s * sd / jnp.sqrt(total)
        truth = {"x0": x0, "eps": eps, "v": a * eps - s * x0, "score": -eps / s, "edm": (x0 - skip * x) / out}
        f = truth[target]
    pred = predict(target, f, x, p, t, sd)
    scale = 1e-4 if target == "velocity" else 1e-8
    # the pair is only determined up to rounding over the signal-to-noise ratio
    np.testing.assert_allclose(pred.x0, x0, atol=scale * float(jnp.max(s / a)))
    np.testing.assert_allclose(pred.eps, eps, atol=scale * float(jnp.max(a / s)))
    c, d = target_coefficients(target, p, t, sd)
    if target != "velocity":
        np.testing.assert_allclose(col(c) * x0 + col(d) * eps, f, rtol=1e-7, atol=1e-9)


def test_score_and_velocity_are_those_of_the_sde(process64):
    # velocity = f x - g^2 score / 2 for any prediction that fits x: catches the two forms drifting apart
    p, t = process64, times(process64, 16)
    rng = np.random.default_rng(5)
    x0, eps = jnp.asarray(rng.normal(size=(16, 3))), jnp.asarray(rng.normal(size=(16, 3)))
    x = p.perturb(x0, eps, t)
    pred = Prediction(x0=x0, eps=eps)
    ode = p.drift(t)[:, None] * x - 0.5 * p.diffusion(t)[:, None] ** 2 * p.score(x, pred, t)
    np.testing.assert_allclose(p.velocity(x, pred, t), ode, rtol=1e-7, atol=1e-8 * float(jnp.max(jnp.abs(ode))))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite(name):
    # w.r.t. x, t and every number of the process, at s = 0, at t = s and inside; catches 0 * inf in the chain rule
    process = BUILD[name]()
    x = jnp.ones((4, 2))
    t_mid = process.time((process.log_snr(process.t_max) + process.log_snr(process.t_min)) / 2)
    t = jnp.stack([jnp.asarray(process.t_max), t_mid, t_mid, jnp.asarray(process.t_min)]).astype(jnp.float32)
    s = jnp.stack([jnp.zeros(()), t_mid, t_mid * 0.5, jnp.zeros(())]).astype(jnp.float32)

    def loss(process, x, t):
        pred = Prediction(x0=x, eps=jnp.sin(x))
        law = process.posterior(x, pred, t, s, 1.0)
        upper = process.posterior(x, pred._replace(v=jnp.ones_like(x)), t, s, 1.0)
        clean = process.perturb(x, pred.eps, s)
        terms = [law.mean, law.std, upper.std, clean, process.velocity(x, pred, t), process.transition(x, s, t).std]
        return sum(jnp.sum(term * jnp.ones_like(x)) for term in terms)

    grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(process, x, t)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))


def test_learned_curve_moves_inside_but_not_at_the_ends():
    # VDM's curve: its inner levels have a gradient, its ends are fixed, and it stays decreasing
    process = processes.learned(jnp.asarray([2.0, -3.0, 0.5, 0.0]))
    level = lambda raw, t: process.replace(curve=process.curve.replace(raw=raw)).log_snr(t)
    assert float(jnp.linalg.norm(jax.grad(level)(process.curve.raw, jnp.asarray(0.4)))) > 0.1
    np.testing.assert_allclose(jax.grad(level)(process.curve.raw, jnp.asarray(1.0)), 0, atol=1e-5)
    assert bool(jnp.all(jnp.diff(process.log_snr(jnp.linspace(0.01, 1, 50))) < 0))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_of_time(name):
    # a scalar, [B], and x's rank give coefficients shaped like t, and equal results
    process = BUILD[name]()
    x, eps = jnp.ones((3, 2, 2, 1)), jnp.full((3, 2, 2, 1), 0.5)
    t = process.time((process.log_snr(process.t_max) + process.log_snr(process.t_min)) / 2)
    shapes = (t, jnp.full(3, t), jnp.full((3, 1, 1, 1), t))
    results = [process.perturb(x, eps, u) for u in shapes]
    for u, result in zip(shapes, results, strict=True):
        assert process.alpha(u).shape == u.shape
        assert result.shape == x.shape
        np.testing.assert_allclose(result, results[0], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_zero_is_the_data(name):
    process = BUILD[name]()
    assert float(process.alpha(0.0)) == 1 and float(process.sigma(0.0)) == 0
    assert float(process.log_snr(0.0)) == np.inf and float(process.time(jnp.inf)) == 0
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(process.perturb(x, x, 0.0), x)


def test_whole_numbers_do_not_retrace():
    # a field that comes as int, as float or as a NumPy number must give the same compiled program
    traces = []

    @jax.jit
    def alpha(process):
        traces.append(1)
        return process.alpha(0.5)

    for build in (
        lambda one: processes.vp(beta_max=20 * one),
        lambda one: processes.flow(shift=one),
        lambda one: processes.edm(sigma_max=80 * one),
        lambda one: processes.log_linear(log_snr_max=10 * one, t_min=1e-5),
    ):
        traces.clear()
        for one in (1, 1.0, np.float64(1), np.int64(1), np.float32(1)):
            alpha(build(one))
        assert len(traces) == 1


def test_draws():
    # the corrupted sample has the law of the process, and does not depend on the batch around it
    process, key = processes.vp(), jax.random.key(0)
    x0 = jnp.full((20000, 1), 2.0)
    x, truth = process.corrupt(key, x0, 0.3)
    np.testing.assert_allclose(x, process.perturb(truth.x0, truth.eps, 0.3), rtol=1e-6)
    assert abs(float(x.mean()) - 2 * float(process.alpha(0.3))) < 4 * float(process.sigma(0.3)) / 20000**0.5
    np.testing.assert_allclose(x.std(), process.sigma(0.3), rtol=0.02)
    np.testing.assert_array_equal(process.corrupt(key, x0[:5], 0.3)[0], x[:5])
    edm = processes.edm()
    np.testing.assert_allclose(edm.prior(key, x0).std(), 80, rtol=0.02)
    np.testing.assert_allclose(edm.prior(key, x0, 3.0).std(), 3, rtol=0.02)


def test_bad_input():
    with pytest.raises(ValueError, match=r"scale: expected one of .* got 'vpp'"):
        processes.Gaussian(processes.Flow(), "vpp")
    with pytest.raises(ValueError, match=r"betas: expected one of .* got 'lin'"):
        processes.ddpm(betas="lin")
    with pytest.raises(ValueError, match=r"betas: expected a vector of numbers in"):
        processes.ddpm(betas=[0.1, 1.5])
    with pytest.raises(TypeError, match=r"bind: a Gaussian process takes no context, got .'x1'"):
        processes.vp().bind(x1=1)
    with pytest.raises(ValueError, match=r"target: expected one of .* got 'epsilon'"):
        target_coefficients("epsilon", processes.vp(), 0.5)
