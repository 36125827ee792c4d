"""Denoising Diffusion Probabilistic Models (arXiv 2006.11239).

    genjax reproduce ddpm

Rules fixed before the runs:

A. `sampler`, exact: eight Gaussians in the plane and their closed-form noise prediction. Pass: ancestral
   sampling in 1,000 steps has a sliced W2 to data of at most 1.5 times that between two sets of data,
   for both choices of sigma_t; 50 steps with the larger one are worse than 1,000.
   `bound`, exact: the sum of KL terms equals a Monte-Carlo estimate of the bound from the log-ratio of
   whole chains within 3 standard errors, is not below the true negative log-likelihood, and the prior's
   term is below 1e-3 nats a dimension.
B. `eps`, `elbo`, `x0`, `mu`: one MLP on the digits (64 numbers), T = 1,000, 4,000 steps: the simple loss, the
   bound's weights, x0-prediction, and prediction of the posterior mean, each of the last two with its plain
   squared error. 2,000 samples of 250 respaced steps, x0 clipped; FD in features of a digit classifier. Pass, means
   over seeds: FD(eps) at most half of FD(mu) and at most 0.8 of FD(elbo); bits a dimension of held-out
   digits under elbo at most those under eps; FD(eps) below that of a Gaussian with the data's mean and covariance.
   x0-prediction is reported without a rank. (Specified for a U-Net, whose four arms over three seeds take an
   hour on two cores; the claim needs no space. An MLP of 128 wide and 3 deep was too small in a pilot: FD 15.7 for
   eps, above the Gaussian's; all arms have 256 wide and 4 deep since.)
C. Rate and distortion of the eps arm: the RMSE of x0_hat falls monotonically with t at nine levels (pass, every
   seed); the share of the bits spent where it is below 10 % of the data's standard deviation is reported.

`bound_likelihood` fails: 3.62 bits a dimension under the bound's weights, 3.44 under the simple loss, every seed.
Known of why: the arm's error in x0 is larger at every level reported, those of least noise included, which its
weights favour, so it learns less rather than something else (FD 19.6 against 7.6). And the setup does not quite fit
the claim: the arm has the weights of the bound with the lower variance, while the bound that is measured has
the upper one, whose weights are sigma_s^2 / sigma_t^2 times as large, half at the second level. Training with
those, with levels drawn by importance, and longer training are not measured.

`get_config("paper")`: CIFAR-10, 35.7M U-Net; the paper reports FID 3.17.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from genjax import build
from genjax.algorithms.diffusion import diffusion, gaussian_sampler, trained_denoiser
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.core.keys import fold, per_sample
from genjax.core.numerics import batch_time, bcast
from genjax.core.prediction import solve
from genjax.guidance import clip_x0
from genjax.losses import weightings
from genjax.losses.denoising import denoising
from genjax.losses.elbo import chain_bound
from genjax.metrics.bits import bits_per_dim
from genjax.metrics.distances import sliced_wasserstein2
from genjax.oracles.mixture import ring
from genjax.processes import gaussian
from genjax.solvers import grids
from genjax.solvers.ancestral import ddpm
from genjax.solvers.base import generate

PAPER = {
    "number": 23,
    "title": "Denoising Diffusion Probabilistic Models",
    "year": 2020,
    "arxiv": "2006.11239",
    "family": "diffusion",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3


RATE_LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)


def get_config(scale="small"):
    if scale == "paper":
        return paper_config()
    smoke = scale == "smoke"
    return digits.base_config(
        scale,
        4000,
        network={"name": "mlp", "width": 16 if smoke else 256, "depth": 1 if smoke else 4},
        process={"name": "ddpm", "steps": 1000},
        denoiser={"target": "eps", "scale_input": False},
        loss={
            "name": "denoising",
            "time_sampler": {"name": "discrete", "steps": 1000},
            "weighting": {"name": "eps"},
        },
        sample={"solver": "ddpm", "grid": "uniform", "steps": 10 if smoke else 250, "clip": True},
    )


VARIANTS = {
    "sampler": {"part": "sampler"},
    "bound": {"part": "bound"},
    "eps": {"part": "digits"},
    "elbo": {"part": "digits", "loss.weighting": {"name": "elbo"}},
    "x0": {"part": "digits", "denoiser.target": "x0", "loss.weighting": {"name": "x0"}},
    "mu": {"part": "digits", "denoiser.target": "mu", "loss.weighting": {"name": "mu"}},
}


def measure_sampler(config, key):
    """Sliced W2 of ancestral samples over that of two sets of data."""
    draws, steps = {"small": (4000, 1000), "smoke": (50, 50)}[config.scale]
    process, mixture = gaussian.ddpm(steps), ring(8, 0.7, 0.05)
    denoiser = mixture.denoiser(process)
    data = np.asarray(mixture.sample(jax.random.fold_in(key, 0), 5 * draws)[0]).reshape(5, draws, 2)
    floor = np.mean([sliced_wasserstein2(data[0], other) for other in data[1:]])
    metrics = {"floor": floor}
    for variance in ("lower", "upper"):
        for n in (steps, steps // 20):
            run = jax.jit(
                lambda k, v=variance, n=n: generate(
                    k, denoiser, process, ddpm(v), grids.uniform(process, n), jnp.zeros((draws, 2))
                )
            )
            x = run(jax.random.fold_in(key, 1))
            name = "all" if n == steps else "few"
            metrics[f"{variance}_{name}"] = np.mean([sliced_wasserstein2(x, other) for other in data[1:]]) / floor
    return metrics


def measure_bound(config, key):
    """The bound as a sum of KL terms and as a log-ratio of chains, against the true likelihood; nats an example."""
    draws, steps = {"small": (4000, 1000), "smoke": (50, 50)}[config.scale]
    process, mixture = gaussian.ddpm(steps), ring(8, 0.7, 0.05)
    denoiser = mixture.denoiser(process)
    grid = grids.uniform(process, steps)
    x0, _ = mixture.sample(jax.random.fold_in(key, 0), draws)
    bound = jax.jit(lambda k: chain_bound(k, denoiser, process, x0, grid, variance="lower"))(jax.random.fold_in(key, 1))

    @jax.jit
    def chain(keys):
        """log q(x_1..T | x0) - log p(x_T, x_1..T), the decoder as in `bound`, for chains drawn forwards."""

        def step(carry, inputs):
            x, total = carry
            i, s, t = inputs  # from s up to t
            law = process.transition(x, s, t)
            later = law.sample(fold(keys, i))
            back = process.posterior(later, denoiser(later, t), t, s)
            return (later, total + law.log_prob(later) - back.log_prob(x)), None

        up = grid[::-1]
        first = process.transition(x0, 0.0, up[1])
        x1 = first.sample(fold(keys, 0))
        start = (x1, first.log_prob(x1))
        (x, total), _ = jax.lax.scan(step, start, (jnp.arange(1, steps), up[1:-1], up[2:]))
        prior = -0.5 * jnp.sum(x**2, -1) / process.sigma(up[-1]) ** 2
        return total - prior + x.shape[-1] * (process.log_sigma(up[-1]) + 0.5 * jnp.log(2 * jnp.pi))

    ratio = chain(per_sample(jax.random.fold_in(key, 2), draws)) + bound.decoder
    total = np.asarray(bound.total, np.float64)
    truth = -np.asarray(mixture.log_prob(x0), np.float64)
    gap = np.asarray(ratio, np.float64) - total
    return {
        "bound": total.mean(),
        "true_nll": truth.mean(),
        "gap": (total - truth).mean(),
        "gap_error": (total - truth).std() / np.sqrt(draws),
        "chain_gap_in_errors": np.abs(gap.mean()) / (gap.std() / np.sqrt(draws)),
        "prior_per_dim": np.max(np.asarray(bound.prior)) / 2,
    }


def posterior_mean_coefficients(process, t, steps=1000):
    """(a, b) with mu = a x0 + b x the mean of q(x_s | x_t, x0), s the level before t (eq. 7)."""
    s = jnp.maximum(t - 1 / steps, 0.0)
    gap = jnp.exp(process.log_snr(t) - process.log_snr(s))  # SNR(t) / SNR(s)
    ratio = jnp.exp(process.log_alpha(t) - process.log_alpha(s))
    return process.alpha(s) * (1 - gap), gap / ratio


def mu_denoiser(fn, process):
    """The Denoiser of a network that predicts mu = a x0 + b x."""

    def denoiser(x, t, cond=None, key=None):
        out = fn(x, -process.log_snr(batch_time(t, x)) / 8, cond, key)
        a, b = posterior_mean_coefficients(process, jnp.asarray(t))
        return solve(out - bcast(b, x) * x, x, a, jnp.zeros_like(a), process.alpha(t), process.sigma(t))

    return denoiser


def arm_weighting(process, name, steps=1000):
    """The arms' weights that belong to the chain and not to log-SNR alone, as factors of the eps error."""
    if name not in ("elbo", "mu"):
        return weightings.WEIGHTINGS[name]()

    def log_w(log_snr):
        t = process.time(log_snr)
        if name == "mu":  # the mean squared error of mu
            return 2 * jnp.log(posterior_mean_coefficients(process, t)[0]) - log_snr
        # SNR(s) / SNR(t) - 1, half of which is the KL of a step; the first level, whose term is the decoder's,
        # has the weight of the second
        first, second = 1 / steps, 2 / steps
        t = jnp.maximum(t, second * (1 - 1e-6))
        s = jnp.maximum(t - first, first)
        return jnp.log(jnp.expm1(process.log_snr(s) - process.log_snr(t)))

    return log_w


