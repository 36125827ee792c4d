"""Measures of a trained model, by name: what `genjax evaluate` prints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from genjax import metrics as m
from genjax.construct import lookup
from genjax.core.keys import sample_keys
from genjax.data import extractors
from genjax.losses.elbo import continuous_bound
from genjax.losses.times import TIME_SAMPLERS
from genjax.train.generation import class_labels, draw


class Subject:
    """A trained model with its data; what several metrics need is made once, when first asked for.

    Args:
      algorithm: an Algorithm with a sampler.
      denoiser: its Denoiser, or None (then there are no bits per dimension).
      process: its Process.
      state: State.
      train, test: Datasets in memory.
      num: number of samples.
      seed: of the samples and of the bound.
      conditional: whether the model is given labels.
      draws: noise levels an example in the bound.
    """

    def __init__(self, algorithm, denoiser, process, state, train, test, *, num, seed=0, conditional=False, draws=64):
        self.algorithm, self.denoiser, self.process, self.state = algorithm, denoiser, process, state
        self.train, self.test, self.num, self.seed, self.draws = train, test, num, seed, draws
        self.labels = class_labels(num, train.spec.num_classes) if conditional else None

    @functools.cached_property
    def samples(self):
        cond = None if self.labels is None else {"label": self.labels}
        return draw(self.algorithm, jax.random.key(self.seed), self.state, self.num, cond)

    @functools.cached_property
    def extractor(self):
        if self.train.spec.num_classes:
            return extractors.extractor(self.train, self.test)
        return m.raw_pixels()

    @functools.cached_property
    def judge(self):
        return extractors.judge(self.train, self.test)

    @functools.cached_property
    def seen(self):
        """(features, logits) of the samples."""
        return self.extractor(self.samples)

    @functools.cached_property
    def real(self):
        """(features, logits) of the training data."""
        return self.extractor(self.train.arrays["x"])

    def vectors(self):
        """Samples and training data as vectors [n, D], at most 5,000 of each."""
        x, y = (np.reshape(a, (len(a), -1))[:5000] for a in (self.samples, self.train.arrays["x"]))
        return x, y


def fd(s):
    stats = m.data_stats(s.extractor, s.train.arrays["x"])
    return {s.extractor.metric_name("fd"): m.frechet_distance(m.gaussian_stats(s.seen[0]), stats)}


def kid(s):
    size = min(1000, s.num, len(s.train))
    return {s.extractor.metric_name("kid"): m.kid(s.seen[0], s.real[0], subset_size=size)[0]}


def inception_score(s):
    if s.seen[1] is None:
        raise ValueError("eval.metrics: 'is' needs data with classes")
    return {s.extractor.metric_name("is"): m.inception_score(s.seen[1])[0]}


def precision_recall(s):
    found = m.precision_recall(s.real[0], s.seen[0])
    return {s.extractor.metric_name(name): getattr(found, name) for name in ("precision", "recall")}


def density_coverage(s):
    found = m.density_coverage(s.real[0], s.seen[0])
    return {s.extractor.metric_name(name): getattr(found, name) for name in ("density", "coverage")}


def accuracy(s):
    """Share of conditional samples that an independent classifier puts in the class asked for."""
    if s.labels is None:
        raise ValueError("eval.metrics: 'accuracy' needs a model conditioned on labels")
    return {s.judge.metric_name("accuracy"): extractors.class_accuracy(s.judge, s.samples, s.labels)}


def decoding_process(process, levels, low, high):
    """`process` cut where the noise is half a grey level: there the decoder begins.

    The bound holds for every such cut. Further down a network would have to know the grid of levels, which
    trained denoisers do not, and each octave of noise costs up to a bit.
    """
    if not levels:
        return process
    half = (high - low) / (levels - 1) / 2
    return process.replace(t_min=jnp.maximum(process.t_min, process.time(-2 * jnp.log(half))))


def bits_per_dim(s):
    """Bits per dimension of the test data by the variational bound; of a density where the data have no levels."""
    if s.denoiser is None:
        raise ValueError("eval.metrics: 'bits_per_dim' needs a model with a likelihood, got one without")
    spec = s.test.spec
    low, high = spec.range or (-1.0, 1.0)
    process = decoding_process(s.process, spec.levels, low, high)
    times = TIME_SAMPLERS["log_snr"](process)

    @jax.jit
    def bound(keys, state, x, cond):
        found = continuous_bound(
            keys, s.denoiser(state), process, x, times, cond, draws=s.draws, levels=spec.levels, low=low, high=high
        )
        return found.total

    x = s.test.arrays["x"]
    cond = None if s.labels is None else {"label": s.test.arrays["label"]}
    nats, chunk = [], min(256, len(x))
    for first in range(0, len(x), chunk):
        rows = np.minimum(np.arange(first, first + chunk), len(x) - 1)
        part = None if cond is None else jax.tree.map(lambda c, rows=rows: jnp.asarray(c[rows]), cond)
        keys = sample_keys(jax.random.key(s.seed), chunk, first)
        nats.append(np.asarray(bound(keys, s.state, jnp.asarray(x[rows]), part))[: len(x) - first])
    name = "bits_per_dim" if spec.levels else "bits_per_dim[density]"
    return {f"{name}[bound, test]": float(np.mean(m.bits_per_dim(np.concatenate(nats), spec.shape)))}


def sliced_w2(s):
    return {"sliced_w2": m.sliced_wasserstein2(*s.vectors())}


def energy(s):
    return {"energy_distance": m.energy_distance(*s.vectors())}


def mmd(s):
    return {"mmd2": m.rbf_mmd2(*s.vectors())}


METRICS = {
    # name: Subject -> {printed name: number}
    "fd": fd,
    "kid": kid,
    "is": inception_score,
    "precision_recall": precision_recall,
    "density_coverage": density_coverage,
    "accuracy": accuracy,
    "bits_per_dim": bits_per_dim,
    "sliced_w2": sliced_w2,
    "energy": energy,
    "mmd": mmd,
}


def default_metrics(spec, conditional, likelihood=True):
    """Names of the metrics that suit the data, and a model with or without a likelihood."""
    if not spec.num_classes or len(spec.shape) < 3:
        return ("sliced_w2", "energy")
    accuracy, bits = ("accuracy",) if conditional else (), ("bits_per_dim",) if likelihood else ()
    return ("fd", "precision_recall", *accuracy, *bits)


def check_metrics(names):
    """Raises ValueError for an unknown metric, with the nearest right name."""
    for name in names:
        lookup(METRICS, name, "eval.metrics")


def evaluate(subject, names):
    """{printed name: number} of the metrics `names`, with the extractor's name in each."""
    check_metrics(names)
    found = {}
    for name in names:
        found.update({k: float(v) for k, v in METRICS[name](subject).items()})
    return found
