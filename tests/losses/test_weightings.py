"""Every weighting against its published form, in the space in which it was published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.prediction import TARGETS, target_coefficients
from genjax.core.types import Prediction
from genjax.losses import weightings as w
from genjax.losses.denoising import error
from genjax.processes import gaussian

LAM = np.linspace(-12.0, 12.0, 49)
SNR = np.exp(LAM)


def values(weighting, log_snr=LAM):
    return np.exp(np.asarray(weighting(jnp.asarray(log_snr))))


FORMS = {
    # name: (weighting, published factor, the error that it multiplies)
    "eps": (w.eps(), np.ones_like(SNR), w.eps()),
    "x0": (w.x0(), np.ones_like(SNR), w.x0()),
    "v as x0": (w.v(), SNR + 1, w.x0()),
    "v": (w.v(), np.ones_like(SNR), w.v()),
    "flow": (w.flow(), (1 + SNR**-0.5) ** 2, w.eps()),
    "edm on x0": (w.edm(0.5), (1 / SNR + 0.25) / (1 / SNR * 0.25), w.x0()),
    "min_snr on x0": (w.min_snr(5), np.minimum(SNR, 5), w.x0()),
    "min_snr on eps": (w.min_snr(5), np.minimum(1, 5 / SNR), w.eps()),
    "min_snr on v": (w.min_snr(5), np.minimum(SNR, 5) / (SNR + 1), w.v()),
    "soft_min_snr on x0": (w.soft_min_snr(4), SNR * 4 / (SNR + 4), w.x0()),
    "truncated_snr on x0": (w.truncated_snr(1), np.maximum(SNR, 1), w.x0()),
    "p2": (w.p2(0.5, 2.0), 1 / (2 + SNR) ** 0.5, w.eps()),
    "debias": (w.debias(), SNR**-0.5, w.eps()),
    "debias on x0": (w.debias(), SNR**0.5, w.x0()),
    "debias on v": (w.debias(), SNR**0.5 / (1 + SNR), w.v()),
    "debias capped": (w.debias(1000), np.minimum(SNR, 1000) ** -0.5, w.eps()),
    "sigmoid": (w.sigmoid(2), 1 / (1 + np.exp(LAM - 2)), w.eps()),
    "sech": (w.sech(), 1 / np.cosh(LAM / 2), w.eps()),
    "edm_implied": (
        w.edm_implied(),
        np.exp(-0.5 * ((LAM - 2.4) / 2.4) ** 2) / (2.4 * np.sqrt(2 * np.pi)) * (1 / SNR + 0.25) / 0.25,
        w.eps(),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_published_form(name, x64):
    """Catches a weight in the wrong space (min(SNR, gamma) on an eps loss, a missing +1 for v)."""
    weighting, factor, error_space = FORMS[name]
    np.testing.assert_allclose(values(w.on(weighting, error_space)), factor, rtol=1e-10)


def test_min_snr_table():
    """The figures of the definition at SNR 0.1, 5, 100."""
    lam = np.log([0.1, 5, 100])
    np.testing.assert_allclose(values(w.on(w.min_snr(5), w.x0()), lam), [0.1, 5, 5], rtol=1e-5)
    np.testing.assert_allclose(values(w.min_snr(5), lam), [1, 1, 0.05], rtol=1e-5)
    np.testing.assert_allclose(values(w.on(w.min_snr(5), w.v()), lam), [0.0909, 0.8333, 0.0495], rtol=1e-3)


def test_edm_monotonic():
    """Equal to EDM's weight right of its maximum at lambda = -3.31, constant left of it, never rising."""
    lam = np.linspace(-20, 15, 3501)
    implied, monotone = values(w.edm_implied(), lam), values(w.edm_monotonic(), lam)
    top = lam[np.argmax(implied)]
    assert abs(top + 3.31) < 0.01
    np.testing.assert_allclose(monotone[lam > top + 0.02], implied[lam > top + 0.02], rtol=1e-5)
    np.testing.assert_allclose(monotone[lam < top], implied.max(), rtol=1e-5)
    assert np.all(np.diff(monotone) < 1e-6)
    assert np.any(np.diff(implied) > 1e-3), "EDM's own weight rises somewhere"


@pytest.mark.parametrize("p_mean, p_std, sigma_data", [(-0.4, 1.0, 0.5), (0.0, 2.0, 1.0), (-1.2, 0.3, 0.1)])
def test_edm_monotonic_finds_the_maximum(p_mean, p_std, sigma_data, x64):
    """For other constants too: the plateau is as high as the weight's maximum on a fine grid."""
    lam = np.linspace(-60, 40, 200001)
    high = values(w.edm_implied(p_mean, p_std, sigma_data), lam).max()
    np.testing.assert_allclose(values(w.edm_monotonic(p_mean, p_std, sigma_data), lam)[0], high, rtol=1e-6)