def recipe(config):
    """(Algorithm, State -> Denoiser, Process) of one arm."""
    model = run.model_config(config)
    spec, process = digits.spec(), build.process(model)
    sampler = build.time_sampler(model, process)
    net, average = build.network(model, spec), build.ema(model)
    if config.denoiser.target == "mu":
        denoise = functools.partial(mu_denoiser, process=process)
    else:
        denoise = build.denoiser(model, process)
    loss = denoising(process, sampler, arm_weighting(process, config.loss.weighting.name))
    algorithm = diffusion(net, denoise, loss, build.optimizer(model), average, times=sampler)
    return algorithm, lambda state: trained_denoiser(net, denoise, state, average), process


def train(config, key, priors):
    if config.part != "digits":
        return {}
    plan = build.plan(config)
    return run.fit(recipe(config)[0], {"x": digits.training()}, key, plan.steps, plan.batch_size)[-1][1]


def fitted_gaussian(key, n):
    """FD of n draws from a Gaussian with the digits' mean and covariance."""
    x = digits.training()
    rng = np.random.default_rng(run.seed_of(key))
    return digits.frechet(rng.multivariate_normal(x.mean(axis=0), np.cov(x.T), n).astype(np.float32))


def measure_digits(config, key, state):
    """FD of samples, bits a dimension of held-out digits, and the distortion at each level."""
    _, denoiser_of, process = recipe(config)
    n, test = config.eval.num, jnp.asarray(digits.held_out())
    grid = grids.uniform(process, config.sample.steps)
    draw = gaussian_sampler(process, ddpm("lower"), grid, test.shape[1:], clip_x0())
    x = jax.jit(lambda key, state: draw(key, denoiser_of(state), n))(fold(key, 5), state)
    chain = grids.uniform(process, 1000 if config.scale == "small" else 20)

    @jax.jit
    def evaluate(key, state):
        denoiser = clip_x0()(denoiser_of(state), process)
        bound = chain_bound(fold(key, 0), denoiser, process, test, chain, variance="upper", levels=17)

        def distortion(t):
            x_t, true = process.corrupt(per_sample(fold(key, 1), len(test)), test, t)
            return jnp.sqrt(jnp.mean((denoiser(x_t, t).x0 - true.x0) ** 2))

        terms = jnp.mean(bound.diffusion, axis=1)
        return (
            jnp.mean(bound.total),
            terms,
            jax.lax.map(distortion, chain[:-2]),
            jnp.stack([distortion(t) for t in RATE_LEVELS]),
        )

    total, terms, along, rmse = evaluate(fold(key, 6), state)
    spent = np.asarray(terms) / np.asarray(terms).sum()
    metrics = {f"rmse_{t}": r for t, r in zip(RATE_LEVELS, rmse)}
    return {
        "fd": digits.frechet(x),
        "fd_gaussian": fitted_gaussian(fold(key, 7), n),
        "bits_per_dim": bits_per_dim(total, test.shape[1:]),
        "bits_below_10_percent": spent[np.asarray(along) < 0.1 * np.asarray(test).std()].sum(),
        **metrics,
    }


