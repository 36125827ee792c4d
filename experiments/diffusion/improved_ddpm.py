"""Improved Denoising Diffusion Probabilistic Models (arXiv 2102.09672).

    genjax reproduce improved_ddpm

One MLP on the digits (64 numbers of 17 grey levels), 4,000 steps each: the simple loss under the linear and the
cosine schedule, the hybrid loss with learned variance, and the bound alone with levels drawn uniformly or by
importance. Bits a dimension are exact bounds on held-out digits over all levels of the chain; FD is taken over
2,000 samples in features of a digit classifier, x0 clipped. Rules fixed before the runs:

(a) T = 100: bits(hybrid) at most bits(Sigma = beta) - 0.03 and at most bits(Sigma = beta~) - 0.4, the fixed
    variances on the network of the simple loss; T = 500: at most bits(beta) + 0.02. (With exact denoisers the
    gain over beta is 0.08 at T = 100 and 0.02 at 500, so no more can be asked.)
(b) On a pair of networks that predict x0, trained by its squared error in the place of the simple loss (below): FD
    of the hybrid with 10 and with 25 of T = 500 steps at most 0.9 of that with Sigma = beta; beta~ is reported.
(c) FD of the hybrid with 50 steps at most 1.1 of that with all 500.
(d) The cosine schedule has a smaller share of levels with alpha_bar below 1e-3, and leaving out the first
    fifth of the reverse steps raises its FD by a larger factor than that of the linear one.
(e) The gradient-noise scale tr(Cov) / |mean|^2 of the bound, on one network, is with importance-sampled levels
    at most 0.7 of that with uniform ones.
(f) The simple loss of the hybrid's network on held-out digits is within 3 % of that of the simple one (T = 500).

A first run judged (b) on the networks of the simple loss, where it failed: 19.5 and 19.4 with 10 steps. With the exact
denoiser of the training digits (Gaussian kernels of std 0.05; one run), and the learned variance replaced by the best
one for each level and pixel, it holds: FD 0.40 against 1.40 with 10 steps, 0.16 against 0.29 with 25. So the variance
changes FD by 1.0 and 0.13, while those networks are at 17 with all 500 steps and bury it. The v-prediction does not
mend them (17.6 with 25 steps and the simple loss, 14.9 with the error of v, 12.2 with that of x0), the prediction
of x0 by its own error does: 2.2 (pilots of one seed, Sigma = beta). So (b) is judged on these since, `x0_500` and
`x0_hybrid_500`, equal but for the variance. At little noise their x0 is far worse than the chain's bounds on Sigma
allow for, the bound is 100 times as large there, and the best v lies beyond 1: the bound has the factor 1e-5 in the
place of 1e-3 (with that and v as it came, FD was 31 with 10 steps), and v is cut to [0, 1] where it is used.

(b) still fails: 6.0 against 4.7 with Sigma = beta and 3.6 with beta~ with 10 steps, 3.1 against 2.3 and 1.9 with 25, so
that the range is there (beta~ has 0.76 and 0.84 of beta's FD) and the learned variance misses it. Known of why (one
seed): its v is no property of the level. At sigma = alpha it is 2.6, where the measured error of x0 gives 0.2 as the
best; it is above 1 at all levels but the last, so that the cut makes it beta nearly everywhere. The levels of little
noise, which ask for 5 to 8, have nearly all of the bound's weight, and the network's v, smooth in the level, follows
them everywhere. They also reach the mean through the layers that both share: the hybrid's network has an FD of
4.0 and 2.2 with beta~, the other one 3.3 and 1.8. So the cut belongs into the training, where it takes away what
those levels ask for. That is not measured, and until it is this says nothing of the paper's claim, whose networks have
means good enough at every level.

All are means over seeds. `get_config("paper")`: ImageNet at 64x64, T = 4,000, L_hybrid; the paper reports 3.57
bits a dimension and FID 19.2 (120M parameters).
"""

import jax
import jax.numpy as jnp
import numpy as np

from genjax import build
from genjax.algorithms.diffusion import gaussian_sampler
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.core.keys import fold, per_sample, uniform
from genjax.guidance import clip_x0
from genjax.losses.elbo import chain_bound
from genjax.metrics.bits import bits_per_dim
from genjax.solvers import grids
from genjax.solvers.ancestral import ddpm

PAPER = {
    "number": 86,
    "title": "Improved Denoising Diffusion Probabilistic Models",
    "year": 2021,
    "arxiv": "2102.09672",
    "family": "diffusion",
    "kind": "method",
}
PRIORS = ()
SEEDS = 3


def _simple(steps):
    return {"name": "denoising", "time_sampler": {"name": "discrete", "steps": steps}, "weighting": {"name": "eps"}}


def _hybrid(steps):
    return {"name": "hybrid", "time_sampler": {"name": "discrete", "steps": steps}, "steps": steps}


