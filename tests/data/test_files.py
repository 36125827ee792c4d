"""Folders of images, `.npz` files and TFDS sets: what is read back, and every broken file named."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from genjax.data import Loader, load
from genjax.data.folder import read_image, resize_crop


def _save(path, value, size=(8, 8), color=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if color else size
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)


@pytest.fixture
def classes(tmp_path):
    for i in range(10):
        _save(tmp_path / "cats" / f"{i}.png", i)
        _save(tmp_path / "dogs" / f"{i}.png", 100 + i)
    return tmp_path


def test_class_folders(classes):
    train, test, every = (load("folder", split, path=classes, test_fraction=0.2) for split in ("train", "test", "all"))
    assert train.spec.class_names == ("cats", "dogs") and train.spec.num_classes == 2
    assert (len(train), len(test), len(every)) == (16, 4, 20)
    value = lambda d: np.round((d.arrays["x"][:, 0, 0, 0] + 1) * 127.5).astype(int)
    np.testing.assert_array_equal(every.arrays["label"], value(every) >= 100)
    np.testing.assert_array_equal(test.arrays["label"], value(test) >= 100)
    assert sorted([*value(train), *value(test)]) == sorted(value(every))
    assert every.arrays["x"].shape == (20, 8, 8, 3) and every.spec.levels == 256


def test_flat_folder_and_split_folders(tmp_path):
    for split, n in (("train", 3), ("test", 2)):
        for i in range(n):
            _save(tmp_path / split / f"{i}.png", 255 * i // 2)
    train = load("folder", path=tmp_path)
    assert len(train) == 3 and train.spec.num_classes == 0 and train.spec.fields == ("x",)
    assert len(load("folder", "test", path=tmp_path)) == 2
    assert train.arrays["x"].min() == -1 and train.arrays["x"].max() == 1
    assert len(load("folder", "all", path=tmp_path / "train", channels=1)) == 3


def test_gray_and_jpeg_and_alpha(tmp_path):
    _save(tmp_path / "a.png", 51, color=False)
    Image.fromarray(np.full((8, 8, 4), 51, np.uint8)).save(tmp_path / "b.png")
    _save(tmp_path / "c.JPG", 51)
    x = load("folder", "all", path=tmp_path).arrays["x"]
    np.testing.assert_allclose(x, 51 / 127.5 - 1, atol=0.02)


def test_sets_too_big_for_memory_give_the_same(classes):
    small = load("folder", "all", path=classes)
    large = load("folder", "all", path=classes, memory_limit=0)
    assert large.arrays is None and len(large) == 20 and large.spec == small.spec
    a, b = (next(Loader(d, 6, seed=3)) for d in (small, large))
    np.testing.assert_array_equal(a["x"], b["x"])
    np.testing.assert_array_equal(a["label"], b["label"])


def test_resize_and_crop(tmp_path):
    # a horizontal ramp, twice as wide as high: the crop is its middle, and area is averaged
    ramp = np.tile(np.arange(128, dtype=np.uint8)[None], (64, 1))
    small = np.asarray(resize_crop(Image.fromarray(ramp), 16))
    assert small.shape == (16, 16)
    np.testing.assert_allclose(small[8], 32 + 4 * np.arange(16) + 1.5, atol=1.1)
    _save(tmp_path / "a.png", 10, (40, 30))
    _save(tmp_path / "b.png", 20, (8, 16))
    assert load("folder", "all", path=tmp_path, size=8).spec.shape == (8, 8, 3)


def test_mixed_sizes_are_named(classes):
    _save(classes / "dogs" / "big.png", 3, (9, 8))
    for limit in (0, 2**31):
        with pytest.raises(ValueError, match=r"mixed size: .*big.png is 9x8, .*0.png 8x8; give `size`"):
            load("folder", "all", path=classes, memory_limit=limit)


@pytest.mark.parametrize("limit", [0, 2**31])
def test_broken_files_are_named(classes, limit):
    good = (classes / "cats" / "3.png").read_bytes()
    (classes / "cats" / "3.png").write_bytes(good[:-20])  # truncated: the header is whole
    with pytest.raises(ValueError, match=r"cannot be read: .*cats.3\.png") as info:
        load("folder", "all", path=classes, memory_limit=limit)
    assert "\n" not in str(info.value)
    (classes / "cats" / "3.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"cats.3\.png .not an image"):
        load("folder", "all", path=classes, memory_limit=limit)


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="expected a directory"):
        load("folder", path=tmp_path / "none")
    with pytest.raises(ValueError, match="no images"):
        load("folder", path=tmp_path)
    _save(tmp_path / "a.png", 1)
    with pytest.raises(ValueError, match="leaves one split empty"):
        load("folder", path=tmp_path)
    with pytest.raises(ValueError, match="channels: expected one of"):
        load("folder", path=tmp_path, channels=2)
    _save(tmp_path / "cats" / "a.png", 1)
    with pytest.raises(ValueError, match="beside class folders"):
        load("folder", "all", path=tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_image(tmp_path / "missing.png")


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    return write


def test_npz_of_pixels_and_floats(npz):
    images = np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4)
    path = npz(images=images, digit=np.arange(20) % 3)
    data = load("npz", "all", path=path, x="images", label="digit")
    np.testing.assert_allclose(data.arrays["x"][..., 0], images / 127.5 - 1, atol=1e-6)
    assert data.spec.shape == (4, 4, 1) and data.spec.num_classes == 3 and data.spec.levels == 256
    train, test = (load("npz", s, path=path, x="images", test_fraction=0.25) for s in ("train", "test"))
    assert (len(train), len(test)) == (15, 5) and train.spec.fields == ("x",)
    path = npz(x=np.linspace(0, 5, 12).reshape(6, 2))
    assert load("npz", "all", path=path, range=None).spec.range is None
    with pytest.raises(ValueError, match=r"x: expected values in \[-1, 1\]"):
        load("npz", "all", path=path)


def test_npz_with_fields_of_its_splits(npz):
    path = npz(train_x=np.zeros((5, 2)), test_x=np.ones((3, 2)), train_label=np.arange(5), test_label=np.arange(3))
    assert len(load("npz", path=path)) == 5
    test = load("npz", "test", path=path, num_classes=5)
    assert test.arrays["x"].min() == 1 and test.spec.num_classes == 5


@pytest.mark.parametrize(
    "arrays, options, match",
    [
        ({"images": np.zeros((4, 2))}, {}, r"no field 'x', expected one of \['images'\]"),
        ({"x": np.zeros((4, 2))}, {"label": "digit"}, r"no field 'digit', expected one of \['x'\]"),
        ({"x": np.zeros(4)}, {}, "x: expected .N, H, W, C."),
        ({"x": np.zeros((4, 2), int)}, {}, "x: expected uint8 or floats, got int64"),
        ({"x": np.zeros((4, 2)), "label": np.zeros(3, int)}, {}, r"label: expected shape \(4,\), got \(3,\)"),
        ({"x": np.zeros((4, 2)), "label": np.zeros(4)}, {}, "label: expected integers"),
        ({"x": np.zeros((4, 2)), "label": np.array([0, 1, 2, 9])}, {"num_classes": 3}, "0 ... 2, got 9 in example 3"),
        ({"x": np.full((4, 2), np.nan)}, {}, "x: expected finite values"),
        ({"x": np.zeros((0, 2))}, {}, "at least one example"),
    ],
)
def test_bad_npz(npz, arrays, options, match):
    with pytest.raises(ValueError, match=match):
        load("npz", "all", path=npz(**arrays), **options)


def test_npz_that_cannot_be_read(npz, tmp_path):
    path = npz(x=np.zeros((40, 20)))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot be read as .npz"):
        load("npz", path=path)
    with pytest.raises(ValueError, match=r"cannot be read as .npz .FileNotFoundError"):
        load("npz", path=tmp_path / "none.npz")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small TFDS set, written as array_record files without TensorFlow."""
    tensorflow_datasets = pytest.importorskip("tensorflow_datasets")
    features, core = tensorflow_datasets.features, tensorflow_datasets.core

    class TinySet(core.GeneratorBasedBuilder):
        """Constant images."""

        code_path = None  # a test module is no package with files beside it
        VERSION = core.Version("1.0.0")

        def _info(self):
            return core.DatasetInfo(
                builder=self,
                features=features.FeaturesDict(
                    {
                        "tensor": features.Tensor(shape=(4, 4, 1), dtype=np.uint8),
                        "image": features.Image(shape=(None, None, 3)),
                        "wave": features.Tensor(shape=(5,), dtype=np.float32),
                        "label": features.ClassLabel(names=["a", "b", "c"]),
                    }
                ),
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples(12), "test": self._generate_examples(5)}

        def _generate_examples(self, n):
            for i in range(n):
                png = io.BytesIO()
                Image.fromarray(np.full((8, 8 + i, 3), i, np.uint8)).save(png, "PNG")
                png.seek(0)
                tensor, wave = np.full((4, 4, 1), 10 * i, np.uint8), np.full(5, i / 10, np.float32)
                yield i, {"tensor": tensor, "image": png, "wave": wave, "label": i % 3}

    folder = tmp_path_factory.mktemp("tfds")
    TinySet(data_dir=folder, file_format="array_record").download_and_prepare()
    return {"dataset": "tiny_set", "data_dir": str(folder)}


