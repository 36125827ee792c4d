"""Guidance that acts on steps, plans of it, and whole loops around runs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.keys import sample_keys
from genjax.guidance import (
    GuidancePlan,
    classifier,
    counted,
    energy,
    mean_shift,
    nudged,
    planned,
    reflect,
    reflected,
    restarted,
    wrong_class,
    wrong_log_prob,
)
from genjax.guidance.plan import VJP_COST
from genjax.oracles.mixture import Mixture, ring
from genjax.processes import gaussian
from genjax.solvers import ddim, ddpm, generate, grids, heun, sample

PROCESS = gaussian.vp()
MIXTURE = ring(4, 1.0, 0.3)
X = jax.random.normal(jax.random.key(3), (6, 2))
TARGET = jnp.array([[0.5, -0.2]])
LOSS = lambda x0: jnp.sum((x0 - TARGET) ** 2, axis=-1)
DENOISER = MIXTURE.denoiser(PROCESS)


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4)


def log_class(label):
    """log p(class | x_t), exact."""

    def log_prob(x, t, cond=None):
        own = {"label": jnp.full(x.shape[0], label)}
        a, s = PROCESS.alpha(t), PROCESS.sigma(t)
        return MIXTURE.log_prob(x, a, s, own) - MIXTURE.log_prob(x, a, s)

    return log_prob


def test_mean_shift_moves_the_mean_by_the_variance():
    """mu + scale Sigma grad log p, the law kept; a shift by the standard deviation would fail."""
    solver, plain = mean_shift(ddpm(), log_class(1), 2.0), ddpm()
    state = plain.init(X, 0.5)
    law, base = (s.propose(DENOISER, PROCESS, state, 0.5, 0.3)[0] for s in (solver, plain))
    gradient = jax.grad(lambda x: jnp.sum(log_class(1)(x, 0.5)))(X)
    close(law.mean - base.mean, 2.0 * base.std**2 * gradient)
    close(law.std, base.std)
    with pytest.raises(ValueError, match="solver: expected one with a `propose`"):
        mean_shift(ddim(), log_class(1))


def test_both_forms_of_classifier_guidance_reach_the_class():
    """With the exact classifier at scale 1 the mean shift and the eps shift both draw the class: its mean and std."""
    grid, n = grids.log_snr(PROCESS, 150), 1500  # both forms are first order
    forms = {
        "mean": (mean_shift(ddpm(), log_class(1)), DENOISER),
        "eps": (ddpm(), classifier(log_class(1))(DENOISER, PROCESS)),
    }
    for solver, denoiser in forms.values():
        draw = jax.jit(lambda k, s=solver, d=denoiser: generate(k, d, PROCESS, s, grid, jnp.zeros((n, 2))))
        x = draw(jax.random.key(0))
        close(x.mean(0), MIXTURE.means[1], 0.05)
        close(x.std(0), jnp.full(2, 0.3), 0.04)


def test_nudged_only_in_its_window():
    """x_s + scale grad, or + scale sigma^2 grad; nothing outside [low, high]."""
    log_prob = lambda x: -jnp.sum((x - TARGET) ** 2, axis=-1) / 2
    step = lambda solver, t, s: solver.step(None, DENOISER, PROCESS, solver.init(X, t), t, s)[0].x
    for variance in (False, True):
        solver = nudged(ddim(), log_prob, 0.1, 0.0, 0.2, variance)
        plain = step(ddim(), 0.2, 0.15)
        weight = 0.1 * (PROCESS.sigma(0.15) ** 2 if variance else 1.0)
        close(step(solver, 0.2, 0.15), plain + weight * (TARGET - plain))
        np.testing.assert_array_equal(step(solver, 0.5, 0.4), step(ddim(), 0.5, 0.4))
    with pytest.raises(ValueError, match="low, high: expected low < high"):
        nudged(ddim(), log_prob, 0.1, 0.3, 0.2)


@pytest.mark.parametrize("label", ["t", "s"])
def test_reflection_to_first_order(label):
    """x~ - x = c (score_strong - score_weak) with c of the closed form, relative error below 10 % in small steps."""
    weak = MIXTURE.replace(log_weights=jnp.log(jnp.array([0.7, 0.1, 0.1, 0.1]))).denoiser(PROCESS)
    t, s = 0.5, 0.497
    moved = reflect(DENOISER, weak, PROCESS, X, t, s, label=label) - X
    a, b, u, v = PROCESS.alpha(t), PROCESS.alpha(s), PROCESS.sigma(t), PROCESS.sigma(s)
    gap = PROCESS.score(X, DENOISER(X, t), t) - PROCESS.score(X, weak(X, t), t)
    expected = u * (u - v * a / b) * gap
    assert jnp.linalg.norm(moved - expected) < 0.1 * jnp.linalg.norm(expected)


def test_reflected_counts_its_steps():
    """0 steps is the solver; k steps are k reflections and then the solver, the step to 0 never; same pair: near it."""
    weak = MIXTURE.replace(log_weights=jnp.log(jnp.array([0.7, 0.1, 0.1, 0.1]))).denoiser(PROCESS)
    grid = grids.log_snr(PROCESS, 4)
    run = jax.jit(lambda steps: sample(None, DENOISER, PROCESS, reflected(ddim(), weak, steps), grid, X))
    plain = jax.jit(lambda: sample(None, DENOISER, PROCESS, ddim(), grid, X))()
    close(run(jnp.asarray(0)), plain)
    x = X
    for i, (t, s) in enumerate(itertools.pairwise(grid)):
        if i < 2:
            x = reflect(DENOISER, weak, PROCESS, x, t, s)
        x = ddim().step(None, DENOISER, PROCESS, ddim().init(x, t), t, s)[0].x
    close(run(jnp.asarray(2)), x, 1e-4)
    close(run(jnp.asarray(4)), run(jnp.asarray(3)))  # the last step ends at 0
    with pytest.raises(ValueError, match="label: expected 't' or 's', got 'u'"):
        reflected(ddim(), weak, 1, label="u")


FULL = GuidancePlan(repeats=4)
CHEAP = GuidancePlan(intervals=((0.2, 0.8),), repeats=3, windows=((0.2, 0.8),), through=False)


def test_cost_of_plans():
    """The closed forms: 4 (1 + 1) a step in full; 36 steps of 3 rounds and 24 plain ones in the cheap one."""
    assert FULL.cost(60) == 60 * 4 * (1 + VJP_COST) == 480
    assert CHEAP.cost(60) == 36 * 3 + 24 == 132
    fresh, acting, _ = GuidancePlan(every=3, hold=True, intervals=((0.5, 1.0),)).tables(10)
    assert (
        fresh.tolist() == [False] * 5 + [True, False, False, True, False]
        and acting.tolist() == [False] * 5 + [True] * 5
    )


@pytest.mark.parametrize("plan", [GuidancePlan(repeats=2), CHEAP, GuidancePlan(every=2, intervals=((0.0, 0.5),))])
def test_the_plan_is_what_runs(plan):
    """Counted as it runs: evaluations, backward passes and noise levels are those of the closed form."""
    denoiser, counts = counted(DENOISER)
    steps = 6
    solver = planned(ddim(), LOSS, 0.3, plan, steps, limit=8.0)
    out = jax.jit(lambda k: sample(k, denoiser, PROCESS, solver, grids.log_snr(PROCESS, steps), X))(jax.random.key(0))
    jax.block_until_ready(out)
    forward, backward, levels = counts()
    assert forward + VJP_COST * backward == plan.cost(steps)
    assert levels == steps
    assert jnp.isfinite(out).all()


def test_a_full_plan_is_energy_guidance():
    """One round, every step, through the denoiser: the guided denoiser under the same solver. Scale 0: the solver."""
    grid = grids.log_snr(PROCESS, 5)
    run = lambda solver, denoiser: jax.jit(lambda: sample(None, denoiser, PROCESS, solver, grid, X))()
    guided = run(planned(ddim(), LOSS, 0.4, GuidancePlan(), 5), DENOISER)
    close(guided, run(ddim(), energy(lambda x0, _: LOSS(x0), 0.4)(DENOISER, PROCESS)))
    close(run(planned(heun(), LOSS, 0.0, GuidancePlan(), 5), DENOISER), run(heun(), DENOISER))
    assert jnp.mean(LOSS(guided)) < jnp.mean(LOSS(run(ddim(), DENOISER)))


def test_held_and_stopped_gradients():
    """A held gradient acts at the next step with that step's sigma; below the target guidance ends, per sample."""
    grid, steps = grids.log_snr(PROCESS, 2, to_zero=False), 2
    plan = GuidancePlan(every=2, hold=True, through=False)
    solver = planned(ddim(), LOSS, 0.4, plan, steps)
    out = sample(None, DENOISER, PROCESS, solver, grid, X)
    x, g = X, None
    for t, s in itertools.pairwise(grid):
        pred = DENOISER(x, t)
        g = -2 * (pred.x0 - TARGET) / PROCESS.alpha(t) if g is None else g
        eps = pred.eps - 0.4 * PROCESS.sigma(t) * g
        x0 = (x - PROCESS.sigma(t) * eps) / PROCESS.alpha(t)
        x = PROCESS.alpha(s) * x0 + PROCESS.sigma(s) * eps
    np.testing.assert_allclose(out, x, rtol=2e-3, atol=2e-3 * float(jnp.abs(x).max()))
    plain = sample(None, DENOISER, PROCESS, ddim(), grid, X)
    values = LOSS(DENOISER(X, grid[0]).x0)
    limit = float(jnp.median(values))
    stopped = sample(None, DENOISER, PROCESS, planned(ddim(), LOSS, 0.1, GuidancePlan(stop_below=limit), 2), grid, X)
    ended = values < limit
    close(stopped[ended], plain[ended])
    assert jnp.abs(stopped - plain)[~ended].max() > 1e-3


