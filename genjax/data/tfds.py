"""Any prepared TFDS set, read by index from array_record files, without TensorFlow."""

import numpy as np
from PIL import Image

from genjax.data.folder import MEMORY_LIMIT, resize_crop
from genjax.data.spec import Dataset, DataSpec, check_examples, choose, from_uint8, in_memory


class Records:
    """Records of a TFDS source as examples of the toolkit."""

    def __init__(self, source, x, label, size, spec, name):
        self.source, self.x, self.label, self.size, self.spec, self.name = source, x, label, size, spec, name

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        record = self.source[int(i)]
        example = {"x": to_example(record[self.x], self.size)}
        if self.label is not None:
            example["label"] = np.int32(record[self.label])
        check_examples({k: np.asarray(v)[None] for k, v in example.items()}, self.spec, self.name, int(i))
        return example


def to_example(value, size=None):
    """One value of a record as float32: uint8 images to [-1, 1] (resized where `size` is given), floats as they are."""
    value = np.asarray(value)
    if value.dtype != np.uint8:
        return value.astype(np.float32)
    value = value[..., None] if value.ndim == 2 else value
    if size is not None and value.shape[:2] != (size, size):
        channels = value.shape[-1]
        image = Image.fromarray(value[..., 0] if channels == 1 else value)
        value = np.asarray(resize_crop(image, size)).reshape(size, size, channels)
    return from_uint8(value)


def tfds(
    dataset,
    split="train",
    *,
    data_dir=None,
    x="image",
    label="label",
    size=None,
    memory_limit=MEMORY_LIMIT,
):
    """A TFDS set as a Dataset. It must have been prepared as array_record files.

    Args:
      dataset: its name, "cifar10" or "name/config:version".
      split: any TFDS split, "train[:90%]" included.
      data_dir: where sets lie; the TFDS default where None.
      x: feature that holds the data: an image or a uint8 or float tensor.
      label: ClassLabel feature, None for none; left out where the set has no feature "label".
      size: width to which images are scaled and cropped; needed where the set's images differ in size.
      memory_limit: bytes; larger sets are read from disk as they are used.

    Raises:
      ValueError: an unknown set, split or feature, a set not prepared, or images of mixed size.
    """
    import tensorflow_datasets

    options = {"file_format": "array_record"}
    try:
        source = tensorflow_datasets.data_source(
            dataset, split=split, data_dir=data_dir, download=False, builder_kwargs=options
        )
    except Exception as error:  # TFDS has an exception of its own for every layer
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = data_dir or "the default data_dir"
        hint = f"prepare it with `tfds build {dataset} --file_format=array_record`"
        raise ValueError(f"tfds: {dataset!r}, split {split!r}, cannot be read in {where}: {reason}; {hint}") from error
    features = source.dataset_info.features
    choose(f"tfds: feature x of {dataset}", x, list(features))
    if label is not None and label not in features:
        if label != "label":
            choose(f"tfds: feature label of {dataset}", label, list(features))
        label = None
    if len(source) == 0:
        raise ValueError(f"tfds: split {split!r} of {dataset!r} has no examples")
    num_classes = 0 if label is None else getattr(features[label], "num_classes", None) or 0
    names = tuple(features[label].names) if num_classes and features[label].names else ()
    declared = tuple(features[x].shape)
    if size is None and any(n is None for n in declared):
        raise ValueError(f"tfds: the images of {dataset!r} have shape {declared}: give `size`")
    pixels = np.dtype(features[x].np_dtype) == np.uint8
    shape = to_example(source[0][x], size).shape
    fields = ("x",) if label is None else ("x", "label")
    spec = DataSpec(shape, num_classes, (-1.0, 1.0) if pixels else None, 256 if pixels else 0, fields, names)
    records = Records(source, x, label, size, spec, dataset)
    if 4 * len(records) * int(np.prod(shape)) > memory_limit:
        return Dataset(dataset, spec, source=records)
    examples = [records[i] for i in range(len(records))]
    arrays = {field: np.stack([example[field] for example in examples]) for field in fields}
    return in_memory(dataset, arrays, num_classes, spec.range, spec.levels, names)
