"""What every experiment is told by the runner: its scale, and which fields of its config are the runner's own.

Apart from the runner itself, which experiments do not import: a change there leaves their figures in the cache.
"""

SCALES = ("small", "smoke")  # of every experiment
RUNNER_FIELDS = ("part", "scale")  # set in every config by `runner.base_config`


def check_scale(scale):
    """Whether `scale` is "smoke" (else "small"): for experiments whose config is their own.

    Raises:
      ValueError: another scale. A method takes "paper" before it asks.
    """
    if scale not in SCALES:
        raise ValueError(f"scale: expected 'small', 'smoke' or, for a method, 'paper', got {scale!r}")
    return scale == "smoke"
