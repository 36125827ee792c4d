"""Samplers with structure of their own: two priors, volumes, latents, adaptation, unknown parameters, fusion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from genjax.core.types import Measurement
from genjax.inverse import (
    POSTERIOR_SAMPLERS,
    Adaptable,
    Gaussian,
    TwoSensors,
    em_step,
    lora_init,
    lora_merge,
    stochastic_resample,
    total_variation_step,
    with_lora,
)
from genjax.inverse.fusion import luminance, m_step, scales_init, slopes, smooth, with_luminance
from genjax.inverse.latent import descend, resampling_variance
from genjax.inverse.linear import conjugate_gradients, gauss_newton
from genjax.inverse.operators import dense, identity, low_light, slices, super_resolution
from genjax.inverse.volume import difference, difference_adjoint
from genjax.oracles.gaussian import gaussian_data
from genjax.oracles.mixture import Mixture
from genjax.processes import gaussian

PROCESS = gaussian.vp()
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def test_joint_is_exact_for_gaussian_signal_and_noise():
    """2302.05290 with the denoisers' own covariances: posterior mean and covariance of the signal, y = x + n, and a
    smaller error than Wiener's filter that takes the noise for white of equal power."""
    d, n = 12, 400
    i = np.arange(d)
    signal_cov = np.exp(-((i[:, None] - i[None]) ** 2) / 18) + 1e-3 * np.eye(d)
    cosines = np.cos(np.pi * (i[None] + 0.5) * i[:, None] / d) * np.sqrt(2 / d)
    noise_cov = 1e-3 * np.eye(d) + sum((0.5 + 0.2 * k) * np.outer(cosines[k], cosines[k]) for k in range(6, 11))
    data, noise = (gaussian_data(jnp.zeros(d), jnp.asarray(c, jnp.float32)) for c in (signal_cov, noise_cov))
    truth, n_true = data.sample(jax.random.key(0), 1), noise.sample(jax.random.key(1), 1)
    y = np.asarray(truth + n_true)[0]
    process = gaussian.edm(0.01, 20.0)
    restore = POSTERIOR_SAMPLERS["joint"](
        noise_prior=noise.denoiser(process), method="tmpd", residual_std=1e-3, steps=100, cg_steps=12, grid="karras"
    )
    m = Measurement(identity((d,)), Gaussian(0.0), jnp.broadcast_to(jnp.asarray(y), (n, d)))
    x, extra = jax.jit(lambda key: restore.detail(key, data.denoiser(process), process, m, jnp.zeros((n, d))))(
        jax.random.key(2)
    )
    gain = signal_cov @ np.linalg.inv(signal_cov + noise_cov)
    mean, cov = gain @ y, signal_cov - gain @ signal_cov
    assert np.linalg.norm(x.mean(0) - mean) / np.linalg.norm(mean) < 0.06
    assert np.linalg.norm(np.cov(np.asarray(x).T) - cov) / np.linalg.norm(cov) < 0.25
    np.testing.assert_allclose(x + extra["noise"], m.y, atol=0.02)
    white = signal_cov @ np.linalg.inv(signal_cov + np.trace(noise_cov) / d * np.eye(d)) @ y
    assert np.linalg.norm(x.mean(0) - mean) < 0.3 * np.linalg.norm(white - mean)


def test_difference_and_its_adjoint():
    x, d = jax.random.normal(jax.random.key(0), (2, 2, 4, 3))
    x, d = x[None], d[None]
    np.testing.assert_allclose(jnp.sum(difference(x) * d), jnp.sum(x * difference_adjoint(d)), rtol=1e-4)


