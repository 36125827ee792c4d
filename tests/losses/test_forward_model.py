"""Diffusion with forward models on a signal of two correlated numbers, of which every observation shows one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.losses import times as tm
from genjax.losses import weightings as w
from genjax.losses.forward_model import forward_denoiser, forward_model
from genjax.processes import gaussian
from genjax.solvers import generate, grids
from genjax.solvers.ancestral import ddim

PROCESS, RHO, N = gaussian.cosine(8.0, -8.0), 0.8, 20000
VARIANCE = 1 - RHO**2  # of the second number given the first


def forward(s, phi):
    """Number phi [B] of each signal [B, 2], as [B, 1]."""
    return jnp.take_along_axis(s, phi[:, None], axis=1)


def oracle(shift=0.0):
    """E[S | context, x_t] where the context is the first number and the target the second; plus an error."""

    def signal(x, t, cond, key=None):
        a, s = (jnp.reshape(c, (-1, 1)) for c in (PROCESS.alpha(t), PROCESS.sigma(t)))
        prior = RHO * cond["context"]
        second = prior + a * VARIANCE / (a**2 * VARIANCE + s**2) * (x - a * prior)
        return jnp.concatenate([cond["context"], second], axis=1) + shift

    return signal


@pytest.fixture(scope="module")
def batch():
    z = jax.random.normal(jax.random.key(0), (N, 2))
    s = jnp.stack([z[:, 0], RHO * z[:, 0] + VARIANCE**0.5 * z[:, 1]], axis=1)
    first, second = jnp.zeros(N, jnp.int32), jnp.ones(N, jnp.int32)
    cond = {"context": s[:, :1], "phi": second}
    return {"x": s[:, 1:], "cond": cond, "novel": s[:, :1], "novel_phi": first}


def test_loss_is_the_bayes_error(batch):
    """With the exact signal estimate the target's error is Var(b | a, b_t) at each level; a shift adds its square to
    target and novel errors alike, weighted alike."""
    loss = forward_model(PROCESS, tm.uniform(PROCESS), w.eps(), forward, novel=0.5)
    f = jax.jit(lambda shift: loss(jax.random.key(1), {"signal": oracle(shift)}, batch))
    value, aux = f(0.0)
    snr = np.exp(aux["log_snr"])
    np.testing.assert_allclose(value, snr * (aux["target_mse"] + 0.5 * aux["novel_mse"]), rtol=1e-4)
    bayes = VARIANCE / (1 + snr * VARIANCE)
    np.testing.assert_allclose(np.mean(aux["target_mse"] / bayes), 1.0, atol=0.05)
    np.testing.assert_allclose(aux["novel_mse"], 0.0, atol=1e-10)
    _, moved = f(0.3)
    np.testing.assert_allclose(moved["novel_mse"], 0.09, rtol=1e-4)
    np.testing.assert_allclose(jnp.mean(moved["target_mse"] - aux["target_mse"]), 0.09, atol=0.01)


def test_only_what_is_rendered_is_supervised(batch):
    """Without a novel observation the gradient does not reach the part of the signal that the target's phi misses."""
    shift = jnp.array([[0.3, 0.0]])
    for novel, reached in ((0.0, False), (1.0, True)):
        loss = forward_model(PROCESS, tm.uniform(PROCESS), w.eps(), forward, novel=novel)
        value = lambda s, loss=loss: jnp.mean(loss(jax.random.key(1), {"signal": oracle(s)}, batch)[0])
        gradient = jax.jit(jax.grad(value))(shift)
        assert bool(jnp.abs(gradient[0, 0]) > 1e-3) == reached


def test_samples_are_signals(batch):
    """DDIM on the rendered estimates draws the unseen number from its law given the context, and the last estimate
    is the whole signal, which agrees with the context."""
    n = 4000
    context = jnp.full((n, 1), 1.5)
    cond = {"context": context, "phi": jnp.ones(n, jnp.int32)}
    denoiser = forward_denoiser(oracle(), forward, PROCESS)

    @jax.jit
    def run(key):
        x = generate(key, denoiser, PROCESS, ddim(1.0), grids.log_snr(PROCESS, 100), jnp.zeros((n, 1)), cond)
        return x, denoiser(x, PROCESS.t_min, cond).features["signal"]

    x, s = run(jax.random.key(2))
    np.testing.assert_allclose(x.mean(), RHO * 1.5, atol=0.04)
    np.testing.assert_allclose(x.std(), VARIANCE**0.5, rtol=0.06)
    np.testing.assert_array_equal(s[:, :1], context)


def test_errors(batch):
    with pytest.raises(ValueError, match="novel: expected a weight >= 0, got -1"):
        forward_model(PROCESS, tm.uniform(PROCESS), w.eps(), forward, novel=-1)
    loss = forward_model(PROCESS, tm.uniform(PROCESS), w.eps(), forward)
    with pytest.raises(ValueError, match=r"batch: expected .*novel_phi.* too"):
        loss(jax.random.key(0), {"signal": oracle()}, {k: v for k, v in batch.items() if k != "novel_phi"})
    with pytest.raises(ValueError, match="cond: expected 'phi'"):
        forward_denoiser(oracle(), forward, PROCESS)(jnp.zeros((1, 1)), 0.5)
