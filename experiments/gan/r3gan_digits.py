"""A class-conditional R3GAN (2501.05441) of scikit-learn's 8 x 8 handwritten digits, as vectors.

    genjax train --config=gan/r3gan_digits --workdir=runs/r3gan

`:smoke` is a training of a few seconds, for tests.
"""

from ml_collections import ConfigDict


def get_config(scale="small"):
    """The ConfigDict at scale "small" or "smoke"."""
    if scale not in ("small", "smoke"):
        raise ValueError(f"scale: expected 'small' or 'smoke', got {scale!r}")
    smoke = scale == "smoke"
    width, depth = (16, 1) if smoke else (256, 3)
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "digits_vector"},
            "generator": {"name": "mlp", "width": width, "depth": depth},
            "discriminator": {"name": "mlp", "width": width, "depth": depth, "head": "projection"},
            "latent": {"name": "normal", "dim": 32},
            "loss": {"name": "relativistic_pairing"},
            "penalties": {"r1_r2": {"weight": 0.1}},
            "algorithm": {"name": "gan", "cond": ("label",)},
            "optimizer": {"name": "adam", "learning_rate": 5e-4, "b1": 0.0, "b2": 0.9},
            "ema": {"name": "warmup", "decay": 0.995},
            "precision": "float32",
            "train": {
                "steps": 40 if smoke else 4000,
                "batch_size": 16 if smoke else 128,
                "steps_per_call": 20 if smoke else 100,
                "log_every": 20 if smoke else 100,
                "checkpoint_every": 20 if smoke else 1000,
                "sample_every": 20 if smoke else 1000,
            },
            "sample": {},
            "eval": {
                "num": 64 if smoke else 2000,
                "metrics": ("sliced_w2", "energy") if smoke else ("fd", "precision_recall", "accuracy"),
            },
        }
    )
