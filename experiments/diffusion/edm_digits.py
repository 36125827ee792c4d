"""The demo: a class-conditional EDM denoiser (2206.00364) of scikit-learn's 8 x 8 handwritten digits.

    genjax train --config=diffusion/edm_digits --workdir=runs/digits

`:smoke` is a training of a few seconds, for tests.
"""

from ml_collections import ConfigDict


def get_config(scale="small"):
    """The ConfigDict at scale "small" or "smoke"."""
    if scale not in ("small", "smoke"):
        raise ValueError(f"scale: expected 'small' or 'smoke', got {scale!r}")
    smoke = scale == "smoke"
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "digits_vector" if smoke else "digits"},
            "process": {"name": "edm"},
            "network": {"name": "mlp", "width": 64, "depth": 2}
            if smoke
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
                "schedule": {"name": "cosine", "warmup": 100 if not smoke else 5},
            },
            "ema": {"name": "half_life", "steps": 200.0},
            "precision": "float32",
            "train": {
                "steps": 60 if smoke else 2000,
                "batch_size": 32 if smoke else 128,
                "steps_per_call": 25,
                "log_every": 20 if smoke else 25,
                "checkpoint_every": 20 if smoke else 500,
            },
            "sample": {"solver": "heun", "grid": "karras", "steps": 18, "cfg_scale": 2.0},
            "eval": {
                "num": 1000,
                "metrics": ("sliced_w2", "energy") if smoke else ("fd", "precision_recall", "accuracy", "bits_per_dim"),
            },
        }
    )
