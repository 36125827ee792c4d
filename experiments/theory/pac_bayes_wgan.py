"""PAC-Bayesian Generalization Bounds for Adversarial Generative Models (arXiv 2302.08942).

    genjax reproduce pac_bayes_wgan

Certificates of generators with random weights: risk on the sample, KL from a prior and a slack bound the distance of
the generated law from the data's with probability 0.95. Rules fixed before the runs:

A. `exact_n`: mixture of two Gaussians truncated to [0, 1] (Delta = 1), generators that are piecewise-linear quantile
   maps with 8 knots; prior N(knots of n / 2 other points, 0.05^2), posterior N(knots of the n points, 0.02^2), 20
   draws of it; W1 exact by quantiles, n generated points on the side of the sample, 20,000 quantiles for the truth;
   lambda = sqrt(n). 30 training sets a seed. Pass, every seed: `valid`: the bound is not below the true risk in at
   least 29 of 30; `not_vacuous`: mean bound below 0.5 at n = 500 and 0.2 at n = 4,000 (trivial: 1); `prior_counts`:
   the same posteriors against a prior moved by 0.1 have a mean bound higher by more than 0.1.
B. `ring`: a ring of 8 in the plane, radius 3, std 0.05, cut to radius 3.2 (Delta = 6.4), n = 20,000, lambda = n / 128,
   so 1 / lambda weights the KL in training. A WGAN (64 wide, critic orthonormal with sorting) is fitted to 20,000
   other points with fixed weights; its weights are the prior's mean, softplus(-5) its deviation, and the posterior
   starts there and is trained for 3,000 steps on the n points. `ring_random`: the same with the initialization as the
   prior's mean. Two figures: `bound_critic` with the risk at the trained critic, as is usual, which is no certificate
   since a critic only bounds W1 from below; and `bound_exact`, whose risk is the mean of exact W1 over 40 blocks of 500
   points, each with another draw of the generator. W1 is convex, so that is an upper bound of the risk and this one is
   a certificate. Pass, means over seeds: `trained`: both below Delta / 2; `random_prior`: the exact one of
   `ring_random` at least twice as high; `fits`: exact W1 of 500 generated and 500 new points at most 0.6.

The paper's second theorem (by a latent space) and its bound for total variation are not covered here.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from genjax.algorithms.games import LATENTS
from genjax.algorithms.gan import gan
from genjax.cli import runner_default as run
from genjax.cli.runner_scales import check_scale
from genjax.core.keys import fold
from genjax.data.toys import oracle
from genjax.losses.adversarial import wasserstein
from genjax.losses.pac_bayes import bayes_kl, certificate, gaussian_kl
from genjax.losses.penalties import Penalty
from genjax.metrics import wasserstein1, wasserstein_1d
from genjax.networks import linen_net
from genjax.networks.gan.bayes import BayesGenerator, gaussian_weights
from genjax.networks.gan.lipschitz import LipschitzDiscriminator
from genjax.oracles.truncated import TruncatedMixture, quantile_map
from genjax.train.optimizers import make_optimizer

PAPER = {
    "number": 92,
    "title": "PAC-Bayesian Generalization Bounds for Adversarial Generative Models",
    "year": 2023,
    "arxiv": "2302.08942",
    "family": "theory",
    "kind": "theory",
}
PRIORS = ()
SEEDS = 3
DELTA = 0.05
RADIUS = 3.2
LATENT = 8
KNOTS, PRIOR_STD, POSTERIOR_STD = 8, 0.05, 0.02


def get_config(scale="small"):
    smoke = check_scale(scale)
    return ConfigDict(
        {
            "prior": "held_out",
            "n": 400 if smoke else 20000,
            "width": 16 if smoke else 64,
            "sets": 4 if smoke else 30,
            "train": {"steps": 20 if smoke else 3000, "batch_size": 16 if smoke else 128},
            "eval": {"block": 50 if smoke else 500, "blocks": 4 if smoke else 40},
        }
    )


VARIANTS = {
    "exact_500": {"part": "exact", "n": 500},
    "exact_4000": {"part": "exact", "n": 4000},
    "ring": {"part": "ring"},
    "ring_random": {"part": "ring", "prior": "random"},
}


def measure_exact(config, key):
    """Certificates of quantile maps on fresh training sets, beside the true risk."""
    law = TruncatedMixture([0.35, 0.65], [0.1, 0.1], [0.5, 0.5])
    rng = np.random.default_rng(run.seed_of(fold(key, 0)))
    n, levels, middles = config.n, np.linspace(0, 1, KNOTS), (np.arange(20000) + 0.5) / 20000
    lam, exact, rows = np.sqrt(n), law.quantile(middles), []
    for _ in range(config.sets):
        data = law.sample(rng, n)
        prior, mean = np.quantile(law.sample(rng, n // 2), levels), np.quantile(data, levels)
        draws = mean + POSTERIOR_STD * rng.standard_normal((20, KNOTS))
        fakes = [quantile_map(w, rng.random(n)) for w in draws]
        risk = np.mean([wasserstein_1d(data, fake, 1) for fake in fakes])
        truth = np.mean([wasserstein_1d(exact, quantile_map(w, middles), 1) for w in draws])
        spread = np.full(KNOTS, POSTERIOR_STD), np.full(KNOTS, PRIOR_STD)
        kl = [float(gaussian_kl(mean, spread[0], m, spread[1])) for m in (prior, prior + 0.1)]
        bound, moved = (certificate(risk, k, n, 1.0, lam, DELTA) for k in kl)
        rows.append((risk, truth, kl[0], bound, moved, bound >= truth))
    names = ("risk", "true_risk", "kl", "bound", "bound_moved_prior", "valid")
    return dict(zip(names, np.mean(rows, axis=0))) | {"invalid": np.sum(~np.array([r[-1] for r in rows], bool))}


def ring(key, n):
    """Points of the truncated ring [n, 2]."""
    x = np.asarray(oracle("ring", modes=8, radius=3.0, std=0.05).sample(key, n + n // 10 + 50)[0])
    return x[np.linalg.norm(x, axis=1) <= RADIUS][:n]


def generator(config, deterministic=False):
    return linen_net(
        BayesGenerator(shape=(2,), width=config.width, depth=3, deterministic=deterministic, radius=RADIUS)
    )


def lam_of(config):
    return config.n / 128


def recipe(config, deterministic):
    optimizers = [make_optimizer("adam", 5e-4, b1=0.7, b2=0.999) for _ in range(2)]
    penalties = {} if deterministic else {"kl": Penalty(bayes_kl(), 1 / lam_of(config))}
    critic = linen_net(LipschitzDiscriminator(width=config.width, depth=3))
    latent = LATENTS["normal"](LATENT)
    g = generator(config, deterministic)
    return gan(g, critic, wasserstein(), *optimizers, latent=latent, g_penalties=penalties, n_critic=2)


def train(config, key, priors):
    """{"prior": weights of the prior, "state": the posterior's State}."""
    if config.part != "ring":
        return {}
    n, plan = config.n, config.train
    held_out, data = ring(fold(key, 3), n), ring(fold(key, 4), n)
    size, start = 2 * plan.batch_size, {}
    if config.prior == "held_out":
        first = run.fit(recipe(config, True), {"x": held_out}, fold(key, 5), plan.steps, size)[-1][1]
        start = {"generator": first.params["generator"]}
    else:
        start = {"generator": generator(config).init(fold(key, 7), jnp.zeros((1, LATENT)))[0]}
    state = run.fit(recipe(config, False), {"x": data}, fold(key, 6), plan.steps, size, priors=start)[-1][1]
    return {"prior": start["generator"], "state": state}


def measure_ring(config, key, trained):
    """Risk, KL, both bounds and the distance to new points."""
    trained = jax.tree.map(jnp.asarray, trained)
    params = trained["state"].params
    net, size = generator(config), config.eval.block
    data, fresh = ring(fold(key, 4), config.n), ring(fold(key, 8), config.n)

    @jax.jit
    def block(key):
        z = LATENTS["normal"](LATENT).sample(fold(key, 0), size)
        return net.apply(params["generator"], {}, z, rngs={"noise": fold(key, 1)})[0]

    fakes = [np.asarray(block(fold(fold(key, 9), i)), np.float64) for i in range(config.eval.blocks)]
    cut = lambda x: [x[i * size : (i + 1) * size] for i in range(config.eval.blocks)]
    risk = np.mean([wasserstein1(a, b) for a, b in zip(cut(data), fakes)])
    new = np.mean([wasserstein1(a, b) for a, b in list(zip(cut(fresh), fakes))[:8]])
    critic = linen_net(LipschitzDiscriminator(width=config.width, depth=3))
    logit = jax.jit(lambda x: jnp.mean(critic.apply(params["discriminator"], {}, x)[0].logits))
    of_critic = logit(data) - logit(jnp.asarray(np.concatenate(fakes), jnp.float32))
    kl = float(gaussian_kl(*gaussian_weights(params["generator"]), *gaussian_weights(trained["prior"])))
    bound = lambda risk: certificate(float(risk), kl, config.n, 2 * RADIUS, lam_of(config), DELTA)
    return {
        "kl": kl,
        "risk_critic": of_critic,
        "risk_exact": risk,
        "w1_new": new,
        "bound_critic": bound(of_critic),
        "bound_exact": bound(risk),
        "deviation": jnp.mean(gaussian_weights(params["generator"])[1]),
    }


def measure(config, key, priors):
    return measure_exact(config, key) if config.part == "exact" else measure_ring(config, key, priors["pac_bayes_wgan"])


EXACT = ("exact_500", "exact_4000")
CLAIMS = {
    "valid": (
        "the bound is not below the true risk in at least 29 of 30 training sets, every seed and n",
        lambda t: all((t[v]["invalid"] <= 1).all() for v in EXACT),
    ),
    "not_vacuous": (
        "mean bound below 0.5 at n = 500 and below 0.2 at n = 4,000, every seed",
        lambda t: bool((t["exact_500"]["bound"] < 0.5).all() and (t["exact_4000"]["bound"] < 0.2).all()),
    ),
    "prior_counts": (
        "against a prior moved by 0.1 the bound is more than 0.1 higher, every seed and n",
        lambda t: all((t[v]["bound_moved_prior"] > t[v]["bound"] + 0.1).all() for v in EXACT),
    ),
    "trained": (
        "on the ring both the critic's figure and the exact certificate are below Delta / 2",
        lambda t: max(t["ring"][b].mean() for b in ("bound_critic", "bound_exact")) < RADIUS,
    ),
    "random_prior": (
        "with the initialization as prior the exact certificate is at least twice as high",
        lambda t: t["ring_random"]["bound_exact"].mean() >= 2 * t["ring"]["bound_exact"].mean(),
    ),
    "fits": (
        "W1 of 500 generated and 500 new points is at most 0.6",
        lambda t: t["ring"]["w1_new"].mean() <= 0.6,
    ),
}


def figure(table, path):
    """Bounds, risks and the truth of every part."""
    from matplotlib.figure import Figure

    from genjax.cli.runner_report import save_figure

    picture = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = picture.subplots(1, 2)
    bars = {
        left: (EXACT, ("true_risk", "risk", "bound", "bound_moved_prior"), 1.0),
        right: (("ring", "ring_random"), ("w1_new", "risk_exact", "bound_critic", "bound_exact"), 2 * RADIUS),
    }
    for axis, (variants, names, trivial) in bars.items():
        for i, name in enumerate(names):
            axis.bar(np.arange(len(variants)) + 0.2 * i, [table[v][name].mean() for v in variants], 0.2, label=name)
        axis.axhline(trivial, color="black", linewidth=0.8)
        axis.set(xticks=np.arange(len(variants)) + 0.3, xticklabels=variants, yscale="log")
        axis.legend(fontsize=7)
    left.set_title("quantile maps on [0, 1]", fontsize=9)
    right.set_title("ring; line: the diameter", fontsize=9)
    save_figure(picture, path)
