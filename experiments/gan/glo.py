"""Optimizing the Latent Space of Generative Networks (arXiv 1707.05776).

    genjax reproduce glo

1,200 digits (drawn by the seed), codes of 16 numbers in the unit ball, a generator 16-256-256-64 (tanh) that is given
4 z, squared error, Adam 1e-3 for the generator and 0.03 for the codes, batch 60, 150 epochs. Arms: `glo`; `fixed`, the
same with random codes that are not trained; `pca`, 16 principal components; `gan`, reported alone, a non-saturating
game of the same generator with a critic 64-256-256-1 in 2,000 steps, about the same time. Codes of the 359 test digits
are found by descent (Adam 0.05, 200 steps, the best of 3 starts). Rules fixed before the run, means over seeds:

1. Reconstruction of training digits: the error of `glo` is at most 0.4 of that of `fixed` and of that of `pca`.
2. Test digits: at most 0.8 of `fixed`'s error.
3. Frechet distance (FD) of 2,000 samples, codes from the Gaussian of all codes: at most 0.7 of `fixed`'s and 0.6 of
   `pca`'s.
4. FD of images half way between two training codes: at most 0.65 of `fixed`'s.
5. All classes are among the samples, each at least 4 %, every seed.
6. Arithmetic: adding the mean code of class a + 3 and taking away that of a turns at least 25 % of a's digits into a +
   3 in the eyes of an independent judge, and at most 5 % in `fixed`.

`samples` fails by a hair: the FD is 5.50 +- 0.15 against 12.7 for `fixed` (0.43, at most 0.7 asked) and 9.07 +- 0.20
for `pca` (0.606, at most 0.6 asked), a gap within the noise of three seeds. The bar came from a trial in the features
of another classifier and with half as many samples, where the principal components had 11.6 and GLO 4.2. The game of
the same generator has 4.2; codes uniform in the ball have 6.3.

Reported: samples from the uniform law in the ball, which a trial found no worse at this size, since nearly all codes
lie on the sphere (here mean norm 0.97).

`get_config("paper")`: CelebA at 64x64, a DCGAN generator under the Laplacian pyramid's loss, gradient descent with
rates 1 and 10; the paper judges pictures.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from genjax.algorithms.glo import ball, fit_codes, project_ball
from genjax.cli import runner_features as judged
from genjax.cli import runner_gan as run
from genjax.cli.runner_scales import check_scale
from genjax.core.keys import fold, sample_keys
from genjax.data.views import few, numbered
from genjax.inverse.generator import invert_generator
from genjax.losses.pyramid import squared_error
from genjax.oracles.principal import principal_components

PAPER = {
    "number": 30,
    "title": "Optimizing the Latent Space of Generative Networks",
    "year": 2017,
    "arxiv": "1707.05776",
    "family": "gan",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3
NUM, DIM, STEPS, SHIFT = 1200, 16, 3000, 3


def get_config(scale="small"):
    if scale == "paper":
        return paper_config()
    smoke = check_scale(scale)
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "digits_vector", "indexed": True},
            "generator": {"name": "mlp", "width": 16 if smoke else 256, "depth": 1 if smoke else 2},
            "loss": {"name": "l2"},
            "algorithm": {"name": "glo", "num": NUM, "dim": DIM, "scale": 4.0, "train_codes": True},
            "optimizer": {"name": "adam", "learning_rate": 1e-3},
            "code_optimizer": {"name": "adam", "learning_rate": 0.03},
            "precision": "float32",
            "train": {"steps": 20 if smoke else STEPS, "batch_size": 60},
            "eval": {"num": 64 if smoke else 2000},
        }
    )


VARIANTS = {
    "glo": {},
    "fixed": {"algorithm.train_codes": False},
    "pca": {"part": "pca"},
    "gan": {"part": "gan"},
}


def gan_config(config):
    """A game of the same generator."""
    network = config.generator.to_dict()
    latent = {"name": "normal", "dim": DIM}
    return run.digits_config(config.scale, 2000, generator=network, discriminator=dict(network), latent=latent)


def known(key):
    """The training digits of a seed, with their numbers."""
    return numbered(few(judged.sets("digits_vector")[0], NUM, run.seed_of(fold(key, 7)))[0]).arrays


def train(config, key, priors):
    """The State at the end; None where nothing is trained."""
    if config.part == "pca":
        return None
    return run.fit(gan_config(config) if config.part == "gan" else config, key, arrays=known(key))[-1][1]


def linear_model(x):
    """(codes, decode, encode, law of new codes, what keeps codes in their set) of the principal components of x."""
    found = principal_components(x, DIM)
    codes = jnp.asarray(found.encode(x), jnp.float32)
    decode = lambda z: np.asarray(found.decode(z), np.float32)
    return codes, decode, lambda y: found.encode(y), fit_codes(codes).draw, lambda z: z


def latent_model(config, state, key):
    """The same of a trained State."""
    parts, state = run.game(config), jax.tree.map(jnp.asarray, state)
    start = ball(DIM)

    @jax.jit
    def encode(state, y):
        options = {"optimizer": optax.adam(0.05), "steps": 200, "restarts": 3, "project": project_ball}
        return invert_generator(fold(key, 8), parts.decode(state), y, start, squared_error(), **options)[0]

    decode = jax.jit(lambda state, z: parts.decode(state)(z))
    law = parts.law(state)
    codes = state.extra["codes"]
    return codes, lambda z: np.asarray(decode(state, z)), lambda y: encode(state, y), law.sample, project_ball


def attribute(codes, label, decode, project):
    """Share of images that turn from class a into a + SHIFT when the difference of the classes' mean codes is added."""
    means = jnp.stack([codes[label == k].mean(axis=0) for k in range(10)])
    goal = (label + SHIFT) % 10
    return np.mean(judged.classes(decode(project(codes + means[goal] - means[label]))) == goal)


