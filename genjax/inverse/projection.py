"""Restoration by replacement: the measured part of the state is overwritten along the way.

With H the operator and H^+ its pseudo-inverse, the sample's part in the range of H^+ is replaced by the
measurement noised to the same level,

  x_s <- x_s + weight H^+ (alpha_s y + sigma_s H n - H x_s).                                    (1)

For a mask this is inpainting by replacement (2011.13456, appendix I; `solvers.project`), with a low-pass
filter H^+ H it is ILVR (2108.02938, eq. 8), with weight < 1 the consistency step of 2111.08005, and with each
step made several times RePaint (2201.09865). None of them is a posterior sampler: the unmeasured part is drawn
as if the noised measurement were independent of it, and measurement noise is copied.
"""

from genjax.core.keys import fold, normal_like, per_sample
from genjax.core.numerics import bcast
from genjax.inverse import sampler
from genjax.solvers.ancestral import ddim
from genjax.solvers.transforms import after_step, resample


def replace_range(solver, measurement, weight=1.0):
    """The solver whose result has its measured part replaced by the noised measurement: equation (1).

    At s = 0 the measured part agrees with y itself.

    Args:
      measurement: its operator has `pinv`; the noise is not used.
      weight: 1 replaces, 0 leaves the solver as it is.
    """
    operator, _, y = measurement

    def act(keys, process, x, t, s):
        noised = bcast(process.sigma(s), x) * normal_like(keys, x) - x
        change = bcast(process.alpha(s), y) * y + operator.forward(noised.astype(x.dtype))
        return x + weight * operator.pinv(change.astype(x.dtype))

    return after_step(solver, act)


def projection(weight=1.0, steps=100, eta=1.0, grid="cosine"):
    """Replacement of the measured part at each step: ILVR, and the baseline of inpainting.

    Args:
      weight: of the replacement, in [0, 1].
      eta: of the underlying DDIM step; 1 is ancestral.
    """
    make = lambda measurement, like: replace_range(ddim(eta), measurement, weight)
    return sampler.from_solver("projection", make, steps, grid, ("pinv",))


def repaint(times=10, weight=1.0, steps=50, eta=1.0, grid="cosine"):
    """RePaint (2201.09865, algorithm 1, jump length 1): replacement, each step made `times` times."""
    sampler.at_least(times, 1, "times")
    make = lambda measurement, like: resample(replace_range(ddim(eta), measurement, weight), times)
    return sampler.from_solver("repaint", make, steps, grid, ("pinv",), evals=times)


def sdedit(strength=0.5, steps=100, eta=0.0, grid="cosine"):
    """Noise a rough answer up to a level and denoise it (SDEdit, 2108.01073): no data step along the way.

    Args:
      strength: share of the grid that is run, in (0, 1]; at 1 the start is all but forgotten.
      steps: of the whole grid.
      eta: of the DDIM step.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength: expected in (0, 1], got {strength}")
    sampler.at_least(steps, 2, "steps")
    solver, run_steps = ddim(eta), max(1, round(strength * steps))

    def run(key, denoiser, process, measurement, like):
        ts = sampler.times(process, steps, grid)[steps - run_steps :]
        keys = per_sample(key, like.shape[0])
        rough = measurement.operator.x_init(measurement.y)
        x = process.perturb(rough, normal_like(fold(keys, 0), like), ts[0]).astype(like.dtype)
        inner = fold(keys, 1)
        step = lambda i, state, t, s: solver.step(fold(inner, i), denoiser, process, state, t, s)[0]
        return sampler.scan_steps(step, solver.init(x, ts[0]), ts).x, {}

    return sampler.PosteriorSampler("sdedit", run, ("x_init",), run_steps)
