"""Feature extractors, and a cache on disk keyed by content.

An `Extractor` turns images into features and logits; the metrics take features, so any callable
will do, and its name is printed with the figure: "fd[digits-cnn-v1]". The classifiers that are
trained on a data set live above, in `genjax.data.extractors`.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genjax.metrics.frechet import Stats, gaussian_stats
from genjax.metrics.pairwise import as_vectors, chunks


class Extractor(NamedTuple):
    """A named map from images to features."""

    name: str
    apply: Callable  # images [n, ...] -> (features [n, D], logits [n, K] or None)
    key: str = ""  # hash of what the map was made from; cached statistics are kept by it
    accuracy: float | None = None  # of the classifier behind it, on data it has not seen

    def __call__(self, x, chunk=512):
        """(features [N, D], logits [N, K] or None) of x [N, ...], computed `chunk` rows at a time."""
        x = np.asarray(x)
        if len(x) == 0:
            raise ValueError("images: expected at least one, got none")
        parts = []
        for rows in chunks(len(x), chunk):
            part = x[rows]
            n = len(part)
            if n < chunk and len(x) > chunk:  # one shape for all chunks, so that one program serves them
                part = np.concatenate([part, np.zeros((chunk - n, *x.shape[1:]), x.dtype)])
            features, logits = self.apply(part)
            parts.append((np.asarray(features)[:n], None if logits is None else np.asarray(logits)[:n]))
        features = np.concatenate([f for f, _ in parts])
        return features, None if parts[0][1] is None else np.concatenate([g for _, g in parts])

    def metric_name(self, metric):
        """The name under which a figure is printed, "fd[digits-cnn-v1]"."""
        return f"{metric}[{self.name}]"


def raw_pixels():
    """The Extractor whose features are the pixels themselves; it has no logits."""
    return Extractor("pixels", lambda x: (as_vectors(x, "images"), None))


def cache_dir():
    """Where cached files go: $GENJAX_CACHE, else $XDG_CACHE_HOME/genjax, else ~/.cache/genjax."""
    if os.environ.get("GENJAX_CACHE"):
        return Path(os.environ["GENJAX_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "genjax"


def content_hash(*parts):
    """A hash of arrays (values, shape, dtype) and of anything with a stable `repr`, 20 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        if hasattr(part, "shape"):
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"|")
    return digest.hexdigest()[:20]


def cached(kind, key, compute):
    """`compute()` (a dict of arrays), or what an earlier call stored under `kind` and `key`.

    A file that cannot be read is computed again; a directory that cannot be written to costs the
    time of the next call, nothing else. Files are renamed into place, so readers never see half of one.
    """
    path = cache_dir() / f"{kind}-{key}.npz"
    # a missing, truncated or foreign file: zipfile, numpy and the system each raise their own error
    with contextlib.suppress(Exception), open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
    value = {name: np.asarray(array) for name, array in compute().items()}
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
            np.savez(Path(folder) / path.name, **value)
            os.replace(Path(folder) / path.name, path)
    return value


def data_stats(extractor, x):
    """The Stats of a data set's features, cached by the extractor and the content of x [N, ...]."""

    def compute():
        stats = gaussian_stats(extractor(x)[0])
        return {"mean": stats.mean, "cov": stats.cov, "count": stats.count}

    found = cached("stats", content_hash(extractor.name, extractor.key, x), compute)
    return Stats(found["mean"], found["cov"], int(found["count"]))


def feature_distance(extractor, a, b):
    """Squared distance of the features of image pairs, each scaled to length 1: 2 - 2 cos, in [0, 4], [N] in float64.

    The scaling is that of LPIPS (1801.03924, eq. 1), of one layer and without learned weights.

    Args:
      a, b: [N, ...].
    """
    one, other = (np.asarray(extractor(x)[0], np.float64) for x in (a, b))
    unit = lambda f: f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)
    return np.sum((unit(one) - unit(other)) ** 2, axis=1)
