"""The denoising loss on a mixture with known denoiser: one integral over log-SNR, whatever the schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.keys import sample_keys
from genjax.core.prediction import with_eps
from genjax.losses import times as tm
from genjax.losses import weightings as w
from genjax.losses.denoising import denoising, with_uncertainty
from genjax.oracles.mixture import Mixture
from genjax.processes import curves, gaussian

N, EDGE = 60000, 6.0
WEIGHTINGS = {
    "elbo": w.eps(),
    "sech": w.sech(),
    "half": w.power(0.5),
    "edm": w.edm_implied(),
    "edm_monotonic": w.edm_monotonic(),
    "sigmoid": w.sigmoid(),
}


def cut(curve, scale):
    """The process of a curve with log-SNR in [-6, 6]."""
    return gaussian.Gaussian(curve, scale, float(curve.time(jnp.array(EDGE))), float(curve.time(jnp.array(-EDGE))))


PROCESSES = {
    "cosine": lambda: cut(curves.Cosine(), "vp"),
    "vp": lambda: cut(curves.LinearBeta(), "vp"),
    "flow": lambda: cut(curves.Flow(), "flow"),
}


@pytest.fixture(scope="module")
def mixture():
    means = 2 * jax.random.normal(jax.random.key(0), (5, 2))
    return Mixture(means, jnp.full(5, 0.3), jnp.zeros(5))


@pytest.fixture(scope="module")
def data(mixture):
    return mixture.sample(jax.random.key(1), N)[0]


def wrong(mixture, process, factor=0.8):
    """The exact denoiser with its eps shrunk: an error at every level."""
    exact = mixture.denoiser(process)

    def denoiser(x, t, cond=None, key=None):
        pred = exact(x, t)
        return with_eps(pred, factor * pred.eps, x, process, t)

    return denoiser


def evenly(sampler):
    """Lattice draws in place of independent ones: the estimate's error is that of the noise alone."""

    def draw(keys):
        t = sampler.sample(sampler.init(), tm.lattice(jax.random.key(9), keys.shape[0]))
        return t, sampler.log_density(sampler.init(), t)

    return draw


@pytest.fixture(scope="module")
def estimates(mixture, data):
    """process -> {(measure, weighting): (mean, standard error)}."""
    table = {}
    for name, make in PROCESSES.items():
        process = make()
        sampler = tm.uniform(process)

        @jax.jit
        def run(key, process=process, sampler=sampler):
            models = {"denoiser": wrong(mixture, process), "times": evenly(sampler)}
            out = {}
            for measure in ("log_snr", "sampler"):
                for key_w, weighting in WEIGHTINGS.items():
                    value = denoising(process, sampler, weighting, measure=measure)(key, models, {"x": data})[0]
                    out[measure, key_w] = jnp.stack([value.mean(), value.std() / N**0.5])
            return out

        table[name] = run(jax.random.key(2))
    return table


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_absolute_loss_does_not_depend_on_the_schedule(estimates, weighting):
    """Catches a missing d lambda / dt: the relative loss, with the schedule's own density, differs."""
    absolute, error = np.array([estimates[p]["log_snr", weighting] for p in PROCESSES]).T
    assert np.ptp(absolute) < max(0.015 * absolute.mean(), 4 * error.max())
    assert error.max() < 0.015 * absolute.mean()
    relative, _ = np.array([estimates[p]["sampler", weighting] for p in PROCESSES]).T
    if weighting != "edm_monotonic":  # there the three happen to come close
        assert np.ptp(relative) > 0.05 * relative.mean()


@pytest.mark.parametrize(
    "make, sampler, error, implied",
    [
        (lambda: gaussian.cosine(12.0, -12.0), tm.uniform, w.eps(), w.sech()),
        (lambda: gaussian.cosine(12.0, -12.0), tm.uniform, w.v(), w.power(0.5)),
        (lambda: gaussian.flow(), tm.uniform, w.flow(), w.power(0.5)),
        (lambda: gaussian.edm(), tm.log_normal, w.edm(0.5), w.edm_implied()),
    ],
    ids=["eps cosine", "v cosine", "flow matching", "edm"],
)
def test_implied_weightings(make, sampler, error, implied, x64):
    """Density of the native times x native error = the tabled weighting, up to one factor, at every log-SNR."""
    process = make()
    times = sampler(process)
    t = times.sample((), jnp.linspace(0.01, 0.99, 50))
    lam = process.log_snr(t)
    log_ratio = times.log_density((), t) + error(lam) - implied(lam)
    np.testing.assert_allclose(log_ratio, log_ratio[0], atol=1e-6)