def _bound(steps, sampler):
    return {"name": "variational", "time_sampler": {"name": sampler, "steps": steps}, "steps": steps}


def _process(steps, betas="cosine"):
    return {"name": "ddpm", "steps": steps, "betas": betas}


def get_config(scale="small"):
    if scale == "paper":
        return paper_config()
    return digits.base_config(
        scale,
        4000,
        process=_process(500),
        denoiser={"target": "eps", "scale_input": False, "learned_variance": True},
        loss=_hybrid(500),
        sample={"solver": "ddpm", "grid": "uniform", "steps": 50, "clip": True},
    )


FIXED = {"denoiser.learned_variance": False}
VARIANTS = {
    "simple_100": {"process": _process(100), "loss": _simple(100), **FIXED},
    "hybrid_100": {"process": _process(100), "loss": _hybrid(100)},
    "simple_500": {"loss": _simple(500), **FIXED},
    "hybrid_500": {},
    "linear_500": {"process": _process(500, "linear"), "loss": _simple(500), **FIXED},
    "x0_500": {"denoiser.target": "x0", "loss": {**_simple(500), "weighting": {"name": "x0"}}, **FIXED},
    "x0_hybrid_500": {
        "denoiser.target": "x0",
        "loss": {**_hybrid(500), "weighting": {"name": "x0"}, "scale": 1e-5},
    },
    "bound_uniform": {"process": _process(100), "loss": _bound(100, "discrete")},
    "bound_importance": {"process": _process(100), "loss": _bound(100, "second_moment")},
}


def train(config, key, priors):
    return run.train(config, key, priors)


def gradient_noise(config, parts, state, key, batches=64, size=128):
    """tr(Cov) / |mean|^2 of the bound's gradient for one sample, with uniform and with importance-sampled levels.

    From `batches` gradients of `size` samples each: the covariance of a sample's is `size` times theirs.
    """
    x = jnp.asarray(digits.training())
    params, extra = state.params["denoiser"], state.extra
    if config.scale == "smoke":
        batches = 4

    def gradients(importance):
        # importance = the recipe's own loss and sampler state; uniform = the same loss under a flat state
        sampler_state = extra["times"] if importance else parts.times.init()

        def one(params, key):
            def mean_loss(params):
                fn = lambda x, noise, c, k: parts.net.apply(params, extra["net"]["denoiser"], x, noise, c)[0]

                def times(keys):
                    t = parts.times.sample(sampler_state, uniform(keys, keys.shape))
                    return t, parts.times.log_density(sampler_state, t)

                batch = {"x": x[jax.random.randint(fold(key, 0), (size,), 0, len(x))]}
                values, _ = parts.loss(fold(key, 1), {"denoiser": parts.denoise(fn), "times": times}, batch)
                return jnp.mean(values)

            return jnp.concatenate([g.ravel() for g in jax.tree.leaves(jax.grad(mean_loss)(params))])

        keys = per_sample(key, batches)
        return np.asarray(jax.jit(lambda p: jax.lax.map(lambda k: one(p, k), keys))(params), np.float64)

    def scale(g):
        covariance = size * g.var(axis=0, ddof=1).sum()
        mean = (g.mean(axis=0) ** 2).sum() - covariance / size / len(g)  # unbiased
        return covariance / max(mean, 1e-30)

    return scale(gradients(False)), scale(gradients(True))


def bounded(denoiser):
    """`denoiser` with its learned variance cut to the range between the bounds."""

    def cut(x, t, cond=None, key=None):
        pred = denoiser(x, t, cond, key)
        return pred if pred.v is None else pred._replace(v=jnp.clip(pred.v, 0.0, 1.0))

    return cut


