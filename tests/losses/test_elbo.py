"""The variational bound against exact likelihoods: with the true denoiser it is tight, otherwise above."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax.core.prediction import with_eps
from genjax.core.types import Prediction
from genjax.losses import elbo
from genjax.losses import times as tm
from genjax.metrics.bits import bits_per_dim
from genjax.oracles.mixture import Mixture
from genjax.processes import gaussian
from genjax.solvers import grids

MIXTURE = Mixture(
    jnp.array([[1.0, 0.0], [-0.5, 0.8], [0.0, -1.0]]), jnp.array([0.3, 0.2, 0.4]), jnp.log(jnp.array([0.5, 0.2, 0.3]))
)
PROCESS = gaussian.log_linear(10.0, -10.0, t_min=1e-4)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_decoder_sums_to_one(levels):
    """Over all levels, for means in and far out of the range and narrow to wide laws, in float32."""
    x = jnp.linspace(-1, 1, levels)[None, None]
    mean = jnp.array([0.0, 0.3, -1.0, 1.0, 1.7, -40.0])[:, None, None]
    std = jnp.array([3e-3, 0.05, 0.3, 5.0])[None, :, None]
    log_p = elbo.discretized_log_prob(x, mean, std, levels)
    assert bool(jnp.all(jnp.isfinite(log_p))) and bool(jnp.all(log_p <= 1e-6))
    np.testing.assert_allclose(jnp.exp(log_p).sum(-1), 1, atol=2e-4)


def test_decoder_tails_and_gradients():
    """log-probabilities of far bins against float64 differences in logarithm, finite gradients there."""
    x, mean, std, half = jnp.array([-1.0, -0.25, 0.5, 1.0]), 0.4, 0.06, 1 / 16
    log_p = elbo.discretized_log_prob(x, mean, std, 17)
    law = stats.norm(mean, std)

    def exact(v):
        if v == -1:
            return law.logcdf(v + half)
        if v == 1:
            return law.logsf(v - half)
        ends = (
            sorted([law.logcdf(v + half), law.logcdf(v - half)])
            if v < mean
            else sorted([law.logsf(v - half), law.logsf(v + half)])
        )
        return ends[1] + np.log1p(-np.exp(ends[0] - ends[1]))

    np.testing.assert_allclose(log_p, [exact(float(v)) for v in x], rtol=1e-4)
    for of in (0, 1):
        grad = jax.jacobian(lambda m, s: elbo.discretized_log_prob(x, m, s, 256), of)(
            jnp.float32(30.0), jnp.float32(1e-3)
        )
        assert bool(jnp.all(jnp.isfinite(grad)))


@pytest.mark.parametrize("variance", elbo.VARIANCES)
@pytest.mark.parametrize("make", [gaussian.vp, gaussian.flow, gaussian.edm, lambda: gaussian.ddpm(100)])
def test_transition_kl_is_that_of_the_posteriors(variance, make, x64):
    """The closed form against KL(N, N) between the laws that the ancestral solver draws from."""
    process = make()
    u = jnp.array([0.05, 0.3, 0.9])
    t = process.t_min + u * (process.t_max - process.t_min)
    s = process.t_min + 0.8 * u * (process.t_max - process.t_min)
    x0, eps, hat, v = (jax.random.normal(jax.random.key(i), (3, 4)) for i in range(4))
    x_t = process.perturb(x0, eps, t)
    pred = with_eps(Prediction(), hat, x_t, process, t)._replace(v=jax.nn.sigmoid(v))
    true = Prediction(x0=x0, eps=eps)
    judged = pred._replace(v={"lower": None, "upper": jnp.ones(()), "predicted": pred.v}[variance])
    q, p = process.posterior(x_t, true, t, s), process.posterior(x_t, judged, t, s)
    ratio = (q.std / p.std) ** 2
    kl = jnp.sum(0.5 * (ratio - 1 - jnp.log(ratio)) + 0.5 * ((q.mean - p.mean) / p.std) ** 2, axis=1)
    np.testing.assert_allclose(elbo.transition_kl(process, pred, true, t, s, variance), kl, rtol=1e-6)


def test_prior_kl():
    """SNR ||x||^2 / 2 at t_max; the marginal's KL from N(0, sigma^2)."""
    process, x = gaussian.vp(), jnp.array([[1.0, 2.0], [0.0, 3.0]])
    mean, std = np.asarray(process.alpha(1.0)) * np.asarray(x), float(process.sigma(1.0))
    np.testing.assert_allclose(elbo.prior_kl(process, x), 0.5 * np.sum((mean / std) ** 2, 1), rtol=1e-4)


@pytest.fixture(scope="module")
def chains():
    """Mean gap of the chain's bound over the true NLL for steps x variance, with the exact denoiser."""
    x = MIXTURE.sample(jax.random.key(0), 6000)[0]
    nll = -MIXTURE.log_prob(x)
    process = gaussian.log_linear(10.0, -10.0, t_min=0.05)  # starts at log-SNR 9: the density is smooth there
    denoiser = MIXTURE.denoiser(process)

    @functools.partial(jax.jit, static_argnums=1)
    def gaps(key, n):
        grid = grids.log_snr(process, n)
        bounds = [elbo.chain_bound(key, denoiser, process, x, grid, variance=v) for v in ("lower", "upper")]
        assert bounds[0].diffusion.shape == (n - 1, len(x))
        return [(bound.total - nll).mean() for bound in bounds]

    key, table = jax.random.key(1), {}
    for n in (10, 40, 160):
        table[n, "lower"], table[n, "upper"] = (float(g) for g in gaps(key, n))
    return table