def test_recurrence_keeps_the_law():
    """Rounds without guidance leave the marginals of Gaussian data: a wrong renoising would widen them."""
    data = Mixture(jnp.full((1, 1), 2.0), jnp.full(1, 0.5), jnp.zeros(1))
    solver = planned(ddpm(), lambda x0: jnp.sum(x0, axis=-1), 0.0, GuidancePlan(repeats=3), 60)
    draw = jax.jit(
        lambda key: generate(
            key, data.denoiser(PROCESS), PROCESS, solver, grids.log_snr(PROCESS, 60), jnp.zeros((2048, 1))
        )
    )
    out = draw(jax.random.key(0))
    close(out.mean(), 2.0, 0.06)
    close(out.std(), 0.5, 0.05)


def test_a_planned_sample_does_not_depend_on_its_neighbours():
    keys = sample_keys(jax.random.key(1), 6)
    solver, grid = planned(ddpm(), LOSS, 0.3, GuidancePlan(repeats=2, stop_below=0.01), 4), grids.log_snr(PROCESS, 4)
    run = jax.jit(lambda keys, x: sample(keys, DENOISER, PROCESS, solver, grid, x))
    close(run(keys[:2], X[:2]), run(keys, X)[:2], 1e-5)


def test_wrong_class():
    """The second-ranked where the victim is right, else the top one; its log-probability is that of softmax."""
    logits = jnp.array([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    label = jnp.array([0, 0])
    assert wrong_class(logits, label).tolist() == [1, 1]
    close(wrong_log_prob(lambda x: logits, label)(X[:2]), jax.nn.log_softmax(logits)[:, 1])


def test_restarted_moves_starts_until_success():
    """Run x -> 2 x, log_prob -|x|^2 / 2: a start that fails is multiplied by 1 - 2 scale each round; others stay."""
    start = jnp.array([[4.0], [0.4]])
    run = restarted(
        lambda x: 2 * x, lambda x: -jnp.sum(x**2, axis=1) / 2, lambda x: jnp.abs(x[:, 0]) < 1.0, 0.25, rounds=2
    )
    x, moved, done = run(start)
    close(moved, jnp.array([[4.0 * 0.5**2], [0.4]]))
    close(x, 2 * moved)
    assert done.tolist() == [False, True]
    with pytest.raises(ValueError, match="rounds: expected at least 0"):
        restarted(lambda x: x, None, None, 1.0, -1)


def test_bad_plans():
    for plan, message in (
        (GuidancePlan(every=0), "every: expected at least 1, got 0"),
        (GuidancePlan(intervals=((0.5, 0.2),)), "intervals: expected pairs 0 <= low < high <= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            planned(ddim(), LOSS, 1.0, plan, 5)
