"""What experiments on a labelled set measure with: its classifier's features, its independent judge, its halves."""

from functools import cache

from genjax import data, metrics
from genjax.data import extractors
from genjax.metrics.am_score import unsmoothed
from genjax.metrics.features import raw_pixels


@cache
def sets(name="digits"):
    """(training Dataset, test Dataset)."""
    return data.load(name), data.load(name, split="test")


@cache
def extractor(name="digits"):
    """The Extractor whose features distances are measured in."""
    return data.extractor(*sets(name))


@cache
def judge(name="digits"):
    """The independent classifier, an Extractor with logits."""
    return extractors.judge(*sets(name))


SPACES = {"classifier": extractor, "pixels": lambda name: raw_pixels()}


def features(x, space="classifier", name="digits"):
    """Features [N, D] of images x [N, ...] in a space of `SPACES`."""
    return SPACES[space](name)(x)[0]


def frechet(x, reference, space="classifier", name="digits"):
    """Frechet distance between images x and reference, [N, ...] and [M, ...]."""
    stats = [metrics.gaussian_stats(features(images, space, name)) for images in (x, reference)]
    return metrics.frechet_distance(*stats)


def certain(x, name="digits"):
    """Logits [N, K] of images x by the judge, the smoothing of its labels taken away."""
    return unsmoothed(judge(name)(x)[1], extractors.SMOOTHING)


def classes(x, name="digits"):
    """The judge's classes of images x, [N]."""
    return judge(name)(x)[1].argmax(axis=-1)