PROCESSES = {
    "vp": lambda: gaussian.vp(),
    "cosine": lambda: gaussian.cosine(12.0, -12.0),
    "flow": lambda: gaussian.flow(),
    "edm": lambda: gaussian.edm(),
    "sub_vp": lambda: gaussian.sub_vp(),
}


@pytest.mark.parametrize("process", PROCESSES)
def test_errors_of_all_targets(process, x64):
    """||target error||^2 computed from the definition of the target = its weighting times ||eps error||^2."""
    p = PROCESSES[process]()
    t = jnp.linspace(p.t_min + 0.01 * (p.t_max - p.t_min), p.t_max * 0.99, 7)
    x0, eps, wrong = (jax.random.normal(jax.random.key(i), (7, 5)) for i in range(3))
    x_t = p.perturb(x0, eps, t)
    pred = Prediction(x0=wrong, eps=(x_t - p.alpha(t)[:, None] * wrong) / p.sigma(t)[:, None])
    eps_error = jnp.sum((pred.eps - eps) ** 2, axis=1)
    for name in TARGETS:
        c, d = (u[:, None] for u in target_coefficients(name, p, t, 0.5))
        true, guess = c * x0 + d * eps, c * pred.x0 + d * pred.eps
        native = jnp.sum((true - guess) ** 2, axis=1)
        log_w = w.target(p, name, 0.5)(p.log_snr(t))
        np.testing.assert_allclose(native, jnp.exp(log_w) * eps_error, rtol=1e-8, err_msg=name)
    # the closed forms, where they hold
    closed = {"eps": w.eps(), "x0": w.x0(), "edm": w.edm(0.5)}
    closed |= {"v": w.v()} if process in ("vp", "cosine") else {}
    closed |= {"velocity": w.flow()} if process == "flow" else {}
    for name, weighting in closed.items():
        np.testing.assert_allclose(w.target(p, name, 0.5)(p.log_snr(t)), weighting(p.log_snr(t)), rtol=1e-7, atol=1e-8)


def test_error_keeps_its_digits():
    """In float32 a relative error of 1e-3 is measured to 1 % from log-SNR -23 to 23, for x0 and eps networks.

    Catches a residual taken in the space where it drowns in rounding; each space alone is shown to.
    """
    lam = jnp.linspace(-23.0, 23.0, 25)
    p = gaussian.log_linear(24.0, -24.0)
    t = p.time(lam)
    x0, eps, off = (jax.random.normal(jax.random.key(i), (25, 1000)) for i in range(3))
    alpha, sigma = p.alpha(t)[:, None], p.sigma(t)[:, None]
    x_t = p.perturb(x0, eps, t)
    for space in ("x0", "eps"):
        wrong = (x0 if space == "x0" else eps) + 1e-3 * off
        if space == "x0":
            pred = Prediction(x0=wrong, eps=(x_t - alpha * wrong) / sigma)
            log_true = lam
        else:
            pred = Prediction(x0=(x_t - sigma * wrong) / alpha, eps=wrong)
            log_true = 0 * lam
        square, log_scale = error(pred, Prediction(x0=x0, eps=eps), lam)
        true = 1e-6 * jnp.mean(off**2, axis=1)
        ratio = jnp.exp(log_scale - log_true) * square / true
        np.testing.assert_allclose(ratio, 1, rtol=1e-2, err_msg=space)
        other = jnp.mean((pred.eps - eps) ** 2 if space == "x0" else (pred.x0 - x0) ** 2, axis=1)
        ratio = other / jnp.exp(log_true if space == "x0" else -lam) / true
        assert jnp.max(jnp.abs(ratio - 1)) > 0.1, "in the other space alone the error drowns"


def test_every_name_is_finite_at_both_ends():
    """At |log-SNR| = 80 every log-weight, and the factor on the better-scaled error, is finite in float32."""
    lam = jnp.array([-80.0, -30.0, 0.0, 30.0, 80.0])
    for name, make in w.WEIGHTINGS.items():
        log_w = make()(lam)
        assert log_w.shape == lam.shape and bool(jnp.all(jnp.isfinite(log_w))), name
        assert bool(jnp.all(jnp.isfinite(jnp.exp(log_w + jnp.minimum(lam, 0))))), name


@pytest.mark.parametrize(
    "make, field",
    [
        (lambda: w.min_snr(0), "gamma"),
        (lambda: w.truncated_snr(-1.0), "gamma"),
        (lambda: w.p2(1.0, 0.0), "k"),
        (lambda: w.debias(-3.0), "max_snr"),
        (lambda: w.edm(0.0), "sigma_data"),
        (lambda: w.edm_monotonic(p_std=0.0), "p_std"),
    ],
)
def test_bad_numbers(make, field):
    with pytest.raises(ValueError, match=field):
        make()