def test_total_variation_reaches_its_minimum():
    """Two slices, A the identity: |x1 - x0| counts twice (around the end), so their difference shrinks by 4 lambda."""
    y = jnp.array([[[[[1.0]]], [[[0.2]]]], [[[[0.3]]], [[[0.2]]]]])[..., 0]  # [2, 2, 1, 1]
    operator, weight = slices(identity((1, 1, 1)), 2), 0.1
    y = y[..., None]

    @compiled
    def solve(y):
        x, split = y, (jnp.zeros_like(y), jnp.zeros_like(y))
        body = lambda carry, _: (total_variation_step(operator, y, *carry, weight, 0.5, 2), None)
        return jax.lax.scan(body, (x, split), None, 200)[0][0]

    x = solve(y).reshape(2, 2)
    np.testing.assert_allclose(x.mean(1), y.reshape(2, 2).mean(1), atol=1e-4)
    np.testing.assert_allclose(x[0, 0] - x[0, 1], 0.8 - 4 * weight, atol=1e-3)
    np.testing.assert_allclose(x[1, 0] - x[1, 1], 0.0, atol=1e-3)  # 0.1 < 4 lambda


def test_volumes_are_coherent():
    """2211.10655: with the tie, what the slices of a volume share is found in all, and nearer to the truth; without it
    each slice draws its own."""
    shape, depth = (4, 4, 1), 6
    prior = Mixture(0.8 * jax.random.normal(jax.random.key(0), (8, *shape)), jnp.full(8, 0.1), jnp.zeros(8))
    truth = jnp.broadcast_to(prior.means[2], (1, depth, *shape))
    operator = slices(super_resolution(shape, 4), depth)
    m = Measurement(operator, Gaussian(0.01), operator.forward(truth))

    @compiled
    def run(key):
        go = lambda **options: POSTERIOR_SAMPLERS["diffusion_mbir"](steps=30, grid="cosine", **options)(
            key, prior.denoiser(PROCESS), PROCESS, m, jnp.zeros((1, depth, *shape))
        )
        return go(weight=0.05, rho=0.1), go(weight=0.0, rho=0.0)

    jump = lambda x: float(jnp.abs(difference(x)).mean())
    error = lambda x: float(((x - truth) ** 2).mean())
    tied, free = run(jax.random.key(1))
    assert jump(tied) < 0.5 * jump(free), (jump(tied), jump(free))
    assert error(tied) < 0.8 * error(free), (error(tied), error(free))
    assert jnp.abs(operator.forward(free) - m.y).mean() < 0.1


def test_conjugate_gradients_are_each_samples_own():
    """The solution in as many steps as dimensions; a sample that starts at its solution stays there, NaN-free."""
    a = np.random.default_rng(0).normal(size=(3, 5, 5))
    a = jnp.asarray(a @ a.transpose(0, 2, 1) + np.eye(5), jnp.float32)
    b = jax.random.normal(jax.random.key(0), (3, 5))
    exact = jnp.linalg.solve(a, b[..., None])[..., 0]
    apply = lambda x: jnp.einsum("bij,bj->bi", a, x)
    x = conjugate_gradients(apply, b, jnp.zeros((3, 5)).at[1].set(exact[1]), 8)
    np.testing.assert_allclose(x, exact, atol=2e-3)


def test_gauss_newton_is_the_proximal_map():
    """For a linear operator the data step by conjugate gradients is the closed form, with a weight a sample."""
    operator = dense(np.random.default_rng(0).normal(size=(3, 5)))
    x0, y = jax.random.normal(jax.random.key(0), (2, 5)), jax.random.normal(jax.random.key(1), (2, 3))
    rho = jnp.array([0.1, 2.0])
    np.testing.assert_allclose(
        gauss_newton(operator.forward, x0, y, rho, 8), operator.prox(x0, y, rho), atol=1e-4, rtol=1e-4
    )


def test_stochastic_resample_is_a_product_of_gaussians():
    """2307.08123: N(alpha z0, sigma^2) N(z, v) in closed form; v -> inf re-noises z0, v -> 0 keeps z."""
    s, v, z0, z = 0.4, 0.3, jnp.array([[0.7]]), jnp.array([[-0.2]])
    alpha, sigma = float(PROCESS.alpha(s)), float(PROCESS.sigma(s))
    law = stochastic_resample(PROCESS, z0, z, s, v)
    precision = 1 / sigma**2 + 1 / v
    np.testing.assert_allclose(law.mean, [[(alpha * 0.7 / sigma**2 - 0.2 / v) / precision]], rtol=1e-5)
    np.testing.assert_allclose(law.std, precision**-0.5, rtol=1e-5)
    far, near = (stochastic_resample(PROCESS, z0, z, s, v) for v in (1e6, 1e-6))
    np.testing.assert_allclose([far.mean[0, 0], far.std], [alpha * 0.7, sigma], rtol=1e-4)
    np.testing.assert_allclose(near.mean, z, atol=1e-4)
    a_t, a_s = (float(PROCESS.alpha(u)) ** 2 for u in (0.5, s))
    published = 40 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    np.testing.assert_allclose(resampling_variance(PROCESS, 0.5, s), published, rtol=1e-4)


