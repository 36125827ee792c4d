"""What the experiments on guidance share: exact priors of the digits, guides, judges that no method sees, runs."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from genjax import data
from genjax.algorithms.supervised import supervised
from genjax.cli import runner_default as run
from genjax.cli import runner_digits as digits
from genjax.cli.runner_scales import check_scale
from genjax.core.denoiser import NOISE_INPUTS
from genjax.core.numerics import batch_time
from genjax.core.types import Net
from genjax.losses.guides import noisy_classification
from genjax.losses.times import uniform
from genjax.networks import MLPClassifier, linen_net
from genjax.oracles.gaussian import FullMixture, gaussian_data

CLASSES = 10


def denoiser_of(config, spec, state):
    """`runner_default.denoiser_of` of a State kept as numpy arrays, whose tables are looked up under a trace."""
    return run.denoiser_of(config, spec, jax.tree.map(jnp.asarray, state))


def labelled():
    """(x [1438, 64], label [1438]) of the training digits."""
    arrays = data.load("digits_vector").arrays
    return arrays["x"], arrays["label"]


def held_out_labels():
    """Labels of `digits.held_out()`."""
    return data.load("digits_vector", split="test").arrays["label"]


def _clusters(x, count, rng, iterations=30):
    """Cluster of each row by plain k-means, started at rows."""
    centers = x[rng.choice(len(x), count, replace=False)]
    for _ in range(iterations):
        near = ((x[:, None] - centers[None]) ** 2).sum(-1).argmin(1)
        centers = np.stack([x[near == k].mean(0) if (near == k).any() else centers[k] for k in range(count)])
    return near


@cache
def _components(per_class, floor):
    x, label = labelled()
    rng = np.random.default_rng(0)
    laws, weights, classes = [], [], []
    for c in range(CLASSES):
        rows = x[label == c].astype(np.float64)
        near = _clusters(rows, per_class, rng)
        for k in range(per_class):
            part = rows[near == k] if (near == k).sum() > 1 else rows
            laws.append((part.mean(0), np.cov(part.T, bias=True) + floor * np.eye(x.shape[1])))
            weights.append((near == k).mean() / CLASSES)
            classes.append(c)
    return laws, np.asarray(weights), np.asarray(classes)


def digit_mixture(per_class=3, floor=0.01, class_weights=None):
    """(FullMixture fitted to the training digits, class of each component): a prior whose denoiser is exact.

    Args:
      per_class: full-covariance components a class, by k-means.
      floor: added to each variance.
      class_weights: relative weights of the ten classes, None for equal.
    """
    laws, weights, classes = _components(per_class, floor)
    if class_weights is not None:
        weights = weights * np.asarray(class_weights)[classes]
    components = [gaussian_data(jnp.asarray(m, jnp.float32), jnp.asarray(c, jnp.float32)) for m, c in laws]
    return FullMixture.of(components, weights / weights.sum()), classes


def guide_net(module, process):
    """The Net of a classifier of noisy x, called as (x, t) -> logits; `noise_input` of the module must be set."""
    net, noise = linen_net(module), lambda x, t: NOISE_INPUTS["edm"](process, batch_time(t, x))

    def apply(params, state, x, t, train=False, rngs=None):
        (logits, _), state = net.apply(params, state, x, noise(x, t), train=train, rngs=rngs)
        return logits, state

    return Net(lambda key, x, t: net.init(key, x, noise(x, t)), apply)


def clean_net(module):
    """The Net of a classifier of clean x, called as (x, t) -> logits, t unused."""
    net = linen_net(module)

    def apply(params, state, x, t=None, train=False, rngs=None):
        (logits, _), state = net.apply(params, state, x, train=train, rngs=rngs)
        return logits, state

    return Net(lambda key, x, t: net.init(key, x), apply)


def optimizer(steps, rate=2e-3, decay=1e-3):
    """AdamW, warmed up and cooled down over `steps`."""
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, rate, max(steps // 20, 1), steps), weight_decay=decay)


def fit_net(net, loss, key, arrays, steps, batch_size=128, *, name="guide", models=None, trainable=None, priors=None):
    """What `supervised` trains of a network on arrays: its parameters (or what is trainable of them), as numpy."""
    inputs = lambda batch: (batch["x"], jnp.full(1, 0.5))
    algorithm = supervised(net, loss, optimizer(steps), inputs=inputs, name=name, models=models, trainable=trainable)
    batch_size = min(batch_size, len(arrays["x"]))
    return run.fit(algorithm, arrays, key, steps, batch_size, priors=priors)[-1][1].params[name]


def fit_classifier(process, key, arrays, steps, classes=CLASSES, *, noisy=True, clean=False, width=128, priors=None):
    """Parameters of an MLP classifier of arrays {"x", "label"}.

    Args:
      noisy: False shows a classifier that is told the level nothing but clean data.
      clean: the classifier takes no level (a victim, or a model off the shelf).
    """
    net = classifier_net(process, classes, clean=clean, width=width)
    loss = noisy_classification(process, uniform(process), noisy=noisy and not clean)
    return fit_net(net, loss, key, arrays, steps, priors=priors)


def classifier_net(process, classes=CLASSES, *, clean=False, width=128):
    """The Net that `fit_classifier` trains."""
    module = MLPClassifier(num_classes=classes, width=width, depth=2, noise_input=not clean)
    return clean_net(module) if clean else guide_net(module, process)


def log_prob_of(net, params):
    """(x, t, labels [B]) -> log p(label | x_t) [B] of a classifier."""

    def log_prob(x, t, labels):
        logits = jax.nn.log_softmax(net.apply(params, {}, x, t)[0])
        return jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

    return log_prob


@cache
def _judge():
    return data.judge(data.load("digits"), data.load("digits", split="test"))


@cache
def _extractor():
    return data.extractor(data.load("digits"), data.load("digits", split="test"))


def probabilities(x):
    """Class probabilities [N, 10] by the judge, a classifier that guides and Frechet distances never see."""
    logits = _judge()(np.asarray(x))[1].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def accuracy(x, labels):
    """Share of x that the judge puts in the class asked for."""
    return float(np.mean(probabilities(x).argmax(axis=1) == np.asarray(labels)))


def features(x):
    """Features [N, D] of the classifier that the Frechet distances use."""
    return _extractor()(np.asarray(x))[0]


def adm_config(steps, batch_size, *, cond=(), learning_rate=1e-4, data_set="imagenet_resized/64x64", **groups):
    """ADM at 64x64 (2105.05233, appendix): 192 channels, attention at 32, 16 and 8, learned variance, cosine betas.

    The published prior of guidance at this size; guidance itself acts at sampling.
    """
    config = digits.base_config(
        "small",
        steps,
        **{
            "data": {"name": "tfds", "dataset": data_set},
            "process": {"name": "ddpm", "steps": 1000, "betas": "cosine"},
            "network": {
                "name": "unet",
                "channels": 192,
                "multipliers": (1, 2, 3, 4),
                "num_blocks": 3,
                "attention": (32, 16, 8),
                "head_channels": 64,
                "decoder_attention": "all",
                "skip_scale": 1.0,
                "attention_init": 1.0,
                "dropout": 0.1,
                "noise_features": "positional",
            },
            "denoiser": {"target": "eps", "scale_input": False, "noise_input": "t1000", "learned_variance": True},
            "loss": {
                "name": "hybrid",
                "time_sampler": {"name": "discrete", "steps": 1000},
                "steps": 1000,
                "scale": 1e-3,
            },
            "algorithm": {"name": "diffusion", "cond": cond},
            "optimizer": {"name": "adamw", "learning_rate": learning_rate, "weight_decay": 0.0},
            "ema": {"name": "constant", "decay": 0.9999},
            "precision": "bfloat16",
            "sample": {"solver": "ddpm", "grid": "uniform", "steps": 250, "clip": True},
            **groups,
        },
    )
    config.train.batch_size = batch_size
    return config


def digits_prior(scale):
    """Groups of `runner_digits.base_config` for a prior of digits that is good enough to be guided.

    128 wide and predicting eps, one had a Frechet distance of 10 and a precision of 0.43 after 4,000 steps: guidance
    then mends its samples, in the place of trading their diversity.
    """
    smoke = check_scale(scale)
    return {
        "network": {"name": "mlp", "width": 16 if smoke else 256, "depth": 1 if smoke else 3},
        "denoiser": {"target": "v", "scale_input": False},
        "loss": {"name": "denoising", "time_sampler": {"name": "uniform"}, "weighting": {"name": "v"}},
    }


def exact_config(scale, **fields):
    """The config of an experiment whose priors are exact, or trained apart: `fields` at the top, nothing of digits'.

    A prior of the digits' size is named in it, so that a method's small and published priors can be compared.
    """
    config = digits.base_config(scale, 3000, process={"name": "cosine"})
    config.update(ConfigDict(fields))
    return config
