"""The passage "A new game in a few lines" runs, and its config is the same game."""

import re
from pathlib import Path

import numpy as np

from genjax import build
from genjax.cli import config as configs
from genjax.train import loop

TEXT = (Path(__file__).parents[1] / "docs" / "gans.md").read_text()


def test_the_passage_runs(tmp_path):
    code, config = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names = {}
    exec(code, names)  # the text of our own documentation
    assert names["samples"].shape == (500, 2) and np.isfinite(names["samples"]).all()
    assert names["samples"].std() > 0.05
    (tmp_path / "ring.py").write_text(config)
    said = configs.load(str(tmp_path / "ring.py"))
    data = build.dataset(said)
    shapes = loop.check_traces(build.algorithm(said, data.spec), build.feed(said, data))
    same = names["state"].params
    assert shapes.params["generator"]["layer0"]["kernel"].shape == same["generator"]["layer0"]["kernel"].shape
    assert build.plan(said).steps == 50