def test_descent_stops_where_it_fits():
    """Each sample stops at its own tolerance; the rest go on."""
    goal = jnp.array([[0.0], [1.0]])
    x = descend(lambda x: jnp.sum((x - goal) ** 2, axis=1), jnp.full((2, 1), 0.05), 300, 0.02, jnp.array([0.01, 1e-6]))
    np.testing.assert_allclose(x[0], 0.05)
    np.testing.assert_allclose(x[1], 1.0, atol=2e-3)


WEIGHTS = jnp.asarray(np.linalg.qr(np.random.default_rng(3).normal(size=(16, 4)))[0], jnp.float32)
LATENTS = Mixture(2 * jax.random.normal(jax.random.key(5), (6, 4)), jnp.full(6, 0.3), jnp.zeros(6))
HALVES = {"encode": lambda x: x.reshape(x.shape[0], -1) @ WEIGHTS, "decode": lambda z: jnp.tanh(z @ WEIGHTS.T) * 1.5}


def test_resample_fits_what_latent_dps_leaves():
    """Hard data consistency brings the residual near the noise where the soft gradient leaves several times it."""
    operator, std, n = dense(np.eye(16)[::2]), 0.02, 16
    truth = HALVES["decode"](LATENTS.sample(jax.random.key(0), n)[0])
    y = operator.forward(truth) + std * jax.random.normal(jax.random.key(1), (n, 8))
    m = Measurement(operator, Gaussian(std), y)

    @compiled
    def run(key):
        go = lambda name, **options: POSTERIOR_SAMPLERS[name](**HALVES, **options)(
            key, LATENTS.denoiser(PROCESS), PROCESS, m, truth
        )
        return go("resample", steps=40, every=5, inner_steps=80, rates=(5e-2, 5e-2)), go("latent_dps", steps=40)

    typical = lambda x: jnp.median(jnp.sqrt(jnp.mean((operator.forward(x) - y) ** 2, axis=1))) / std
    hard, soft = (typical(x) for x in run(jax.random.key(2)))
    assert hard < 2 and hard < 0.6 * soft, (hard, soft)


def test_p2l_finds_the_condition():
    """The condition that is tuned to the measurement says which component it came from, where the null one is wrong."""
    operator, std, n = dense(np.eye(16)[::2]), 0.05, 12
    null = jnp.log(jnp.array([0.24, 0.24, 0.24, 0.24, 0.02, 0.02]))

    def denoiser(x, t, cond=None, key=None):
        one = lambda x, c: LATENTS.replace(log_weights=c).denoiser(PROCESS)(x[None], t)
        pred = jax.vmap(one)(x, cond["embedding"])
        return pred._replace(x0=pred.x0[:, 0], eps=pred.eps[:, 0])

    which = 4 + jnp.arange(n) % 2
    truth = HALVES["decode"](LATENTS.means[which] + 0.3 * jax.random.normal(jax.random.key(0), (n, 4)))
    y = operator.forward(truth) + std * jax.random.normal(jax.random.key(1), (n, 8))
    m = Measurement(operator, Gaussian(std), y)

    @compiled
    def run(key):
        go = lambda **options: POSTERIOR_SAMPLERS["p2l"](**HALVES, embedding=null, scale=0.5, steps=40, **options)
        return [go(**o).detail(key, denoiser, PROCESS, m, truth) for o in ({"rate": 0.3}, {"tune_steps": 0})]

    (x, extra), (still, kept) = run(jax.random.key(2))
    assert jnp.mean(jnp.argmax(extra["embedding"], axis=1) == which) >= 0.5
    np.testing.assert_array_equal(kept["embedding"], jnp.broadcast_to(null, (n, 6)))
    assert jnp.mean((x - truth) ** 2) < jnp.mean((still - truth) ** 2)
    assert extra["embedding"].shape == (n, 6) and np.isfinite(logsumexp(extra["embedding"]))


