"""The law of every sampler on Gaussian data, against a recursion written here in double precision.

With a Gaussian prior N(m, C) and a linear operator each of these samplers makes steps x_s = M x_t + c + N n, so what
it draws is Gaussian with a mean and covariance that a few matrix products give, at any number of steps. The
recursions are the papers' formulas under the vp scale, and know nothing of the code: a sampler must show its own
approximation, no more and no less.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.core.types import Measurement
from genjax.inverse import POSTERIOR_SAMPLERS, Gaussian, likelihood, posterior_gradient, sampler
from genjax.inverse.operators import dense
from genjax.oracles.gaussian import gaussian_data
from genjax.processes import gaussian
from genjax.solvers import generate, grids
from genjax.solvers.ancestral import ddim

D, STEPS, COUNT, STD = 4, 6, 20000, 0.3
RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.normal(size=(D, D)))[0]
COV = BASIS @ np.diag([1.0, 0.5, 0.2, 0.05]) @ BASIS.T
MEAN = np.array([0.5, -0.3, 0.2, 0.1])
A = RNG.normal(size=(2, D)) / 2
Y = A @ np.array([0.8, 0.1, -0.4, 0.5])
PROCESS = gaussian.vp()
EYE = np.eye(D)


class Level:
    """One step's numbers: alpha, sigma at t and s, the denoiser x0 = K x + b, and the DDIM split of its law."""

    def __init__(self, t, s, eta):
        self.a, self.s = float(PROCESS.alpha(t)), float(PROCESS.sigma(t))
        self.a2, self.s2 = float(PROCESS.alpha(s)), float(PROCESS.sigma(s))
        self.K = self.a * COV @ np.linalg.inv(self.a**2 * COV + self.s**2 * EYE)
        self.b = (EYE - self.a * self.K) @ MEAN
        snr = (self.a / self.s) ** 2 * (self.s2 / self.a2) ** 2
        self.std = eta * self.s2 * np.sqrt(1 - snr)
        self.keep = np.sqrt(self.s2**2 - self.std**2) / self.s
        self.gain = self.a2 - self.keep * self.a
        self.r = self.s / self.a

    def ancestral(self, G, g):
        """(M, c, N) of the DDIM step where x0 is G x + g and eps is recomputed."""
        return self.gain * G + self.keep * EYE, self.gain * g, self.std * EYE

    def moved(self, W):
        """x0 + W (y - A x0) as (G, g)."""
        return self.K - W @ A @ self.K, self.b + W @ (Y - A @ self.b)


PINV = np.linalg.pinv(A)


def plain(v):
    return v.ancestral(v.K, v.b)


def dps(v, scale=0.1):
    M, c, N = plain(v)
    pull = 2 * scale * v.K.T @ A.T
    return M - pull @ A @ v.K, c + pull @ (Y - A @ v.b), N


def replaced(M, c, N, v):
    keep = EYE - PINV @ A
    noise = np.concatenate([keep @ N, v.s2 * PINV @ A], axis=1)
    return keep @ M, keep @ c + v.a2 * PINV @ Y, noise


def pigdm(v, data_std=0.7):
    r2 = (v.s * data_std) ** 2 / ((v.a * data_std) ** 2 + v.s**2)
    return v.ancestral(*v.moved(v.s**2 / v.a * v.K.T @ A.T @ np.linalg.inv(r2 * A @ A.T + STD**2 * np.eye(2))))


def tmpd(v):
    P = v.s**2 / v.a * v.K
    return v.ancestral(*v.moved(P @ A.T @ np.linalg.inv(A @ P @ A.T + STD**2 * np.eye(2))))


def continuous_dps(v):
    return v.ancestral(*v.moved(v.s**2 / v.a * v.K.T @ A.T / STD**2))


def ddnm(v):
    return v.ancestral(*v.moved(PINV))


U, S, VT = np.linalg.svd(A)
S_FULL = np.array([*S, 0, 0])
YBAR = np.array([*(U.T @ Y / S), 0, 0])


def ddrm(v, eta=0.85, eta_b=1.0):
    z = VT @ v.K, VT @ v.b  # x0 in the basis V
    e = (VT - v.a * z[0]) / v.s, -v.a * z[1] / v.s
    M, c, N = np.zeros((D, D)), np.zeros(D), np.zeros(D)
    r = v.s2 / v.a2
    for i in range(D):
        noise = STD / S_FULL[i] if S_FULL[i] else np.inf
        down = np.sqrt(1 - eta**2) * r
        if not S_FULL[i]:
            M[i], c[i], N[i] = z[0][i] + down * e[0][i], z[1][i] + down * e[1][i], eta * r
        elif r < noise:
            M[i], c[i], N[i] = (
                z[0][i] * (1 - down / noise),
                z[1][i] * (1 - down / noise) + down / noise * YBAR[i],
                eta * r,
            )
        else:
            M[i], c[i] = (1 - eta_b) * z[0][i], (1 - eta_b) * z[1][i] + eta_b * YBAR[i]
            N[i] = np.sqrt(r**2 - (eta_b * noise) ** 2)
    return v.a2 * VT.T @ M, v.a2 * VT.T @ c, v.a2 * VT.T @ np.diag(N)