def test_tfds_reads_without_tensorflow(prepared):
    data = load("tfds", x="tensor", **prepared)
    assert len(data) == 12 and data.spec.shape == (4, 4, 1) and data.spec.levels == 256
    assert data.spec.class_names == ("a", "b", "c")
    value = np.round((data.arrays["x"][:, 0, 0, 0] + 1) * 127.5).astype(int) // 10
    np.testing.assert_array_equal(np.sort(value), np.arange(12))
    np.testing.assert_array_equal(value % 3, data.arrays["label"])
    assert len(load("tfds", "test", x="tensor", **prepared)) == 5
    assert len(load("tfds", "train[:50%]", x="tensor", **prepared)) == 6
    assert "tensorflow" not in sys.modules


def test_tfds_images_and_floats(prepared):
    images = load("tfds", size=8, **prepared)
    assert images.spec.shape == (8, 8, 3) and images.arrays["x"].shape == (12, 8, 8, 3)
    waves = load("tfds", x="wave", label=None, **prepared)
    assert waves.spec.range is None and waves.spec.fields == ("x",) and waves.spec.num_classes == 0
    lazy = load("tfds", size=8, memory_limit=0, **prepared)
    assert lazy.arrays is None
    a, b = (next(Loader(d, 4, seed=1)) for d in (images, lazy))
    np.testing.assert_array_equal(a["x"], b["x"])
    np.testing.assert_array_equal(a["label"], b["label"])


@pytest.mark.parametrize(
    "options, match",
    [
        ({"dataset": "no_such_set"}, "'no_such_set'.*not found.*prepare it"),
        ({"split": "val"}, "split 'val'.*Unknown split"),
        ({"x": "tensr"}, "feature x of tiny_set.*did you mean 'tensor'"),
        ({"x": "tensor", "label": "lable"}, "feature label of tiny_set.*did you mean 'label'"),
        ({}, "give `size`"),
    ],
)
def test_bad_tfds(prepared, options, match):
    with pytest.raises(ValueError, match=match) as info:
        load("tfds", **(prepared | options))
    assert "\n" not in str(info.value)
