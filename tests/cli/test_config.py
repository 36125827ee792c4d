"""Config files by name and overrides: what is found, what is refused, and with which words."""

import pytest
from ml_collections import ConfigDict

from genjax.cli import config as configs


def make():
    return ConfigDict(
        {
            "seed": 0,
            "network": {"name": "mlp", "width": 32, "norm": False, "sizes": (1, 2)},
            "train": {"steps": 10, "rate": 0.1},
            "eval": {"metrics": ("fd", "kid")},
            "ema": None,
        }
    )


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("seed", "3", 3),
        ("network.width", "64", 64),
        ("network.norm", "true", True),
        ("network.sizes", "(4, 5, 6)", (4, 5, 6)),
        ("network.sizes", "[4]", (4,)),
        ("network.sizes", "4", (4,)),
        ("eval.metrics", "is,fd", ("is", "fd")),
        ("eval.metrics", "is", ("is",)),
        ("network.name", "unet", "unet"),
        ("network.dropout", "0.5", 0.5),  # `build` says whether the constructor knows it
        ("train.keep", "3", 3),
        ("precision", "bfloat16", "bfloat16"),  # a group of `build` that this config does not hold
        ("train.rate", "1", 1.0),
        ("train.rate", "1e-3", 1e-3),
        ("train.rate", "-2.5", -2.5),
        ("ema", "{'name': 'constant', 'decay': 0.9}", {"name": "constant", "decay": 0.9}),
        ("network", "{'name': 'dit'}", {"name": "dit"}),
        ("network", "none", None),
    ],
)
def test_override_sets_the_value_in_the_type_of_the_old_one(field, text, value):
    config = make()
    configs.override(config, field, text)
    found = config
    for part in field.split("."):
        found = found[part]
    found = found.to_dict() if isinstance(found, ConfigDict) else found
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("sed", "3", r"--config\.sed: unknown key 'sed'; did you mean 'seed'\?"),
        ("network.nose.x", "3", r"--config\.network\.nose\.x: unknown key 'network\.nose'; did you mean"),
        ("trian.steps", "3", r"unknown key 'trian'; did you mean 'train'\?"),
        ("train.steps", "ten", r"--config\.train\.steps: expected int such as 10, got 'ten'"),
        ("train.steps", "1.5", r"expected int such as 10, got 1\.5"),
        ("train.steps", "true", "expected int such as 10, got True"),
        ("network.norm", "3", "expected bool such as False, got 3"),
        ("network.name", "3", "expected str such as 'mlp', got 3"),
        ("network.sizes", "{'a': 1}", "expected tuple"),
        ("network", "mlp", r"--config\.network: expected a group such as"),
        ("network.mlp.width", "3", r"unknown key 'network\.mlp'.*; a new group is given whole: --config\.network=\"\{"),
        ("seed.value", "3", r"--config\.seed\.value: seed is not a group"),
    ],
)
def test_override_is_refused_by_name_and_type(field, text, message):
    config = make()
    with pytest.raises(ValueError, match=message):
        configs.override(config, field, text)
    assert config.to_dict() == make().to_dict()


def test_overrides_are_split_from_other_arguments():
    words = ["--workdir=w", "--config.a.b=1=2", "--quiet", "--config.c", "3", "--config=x"]
    assert configs.overrides(words) == ([("a.b", "1=2"), ("c", "3")], ["--workdir=w", "--quiet", "--config=x"])
    for bad in (["--config.a"], ["--config.a", "--quiet"], ["--config.=3"]):
        with pytest.raises(ValueError, match=r"--config\..*expected"):
            configs.overrides(bad)


HEAD = "from ml_collections import ConfigDict\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "experiments" / "family"
    root.mkdir(parents=True)
    (root / "tiny_run.py").write_text(
        HEAD + "def get_config(scale='small'):\n    return ConfigDict({'scale': scale})\n"
    )
    (root / "broken.py").write_text("import nothing_of_that_name\n")
    (root / "empty.py").write_text("x = 1\n")
    (root / "plain.py").write_text(HEAD + "def get_config():\n    return ConfigDict()\n")
    (root / "bare.py").write_text("def get_config():\n    return {}\n")
    return root


def test_names_and_paths_resolve(folder):
    for name in ("family/tiny_run", "tiny_run", "family/tiny-run", str(folder / "tiny_run.py")):
        assert configs.load(name).to_dict() == {"scale": "small"}
    assert configs.load("tiny_run:paper").to_dict() == {"scale": "paper"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("family/tiny_rum", r"--config: unknown config 'family/tiny_rum'; did you mean 'family/tiny_run'\?"),
        ("no/such.py", "no such file: no/such.py"),
        ("broken", r"broken\.py cannot be run: ModuleNotFoundError"),
        ("empty", "expected a function get_config, found none"),
        ("plain:paper", "get_config takes no scale, got 'paper'"),
        ("bare", r"bare\.py: expected get_config to return an ml_collections\.ConfigDict, got a dict"),
    ],
)
def test_configs_that_cannot_be_loaded(folder, name, message):
    with pytest.raises(ValueError, match=message):
        configs.load(name)


def test_two_configs_of_one_name(folder):
    other = folder.parent / "other"
    other.mkdir()
    (other / "plain.py").write_text(HEAD + "def get_config():\n    return ConfigDict()\n")
    with pytest.raises(ValueError, match="'plain' is the name of several: family/plain, other/plain"):
        configs.load("plain")
    assert configs.load("other/plain").to_dict() == {}


def test_another_name_drops_the_arguments_of_the_old_one():
    """Catches `--config.loss.weighting.name=min_snr` failing on an argument that nobody typed."""
    config = ConfigDict({"loss": {"weighting": {"name": "edm", "sigma_data": 0.5}}, "sample": {"solver": "heun"}})
    configs.apply(config, [("loss.weighting.gamma", "3.0"), ("loss.weighting.name", "min_snr")])
    assert config.loss.weighting.to_dict() == {"name": "min_snr", "gamma": 3.0}
    configs.apply(config, [("loss.weighting.name", "min_snr")])
    assert config.loss.weighting.gamma == 3.0  # the same name keeps them
    configs.apply(config, [("sample.solver", "{'name': 'ddim', 'eta': 0.5}")])
    assert config.sample.solver.to_dict() == {"name": "ddim", "eta": 0.5}
