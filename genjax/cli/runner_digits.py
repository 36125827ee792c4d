"""What the experiments on scikit-learn's digits share: a base config, and the measures."""

from functools import cache

from ml_collections import ConfigDict

from genjax import data
from genjax.cli.runner_scales import check_scale
from genjax.metrics.features import data_stats
from genjax.metrics.frechet import frechet_distance


def base_config(scale, steps, **groups):
    """The small config: digits as 64-vectors under an MLP of 128 wide and 3 deep, at batch 128.

    Args:
      scale: "small", or "smoke" for a few steps of everything.
      steps: of the training.
      **groups: replace whole groups.
    """
    smoke = check_scale(scale)
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "digits_vector"},
            "network": {"name": "mlp", "width": 16 if smoke else 128, "depth": 1 if smoke else 3},
            "algorithm": {"name": "diffusion"},
            "optimizer": {
                "name": "adam",
                "learning_rate": 1e-3,
                "schedule": {"name": "cosine", "warmup": 5 if smoke else 100},
                "clip": 1.0,
            },
            "ema": {"name": "warmup", "decay": 0.999},
            "precision": "float32",
            "train": {"steps": 40 if smoke else steps, "batch_size": 16 if smoke else 128},
            "sample": {"solver": "ddim", "grid": "uniform", "steps": 5 if smoke else 50, "clip": True},
            "eval": {"num": 64 if smoke else 2000},
            **groups,
        }
    )


@cache
def _sets():
    return data.load("digits"), data.load("digits", split="test")


@cache
def _judge():
    return data.extractor(*_sets())


def frechet(x):
    """Frechet distance of digits x [N, ...] from the training digits, in features of the set's own classifier."""
    reference = data_stats(_judge(), _sets()[0].arrays["x"])
    return frechet_distance(_judge()(x)[0], reference)


def spec():
    """The DataSpec of the digits as vectors."""
    return data.load("digits_vector").spec


def training():
    """The training digits as vectors, [1438, 64]."""
    return data.load("digits_vector").arrays["x"]


def held_out():
    """The digits that no model and no judge was trained on, as vectors, [359, 64]."""
    return data.load("digits_vector", split="test").arrays["x"]
