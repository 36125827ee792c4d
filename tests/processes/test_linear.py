"""Matrix-coefficient processes against their moment ODEs, scalar processes, and Gaussian algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from genjax import processes
from genjax.core import Prediction
from genjax.processes.linear import cholesky, propagate

BUILD = {
    "cld": processes.cld,
    "malda": processes.malda,
    "scalar": lambda: processes.linear([[0.0]], [[0.5]], [1.0], [], 0.1, 20.0),
}


@pytest.fixture(params=list(BUILD))
def process(request, x64):
    return BUILD[request.param]()


@pytest.mark.parametrize("tau", [1e-4, 0.3, 4.0])
def test_propagate_is_the_matrix_exponential(tau, x64):
    # Van Loan's block exponential for C, SciPy's for Phi; small tau checks the digits of the smallest entry
    a, gg = (np.asarray(m, np.float64) for m in processes.cld().matrices())
    phi, c = propagate(jnp.asarray(a), jnp.asarray(gg), jnp.asarray(tau))
    block = scipy.linalg.expm(np.block([[-a, gg], [np.zeros_like(a), a.T]]) * tau)
    np.testing.assert_allclose(phi, scipy.linalg.expm(a * tau), rtol=1e-10, atol=1e-13)
    if tau < 1:
        np.testing.assert_allclose(c, block[2:, 2:].T @ block[:2, 2:], rtol=1e-9, atol=1e-18)
    else:  # there the block exponential itself loses its digits: C = S - Phi S Phi^T
        s = np.diag(np.asarray(processes.cld().s))
        np.testing.assert_allclose(c, s - phi @ s @ phi.T, rtol=1e-9, atol=1e-12)
    if tau == 1e-4:  # integrated noise: velocity variance 2 Gamma tau, position (1 / M)^2 2 Gamma tau^3 / 3
        np.testing.assert_allclose(c[0, 0], 16 * 2 * tau**3 / 3, rtol=1e-3)


@pytest.mark.usefixtures("optimized")
def test_float32_keeps_small_covariances():
    # at t_min the position variance is 1e-8 of the velocity's: catches cancellation
    t = jnp.asarray([1e-3, 0.1, 1.0])
    single = processes.cld().kernel(t)
    with jax.enable_x64(True):
        double = processes.cld().kernel(jnp.asarray(np.asarray(t), jnp.float64))
        double = [np.asarray(a) for a in double]
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-12)


def test_moments_obey_their_odes(process):
    # dM/dt = beta A M, dSigma/dt = beta (A Sigma + Sigma A^T + G G^T), by finite differences
    a, gg = process.matrices()
    for t in (0.05, 0.5, 0.95):
        h = 1e-5
        moments = lambda t: (process.kernel(t)[0], process.kernel(t)[1] @ process.kernel(t)[1].T)
        m, sigma = moments(t)
        d_m, d_sigma = ((hi - lo) / (2 * h) for hi, lo in zip(moments(t + h), moments(t - h), strict=True))
        beta = process.beta(t)
        np.testing.assert_allclose(d_m, beta * a @ m, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(d_sigma, beta * (a @ sigma + sigma @ a.T + gg), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(process.diffusion(t) @ process.diffusion(t).T, beta * gg, atol=1e-12)


def test_prior_law_is_stationary(process):
    a, gg = process.matrices()
    s = jnp.diag(process.s)
    np.testing.assert_allclose(a @ s + s @ a.T + gg, 0, atol=1e-12)
    long = process.replace(beta_max=process.beta_max * 20)
    np.testing.assert_allclose(long.kernel(1.0)[1] @ long.kernel(1.0)[1].T, s, atol=1e-6)


def test_scalar_case_is_vp(x64):
    # K = 1, Q = 0, D = 1/2 is the variance-preserving process: kernel, posterior, velocity, score
    linear, vp = BUILD["scalar"](), processes.vp()
    t, s = jnp.asarray([0.3, 0.8]), jnp.asarray([0.1, 0.5])
    m, chol = linear.kernel(t)
    np.testing.assert_allclose(m[:, 0], vp.alpha(t), rtol=1e-10)
    np.testing.assert_allclose(chol[:, 0, 0], vp.sigma(t), rtol=1e-10)
    x0, eps = jnp.asarray([0.4, -1.0]), jnp.asarray([1.5, 0.2])
    x = vp.perturb(x0, eps, t)
    pred, wide = Prediction(x0=x0, eps=eps), Prediction(x0=x0, eps=eps[:, None])
    ours, theirs = linear.posterior(x[:, None], wide, t, s), vp.posterior(x, pred, t, s)
    np.testing.assert_allclose(ours.mean[:, 0], theirs.mean, rtol=1e-9)
    np.testing.assert_allclose(ours.chol[:, 0, 0], theirs.std, rtol=1e-9)
    np.testing.assert_allclose(linear.velocity(x[:, None], wide, t)[:, 0], vp.velocity(x, pred, t), rtol=1e-9)
    np.testing.assert_allclose(linear.score(x[:, None], wide, t)[:, 0], vp.score(x, pred, t), rtol=1e-9)


def test_transitions_compose(process):
    # Chapman-Kolmogorov for mean map and covariance
    k = process.size
    basis = jnp.eye(k)
    step = lambda t, s: (process.transition(basis, t, s).mean.T, process.transition(basis, t, s).chol)
    (p1, l1), (p2, l2), (p, chol_whole) = step(0.1, 0.4), step(0.4, 0.8), step(0.1, 0.8)
    np.testing.assert_allclose(p2 @ p1, p, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(p2 @ l1 @ l1.T @ p2.T + l2 @ l2.T, chol_whole @ chol_whole.T, rtol=1e-9, atol=1e-12)
    m, chol = process.kernel(0.1)
    m_s, chol_s = process.kernel(0.8)
    np.testing.assert_allclose(p @ m, m_s, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        p @ chol @ chol.T @ p.T + chol_whole @ chol_whole.T, chol_s @ chol_s.T, rtol=1e-9, atol=1e-12
    )


def test_posterior_is_bayes(process):
    # condition the joint Gaussian of (u_s, u_t) given x0
    t, s, k = 0.7, 0.4, process.size
    rng = np.random.default_rng(0)
    x0, eps = jnp.asarray(rng.normal(size=(4,))), jnp.asarray(rng.normal(size=(4, k)))
    u = process.perturb(x0, eps, t)
    m_t, l_t = process.kernel(t)
    m_s, l_s = process.kernel(s)
    phi = process.transition(jnp.eye(k), s, t).mean.T
    cov_s, cov_t = l_s @ l_s.T, l_t @ l_t.T
    gain = cov_s @ phi.T @ jnp.linalg.inv(cov_t)
    law = process.posterior(u, process.prediction(eps, u, t), t, s)
    mean = x0[:, None] * m_s[None] + (u - x0[:, None] * m_t[None]) @ gain.T
    np.testing.assert_allclose(law.mean, mean, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(law.chol @ law.chol.T, cov_s - gain @ phi @ cov_s, rtol=1e-6, atol=1e-10)
    last = process.posterior(u, process.prediction(eps, u, t), t, 0.0)
    np.testing.assert_allclose(last.mean[:, 0], x0, rtol=1e-8)
    np.testing.assert_allclose(last.chol[0], 0, atol=1e-9)


def gaussian_score(process, mean, std):
    """The exact score field for data N(mean, std^2)."""

    def score(u, t):
        m, chol = process.kernel(t)
        cov = chol @ chol.T + std**2 * jnp.outer(m, m)
        return -jnp.linalg.solve(cov, (u - mean * m[None]).T).T

    return score


def test_reverse_ode_and_sde_reach_the_data(x64):
    # Gaussian data: the law of a linear reverse flow is known from its mean and covariance, propagated by fine Euler
    process, mean, std, n = processes.cld(), 1.5, 0.6, 4000
    score = gaussian_score(process, mean, std)
    m, chol = process.kernel(1.0)
    start_mean, start_cov = mean * m, chol @ chol.T + std**2 * jnp.outer(m, m)
    basis = jnp.concatenate([jnp.zeros((1, 2)), jnp.eye(2)])

    def run(share, noise):
        def body(carry, t):
            mu, cov = carry
            h = (1.0 - 1e-3) / n

            def drift(u, t):
                pred = process.prediction_from_score(score(u, t), u, t)
                return process.reverse_drift(u, pred, t, share)

            affine = drift(basis, t - h / 2)
            a = (affine[1:] - affine[:1]).T
            step = jnp.eye(2) - h * a + h * h / 2 * a @ a
            g = process.diffusion(t)
            mu = step @ mu - h * (jnp.eye(2) - h / 2 * a) @ affine[0]
            return (mu, step @ cov @ step.T + noise * h * g @ g.T), None

        times = 1.0 - (1.0 - 1e-3) / n * jnp.arange(n)
        return jax.lax.scan(body, (start_mean, start_cov), times)[0]

    for share, noise in ((0.5, 0.0), (1.0, 1.0)):
        mu, cov = jax.jit(run, static_argnums=(0, 1))(share, noise)
        m_end, chol_end = process.kernel(1e-3)
        np.testing.assert_allclose(mu, mean * m_end, atol=2e-3)
        np.testing.assert_allclose(cov, chol_end @ chol_end.T + std**2 * jnp.outer(m_end, m_end), atol=2e-3)


def test_draws_have_the_kernel():
    process = processes.cld()
    x0 = jnp.full((20000,), 0.7)
    u, truth = process.corrupt(jax.random.key(0), x0, 0.3)
    m, chol = process.kernel(0.3)
    assert u.shape == truth.eps.shape == (20000, 2)
    np.testing.assert_allclose(u.mean(0), 0.7 * m, atol=0.01)
    np.testing.assert_allclose(jnp.cov(u.T), chol @ chol.T, atol=0.01)
    prior = process.prior(jax.random.key(1), u)
    np.testing.assert_allclose(jnp.cov(prior.T), jnp.diag(process.s), atol=0.03)
    image = process.corrupt(jax.random.key(2), jnp.zeros((2, 4, 4, 1)), jnp.asarray([0.1, 0.9]))[0]
    assert image.shape == (2, 4, 4, 1, 2)


def test_learned_matrices_have_finite_gradients():
    # gradients through the exponential and the Cholesky factor, at t = 0 too
    def loss(d, t):
        process = processes.cld().replace(d=d)
        return sum(jnp.sum(part) for part in process.kernel(t))

    for t in (0.0, 1e-3, 0.5):
        assert bool(jnp.all(jnp.isfinite(jax.grad(loss)(jnp.asarray([[0.0, 0.0], [0.0, 1.0]]), t))))


def test_semidefinite_cholesky(x64):
    m = np.random.default_rng(0).normal(size=(5, 3, 3))
    m = m @ m.swapaxes(-1, -2)
    np.testing.assert_allclose(cholesky(jnp.asarray(m)), np.linalg.cholesky(m), rtol=1e-9, atol=1e-12)
    low = jnp.asarray([[0.0, 0.0], [0.0, 4.0]])
    np.testing.assert_array_equal(cholesky(low), jnp.asarray([[0.0, 0.0], [0.0, 2.0]]))


def test_bad_input():
    with pytest.raises(ValueError, match="q: expected a skew-symmetric matrix"):
        processes.linear([[0, 1], [1, 0]], [[0, 0], [0, 1]], [1, 1], [0.1])
    with pytest.raises(ValueError, match="d: expected a symmetric positive semi-definite matrix"):
        processes.linear([[0, 1], [-1, 0]], [[0, 0], [0, -1]], [1, 1], [0.1])
    with pytest.raises(ValueError, match="aux_var: expected 1 numbers"):
        processes.linear([[0, 1], [-1, 0]], [[0, 0], [0, 1]], [1, 1], [])
    with pytest.raises(ValueError, match=r"eta: expected 1 for a linear process, got 0.0"):
        process = processes.cld()
        process.posterior(jnp.zeros((1, 2)), Prediction(jnp.zeros(1), jnp.zeros((1, 2))), 0.5, 0.2, 0.0)


def test_every_name_builds_a_process():
    # the dictionary of the config: each name builds, binds as documented and gives a sample of its law
    extra = {"masked": {"vocab": 5}, "uniform": {"vocab": 5}}
    for name, constructor in processes.PROCESSES.items():
        process = constructor(**extra.get(name, {}))
        process = process.bind(x1=jnp.ones((2, 3))) if name == "brownian_bridge" else process.bind()
        x0 = jnp.zeros((2, 3), int) if name in extra else jnp.zeros((2, 3))
        x, truth = process.corrupt(jax.random.key(0), x0, (process.t_min + process.t_max) / 2)
        assert x.shape[:2] == (2, 3) and truth.x0.shape == (2, 3), name
        assert process.prior(jax.random.key(0), x).shape == x.shape, name
        assert constructor.__doc__, name
