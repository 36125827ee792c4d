"""Products of experts, laws and densities against the analytic products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.laws import Normal
from genjax.guidance import (
    ENERGIES,
    by_field,
    conditional_density,
    denoiser_of,
    energy_denoiser,
    energy_log_density,
    mixture_density,
    product,
    product_density,
    product_of_normals,
    product_steps,
)
from genjax.oracles.mixture import Mixture, ring
from genjax.processes import gaussian
from genjax.solvers import ddim, ddpm, generate, grids

X = jax.random.normal(jax.random.key(3), (6, 2))
CELLS = jnp.stack(jnp.meshgrid(jnp.arange(3), jnp.arange(3), indexing="ij"), axis=-1).reshape(-1, 2)
GRID = Mixture(1.0 * (CELLS - 1), jnp.full(9, 0.15), jnp.zeros(9))
COLUMN, ROW = GRID.replace(classes=CELLS[:, 0]), GRID.replace(classes=CELLS[:, 1])


@pytest.fixture(params=["vp", "edm", "flow"])
def process(request):
    return getattr(gaussian, request.param)()


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4)


def at(mixture, label):
    """The Denoiser of one class, its condition closed over; and log q_t of it."""
    cond = lambda x: {"label": jnp.full(x.shape[0], label)}

    def denoiser(process):
        inner = mixture.denoiser(process)
        return lambda x, t, _=None, key=None: inner(x, t, cond(x))

    return (
        denoiser,
        lambda process: lambda x, t, _=None: mixture.log_prob(x, process.alpha(t), process.sigma(t), cond(x)),
    )


def test_product_is_the_score_of_the_composed_density(process):
    """eps of base + sum w (expert - base) is that of log q_0 + sum w (log q_i - log q_0), by autodiff of densities."""
    (column, q1), (row, q2), (none, q0) = at(COLUMN, 2), at(ROW, 0), at(GRID, -1)
    t, weights = 0.4, (1.0, 0.7)
    pred = product([column(process), row(process)], weights, none(process))(X, t)
    density = conditional_density(q0(process), [q1(process), q2(process)], weights)
    exact = denoiser_of(density, process)(X, t)
    close(pred.eps, exact.eps, 2e-4)
    close(pred.x0, exact.x0, 2e-4)
    close(product([column(process)], 1.0, none(process))(X, t).eps, column(process)(X, t).eps)
    close(product([column(process)], 0.0, none(process))(X, t).eps, none(process)(X, t).eps)


def test_by_field_is_the_product_of_one_model(process):
    """One network with two conditions: the experts see one field each, the base none."""
    row, column = ROW.denoiser(process), COLUMN.denoiser(process)

    def joint(x, t, cond=None, key=None):
        assert not jnp.any((cond["row"] >= 0) & (cond["column"] >= 0))
        first, second = row(x, t, {"label": cond["row"]}), column(x, t, {"label": cond["column"]})
        pick = jnp.any(cond["row"] >= 0)
        return jax.tree.map(lambda a, b: jnp.where(pick, a, b), first, second)

    cond = {"row": jnp.full(6, 1), "column": jnp.full(6, 2)}
    pred = by_field({"row": 1.0, "column": 0.5})(joint, process)(X, 0.4, cond)
    null = GRID.denoiser(process)(X, 0.4).eps
    one, two = row(X, 0.4, {"label": cond["row"]}).eps, column(X, 0.4, {"label": cond["column"]}).eps
    close(pred.eps, null + (one - null) + 0.5 * (two - null))
    with pytest.raises(ValueError, match=r"cond: expected the fields \['hue'\], got"):
        by_field({"hue": 1.0})(joint, process)(X, 0.4, cond)


def test_composed_samples_land_in_the_requested_cell():
    """DDIM with the product: the one cell of column 2 and row 0 (2206.05039); one condition alone: a third."""
    process, n = gaussian.vp(), 400
    column, row, none = at(COLUMN, 2)[0](process), at(ROW, 0)[0](process), GRID.denoiser(process)
    grid, cell = grids.log_snr(process, 60), jnp.array([[1.0, -1.0]])
    draw = jax.jit(
        lambda key, w: generate(key, product([column, row], w, none), process, ddim(), grid, jnp.zeros((n, 2)))
    )
    share = lambda w: jnp.mean(jnp.linalg.norm(draw(jax.random.key(0), jnp.array(w)) - cell, axis=1) < 0.45)
    assert share([1.0, 1.0]) > 0.95
    assert 0.2 < share([1.0, 0.0]) < 0.45


@pytest.mark.parametrize("seed", range(3))
def test_product_of_normals_is_the_product_of_densities(seed, x64):
    """The log of the product of densities and that of the Normal differ by a constant on a grid."""
    key = jax.random.key(seed)
    means, stds = jax.random.normal(key, (3, 1, 1)), jnp.array([0.5, 1.3, 2.0])
    laws, exponents = [Normal(m, s) for m, s in zip(means, stds)], jnp.array([-0.4, 1.1, 0.8 + 0.5 * seed])
    exponents = exponents.at[0].set(0.3) if seed == 0 else exponents
    x = jnp.linspace(-3, 3, 50)[:, None]
    on = lambda law: Normal(jnp.broadcast_to(law.mean, x.shape), law.std).log_prob(x)
    law = product_of_normals(laws, list(exponents))
    if not jnp.isfinite(law.std).all():
        assert sum(a / s**2 for a, s in zip(exponents, stds)) <= 0
        return
    gap = sum(a * on(law) for a, law in zip(exponents, laws)) - on(law)
    assert jnp.ptp(gap) < 1e-9


def test_product_steps_with_equal_variances():
    """Then the step is the plain solver's with the composed eps; a step to 0 is finite; a solver needs a law."""
    process = gaussian.vp()
    column, row, none = at(COLUMN, 2)[0](process), at(ROW, 0)[0](process), GRID.denoiser(process)
    solver = product_steps(ddpm(), [column, row])
    state = solver.init(X, 0.5)
    for s in (0.4, 0.0):
        law, _, _ = solver.propose(none, process, state, 0.5, s)
        expected, _, _ = ddpm().propose(product([column, row], 1.0, none), process, state, 0.5, s)
        close(law.mean, expected.mean)
        close(law.std, jnp.broadcast_to(expected.std, law.std.shape), 1e-6)
    with pytest.raises(ValueError, match="solver: expected one with a `propose`"):
        product_steps(ddim(), [column])


