"""Data: named sets, checked when they are made, and two ways to feed them.

`load(name, split, **options)` gives a `Dataset`. Small sets live on the device: `on_device(dataset)`
and `batch_at(key, step, arrays, batch_size)` inside a compiled scan. Others go through `Loader`, and
`Prefetch` to have the next batches on the device in time.
"""

from genjax.data.augment import AUGMENTS, Augment, horizontal_flip
from genjax.data.extractors import class_accuracy, extractor, judge, train_classifier
from genjax.data.load import DATASETS, load, option_names
from genjax.data.loader import Loader, Prefetch
from genjax.data.resident import batch_at, batch_indices, on_device, permuted
from genjax.data.spec import Dataset, DataSpec, check, check_examples, choose, in_memory

__all__ = [
    "AUGMENTS",
    "DATASETS",
    "Augment",
    "DataSpec",
    "Dataset",
    "Loader",
    "Prefetch",
    "batch_at",
    "batch_indices",
    "check",
    "check_examples",
    "choose",
    "class_accuracy",
    "extractor",
    "horizontal_flip",
    "in_memory",
    "judge",
    "load",
    "on_device",
    "option_names",
    "permuted",
    "train_classifier",
]