def ddnm_plus(v):
    z = VT @ v.K, VT @ v.b
    M, c, N = np.zeros((D, D)), np.zeros(D), np.zeros(D)
    for i in range(D):
        weight, left = 0.0, v.std**2
        if S_FULL[i]:
            brought = abs(v.gain) * STD / S_FULL[i]
            weight = 1.0 if brought <= v.std else v.std / brought
            left = v.std**2 - (weight * brought) ** 2
        M[i] = v.gain * (1 - weight) * z[0][i] + v.keep * VT[i]
        c[i] = v.gain * ((1 - weight) * z[1][i] + weight * YBAR[i])
        N[i] = np.sqrt(max(left, 0))
    return VT.T @ M, VT.T @ c, VT.T @ np.diag(N)


def diffpir(v, strength=1.5, zeta=0.4):
    rho = strength * STD**2 / v.r**2
    G, g = v.moved(np.linalg.inv(A.T @ A + rho * EYE) @ A.T)
    k = v.s2 * np.sqrt(1 - zeta) / v.s
    return (v.a2 - k * v.a) * G + k * EYE, (v.a2 - k * v.a) * g, v.s2 * np.sqrt(zeta) * EYE


def daps(v):
    total = np.linalg.inv(A.T @ A / STD**2 + EYE / v.r**2)
    G, g = v.moved(total @ A.T / STD**2)
    return v.a2 * G, v.a2 * g, np.concatenate([v.a2 * np.linalg.cholesky(total), v.s2 * EYE], axis=1)


def gdp_x0(v, scale=0.2):
    M, c, N = plain(v)
    pull = 2 * scale * A.T
    return M - pull @ A @ v.K, c + pull @ (Y - A @ v.b), N


def gdp_x_t(v, scale=0.8):
    M, c, N = plain(v)
    pull = 2 * scale * v.std**2 * A.T
    return M - pull @ A, c + pull @ Y, N


# name -> (constructor arguments, (level -> (M, c, N)), eta of the DDIM step)
CASES = {
    "dps": ({"scale": 0.1, "squared": True, "eta": 0.7}, dps, 0.7),
    "mcg": ({"scale": 0.1, "squared": True}, lambda v: replaced(*dps(v), v), 1.0),
    "projection": ({}, lambda v: replaced(*plain(v), v), 1.0),
    "pigdm": ({"data_std": 0.7}, pigdm, 1.0),
    "tmpd": ({}, tmpd, 1.0),
    "ddrm": ({"eta": 0.85}, ddrm, 1.0),
    "ddnm": ({"eta": 0.6}, ddnm, 0.6),
    "ddnm_plus": ({"eta": 0.8}, ddnm_plus, 0.8),
    "diffpir": ({"strength": 1.5, "zeta": 0.4}, diffpir, 1.0),
    "daps": ({"inner": "prox", "ode_steps": 1}, daps, 1.0),
    "gdp": ({"scale": 0.2, "clip": None}, gdp_x0, 1.0),
    "gdp_x_t": ({"scale": 0.8, "clip": None, "form": "x_t"}, gdp_x_t, 1.0),
}


def measurement(count=COUNT):
    y = jnp.broadcast_to(jnp.asarray(Y, jnp.float32), (count, 2))
    return Measurement(dense(A), Gaussian(STD), y)


def agrees(x, mean, cov):
    """Mean within 5 standard errors, covariance within 5 of the largest entry's."""
    x, n = np.asarray(x, np.float64), len(x)
    assert np.isfinite(x).all()
    error = np.abs(x.mean(0) - mean) / np.sqrt(np.diag(cov) / n + 1e-12)
    assert error.max() < 5, (error, x.mean(0), mean)
    gap = np.abs(np.cov(x.T) - cov).max() / np.diag(cov).max()
    assert gap < 5 * np.sqrt(2 / n) + 1e-4, (gap, np.cov(x.T), cov)


def law(step, ts, eta, mean, cov):
    for t, s in itertools.pairwise(ts):
        M, c, N = step(Level(float(t), float(s), eta))
        mean, cov = M @ mean + c, M @ cov @ M.T + N @ N.T
    return mean, cov


@pytest.fixture(scope="module")
def denoiser():
    return gaussian_data(jnp.asarray(MEAN, jnp.float32), jnp.asarray(COV, jnp.float32)).denoiser(PROCESS)


