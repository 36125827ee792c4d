"""Time samplers: the density that they report is the one that they draw from, and the learned ones learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax.core.keys import sample_keys
from genjax.losses import times as tm
from genjax.processes import gaussian

EDM, FLOW, VP, COSINE = gaussian.edm(), gaussian.flow(), gaussian.vp(), gaussian.cosine(10.0, -10.0)


def learned_adaptive():
    """An adaptive sampler and a state that has seen a bump."""
    sampler = tm.adaptive(COSINE, bins=20, decay=0.5)
    state = sampler.init()
    t = COSINE.time(jnp.linspace(-9.9, 9.9, 200))
    return sampler, sampler.update(state, t, jnp.exp(-0.1 * COSINE.log_snr(t) ** 2))


SAMPLERS = {
    "uniform vp": (VP, tm.uniform(VP), ()),
    "uniform flow": (FLOW, tm.uniform(FLOW), ()),
    "log_snr cosine": (COSINE, tm.log_snr(COSINE), ()),
    "log_normal edm": (EDM, tm.log_normal(EDM), ()),
    "log_normal vp": (VP, tm.log_normal(VP, -0.4, 1.0), ()),
    "log_normal cut": (COSINE, tm.log_normal(COSINE, 4.0, 3.0), ()),
    "logit_normal": (FLOW, tm.logit_normal(FLOW, 0.5, 1.2), ()),
    "logit_normal vp": (VP, tm.logit_normal(VP), ()),
    "schedule": (FLOW, tm.schedule(FLOW, COSINE), ()),
    "adaptive": (COSINE, *learned_adaptive()),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_reported_density_is_the_drawn_one(name):
    """Quantiles against the integral of the reported density, in log-SNR: catches a missing d lambda / dt.

    With u on a fine grid, the share of draws below a log-SNR is exact to 1/n; the integral of the
    density between draws must give the same.
    """
    process, sampler, state = SAMPLERS[name]
    n = 20000
    u = (jnp.arange(n) + 0.5) / n
    t = sampler.sample(state, u)
    assert bool(jnp.all((t >= process.t_min) & (t <= process.t_max)))
    lam = np.asarray(process.log_snr(t), np.float64)
    lam.sort()
    low, high = lam[0], lam[-1]
    nodes = np.linspace(low, high, 40001)
    middle = (nodes[1:] + nodes[:-1]) / 2
    density = np.exp(np.asarray(sampler.log_density(state, process.time(jnp.asarray(middle))), np.float64))
    cdf = np.concatenate([[0], np.cumsum(density * np.diff(nodes))])
    assert abs(cdf[-1] - 1) < 5e-3
    empirical = np.searchsorted(lam, nodes) / n
    assert np.max(np.abs(empirical - cdf)) < 5e-3


@pytest.mark.parametrize("name", SAMPLERS)
def test_importance_weights_are_unbiased(name):
    """E[g / p] = int g d lambda for a smooth bump g inside the range, whatever the sampler."""
    process, sampler, state = SAMPLERS[name]
    if name == "log_normal cut":
        centre, width = 0.0, 1.5
    else:
        centre, width = 1.0, 1.0
    u = tm.independent(sample_keys(jax.random.key(3), 40000), 40000)
    t = sampler.sample(state, u)
    g = stats.norm(centre, width).pdf(np.asarray(process.log_snr(t)))
    ratio = g / np.exp(np.asarray(sampler.log_density(state, t)))
    inside = stats.norm(centre, width).cdf
    truth = inside(float(process.log_snr(process.t_min))) - inside(float(process.log_snr(process.t_max)))
    assert abs(ratio.mean() - truth) < 4 * ratio.std() / 200 + 1e-4


def test_published_laws():
    """EDM's log-normal noise levels; SD3's logit-normal times, the same thing under the flow process."""
    u = (jnp.arange(2000) + 0.5) / 2000
    t = tm.log_normal(EDM, -1.2, 1.2).sample((), u)
    assert stats.kstest(np.log(np.asarray(t)), stats.norm(-1.2, 1.2).cdf).statistic < 2e-3
    t = tm.logit_normal(FLOW, 0.3, 0.8).sample((), u)
    logit = np.log(np.asarray(t, np.float64)) - np.log1p(-np.asarray(t, np.float64))
    assert stats.kstest(logit, stats.norm(0.3, 0.8).cdf).statistic < 2e-3
    np.testing.assert_allclose(t, tm.log_normal(FLOW, 0.3, 0.8).sample((), u), rtol=2e-4)
    with pytest.raises(ValueError, match="t_max"):
        tm.logit_normal(EDM)
    with pytest.raises(ValueError, match="std"):
        tm.log_normal(EDM, 0.0, 0.0)


def test_spreads():
    """Uniform margins, even cover, and equal numbers for a batch split in two."""
    key, n = jax.random.key(0), 64
    keys = sample_keys(key, n)
    for name, spread in tm.SPREADS.items():
        whole = spread(key, keys, n, 0, n)
        halves = [spread(key, keys[i : i + 32], 32, i, n) for i in (0, 32)]
        np.testing.assert_allclose(np.concatenate(halves), whole, atol=1e-6, err_msg=name)
        assert bool(jnp.all((whole >= 0) & (whole < 1)))
        if name != "independent":  # every one of 64 cells is hit (lattice: up to the common shift)
            cells = np.sort(np.asarray(whole) * n)
            gap = np.diff(cells)
            assert gap.max() < (1.001 if name == "lattice" else 2.001), name
            if name == "stratified":
                assert len(np.unique(np.floor(cells))) >= n - 1  # rounding may move one across an edge
    # one place of the batch sees every level over the steps
    many = jax.vmap(lambda k: tm.SPREADS["stratified"](k, sample_keys(k, n), n, 0, n)[3])(sample_keys(key, 2000))
    assert stats.kstest(np.asarray(many), "uniform").pvalue > 1e-3
    many = jax.vmap(lambda k: tm.SPREADS["lattice"](k, None, n, 0, n)[3])(sample_keys(key, 2000))
    assert stats.kstest(np.asarray(many), "uniform").pvalue > 1e-3


def test_spreading_lowers_the_variance():
    """The mean of a smooth function of u over a batch varies at least 20 times less when spread evenly."""
    keys = sample_keys(jax.random.key(1), 400)

    def variance(name):
        one = lambda k: jnp.mean(jnp.sin(5 * tm.SPREADS[name](k, sample_keys(k, 64), 64, 0, 64)))
        return float(jnp.var(jax.vmap(one)(keys)))

    plain = variance("independent")
    assert variance("lattice") < plain / 20 and variance("stratified") < plain / 20


def test_discrete_levels():
    """Level times of a chain are i / T exactly enough to name their level; each comes equally often."""
    process = gaussian.ddpm(50)
    sampler = tm.discrete(process, 50)
    t = sampler.sample((), (jnp.arange(5000) + 0.5) / 5000)
    np.testing.assert_allclose(np.unique(np.asarray(t)), np.arange(1, 51) / 50, rtol=1e-6)
    counts = np.bincount(np.asarray(tm.level_index(process, t, 50)), minlength=50)
    assert counts.min() >= 99 and counts.max() <= 101
    assert bool(jnp.all(jnp.isfinite(sampler.log_density((), t))))
    with pytest.raises(ValueError, match="steps"):
        tm.discrete(process, 1).sample((), jnp.zeros(1))


def second_moment_loop(levels, losses, steps, history):
    """The published update, one value after another."""
    values = [[] for _ in range(steps)]
    for i, x in zip(levels, losses):
        values[i] = [*values[i], x][-history:]
    return values


def test_second_moment_history():
    """Rings with several draws of a level in one batch, more than the history included, equal the plain loop."""
    process, steps, history = gaussian.log_linear(5.0, -5.0), 4, 3
    sampler = tm.second_moment(process, steps, history, floor=0.1)
    level_times = np.asarray(tm._levels(process, steps))
    rate = -process.log_snr_rate(jnp.asarray(level_times))
    rng = np.random.default_rng(0)
    state, seen, values = sampler.init(), [], []
    update = jax.jit(sampler.update)
    for _ in range(6):
        levels, loss = rng.integers(0, steps, 7), rng.uniform(0.5, 2, 7)
        levels[:5] = levels[0]  # five of one level: more than the history
        state = update(state, jnp.asarray(level_times[levels]), jnp.asarray(loss / np.asarray(rate)[levels]))
        seen, values = [*seen, *levels], [*values, *loss]
        expected = second_moment_loop(seen, values, steps, history)
        for i in range(steps):
            kept = np.asarray(state.values[i])[: min(len(expected[i]), history)]
            np.testing.assert_allclose(np.sort(kept), np.sort(expected[i]), rtol=1e-5)
        log_p = sampler.log_density(state, jnp.asarray(level_times))
        log_u = tm.discrete(process, steps).log_density((), jnp.asarray(level_times))
        ratio = np.exp(np.asarray(log_p - log_u)) / steps
        if min(len(e) for e in expected) < history:
            np.testing.assert_allclose(ratio, 1 / steps, rtol=1e-5)
        else:
            root = np.sqrt([np.mean(np.square(e)) for e in expected])
            np.testing.assert_allclose(ratio, 0.9 * root / root.sum() + 0.1 / steps, rtol=1e-5)
    assert min(len(e) for e in expected) >= history, "the test reaches the warm state"
    t = sampler.sample(state, (jnp.arange(10000) + 0.5) / 10000)
    share = np.bincount(np.asarray(tm.level_index(process, t, steps)), minlength=steps) / 10000
    np.testing.assert_allclose(share, ratio, atol=2e-4)


def test_second_moment_minimizes_variance():
    """Estimates of a sum over levels under the learned law vary as theory says: less than under uniform levels."""
    process, steps = gaussian.log_linear(5.0, -5.0), 20
    sampler, base = tm.second_moment(process, steps, floor=0.001), tm.discrete(process, steps)
    loss = lambda t: jnp.exp(-8 * t) + 0.01
    integrand = lambda t: loss(t) / jnp.exp(tm.log_rate(process, t))
    state = sampler.init()
    t_all = jnp.repeat(tm._levels(process, steps), 10)
    state = sampler.update(state, t_all, integrand(t_all))
    u = tm.independent(sample_keys(jax.random.key(0), 4000), 4000)

    def estimates(s, st):
        t = s.sample(st, u)
        return loss(t) * jnp.exp(base.log_density((), t) - s.log_density(st, t))

    learned, uniform = estimates(sampler, state), estimates(base, ())
    truth = float(jnp.mean(loss(tm._levels(process, steps))))
    assert abs(float(learned.mean()) - truth) < 1e-3 * truth  # no variance within a level here: p prop f is exact
    assert float(learned.var()) < 1e-3 * float(uniform.var())


def test_adaptive_flattens_the_integrand():
    """After some updates f / p is flat, the estimate of int f is unbiased, and its variance a tenth of the start's."""
    sampler = tm.adaptive(COSINE, bins=100, decay=0.999, floor=0.01)
    f = lambda t, noise: jnp.exp(-0.5 * (COSINE.log_snr(t) - 2) ** 2) * noise

    @jax.jit
    def update(state, key):
        k1, k2 = jax.random.split(key)
        t = sampler.sample(state, jax.random.uniform(k1, (128,)))
        return sampler.update(state, t, f(t, jax.random.uniform(k2, (128,), minval=0.5, maxval=1.5)))

    state = jax.lax.fori_loop(0, 400, lambda i, s: update(s, jax.random.key(i)), sampler.init())
    u = (jnp.arange(20000) + 0.5) / 20000

    def ratio(state):
        t = sampler.sample(state, u)
        return f(t, 1.0) / jnp.exp(sampler.log_density(state, t))

    before, after = ratio(sampler.init()), ratio(state)
    truth = np.sqrt(2 * np.pi)
    assert abs(float(before.mean()) - truth) < 0.01 * truth and abs(float(after.mean()) - truth) < 0.01 * truth
    assert float(after.var()) < float(before.var()) / 10
    assert bool(jnp.all(jnp.exp(sampler.log_density(state, COSINE.time(jnp.linspace(-9.9, 9.9, 99)))) >= 0.0099 / 20))


