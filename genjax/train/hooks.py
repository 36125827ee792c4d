"""What a training does besides steps."""

from pathlib import Path

import jax

from genjax.train import pictures
from genjax.train.generation import class_labels, draw
from genjax.train.loop import Hook
from genjax.train.multihost import is_main


def sample_hook(every, algorithm, spec, workdir, *, seed=0, n=64, conditional=False):
    """Draws samples to `samples/00000500.png` and to the TensorBoard events; the same keys every time.

    Args:
      every: steps; 0 for never.
      algorithm: an Algorithm with a sampler.
      spec: DataSpec.
      workdir: directory of the training.
      seed: of the samples.
      n: number of samples.
      conditional: give the labels 0, 1, 2 ... in turn, a column each where there are few classes.
    """
    folder = Path(workdir) / "samples"
    labels = class_labels(n, spec.num_classes) if conditional else None
    columns = spec.num_classes if conditional and spec.num_classes <= 16 else None

    def run(step, state, log):
        cond = None if labels is None else {"label": labels}
        x = draw(algorithm, jax.random.key(seed), state, n, cond)
        if not is_main():
            return
        picture = pictures.picture_of(x, spec, labels, columns)
        folder.mkdir(exist_ok=True)
        pictures.save(folder / f"{step:08d}.png", picture)
        log.image(step, "samples", picture)

    return Hook(every, run)