@pytest.mark.parametrize("name", sorted(CASES))
def test_law(name, denoiser):
    """A wrong coefficient, level, sign or noise of any step changes the mean or covariance by more than 5 sigma."""
    arguments, step, eta = CASES[name]
    restore = POSTERIOR_SAMPLERS[name.removesuffix("_x_t")](steps=STEPS, grid="cosine", **arguments)
    x = jax.jit(lambda key: restore(key, denoiser, PROCESS, measurement(), jnp.zeros((COUNT, D))))(jax.random.key(1))
    ts = np.asarray(grids.cosine(PROCESS, STEPS))
    sigma = float(PROCESS.sigma(ts[0]))
    mean, cov = np.zeros(D), sigma**2 * EYE
    if name == "ddrm":  # starts at the measurement
        alpha = float(PROCESS.alpha(ts[0]))
        seen = S_FULL > 0
        mean = alpha * VT.T @ YBAR
        cov = VT.T @ np.diag(sigma**2 - np.where(seen, (alpha * STD / np.where(seen, S_FULL, 1)) ** 2, 0)) @ VT
    agrees(x, *law(step, ts, eta, mean, cov))


def test_likelihood_guidance(denoiser):
    """DPS's continuous form is a Guidance: under DDIM its law is that of the tilted score."""
    f = lambda key: generate(
        key,
        likelihood(measurement())(denoiser, PROCESS),
        PROCESS,
        ddim(1.0),
        grids.cosine(PROCESS, STEPS),
        jnp.zeros((COUNT, D)),
    )
    ts = np.asarray(grids.cosine(PROCESS, STEPS))
    start = np.zeros(D), float(PROCESS.sigma(ts[0])) ** 2 * EYE
    agrees(jax.jit(f)(jax.random.key(0)), *law(continuous_dps, ts, 1.0, *start))


def test_repaint_law(denoiser):
    """Two attempts a step, noised back between by the forward process."""
    restore = POSTERIOR_SAMPLERS["repaint"](times=2, steps=STEPS)
    x = jax.jit(lambda key: restore(key, denoiser, PROCESS, measurement(), jnp.zeros((COUNT, D))))(jax.random.key(2))
    ts = np.asarray(grids.cosine(PROCESS, STEPS))
    mean, cov = np.zeros(D), float(PROCESS.sigma(ts[0])) ** 2 * EYE
    for t, s in itertools.pairwise(ts):
        v = Level(float(t), float(s), 1.0)
        M, c, N = replaced(*plain(v), v)
        for again in (False, True):
            if again:
                ratio = v.a / v.a2
                mean, cov = ratio * mean, ratio**2 * cov + (v.s**2 - (ratio * v.s2) ** 2) * EYE
            mean, cov = M @ mean + c, M @ cov @ M.T + N @ N.T
    agrees(x, mean, cov)


def test_sdedit_law(denoiser):
    """From the pseudo-inverse, noised to the level where half of the grid is left, by deterministic DDIM."""
    restore = POSTERIOR_SAMPLERS["sdedit"](strength=0.5, steps=STEPS)
    x = jax.jit(lambda key: restore(key, denoiser, PROCESS, measurement(), jnp.zeros((COUNT, D))))(jax.random.key(3))
    ts = np.asarray(grids.cosine(PROCESS, STEPS))[STEPS // 2 :]
    start = float(PROCESS.alpha(ts[0])) * PINV @ Y, float(PROCESS.sigma(ts[0])) ** 2 * EYE
    agrees(x, *law(plain, ts, 0.0, *start))
    assert restore.nfe == STEPS // 2


def test_red_diff_law(denoiser):
    """Under plain gradient descent mu is Gaussian: mean, data term and denoiser residual each with its weight."""
    rate, strength, power = 0.5, 0.3, 1.5
    restore = POSTERIOR_SAMPLERS["red_diff"](
        strength=strength, power=power, optimizer=optax.sgd(rate), steps=STEPS, grid="uniform"
    )
    x = jax.jit(lambda key: restore(key, denoiser, PROCESS, measurement(), jnp.zeros((COUNT, D))))(jax.random.key(4))
    ts = np.asarray(grids.uniform(PROCESS, STEPS))[:-1]
    mean, cov = PINV @ Y, np.zeros((D, D))
    for t in ts:
        v = Level(float(t), float(t), 0.0)
        weight = rate * strength / D * v.r ** (power - 1)
        M = EYE - rate * A.T @ A / 2 - weight * (EYE - v.a * v.K)
        mean = M @ mean + rate * A.T @ Y / 2 + weight * v.b
        cov = M @ cov @ M.T + (weight * v.s) ** 2 * v.K @ v.K.T
    agrees(x, mean, cov)


def test_published_step_size():
    """The norm's gradient at scale is the square's at scale / (2 |r|): one step of either form, and vp alone."""
    data = gaussian_data(jnp.asarray(MEAN, jnp.float32), jnp.asarray(COV, jnp.float32))
    x, m = jax.random.normal(jax.random.key(0), (3, D)), measurement(3)
    r = jnp.linalg.norm(m.y - m.operator.forward(data.denoiser(PROCESS)(x, 0.5).x0), axis=1)

    def step(scale, squared):
        solver = posterior_gradient(ddim(0.0), m, scale, squared)
        return solver.step(None, data.denoiser(PROCESS), PROCESS, solver.init(x, 0.5), 0.5, 0.4)[0].x

    np.testing.assert_allclose(step(0.4, False), step(0.2 / r, True), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(sampler.vp_scale(PROCESS, 0.3), 1.0, rtol=1e-6)
