"""What every posterior sampler is: a run, what it needs of the measurement, and what it costs.

  restore(key, denoiser, process, measurement, like) -> x [B, ...]

All levels enter through alpha and sigma, so a sampler is the same under every scale of a process
(vp, ve, flow): published step sizes, which are meant for vp coordinates, are carried over by
`vp_scale`. Draws are made with a key of each sample; no sample sees its neighbours in the batch.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genjax.construct import lookup
from genjax.core.keys import fold, per_sample
from genjax.core.numerics import bcast
from genjax.inverse.measurement import check_measurement
from genjax.inverse.noises import Gaussian, gaussian_std
from genjax.inverse.operators.base import require
from genjax.solvers.grids import GRIDS

OPERATOR_NEEDS = ("adjoint", "pinv", "prox", "svd", "x_init", "phi_init")


@dataclasses.dataclass(frozen=True)
class PosteriorSampler:
    """A posterior sampler: called as `restore(key, denoiser, process, measurement, like) -> x`.

    Attributes:
      name: for messages.
      run: (key, denoiser, process, measurement, like) -> (x [B, ...], extra), unchecked; `extra` is a dict of
        what else the method finds (particles, parameters of the operator, the noise).
      needs: of `OPERATOR_NEEDS`, methods that the operator must have; "known_std" Gaussian noise, "density" noise that
        has one (not of standard deviation 0); "adaptable" a denoiser with adapters (`inverse.adaptation`).
      nfe: denoiser evaluations of a sample a run; of all slices of a volume at once.
      vjps: how many of them are differentiated with respect to the state (each costs about twice a plain one more).
    """

    name: str
    run: Callable
    needs: tuple = ()
    nfe: int = 0
    vjps: int = 0

    def __call__(self, key, denoiser, process, measurement, like):
        """x [B, ...], of the shape and dtype of `like`."""
        return self.detail(key, denoiser, process, measurement, like)[0]

    def detail(self, key, denoiser, process, measurement, like):
        """(x [B, ...], extra).

        Raises:
          ValueError: a measurement without what the method needs, or shapes that do not fit; before compiling.
        """
        check(self.name, self.needs, denoiser, measurement, like)
        x, extra = self.run(key, denoiser, process, measurement, like)
        return x.astype(like.dtype), extra


def check(name, needs, denoiser, measurement, like):
    """Raises ValueError unless the measurement fits `like` and has what the method `name` needs."""
    operator, noise, _ = check_measurement(measurement, like)
    require(operator, [need for need in needs if need in OPERATOR_NEEDS], name)
    if "known_std" in needs:
        gaussian_std(noise, name)
    if "density" in needs and isinstance(noise, Gaussian):
        gaussian_std(noise, name, zero=False)
    if "adaptable" in needs and not hasattr(denoiser, "adapters"):
        raise ValueError(f"denoiser: {name} expected an Adaptable, whose adapters it tunes, got {type(denoiser)}")


def at_least(value, low, field):
    """Raises ValueError where a concrete number is below `low`."""
    if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) >= low):
        raise ValueError(f"{field}: expected >= {low}, got {value}")


def one_of(value, choices, field):
    """Raises ValueError unless `value` is among `choices`."""
    if value not in choices:
        raise ValueError(f"{field}: expected one of {list(choices)}, got {value!r}")


def vp_scale(process, t):
    """1 / sqrt(alpha^2 + sigma^2): what x_t is multiplied by to be in vp coordinates; 1 for vp."""
    return jax.lax.rsqrt(process.alpha(t) ** 2 + process.sigma(t) ** 2)


def ratio(process, t):
    """sigma / alpha, the standard deviation of the noise in units of x0; inf where alpha is 0."""
    return jnp.exp(-process.log_snr(t) / 2)


def times(process, steps, grid):
    """The grid `grid` of `steps` steps, [steps + 1], down to 0."""
    return lookup(GRIDS, grid, "grid")(process, steps)


def scan_steps(step, carry, ts):
    """Scans `step(i, carry, t, s) -> carry` over consecutive times of ts [N + 1]."""
    body = lambda carry, i: (step(i, carry, ts[i], ts[i + 1]), None)
    return jax.lax.scan(body, carry, jnp.arange(len(ts) - 1))[0]


def start(keys, process, like, t):
    """x at the first time, from the prior, in the dtype of `like`."""
    return process.prior(keys, like, t).astype(like.dtype)


def run_solver(key, denoiser, process, solver, ts, like):
    """(x, memory) of a solver run from the prior; the same draws as `solvers.generate`."""
    keys = per_sample(key, like.shape[0])
    inner = fold(keys, 1)
    state = solver.init(start(fold(keys, 0), process, like, ts[0]), ts[0])

    def step(i, state, t, s):
        return solver.step(fold(inner, i), denoiser, process, state, t, s)[0]

    return scan_steps(step, state, ts)


def from_solver(name, make, steps, grid, needs=(), *, evals=1, vjp=False, guidance=None, found=None):
    """The PosteriorSampler of a Solver that knows the measurement.

    Args:
      make: (measurement, like) -> Solver.
      steps, grid: of the times.
      evals: denoiser evaluations of a step.
      vjp: whether each is differentiated.
      guidance: None, or measurement -> Guidance of the denoiser.
      found: None, or memory -> dict, what the memory holds at the end.
    """
    at_least(steps, 2, "steps")
    lookup(GRIDS, grid, "grid")

    def run(key, denoiser, process, measurement, like):
        if guidance is not None:
            denoiser = guidance(measurement)(denoiser, process)
        solver = make(measurement, like)
        state = run_solver(key, denoiser, process, solver, times(process, steps, grid), like)
        return state.x, {} if found is None else found(state.memory)

    return PosteriorSampler(name, run, tuple(needs), steps * evals, steps * evals if vjp else 0)


def scaled(a, x):
    """a x for a coefficient that is a scalar or [B], in the dtype of x."""
    return (bcast(a, x) * x).astype(x.dtype)