def measure(config, key, priors):
    state, spec = priors["improved_ddpm"], digits.spec()
    parts = build.parts(run.model_config(config), spec)
    process, steps = parts.process, int(config.process.steps)
    test, learned = jnp.asarray(digits.held_out()), config.denoiser.learned_variance
    small, clean = config.scale == "small", config.denoiser.target == "x0"
    chain = grids.uniform(process, steps if small else 10)

    def fd(variance, n, start=0):
        """FD of n respaced steps; the first `start` of them left out, the prior taken at the level reached."""
        draw = gaussian_sampler(process, ddpm(variance), grids.uniform(process, n)[start:], spec.shape, clip_x0())
        cut = bounded if clean else lambda denoiser: denoiser
        x = jax.jit(lambda key, state: draw(key, cut(parts.denoiser(state)), config.eval.num))(fold(key, 5), state)
        return digits.frechet(x)

    variances = ("predicted",) if learned else ("lower", "upper")
    if clean:
        return {f"fd_{v}_{n}": fd(v, n) for v in variances for n in ((10, 25) if small else (3, 5))}

    @jax.jit
    def evaluate(key, state):
        clipped = clip_x0()(parts.denoiser(state), process)
        bits = {
            v: bits_per_dim(
                jnp.mean(chain_bound(fold(key, 0), clipped, process, test, chain, variance=v, levels=17).total), (64,)
            )
            for v in variances
        }

        def eps_error(t):
            x, true = process.corrupt(per_sample(fold(key, 1), len(test)), test, t)
            return jnp.mean((parts.denoiser(state)(x, t).eps - true.eps) ** 2)

        return bits, jnp.mean(jax.lax.map(eps_error, chain[:-1]))

    bits, simple = evaluate(fold(key, 6), state)
    metrics = {f"bits_{v}": b for v, b in bits.items()} | {"simple_loss": simple}
    log_snr = np.asarray(process.log_snr(chain[:-1]))
    metrics["share_below_1e-3"] = np.mean(1 / (1 + np.exp(-log_snr)) < 1e-3)

    if config.loss.name == "variational":
        if config.loss.time_sampler.name == "second_moment":
            metrics["noise_uniform"], metrics["noise_importance"] = gradient_noise(config, parts, state, fold(key, 7))
    elif steps == 500:
        counts = ((10, 25, 50, 500) if learned else (10, 25, 50)) if small else (5, 10)
        metrics |= {f"fd_{v}_{n}": fd(v, n) for v in variances for n in counts}
        if not learned:
            n = 50 if small else 10
            metrics["fd_truncated"] = fd("lower", n, n // 5)
            metrics["truncation"] = metrics["fd_truncated"] / metrics[f"fd_lower_{n}"]
    return metrics


def _mean(table, variant, metric):
    return table[variant][metric].mean()


CLAIMS = {
    "a_likelihood": (
        "T = 100: bits of the hybrid at most those with beta - 0.03 and with beta~ - 0.4; T = 500: with beta + 0.02",
        lambda t: (
            _mean(t, "hybrid_100", "bits_predicted") <= _mean(t, "simple_100", "bits_upper") - 0.03
            and _mean(t, "hybrid_100", "bits_predicted") <= _mean(t, "simple_100", "bits_lower") - 0.4
            and _mean(t, "hybrid_500", "bits_predicted") <= _mean(t, "simple_500", "bits_upper") + 0.02
        ),
    ),
    "b_few_steps": (
        "prediction of x0: with 10 and 25 steps the hybrid's FD is at most 0.9 of that with Sigma = beta",
        lambda t: all(
            _mean(t, "x0_hybrid_500", f"fd_predicted_{n}") <= 0.9 * _mean(t, "x0_500", f"fd_upper_{n}")
            for n in (10, 25)
        ),
    ),
    "c_respacing": (
        "the hybrid's FD with 50 steps is at most 1.1 of that with all 500",
        lambda t: _mean(t, "hybrid_500", "fd_predicted_50") <= 1.1 * _mean(t, "hybrid_500", "fd_predicted_500"),
    ),
    "d_schedule": (
        "cosine wastes fewer levels (alpha_bar < 1e-3), and loses more than linear by leaving out the first fifth",
        lambda t: (
            _mean(t, "simple_500", "share_below_1e-3") < _mean(t, "linear_500", "share_below_1e-3")
            and _mean(t, "simple_500", "truncation") > _mean(t, "linear_500", "truncation")
        ),
    ),
    "e_gradient_noise": (
        "importance-sampled levels bring the gradient-noise scale of the bound to at most 0.7 of uniform ones",
        lambda t: (
            _mean(t, "bound_importance", "noise_importance") <= 0.7 * _mean(t, "bound_importance", "noise_uniform")
        ),
    ),
    "f_mean_undisturbed": (
        "the simple loss of the hybrid is within 3 % of that of simple training",
        lambda t: _mean(t, "hybrid_500", "simple_loss") <= 1.03 * _mean(t, "simple_500", "simple_loss"),
    ),
}


def paper_config():
    """Section 3, ImageNet 64x64: T = 4,000, cosine, L_hybrid, 200,000 steps at batch 128, 120M parameters."""
    config = digits.base_config(
        "small",
        200000,
        **{
            "data": {"name": "tfds", "dataset": "imagenet_resized/64x64"},
            "process": _process(4000),
            "network": {
                "name": "unet",
                "channels": 128,
                "multipliers": (1, 2, 3, 4),
                "num_blocks": 3,
                "attention": (16, 8),
                "heads": 4,
                "decoder_attention": "all",
                "skip_scale": 1.0,
                "attention_init": 1.0,
                "noise_features": "positional",
            },
            "denoiser": {"target": "eps", "scale_input": False, "noise_input": "t1000", "learned_variance": True},
            "loss": _hybrid(4000),
            "optimizer": {"name": "adam", "learning_rate": 1e-4},
            "ema": {"name": "constant", "decay": 0.9999},
            "sample": {"solver": "ddpm", "grid": "uniform", "steps": 250, "clip": True},
        },
    )
    config.loss.scale = 1e-3
    return config
