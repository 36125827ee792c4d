"""The demo: a class-conditional EDM denoiser (2206.00364) of scikit-learn's 8 x 8 handwritten digits.

    genjax train --config=diffusion/edm_digits --workdir=runs/digits

`:tiny` is a training of a few seconds, for tests.
"""

from ml_collections import ConfigDict


def get_config(scale="small"):
    """The ConfigDict at scale "small" or "tiny"."""
    if scale not in ("small", "tiny"):
        raise ValueError(f"scale: expected 'small' or 'tiny', got {scale!r}")
    tiny = scale == "tiny"
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "digits_vector" if tiny else "digits"},
            "process": {"name": "edm"},
            "network": {"name": "mlp", "width": 64, "depth": 2}
            if tiny
            else {"name": "dit", "dim": 96, "depth": 4, "heads": 3},
            "denoiser": {"target": "edm", "sigma_data": 0.75},
            "loss": {
                "name": "denoising",
                "time_sampler": {"name": "log_normal"},
                "weighting": {"name": "edm", "sigma_data": 0.75},
            },
            "algorithm": {"name": "diffusion", "cond": ("label",), "label_drop": 0.1},
            "optimizer": {
                "name": "adam",
                "learning_rate": 1e-3,
                "clip": 1.0,
                "schedule": {"name": "cosine", "warmup": 100 if not tiny else 5},
            },
            "ema": {"name": "half_life", "steps": 200.0},
            "precision": "float32",
            "train": {
                "steps": 60 if tiny else 2000,
                "batch_size": 32 if tiny else 128,
                "steps_per_call": 25,
                "log_every": 20 if tiny else 25,
                "checkpoint_every": 20 if tiny else 500,
            },
            "sample": {"solver": "heun", "grid": "karras", "steps": 18, "cfg_scale": 2.0},
            "eval": {
                "num": 1000,
                "metrics": ("sliced_w2", "energy") if tiny else ("fd", "precision_recall", "accuracy", "bits_per_dim"),
            },
        }
    )