def test_lora_starts_at_nothing():
    """Zero `up`: merged parameters are the old ones to the last bit; only kernels get adapters, of the given rank."""
    params = {"a": {"kernel": jnp.ones((3, 3, 2, 5)), "bias": jnp.ones(5)}, "b": {"kernel": jnp.ones((4, 6))}}
    adapters = lora_init(jax.random.key(0), params, rank=2)
    assert adapters["a"]["bias"] is None and adapters["a"]["kernel"]["down"].shape == (18, 2)
    jax.tree.map(np.testing.assert_array_equal, lora_merge(params, adapters), params)
    adapters["b"]["kernel"]["up"] = jnp.ones((2, 6))
    merged = lora_merge(params, adapters)
    expected = 1 + adapters["b"]["kernel"]["down"] @ jnp.ones((2, 6))
    np.testing.assert_allclose(merged["b"]["kernel"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="pattern: expected a regular expression that matches a kernel"):
        lora_init(jax.random.key(0), {"bias": jnp.ones(3)})


def test_adaptation_mends_a_shifted_prior():
    """2407.10641 where the prior's images are darker than the measured ones: the adapters learn the offset (also of
    what is not measured), each sample for itself; a learning rate of zero changes nothing."""
    shape, depth = (4, 4, 1), 4
    prior = Mixture(0.3 * jax.random.normal(jax.random.key(0), (4, *shape)), jnp.full(4, 0.2), jnp.zeros(4))

    def make(params):
        def denoiser(x, t, cond=None, key=None):
            shift = jnp.sum(params["kernel"])
            pred = prior.denoiser(PROCESS)(x - PROCESS.alpha(t) * shift, t)
            return pred._replace(x0=pred.x0 + shift)

        return denoiser

    denoiser = with_lora(jax.random.key(1), make, {"kernel": jnp.zeros((2, 3))}, rank=2)
    assert isinstance(denoiser, Adaptable)
    truth = prior.sample(jax.random.key(2), 2 * depth)[0].reshape(2, depth, *shape) + jnp.array([0.8, 0.0]).reshape(
        2, 1, 1, 1, 1
    )
    matrix = np.abs(np.random.default_rng(0).normal(size=(8, 16))) / 4
    operator = slices(dense(matrix, shape), depth)
    m = Measurement(operator, Gaussian(0.01), operator.forward(truth))

    @compiled
    def run(key, rate):
        restore = POSTERIOR_SAMPLERS["deep_prior"](rate=rate, updates=10, slices=2, steps=20)
        return restore.detail(key, denoiser, PROCESS, m, truth)

    x, extra = run(jax.random.key(3), 0.02)
    still, kept = run(jax.random.key(3), 0.0)
    error = lambda x: jnp.mean((x - truth) ** 2, axis=(1, 2, 3, 4))
    assert error(x)[0] < 0.8 * error(still)[0], (error(x), error(still))
    merged = jax.vmap(lambda a: lora_merge({"kernel": jnp.zeros((2, 3))}, a)["kernel"].sum())(extra["adapters"])
    assert merged[0] > 0.4 and abs(merged[1]) < 0.3, merged
    np.testing.assert_array_equal(kept["adapters"]["kernel"]["up"], 0)


def test_gdp_finds_the_gain():
    """2304.01247, blind low light y = f x + m: the gain and the image are found together; with the wrong gain of 1 the
    image is not."""
    shape, n, gain, offset = (6, 6, 1), 24, 0.35, 0.05
    prior = Mixture(jnp.tanh(jax.random.normal(jax.random.key(0), (10, *shape))), jnp.full(10, 0.1), jnp.zeros(10))
    truth = jnp.clip(prior.sample(jax.random.key(1), n)[0], -1, 1)
    operator = low_light(shape, gain, offset)
    y = operator.forward(truth) + 0.01 * jax.random.normal(jax.random.key(2), truth.shape)

    @compiled
    def run(key):
        rates = {"log_gain": 1.0, "offset": 0.2}
        blind = POSTERIOR_SAMPLERS["gdp"](scale=1.0, rates=rates, steps=200)
        known = POSTERIOR_SAMPLERS["gdp"](scale=1.0, steps=200)
        go = lambda restore, operator: restore.detail(
            key, prior.denoiser(PROCESS), PROCESS, Measurement(operator, Gaussian(0.02), y), truth
        )
        return go(blind, operator), go(known, low_light(shape, 1.0, 0.0))

    (x, extra), (wrong, _) = run(jax.random.key(3))
    found = np.exp(extra["phi"]["log_gain"])
    psnr = lambda x: -10 * np.log10(np.mean((np.asarray(x) - np.asarray(truth)) ** 2) / 4)
    assert np.median(np.abs(found - gain) / gain) < 0.15, found
    assert psnr(x) > psnr(wrong) + 5, (psnr(x), psnr(wrong))


def test_fusion_steps_solve_their_problems():
    """The M-step is the minimizer, the smoothing solves its normal equation, luminance comes back as it was set."""
    y, c, d, h = jnp.abs(jax.random.normal(jax.random.key(0), (4, 1, 6, 6))) + 0.1
    cost = lambda x: jnp.sum(c * (y - x) ** 2 + d * x**2 + 0.05 * (y - x - h) ** 2)
    assert jnp.abs(jax.grad(cost)(m_step(y, c, d, h, 0.1))).max() < 1e-4
    target, rows, columns = jax.random.normal(jax.random.key(1), (3, 1, 6, 6))

    def energy(h):
        a, b = slopes(h)
        return jnp.sum((h - target) ** 2 + (a - rows) ** 2 + (b - columns) ** 2)

    assert jnp.abs(jax.grad(energy)(smooth(target, rows, columns))).max() < 1e-3
    x = jax.random.uniform(jax.random.key(2), (2, 4, 4, 3))
    np.testing.assert_allclose(luminance(with_luminance(x, jnp.full((2, 4, 4), 0.3))), 0.3, atol=1e-6)


def test_fusion_is_balanced_only_mirrored():
    """100 EM steps from the average: the released form stays between the sources, the model's own form collapses onto
    one; two equal sources come back."""
    i, v = jax.random.uniform(jax.random.key(0), (2, 1, 8, 8), minval=-1.0)

    @functools.partial(jax.jit, static_argnums=2)
    def run(i, v, form):
        state = scales_init(jnp.stack([i, v], axis=-1))
        body = lambda carry, _: (em_step(carry[0], i, v, carry[1], form=form), None)
        return jax.lax.scan(body, ((i + v) / 2, state), None, 100)[0][0]

    share = lambda f: float(jnp.abs(f - i).sum() / jnp.abs(i - v).sum())
    assert 0.4 < share(run(i, v, "mirrored")) < 0.6
    assert min(share(run(i, v, "consistent")), 1 - share(run(i, v, "consistent"))) < 0.1
    np.testing.assert_allclose(run(i, i, "mirrored"), i, atol=2e-2)


def test_ddfm_stays_between_its_sources():
    """The sum of distances to both sources is near its least where an unguided sample's is twice that."""
    shape = (6, 6, 1)
    prior = Mixture(0.6 * jax.random.normal(jax.random.key(0), (5, *shape)), jnp.full(5, 0.2), jnp.zeros(5))
    i, v = jax.random.uniform(jax.random.key(1), (2, 4, 6, 6), minval=-1.0)
    y = jnp.stack([i, v], axis=-1)
    m, restore = Measurement(TwoSensors(shape), Gaussian(0.1), y), POSTERIOR_SAMPLERS["ddfm"](steps=30)
    x = compiled(lambda key: restore(key, prior.denoiser(PROCESS), PROCESS, m, jnp.zeros((4, *shape))))(
        jax.random.key(2)
    )
    total = lambda f: float((jnp.abs(f - i) + jnp.abs(f - v)).sum() / jnp.abs(i - v).sum())
    assert total(x[..., 0]) < 1.3 < 1.5 < total(prior.sample(jax.random.key(3), 4)[0][..., 0])
