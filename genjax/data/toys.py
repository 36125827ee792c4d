"""Toys in few dimensions, with densities.

Ring, grid, moons, swiss roll and the N-d mixture are Gaussian mixtures: the curves (moons, swiss roll)
with noise are written as mixtures over Gauss-Legendre nodes along the curve, exact far below float32
for noise much wider than the nodes' distance. So each has an exact denoiser as well
(`oracle(...).denoiser(process)`). Checkerboard and pinwheel have densities in closed form.
All are scaled to a standard deviation near 1.
"""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.data.spec import choose, in_memory
from genjax.oracles import mixture

NODES = 256


def _mixture(points, std, weights=None):
    points = np.asarray(points, np.float32)
    stds = np.broadcast_to(np.asarray(std, np.float32), points.shape[:1])
    if not (stds > 0).all():
        raise ValueError(f"std: expected a number > 0, got {np.asarray(std).tolist()}")
    weights = np.full(len(points), 1 / len(points)) if weights is None else np.asarray(weights) / np.sum(weights)
    return mixture.Mixture(jnp.asarray(points), jnp.asarray(stds), jnp.log(jnp.asarray(weights, jnp.float32)))


def ring(modes=8, radius=1.4, std=0.1):
    """`modes` equal Gaussians on a circle."""
    angle = 2 * np.pi * np.arange(modes) / modes
    return _mixture(radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1), std)


def grid(side=5, spacing=0.7, std=0.05):
    """side x side equal Gaussians on a square grid."""
    at = spacing * (np.arange(side) - (side - 1) / 2)
    return _mixture(np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1).reshape(-1, 2), std)


def random_mixture(dim=8, modes=5, radius=1.5, std=0.3, mixture_seed=0):
    """Gaussians in `dim` dimensions: centres on a sphere, unequal weights and widths, all fixed by `mixture_seed`."""
    rng = np.random.default_rng(mixture_seed)
    means = rng.standard_normal((modes, dim))
    means *= radius / np.linalg.norm(means, axis=1, keepdims=True)
    return _mixture(means, std * rng.uniform(0.7, 1.3, modes), rng.uniform(0.5, 1.5, modes))


def _gauss_legendre(low, high, nodes):
    t, w = np.polynomial.legendre.leggauss(nodes)
    return low + (high - low) * (t + 1) / 2, w / 2


def swiss_roll(noise=0.05, turns=1.5):
    """A spiral, angle uniform, radius growing with it, plus noise."""
    t, w = _gauss_legendre(0.25 * turns, turns, 2 * NODES)
    radius = 2.0 * t / turns
    return _mixture(radius[:, None] * np.stack([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)], axis=-1), noise, w)


def moons(noise=0.08):
    """Two interleaved half circles, uniform along each, plus noise; the label of a node is its moon."""
    t, w = _gauss_legendre(0, np.pi, NODES)
    upper = np.stack([np.cos(t) - 0.5, np.sin(t) - 0.25], axis=-1)
    return _mixture(1.3 * np.concatenate([upper, -upper]), noise, np.concatenate([w, w]))


MIXTURES = {"ring": ring, "grid": grid, "mixture": random_mixture, "swiss_roll": swiss_roll, "moons": moons}


def oracle(name, **options):
    """The `genjax.oracles.mixture.Mixture` of a toy, with its exact denoiser, score and density.

    Raises:
      ValueError: a toy that is no Gaussian mixture, or an unknown one.
    """
    choose("toy with a mixture oracle", name, MIXTURES)
    return MIXTURES[name](**options)


def _sample_mixture(rng, toy, n):
    weights = np.exp(np.asarray(toy.log_weights, np.float64))
    index = rng.choice(len(weights), n, p=weights / weights.sum())
    noise = rng.standard_normal((n, toy.means.shape[1]))
    return np.asarray(toy.means)[index] + np.asarray(toy.stds)[index, None] * noise, index