def test_chain_is_tight_for_many_steps(chains):
    """The gap is positive and falls as 1 / steps towards 0: an exact denoiser has the exact likelihood."""
    for variance, small in (("lower", 0.6), ("upper", 0.06)):
        g = [chains[n, variance] for n in (10, 40, 160)]
        assert g[0] > 2.5 * g[1] > 5 * g[2], (variance, g)
        assert -0.02 < g[2] < small, (variance, g)


@pytest.mark.parametrize("sampler", [tm.log_snr, lambda p: tm.log_normal(p, -1.0, 1.5)], ids=["log_snr", "log_normal"])
def test_continuous_bound_is_the_likelihood(sampler):
    """For likely and unlikely points alike, for the exact denoiser, whichever density draws the levels."""
    x = MIXTURE.sample(jax.random.key(0), 1500)[0]
    run = jax.jit(
        lambda key: elbo.continuous_bound(key, MIXTURE.denoiser(PROCESS), PROCESS, x, sampler(PROCESS), draws=200).total
    )
    log_p = np.asarray(MIXTURE.log_prob(x))
    gap = np.asarray(run(jax.random.key(1))) + log_p
    for part in np.array_split(np.argsort(log_p), 3):  # unlikely, middling and likely points
        assert abs(gap[part].mean()) < 4 * gap[part].std() / np.sqrt(len(part)) + 5e-3
    assert gap.std() < 2.0


def test_continuous_bound_of_a_wrong_denoiser_is_above():
    """By half the integral of the extra eps error; here eps is scaled by 0.9."""
    x = MIXTURE.sample(jax.random.key(0), 1000)[0]
    exact = MIXTURE.denoiser(PROCESS)

    def wrong(x_t, t, cond=None, key=None):
        pred = exact(x_t, t)
        return with_eps(pred, 0.9 * pred.eps, x_t, PROCESS, t)

    run = lambda d: jax.jit(
        lambda key: elbo.continuous_bound(key, d, PROCESS, x, tm.log_snr(PROCESS), draws=200).diffusion
    )(jax.random.key(1))
    extra = float((run(wrong) - run(exact)).mean())
    # the extra is 0.01 / 2 int E||eps_hat||^2, E||eps_hat||^2 = D - E||error||^2
    lam = jnp.linspace(-9.99, 9.99, 400)
    noisy = lambda t: PROCESS.perturb(x, jax.random.normal(jax.random.key(3), x.shape), t)
    square = jax.lax.map(lambda t: jnp.mean(jnp.sum(exact(noisy(t), t).eps ** 2, -1)), PROCESS.time(lam))
    np.testing.assert_allclose(extra, 0.005 * float(jnp.mean(square)) * 20, rtol=0.1)


def test_discrete_data_reaches_its_entropy():
    """Data on 17 grey levels with known probabilities: bits per dimension equal the entropy.

    Catches a wrong bin width or range of the decoder, and units.
    """
    logits = jax.random.normal(jax.random.key(0), (17,))
    data = Mixture(jnp.linspace(-1, 1, 17)[:, None], jnp.zeros(17), logits)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    process = gaussian.log_linear(10.0, -10.0, t_min=1e-3)  # sigma_min = 0.007, a tenth of half a bin
    x, k = data.sample(jax.random.key(1), 2000)
    exact = bits_per_dim(-log_p[np.asarray(k)].mean(), (1,))
    run = jax.jit(
        lambda key: elbo.continuous_bound(
            key, data.denoiser(process), process, x, tm.log_snr(process), draws=200, levels=17
        )
    )
    bound = run(jax.random.key(2))
    assert abs(bits_per_dim(float(bound.total.mean()), (1,)) - exact) < 0.03
    assert float(jnp.max(bound.decoder)) < 1e-3, "the cleanest latent names its level"
    chain = jax.jit(
        lambda key: (
            elbo.chain_bound(
                key, data.denoiser(process), process, x, grids.log_snr(process, 300), variance="lower", levels=17
            ).total
        )
    )(jax.random.key(3))
    assert -0.03 < bits_per_dim(float(chain.mean()), (1,)) - exact < 0.12


def test_respacing():
    """All T of T times are the chain itself, and the variances over any subset are 1 - ratios of alpha-bar."""
    process = gaussian.ddpm(50)
    full = grids.uniform(process, 50)
    np.testing.assert_allclose(full * 50, np.arange(50, -1, -1), atol=1e-4)
    alpha_bar = np.cumprod(1 - np.linspace(20e-4, 0.4, 50))
    for kept in (np.arange(1, 51), np.array([1, 7, 20, 50])):
        t, s = kept[1:] / 50, kept[:-1] / 50
        upper = process.posterior_std_range(jnp.asarray(t), jnp.asarray(s))[1] ** 2
        np.testing.assert_allclose(upper, 1 - alpha_bar[kept[1:] - 1] / alpha_bar[kept[:-1] - 1], rtol=2e-3)


def test_bad_grids():
    x, d = jnp.zeros((2, 2)), MIXTURE.denoiser(PROCESS)
    with pytest.raises(ValueError, match="grid"):
        elbo.chain_bound(jax.random.key(0), d, PROCESS, x, [1.0, 0.0])
    with pytest.raises(ValueError, match=r"variance.*'big'"):
        elbo.chain_bound(jax.random.key(0), d, PROCESS, x, grids.uniform(PROCESS, 5), variance="big")