def test_adaptive_starts_uniform_and_never_starves():
    sampler = tm.adaptive(COSINE, bins=10, floor=0.05)
    t = COSINE.time(jnp.linspace(-9.5, 9.5, 10))
    np.testing.assert_allclose(sampler.log_density(sampler.init(), t), -np.log(20), rtol=1e-5)
    state = sampler.update(sampler.init(), t[:1], jnp.ones(1))  # one bin seen: the others count as it
    np.testing.assert_allclose(sampler.log_density(state, t), -np.log(20), rtol=1e-5)
    state = sampler.update(state, t, jnp.zeros(10).at[0].set(1.0))
    p = np.exp(np.asarray(sampler.log_density(state, t))) * 2
    assert p[0] > 0.5 and np.all(p[1:] >= 0.0049)


def test_every_name_keeps_shapes_under_jit():
    for name, make in tm.TIME_SAMPLERS.items():
        process = gaussian.flow()
        args = {"discrete": (10,), "second_moment": (10,)}.get(name, ())
        sampler = make(process, *args)

        @jax.jit
        def run(state, u, sampler=sampler):
            t = sampler.sample(state, u)
            return t, sampler.log_density(state, t), sampler.update(state, t, jnp.ones_like(t))

        state = sampler.init()
        t, log_p, new = run(state, jnp.linspace(0, 0.999, 16))
        assert t.shape == log_p.shape == (16,) and t.dtype == log_p.dtype == jnp.float32, name
        assert bool(jnp.all(jnp.isfinite(log_p))), name
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, new)
        assert sampler.learned == (name in ("second_moment", "adaptive"))