def _sample_checkerboard(rng, n, cells, half):
    row = rng.integers(0, cells, n)
    column = 2 * rng.integers(0, cells // 2, n) + row % 2
    cell = np.stack([column, row], axis=-1)
    return (cell + rng.random((n, 2))) * (2 * half / cells) - half, (row * cells + column) // 2


def _checkerboard_log_prob(x, cells, half):
    at = jnp.floor((x + half) * (cells / (2 * half)))
    inside = jnp.all((at >= 0) & (at < cells), axis=-1) & (jnp.sum(at, axis=-1) % 2 == 0)
    return jnp.where(inside, -jnp.log(2.0 * half * half), -jnp.inf)


def _twist(x, rate, sign):
    """Turns every point by sign * rate * its radius: a map of Jacobian 1."""
    angle = sign * rate * np.linalg.norm(x, axis=-1)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], axis=-1)


def _sample_pinwheel(rng, n, arms, radial_std, tangential_std, rate):
    index = rng.integers(0, arms, n)
    x = rng.standard_normal((n, 2)) * [radial_std, tangential_std] + [1.3, 0]
    angle = 2 * np.pi * index / arms
    c, s = np.cos(angle), np.sin(angle)
    x = np.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], axis=-1)
    return _twist(x, rate, 1.0), index


def _pinwheel_log_prob(x, arms, radial_std, tangential_std, rate):
    # rotations and the twist keep volume: untwist, then turn back by each arm's angle
    angle = -rate * jnp.linalg.norm(x, axis=-1)[:, None] - (2 * jnp.pi * jnp.arange(arms) / arms)[None]
    c, s = jnp.cos(angle), jnp.sin(angle)
    u = (c * x[:, :1] - s * x[:, 1:] - 1.3) / radial_std
    v = (s * x[:, :1] + c * x[:, 1:]) / tangential_std
    log_n = -0.5 * (u * u + v * v) - jnp.log(2 * jnp.pi * radial_std * tangential_std)
    return jax.nn.logsumexp(log_n, axis=-1) - jnp.log(float(arms))


OTHERS = {
    # name: (sampler, log-density, default options, number of classes from the options)
    "checkerboard": (
        _sample_checkerboard,
        _checkerboard_log_prob,
        {"cells": 4, "half": 2.0},
        lambda o: o["cells"] ** 2 // 2,
    ),
    "pinwheel": (
        _sample_pinwheel,
        _pinwheel_log_prob,
        {"arms": 5, "radial_std": 0.3, "tangential_std": 0.08, "rate": 0.8},
        lambda o: o["arms"],
    ),
}


def _options(name, options):
    _, _, defaults, _ = OTHERS[name]
    for option in options:
        choose(f"{name} option", option, defaults)
    options = defaults | options
    if name == "checkerboard" and (options["cells"] < 2 or options["cells"] % 2):
        raise ValueError(f"cells: expected an even number >= 2, got {options['cells']}")
    return options


def log_density(name, **options):
    """The log-density of a toy, x [B, D] -> [B], in JAX; -inf outside its support."""
    choose("toy", name, (*MIXTURES, *OTHERS))
    if name in MIXTURES:
        return oracle(name, **options).log_prob
    options = _options(name, options)
    return lambda x: OTHERS[name][1](x, **options)


def toy(name, split="train", n=20_000, seed=0, **options):
    """A toy as a Dataset; "train" and "test" are independent draws.

    Args:
      name: "ring", "grid", "mixture", "swiss_roll", "moons", "checkerboard" or "pinwheel".
      split: "train" or "test".
      n: number of points.
      seed: of the draw.
      **options: of the toy's own function, the same as for `oracle` and `log_density`.

    Returns:
      Dataset with "x" [n, D], and "label": the component (arm, square, moon); none for the swiss roll.
    """
    choose("split", split, ("train", "test"))
    choose("toy", name, (*MIXTURES, *OTHERS))
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    rng = np.random.default_rng([seed, split == "test"])
    if name in OTHERS:
        options = _options(name, options)
        sample, _, _, classes = OTHERS[name]
        x, label = sample(rng, n, **options)
        return in_memory(name, {"x": x, "label": label}, classes(options), range=None)
    law = oracle(name, **options)
    x, label = _sample_mixture(rng, law, n)
    if name == "swiss_roll":
        return in_memory(name, {"x": x}, range=None)
    if name == "moons":
        return in_memory(name, {"x": x, "label": label // NODES}, 2, range=None)
    return in_memory(name, {"x": x, "label": label}, len(law.means), range=None)
