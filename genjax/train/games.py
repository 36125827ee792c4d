"""What a training of a game does besides steps: pictures of its latent space, and warnings in words.

A game has no loss that falls as it gets better, so what goes wrong has to be read from other signs:

  saturated   the critic tells all reals from all generated samples (both sign rates near their limit), and the
              generator's gradient has died away
  losing      the generator's samples are taken for real throughout: the critic has collapsed
  coverage    samples become alike: their mean distance, or the entropy of the classes that a judge sees, falls
"""

import math
from pathlib import Path

import jax
import numpy as np

from genjax.algorithms.games import latent_path
from genjax.core.keys import sample_keys
from genjax.metrics import class_entropy
from genjax.train import pictures
from genjax.train.generation import class_labels, draw
from genjax.train.loop import Hook
from genjax.train.multihost import is_main


def interpolation_hook(every, generate_of, latent, spec, workdir, *, seed=0, rows=6, columns=10, conditional=False):
    """Draws walks between two latents to `interpolations/00000500.png` and to the events; the same every time.

    Args:
      every: steps; 0 for never.
      generate_of: State -> generate(z, cond, key) (`build.gan.Parts.generate`).
      latent: a `games.Latent`.
      spec: DataSpec.
      workdir: directory of the training.
      rows, columns: walks, and samples a walk.
      conditional: give walk i the label i.
    """
    folder = Path(workdir) / "interpolations"
    label = np.repeat(class_labels(rows, spec.num_classes), columns) if conditional else None

    @jax.jit
    def walks(state):
        ends = latent.sample(sample_keys(jax.random.key(seed), 2 * rows), 2 * rows)
        z = jax.vmap(lambda a, b: latent_path(a, b, columns))(ends[:rows], ends[rows:])
        cond = None if label is None else {"label": label}
        return generate_of(state)(z.reshape(rows * columns, -1), cond, jax.random.key(seed))

    def run(step, state, log):
        x = np.asarray(walks(state))
        if not is_main():
            return
        picture = pictures.picture_of(x, spec, None, columns)
        folder.mkdir(exist_ok=True)
        pictures.save(folder / f"{step:08d}.png", picture)
        log.image(step, "interpolations", picture)

    return Hook(every, run)


def diagnose(metrics, first_gradient, limit=0.98, vanished=0.02):
    """What is wrong with a game by its metrics, in words; None where nothing seems to be.

    Args:
      metrics: {"sign_real", "sign_fake", "g_grad_norm"} averaged over a log interval.
      first_gradient: the generator's gradient norm at the first log point.
      limit: sign rate from which a critic counts as certain.
      vanished: share of the first gradient norm below which the gradient counts as gone.
    """
    try:
        real, fake, gradient = (metrics[name] for name in ("sign_real", "sign_fake", "g_grad_norm"))
    except KeyError:
        return None
    if real > limit and fake < -limit and gradient < vanished * first_gradient:
        return (
            f"the discriminator is saturated: it tells real from generated with certainty (signs {real:+.2f} and "
            f"{fake:+.2f}) and the generator's gradient has fallen to {gradient:.2g}; a penalty (r1, "
            "gradient_penalty), a loss that does not saturate or a lower learning rate of the discriminator may help"
        )
    if real > limit and fake > limit:
        return (
            f"the discriminator calls everything real (signs {real:+.2f} and {fake:+.2f}): it gives the generator "
            "nothing to go by; a higher learning rate of the discriminator or a larger n_critic may help"
        )
    return None


def spread(x, pairs=2000, seed=0):
    """Mean distance of random pairs of samples x [N, ...]."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    rng = np.random.default_rng(seed)
    i, shift = rng.integers(len(x), size=pairs), rng.integers(1, len(x), size=pairs)
    return float(np.mean(np.linalg.norm(x[i] - x[(i + shift) % len(x)], axis=1)))


class Coverage:
    """How much of the data's variety samples have, against the data's own and against the best seen so far.

    Args:
      data: real samples [N, ...].
      judge: x -> labels [N], of a classifier, or None.
      num_classes: of the judge.
      low: share below which coverage counts as lost.
    """

    def __init__(self, data, judge=None, num_classes=0, low=0.5):
        self.judge, self.num_classes, self.low = judge, num_classes, low
        self.real, self.best = spread(data), 0.0

    def measure(self, x):
        """{"spread": share of the data's mean distance, "class_entropy": share of the largest possible}."""
        found = {"spread": spread(x) / self.real}
        if self.judge is not None:
            found["class_entropy"] = class_entropy(self.judge(x), self.num_classes) / math.log(self.num_classes)
        return found

    def diagnose(self, found):
        """A warning in words, or None."""
        variety = min(found.values())
        best, self.best = self.best, max(self.best, variety)
        words = {"spread": "their mean distance is", "class_entropy": "the entropy of their classes is"}
        lowest = min(found, key=found.get)
        if variety < self.low * best:
            return (
                f"mode coverage is falling: {words[lowest]} {variety:.0%} of what it could be, after {best:.0%}; "
                "minibatch features, a gradient penalty or lower learning rates may help"
            )
        return None


def watch_hook(every, log_every):
    """Reads the newest metrics every so often and says in words when the game has gone wrong, once a fault.

    Args:
      every: steps; 0 for never.
      log_every: steps between log points, after which there is something new to read.
    """
    first, said = {}, set()

    def run(step, state, log):
        if "g_grad_norm" in log.last:
            first.setdefault("gradient", log.last["g_grad_norm"])
            words = diagnose(log.last, first["gradient"])
            if words and words[:30] not in said:
                said.add(words[:30])
                log.say(f"warning: step {step}: {words}")

    return Hook(every and max(every, log_every), run)


def coverage_hook(every, algorithm, data, *, seed=0, n=500, conditional=False, judge=None):
    """Measures `Coverage` every so often: logs it, and says in words when it falls.

    Args:
      every: steps; 0 for never.
      algorithm: an Algorithm with a sampler.
      data: a Dataset in memory.
      n: number of samples.
      judge: x -> labels, or None; only for generators without labels, whose classes are their own.
    """
    coverage = Coverage(data.arrays["x"][:5000], judge, data.spec.num_classes)
    cond = {"label": class_labels(n, data.spec.num_classes)} if conditional else None

    def run(step, state, log):
        found = coverage.measure(draw(algorithm, jax.random.key(seed), state, n, cond))
        words = coverage.diagnose(found)
        if words:
            log.say(f"warning: step {step}: {words}")
        return {f"coverage/{name}": value for name, value in found.items()}

    return Hook(every, run)