@pytest.mark.parametrize("form", sorted(ENERGIES))
def test_energy_network(form, process):
    """The denoiser's score is the gradient of the log-density, under every scaling; the pair fits x."""
    w = jax.random.normal(jax.random.key(0), (2, 2))
    net = lambda u, noise, cond, key: jnp.tanh(u @ w) * (1 + 0.1 * noise[:, None])
    t = jnp.full(6, 0.4)
    q = energy_log_density(net, process, form)
    pred = energy_denoiser(net, process, form)(X, t)
    close(process.score(X, pred, t), jax.grad(lambda x: jnp.sum(q(x, t)))(X), 1e-4)
    close(process.perturb(pred.x0, pred.eps, t), X, 1e-4)
    # eps is of order one at every level, whatever the scale of x: the gradient in the network's own input
    high = energy_denoiser(net, process, form)(process.sigma(process.t_max) * X, process.t_max)
    assert jnp.abs(high.eps).max() < 30


def test_densities(process):
    """Product, negation and mixture of log-densities by their definitions."""
    t = 0.4
    a, b = (lambda x, t, _=None, m=m: m.log_prob(x, process.alpha(t), process.sigma(t)) for m in (GRID, ring()))
    close(product_density([a, b], [1.3, -0.3])(X, t), 1.3 * a(X, t) - 0.3 * b(X, t))
    whole = Mixture(
        jnp.concatenate([GRID.means, ring().means]),
        jnp.concatenate([GRID.stds, ring().stds]),
        jnp.log(jnp.concatenate([jnp.full(9, 0.25 / 9), jnp.full(8, 0.75 / 8)])),
    )
    mixed = mixture_density([a, b], [jnp.log(0.25), jnp.log(0.75)])
    close(mixed(X, t), whole.log_prob(X, process.alpha(t), process.sigma(t)), 1e-4)
    with pytest.raises(ValueError, match="weights: expected 2 numbers, got 1"):
        product_density([a, b], [1.0])


def test_bad_arguments():
    with pytest.raises(ValueError, match="denoisers: expected at least one"):
        product([])
    with pytest.raises(ValueError, match="weights: expected one number or 1, got 2"):
        product([lambda *a: None], [1.0, 2.0])
    with pytest.raises(ValueError, match="form: expected one of"):
        energy_log_density(lambda *a: None, gaussian.vp(), "cubic")
