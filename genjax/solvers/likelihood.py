"""Exact log-likelihood by the probability-flow ODE (2011.13456, section 4.3; 1806.07366, eq. 8).

The ODE is solved in w = x / sqrt(alpha^2 + sigma^2) against l = log(alpha / sigma), where it is bounded for
every process and at both ends: with a^2 = sigmoid(2 l) and b^2 = sigmoid(-2 l),

  dw / dl = a b (b x0 - a eps),     d log p(w) / dl = - div_w (dw / dl),

and log p at the noisy end is that of N(0, b^2). Times in between are those of the grid; each step is the
classical Runge-Kutta method.
"""

import jax
import jax.numpy as jnp

from genjax.core.denoiser import bind_cond
from genjax.core.keys import draw, per_sample
from genjax.core.numerics import sum_except_batch


def _angles(half):
    """(a, b): alpha and sigma of the variance-preserving scale at l."""
    return jnp.sqrt(jax.nn.sigmoid(2 * half)), jnp.sqrt(jax.nn.sigmoid(-2 * half))


def flow_field(denoiser, process):
    """(w, l) -> dw / dl, both scale and time of the process taken out."""

    def field(w, half):
        a, b = _angles(half)
        t = process.time(2 * half)
        x = w * (process.alpha(t) / a)  # alpha / a = sqrt(alpha^2 + sigma^2)
        pred = denoiser(x.astype(w.dtype), t)
        return a * b * (b * pred.x0 - a * pred.eps)

    return field


def exact_divergence(field, x):
    """(field(x), its divergence [B]) by one directional derivative a dimension; field acts on each sample alone."""
    size = x[0].size
    basis = jnp.eye(size, dtype=x.dtype).reshape(size, *x.shape[1:])
    value, tangent = jax.linearize(field, x)

    def component(direction):
        return sum_except_batch(tangent(jnp.broadcast_to(direction, x.shape)) * direction[None])

    return value, jnp.sum(jax.vmap(component)(basis), axis=0)


def hutchinson_divergence(field, x, probes):
    """(field(x), unbiased estimate of its divergence [B]) from `probes` [P, *x.shape] of unit variance."""
    value, tangent = jax.linearize(field, x)
    return value, jnp.mean(jax.vmap(lambda v: sum_except_batch(tangent(v) * v))(probes), axis=0)


def rademacher(keys, x, count):
    """Probes of +-1, [count, *x.shape], one stream a sample."""
    drawn = draw(lambda key, shape: jax.random.rademacher(key, (count, *shape), x.dtype), keys, x.shape)
    return jnp.moveaxis(drawn, 1, 0)


def _augmented(denoiser, process, probes):
    """((w, log-density gained), l) -> its rate."""
    field = flow_field(denoiser, process)

    def rate(state, half):
        w, _ = state
        if probes is None:
            value, divergence = exact_divergence(lambda w: field(w, half), w)
        else:
            value, divergence = hutchinson_divergence(lambda w: field(w, half), w, probes)
        return value, divergence

    return rate


def log_likelihood(denoiser, process, x0, grid, cond=None, *, keys=None, probes=0, integrate=None):
    """log p(x0) in nats, [B], under the model that the probability-flow ODE of the denoiser defines.

    The density is that of x0 + (sigma / alpha) eps at the first time of the grid, i.e. of data with the
    smallest noise on it.

    Args:
      denoiser: Denoiser that treats samples separately.
      process: Gaussian process.
      x0: [B, ...].
      grid: [N + 1] ascending times, t_min to t_max (a grid with `to_zero=False`, reversed); times
        equally spaced in log-SNR suit it.
      cond: condition.
      keys: one key or [B]; needed for the estimate.
      probes: 0 for the exact trace (D derivatives an evaluation), else the number of Hutchinson
        probes, the same along the path.
      integrate: (rate, state, halves) -> state at halves[-1]; Runge-Kutta over the grid unless given, e.g.
        `adaptive.integrate_adaptive()`.

    Returns:
      log p, [B].

    Raises:
      ValueError: a grid that is not an ascending vector (checked where concrete), or probes without keys.
    """
    grid = jnp.asarray(grid)
    if grid.ndim != 1 or grid.shape[0] < 2:
        raise ValueError(f"grid: expected a vector of at least 2 times, got shape {grid.shape}")
    if not isinstance(grid, jax.core.Tracer) and not (grid[0] > 0 and grid[0] < grid[-1]):
        raise ValueError(f"grid: expected times ascending from t_min > 0, got {float(grid[0])} ... {float(grid[-1])}")
    if probes and keys is None:
        raise ValueError("keys: the Hutchinson estimate draws random probes and needs keys, got None")
    if cond is not None:
        denoiser = bind_cond(denoiser, cond)
    vectors = rademacher(per_sample(keys, x0.shape[0]), x0, probes) if probes else None
    halves = process.log_snr(grid) / 2
    a, _ = _angles(halves[0])
    start = ((a * x0).astype(x0.dtype), jnp.zeros(x0.shape[0], x0.dtype))
    rate = _augmented(denoiser, process, vectors)
    w, gained = (integrate or runge_kutta_4)(rate, start, halves)
    _, b = _angles(halves[-1])
    size = x0[0].size
    log_prior = -0.5 * sum_except_batch((w / b) ** 2) - size * (jnp.log(b) + 0.5 * jnp.log(2 * jnp.pi))
    return log_prior + gained + size * jnp.log(a)


def runge_kutta_4(rate, state, halves):
    """The classical method over the points `halves` [N + 1]."""

    def add(state, k, h):
        return jax.tree.map(lambda u, v: u + (h * v).astype(u.dtype), state, k)

    def body(state, ends):
        l_0, l_1 = ends
        h = l_1 - l_0
        k_1 = rate(state, l_0)
        k_2 = rate(add(state, k_1, h / 2), l_0 + h / 2)
        k_3 = rate(add(state, k_2, h / 2), l_0 + h / 2)
        k_4 = rate(add(state, k_3, h), l_1)
        k = jax.tree.map(lambda p, q, r, s: (p + 2 * q + 2 * r + s) / 6, k_1, k_2, k_3, k_4)
        return add(state, k, h), None

    return jax.lax.scan(body, state, (halves[:-1], halves[1:]))[0]