def measure(config, key, priors):
    if config.part == "gan":
        game = gan_config(config)
        return run.digit_measures(run.draw(game, priors["glo"], fold(key, 5), config.eval.num))
    arrays, test = known(key), judged.sets("digits_vector")[1].arrays["x"]
    linear = config.part == "pca"
    model = linear_model(arrays["x"]) if linear else latent_model(config, priors["glo"], key)
    codes, decode, encode, law, project = model
    n, reference = config.eval.num, judged.sets("digits_vector")[0].arrays["x"]
    keys = sample_keys(fold(key, 5), n)
    first, second = (jax.random.randint(fold(key, i), (n,), 0, NUM) for i in (9, 10))
    error = lambda made, x: np.mean((made - x) ** 2)
    found = {
        "train_mse": error(decode(codes), arrays["x"]),
        "test_mse": error(decode(encode(test)), test),
        "midpoint_fd": judged.frechet(decode((codes[first] + codes[second]) / 2), reference),
        "attribute": attribute(codes, arrays["label"], decode, project),
        **run.digit_measures(decode(law(keys, n))),
    }
    if not linear:
        found["ball_fd"] = judged.frechet(decode(ball(DIM)(keys, n)), reference)
        found["code_norm"] = np.mean(np.linalg.norm(codes, axis=1))
    return found


def _least(t, metric, share, *others):
    return all(t["glo"][metric].mean() <= share * t[other][metric].mean() for other in others)


CLAIMS = {
    "train": (
        "the error on training digits is at most 0.4 of that with fixed random codes and of that of PCA",
        lambda t: _least(t, "train_mse", 0.4, "fixed", "pca"),
    ),
    "test": (
        "the error on test digits is at most 0.8 of that of the generator of fixed random codes",
        lambda t: _least(t, "test_mse", 0.8, "fixed"),
    ),
    "samples": (
        "the FD of samples is at most 0.7 of that with fixed random codes and 0.6 of that of PCA",
        lambda t: _least(t, "fd", 0.7, "fixed") and _least(t, "fd", 0.6, "pca"),
    ),
    "midpoints": (
        "the FD of images half way between two codes is at most 0.65 of that with fixed random codes",
        lambda t: _least(t, "midpoint_fd", 0.65, "fixed"),
    ),
    "classes": (
        "every class has at least 4 % of the samples, every seed",
        lambda t: bool((t["glo"]["smallest_class"] >= 0.04).all()),
    ),
    "arithmetic": (
        "differences of mean codes turn at least 25 % of digits into the class asked for, at most 5 % with fixed codes",
        lambda t: t["glo"]["attribute"].mean() >= 0.25 and t["fixed"]["attribute"].mean() <= 0.05,
    ),
}


def paper_config():
    """Sections 3 and 4: CelebA 64x64 (162,770 images), DCGAN generator, Lap1, SGD with rates 1 and 10, batch 128."""
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": "tfds", "dataset": "celeb_a", "size": 64, "indexed": True},
            "generator": {"name": "dcgan", "width": 64},
            "loss": {"name": "laplacian", "levels": 3},
            "algorithm": {"name": "glo", "num": 162770, "dim": 256},
            "optimizer": {"name": "sgd", "learning_rate": 1.0},
            "code_optimizer": {"name": "sgd", "learning_rate": 10.0},
            "precision": "float32",
            "train": {"steps": 65000, "batch_size": 128},
            "eval": {"num": 10000},
        }
    )