def measure(config, key, priors):
    if config.part == "digits":
        return measure_digits(config, key, priors["ddpm"])
    return {"sampler": measure_sampler, "bound": measure_bound}[config.part](config, key)


def _fd(table, arm):
    return table[arm]["fd"].mean()


CLAIMS = {
    "sampler": (
        "1,000 ancestral steps on the exact model: sliced W2 at most 1.5 times that of two data sets, both variances",
        lambda t: bool((t["sampler"]["lower_all"] <= 1.5).all() and (t["sampler"]["upper_all"] <= 1.5).all()),
    ),
    "few_steps": (
        "50 steps with the larger variance are worse than 1,000, every seed",
        lambda t: bool((t["sampler"]["upper_few"] > t["sampler"]["upper_all"]).all()),
    ),
    "bound": (
        "sum of KL terms = log-ratio of chains (3 errors), not below the true NLL; prior below 1e-3 nats a dimension",
        lambda t: (
            bool((t["bound"]["chain_gap_in_errors"] <= 3).all())
            and bool((t["bound"]["gap"] >= -3 * t["bound"]["gap_error"]).all())
            and bool((t["bound"]["prior_per_dim"] < 1e-3).all())
        ),
    ),
    "simple_beats_mu": (
        "FD with the simple eps loss is at most half of that with plain prediction of the posterior mean",
        lambda t: _fd(t, "eps") <= 0.5 * _fd(t, "mu"),
    ),
    "simple_beats_bound": (
        "FD with the simple eps loss is at most 0.8 of that with the bound's weights",
        lambda t: _fd(t, "eps") <= 0.8 * _fd(t, "elbo"),
    ),
    "bound_likelihood": (
        "bits a dimension under the bound's weights are at most those under the simple loss",
        lambda t: t["elbo"]["bits_per_dim"].mean() <= t["eps"]["bits_per_dim"].mean(),
    ),
    "beats_gaussian": (
        "FD with the simple eps loss is below that of a Gaussian with the data's mean and covariance",
        lambda t: _fd(t, "eps") < t["eps"]["fd_gaussian"].mean(),
    ),
    "progressive": (
        "the RMSE of x0_hat grows with t at each of nine levels, every seed",
        lambda t: bool((np.diff(np.stack([t["eps"][f"rmse_{u}"] for u in RATE_LEVELS]), axis=0) > 0).all()),
    ),
}


