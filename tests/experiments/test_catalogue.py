"""The catalogue of the papers that are reproduced here, and what every experiment must have."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from genjax.cli import papers
from genjax.cli import runner_report as report
from genjax.cli.runner import Runner, variant_config

EXPERIMENTS = papers.find_experiments()
FOUNDATION = {6, 7, 17, 23, 32, 86, 156, 177, 192}


@pytest.fixture(scope="module")
def runner():
    return Runner(EXPERIMENTS)


def test_the_foundation_is_there():
    assert {e.paper["number"] for e in EXPERIMENTS.values()} >= FOUNDATION


def test_numbers_and_arxiv_ids_are_unique():
    """Catches a copied PAPER that was not changed."""
    for field in ("number", "arxiv", "title"):
        values = [e.paper[field] for e in EXPERIMENTS.values()]
        assert len(values) == len(set(values)), field


@pytest.mark.parametrize("slug", EXPERIMENTS)
def test_every_variant_has_a_config_and_every_claim_a_statement(runner, slug):
    """Catches overrides of keys that do not exist, a doc without the command, fewer than three seeds."""
    module = runner.module(slug)
    assert f"genjax reproduce {slug}" in module.__doc__
    assert EXPERIMENTS[slug].paper["arxiv"] in module.__doc__
    assert getattr(module, "SEEDS", 3) >= 3
    assert module.CLAIMS
    for variant in module.VARIANTS:
        for scale in ("small", "smoke"):
            config = variant_config(module, variant, scale)
            assert config.scale == scale
    for statement, rule in module.CLAIMS.values():
        assert len(statement) > 20 and callable(rule)


@pytest.mark.parametrize("slug", EXPERIMENTS)
def test_scales_are_those_of_the_kind(runner, slug):
    """Catches a method without its published setting, and a misspelt scale that runs at another one."""
    get_config = runner.module(slug).get_config
    method = EXPERIMENTS[slug].paper["kind"] == "method"
    if method:
        assert get_config("paper").train.steps > get_config("small").train.steps
    for scale in ("smal", "", *(() if method else ("paper",))):
        with pytest.raises(ValueError, match=rf"scale: expected 'small', 'smoke' .*got '{scale}'"):
            get_config(scale)


def test_committed_results_follow_from_their_figures(runner):
    """Catches a verdict edited by hand, a claim changed after its run, and results of uncommitted code."""
    for path in sorted(papers.results_root().glob("*.json")):
        slug, stored = path.stem, json.loads(path.read_text(encoding="utf-8"))
        numbers = {
            variant: {m: [float(v) for v in x["values"]] for m, x in row["metrics"].items()}
            for variant, row in stored["variants"].items()
        }
        judged = report.judge(runner.module(slug).CLAIMS, numbers)
        said = {name: claim["verdict"] for name, claim in stored["claims"].items()}
        assert {name: claim["verdict"] for name, claim in judged.items()} == said, slug
        assert stored["verdict"] == report.verdict(judged), slug
        assert len(stored["seeds"]) >= 3, slug
        assert stored["git"]["dirty"] is False and len(stored["git"]["commit"]) == 40, slug
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG"), slug


def test_the_catalogue_needs_no_jax():
    """Catches an import that makes `genjax papers` slow."""
    code = "import sys; from genjax.cli import papers; papers.catalogue(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_papers_prints_what_the_results_say(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(papers, "results_root", lambda: tmp_path)
    (tmp_path / "edm.json").write_text('{"verdict": "fails"}')
    assert papers.run(SimpleNamespace(json=True, readme=False)) == 0
    rows = {row["slug"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["edm"]["verdict"] == "fails" and rows["ddpm"]["verdict"] == "not run"
    assert rows["ddpm"]["number"] == 23 and rows["ddpm"]["family"] == "diffusion"
    assert rows["ddpm"]["kind"] == "method" and rows["vdmpp"]["kind"] == "theory"
    assert papers.run(SimpleNamespace(json=False, readme=False)) == 0
    said = capsys.readouterr().out
    assert re.search(r"23  ddpm +diffusion +method +not run +Denoising Diffusion Probabilistic Models", said)
    (tmp_path / "edm.json").write_text("{")
    with pytest.raises(ValueError, match=r"results/edm.json: expected a result"):
        papers.catalogue(results=tmp_path)


def test_malformed_papers_are_named(tmp_path):
    """Catches a PAPER whose family is not its folder, or whose fields are missing or of a wrong type."""
    folder = tmp_path / "theory"
    folder.mkdir()
    good = {"number": 1, "title": "A", "year": 2020, "arxiv": "2001.00001", "family": "theory", "kind": "study"}
    for change, message in (
        ({"family": "gan"}, "family: expected the folder's name 'theory', got 'gan'"),
        ({"number": "1"}, "number: expected int, got '1'"),
        ({"kind": "methods"}, r"kind: expected one of \['method', 'study', 'survey', 'theory'\], got 'methods'"),
        ({"extra": 1}, "expected a dict with the keys"),
    ):
        (folder / "a.py").write_text(f"PAPER = {good | change!r}\n")
        with pytest.raises(ValueError, match=message):
            papers.find_experiments(tmp_path)
    (folder / "a.py").write_text("PAPER = dict(number=1)\n")
    with pytest.raises(ValueError, match="expected a literal"):
        papers.find_experiments(tmp_path)
    (folder / "a.py").write_text("PAPER = 1\ndef f(:\n")
    with pytest.raises(ValueError, match=r"a\.py: line 2: expected Python, invalid syntax"):
        papers.find_experiments(tmp_path)


def test_the_readme_says_what_the_results_say(tmp_path):
    """Catches a paper that the README leaves out, or a verdict that a later run changed."""
    text = (papers.clone_root() / "README.md").read_text(encoding="utf-8")
    assert papers.table() in text, "README.md: run `genjax papers --readme`"
    copy = tmp_path / "README.md"
    copy.write_text(text, encoding="utf-8")
    papers.write_readme(copy)
    assert copy.read_text(encoding="utf-8") == text
    copy.write_text("# no marks\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected the marks"):
        papers.write_readme(copy)