def test_integral_as_mean_of_elbos(mixture):
    """L_w = int (dw/dt) L(t) dt + w(lambda_max) L(0) - w(lambda_min) L(1), L(t) the integral from t on.

    A wrong boundary term or a sign error in the absolute measure breaks it; and dw/dt changes sign for the
    two weightings that are not monotone.
    """
    process, nodes = PROCESSES["cosine"](), 300
    t = jnp.linspace(process.t_min, process.t_max, nodes)
    lam = np.asarray(process.log_snr(t), np.float64)
    x = mixture.sample(jax.random.key(5), 600)[0]

    @jax.jit
    def profile(key):
        """(mean eps error, its factor under the absolute loss) at each node."""

        def at(t_i):
            models = {
                "denoiser": wrong(mixture, process),
                "times": lambda keys: (jnp.full(keys.shape, t_i), jnp.zeros(keys.shape)),
            }
            loss = denoising(process, tm.uniform(process), w.eps(), measure="log_snr")
            return loss(key, models, {"x": x})[0].mean()

        return jax.lax.map(at, t)

    mse = np.asarray(profile(jax.random.key(6)), np.float64)  # E of the mean over 2 elements
    segment = mse[:-1] / 2 + mse[1:] / 2
    tail = np.concatenate([np.cumsum((segment * -np.diff(lam))[::-1])[::-1], [0.0]])  # L(t), from t = 1 back
    for name, weighting in WEIGHTINGS.items():
        weight = np.exp(np.asarray(weighting(jnp.asarray(lam, jnp.float32)), np.float64))
        left = np.sum((weight[:-1] * mse[:-1] + weight[1:] * mse[1:]) / 2 * -np.diff(lam))
        right = np.sum(np.diff(weight) * (tail[:-1] + tail[1:]) / 2) + weight[0] * tail[0] - weight[-1] * tail[-1]
        assert abs(left - right) < 0.01 * abs(left), name
        falls = np.any(np.diff(weight) < -1e-5 * weight.max())
        assert falls == (name in ("sech", "edm")), name
        # and the loss itself estimates that integral
        sampler = tm.uniform(process)
        models = {"denoiser": wrong(mixture, process), "times": evenly(sampler)}
        if name in ("elbo", "sigmoid"):
            x_many = mixture.sample(jax.random.key(8), 4000)[0]
            loss = denoising(process, sampler, weighting, measure="log_snr")
            mean = jax.jit(lambda k, x, loss=loss, m=models: loss(k, m, {"x": x})[0].mean())
            assert abs(float(mean(jax.random.key(7), x_many)) - left) < 0.04 * left, name


def test_importance_sampling_keeps_the_loss(mixture, data):
    """Relative to uniform t, drawn from other laws: the same number."""
    process = PROCESSES["cosine"]()
    base = tm.uniform(process)
    batch, key = {"x": data[:8000]}, jax.random.key(3)

    def value(sampler, measure):
        models = {"denoiser": wrong(mixture, process), "times": evenly(sampler)}
        return jax.jit(lambda k: denoising(process, sampler, w.min_snr(), measure=measure)(k, models, batch)[0].mean())(
            key
        )

    plain = value(base, "sampler")
    for sampler in (tm.log_snr(process), tm.log_normal(process, 0.0, 1.5), tm.adaptive(process)):
        np.testing.assert_allclose(value(sampler, base), plain, rtol=0.02)
    assert value(tm.log_snr(process), "uniform") == value(tm.log_snr(process), base)


def test_one_value_a_sample_by_its_own_key(mixture, data):
    """A batch split in two gives the values of the whole; one key stands for keys by index."""
    process = PROCESSES["flow"]()
    models = {"denoiser": mixture.denoiser(process)}
    loss = jax.jit(lambda keys, x: denoising(process, tm.logit_normal(process), w.flow())(keys, models, {"x": x}))
    key = jax.random.key(4)
    keys = sample_keys(key, 16)
    whole, aux = loss(key, data[:16])
    parts = [loss(keys[i : i + 8], data[i : i + 8])[0] for i in (0, 8)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5)
    assert all(aux[name].shape == (16,) for name in ("t", "log_snr", "eps_mse", "importance", "integrand"))
    np.testing.assert_allclose(whole, jnp.exp(w.flow()(aux["log_snr"])) * aux["eps_mse"], rtol=1e-4)
    assert len(np.unique(np.asarray(aux["t"]))) == 16


def test_condition_reaches_the_denoiser(mixture, data):
    """`batch["cond"]` picks the mixture's component: the conditional denoiser has the smaller error."""
    process = PROCESSES["cosine"]()
    x, label = mixture.sample(jax.random.key(1), 4000)
    loss = jax.jit(
        lambda key, batch: denoising(process, tm.uniform(process), w.x0())(
            key, {"denoiser": mixture.denoiser(process)}, batch
        )[0].mean()
    )
    key = jax.random.key(0)
    assert float(loss(key, {"x": x, "cond": {"label": label}})) < 0.8 * float(loss(key, {"x": x}))


def test_learned_uncertainty():
    """loss e^-u + u is least where e^u is the mean loss, and its gradient in the loss is scaled by e^-u."""
    base = lambda key, models, batch: (batch["v"], {"log_snr": 0 * batch["v"], "importance": jnp.ones_like(batch["v"])})
    values = jnp.array([1.0, 2.0, 6.0])
    mean = lambda u: with_uncertainty(base)(None, {"uncertainty": lambda lam: u + lam}, {"v": values})[0].mean()
    assert abs(float(jax.grad(mean)(jnp.log(3.0)))) < 1e-6
    assert float(jax.grad(mean)(jnp.log(2.0))) < -0.1 < 0.1 < float(jax.grad(mean)(jnp.log(4.0)))


def test_bad_measures():
    process = gaussian.flow()
    with pytest.raises(ValueError, match=r"measure.*'foo'"):
        denoising(process, tm.uniform(process), w.eps(), measure="foo")
    with pytest.raises(ValueError, match="learned"):
        denoising(process, tm.adaptive(process), w.eps())
    with pytest.raises(ValueError, match="learned"):
        denoising(process, tm.uniform(process), w.eps(), measure=tm.adaptive(process))