def paper_config():
    """Appendix B, CIFAR-10 unconditional (random flips left out): 800,000 steps at batch 128."""
    config = digits.base_config(
        "small",
        800000,
        **{
            "data": {"name": "tfds", "dataset": "cifar10"},
            "process": {"name": "ddpm", "steps": 1000},
            "network": {
                "name": "unet",
                "channels": 128,
                "multipliers": (1, 2, 2, 2),
                "num_blocks": 2,
                "attention": (16,),
                "heads": 1,
                "scale_shift": False,
                "decoder_attention": "all",
                "skip_scale": 1.0,
                "attention_init": 1.0,
                "dropout": 0.1,
                "noise_features": "positional",
            },
            "denoiser": {"target": "eps", "scale_input": False, "noise_input": "t1000"},
            "loss": {
                "name": "denoising",
                "time_sampler": {"name": "discrete", "steps": 1000},
                "weighting": {"name": "eps"},
            },
            "optimizer": {
                "name": "adam",
                "learning_rate": 2e-4,
                "schedule": {"name": "constant", "warmup": 5000},
                "clip": 1.0,
            },
            "ema": {"name": "constant", "decay": 0.9999},
            "sample": {"solver": {"name": "ddpm", "variance": "upper"}, "grid": "uniform", "steps": 1000, "clip": True},
        },
    )
    config.train.batch_size = 128
    return config
