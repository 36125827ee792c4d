"""The runner on a fake catalogue: table, verdicts, resuming, shared trainings, what the cache keeps, atomic writes."""

import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from genjax.cli import papers, reproduce, runner_store
from genjax.cli import runner_report as report
from genjax.cli.main import main
from genjax.cli.runner import ExperimentError, Runner, source_files, source_hash, variant_config, write_atomically

HEADER = """
from pathlib import Path
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
PAPER = {"number": %d, "title": "A fake", "year": 2020, "arxiv": "0000.00000", "family": "fam", "kind": "study"}
LOG = Path(__file__).with_name("log.txt")
def note(text):
    with open(LOG, "a") as f:
        f.write(text + "\\n")
"""

TRAINED = (
    HEADER % 2
    + """
PRIORS = ("base",)
SEEDS = 2
def get_config(scale="small"):
    return ConfigDict({"train": {"rate": 1.0, "steps": 1 if scale == "smoke" else 10}, "eval": {"shift": 0.0}})
VARIANTS = {"plain": {}, "shifted": {"eval.shift": 5.0}, "fast": {"train.rate": 2.0}}
def train(config, key, priors):
    note("train")
    assert "eval" not in config
    return {"w": config.train.rate * jnp.ones(3) + priors["base"]["b"]}
def measure(config, key, priors):
    note("measure")
    if Path(__file__).with_name("stop.txt").exists() and config.eval.shift:
        raise KeyboardInterrupt
    return {"value": priors["trained"]["w"].sum() + config.eval.shift, "draw": jax.random.normal(key)}
CLAIMS = {
    "shift": ("shifted is 5 above plain", lambda t: bool((t["shifted"]["value"] - t["plain"]["value"] == 5).all())),
    "wrong": ("fast is below plain", lambda t: bool((t["fast"]["value"] < t["plain"]["value"]).all())),
}
"""
)
BASE = (
    HEADER % 1
    + """
def get_config(scale="small"):
    return ConfigDict({"train": {"b": 1.0}})
VARIANTS = {"only": {}}
def train(config, key, priors):
    note("base")
    return {"b": jnp.asarray(config.train.b)}
def measure(config, key, priors):
    return {"b": priors["base"]["b"]}
CLAIMS = {"one": ("b is 1", lambda t: bool((t["only"]["b"] == 1).all()))}
"""
)


@pytest.fixture
def catalogue(tmp_path):
    folder = tmp_path / "experiments" / "fam"
    folder.mkdir(parents=True)
    (folder / "trained.py").write_text(TRAINED)
    (folder / "base.py").write_text(BASE)
    (folder / "not_a_paper.py").write_text("raise RuntimeError('imported')\n")
    return papers.find_experiments(tmp_path / "experiments")


def notes(catalogue):
    log = catalogue["trained"].path.with_name("log.txt")
    return log.read_text().split() if log.exists() else []


def run(catalogue, slug, tmp_path, **kwargs):
    lines = []
    runner = Runner(catalogue, cache=tmp_path / "cache")
    content = reproduce.reproduce(runner, catalogue[slug], results=tmp_path / "results", say=lines.append, **kwargs)
    return content, "\n".join(lines)


def test_result_holds_every_figure_and_the_failing_claim_fails(catalogue, tmp_path):
    """Catches a verdict that ignores a failing claim, wrong means or spreads, and lost seeds."""
    content, text = run(catalogue, "trained", tmp_path)
    stored = json.loads((tmp_path / "results" / "trained.json").read_text())
    assert stored == json.loads(json.dumps(content))
    assert stored["verdict"] == "fails"
    assert {k: c["verdict"] for k, c in stored["claims"].items()} == {"shift": "holds", "wrong": "fails"}
    assert stored["seeds"] == [0, 1] and stored["paper"]["number"] == 2
    value = stored["variants"]["shifted"]["metrics"]["value"]
    assert value == {"mean": 11.0, "std": 0.0, "values": [11.0, 11.0]}
    draws = stored["variants"]["plain"]["metrics"]["draw"]
    a, b = draws["values"]
    assert a != b and draws["mean"] == pytest.approx((a + b) / 2)
    assert draws["std"] == pytest.approx(abs(a - b) / 2**0.5)
    assert stored["claims"]["wrong"]["evidence"][0] == {"variant": "fast", "metric": "value", "mean": 9.0, "std": 0.0}
    assert "FAILS  wrong: fast is below plain" in text and "HOLDS  shift" in text
    assert (tmp_path / "results" / "trained.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in json.dumps(stored), "a path of the machine got into the result"
    assert stored["hashes"]["priors"].keys() == {"base"} and stored["machine"]["cores"] >= 1


def test_variants_that_differ_in_eval_share_a_training(catalogue, tmp_path):
    """Catches trainings repeated per evaluation, and trainings wrongly shared between train settings or seeds."""
    run(catalogue, "trained", tmp_path)
    assert notes(catalogue).count("train") == 4  # two settings, two seeds
    assert notes(catalogue).count("measure") == 6
    assert notes(catalogue).count("base") == 1


def test_an_interrupted_run_resumes(catalogue, tmp_path):
    """Catches measurements made twice, and a result written by a run that did not end."""
    stop = catalogue["trained"].path.with_name("stop.txt")
    stop.touch()
    with pytest.raises(KeyboardInterrupt):
        run(catalogue, "trained", tmp_path)
    assert not (tmp_path / "results").exists()
    before = notes(catalogue)
    stop.unlink()
    content, text = run(catalogue, "trained", tmp_path)
    again = notes(catalogue)[len(before) :]
    assert again.count("base") == 0 and again.count("measure") == 5 and again.count("train") == 3
    assert "plain, seed 0: cached" in text
    first = json.dumps(content["variants"])
    (tmp_path / "cache").rename(tmp_path / "old")
    assert json.dumps(run(catalogue, "trained", tmp_path)[0]["variants"]) == first


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"junk"])
def test_a_damaged_cache_is_made_anew(catalogue, tmp_path, damage):
    """Catches a crash on a file that was cut off, and a damaged file that stays and is told of in every run."""
    first, _ = run(catalogue, "trained", tmp_path)
    for folder in ("trainings", "measurements"):
        for path in (tmp_path / "cache" / folder).rglob("*.*"):
            path.write_bytes(damage(path.read_bytes()))
    before, lines = notes(catalogue), []
    runner = Runner(catalogue, cache=tmp_path / "cache", say=lines.append)
    again = reproduce.reproduce(runner, catalogue["trained"], say=lambda line: None)
    made = notes(catalogue)[len(before) :]
    assert made.count("base") == 1 and made.count("train") == 4 and made.count("measure") == 6
    assert len(lines) == 11 and all(line.startswith("warning: ") and "damaged" in line for line in lines)
    assert not any("\n" in line for line in lines)
    assert again["variants"] == first["variants"]
    run(catalogue, "trained", tmp_path)
    assert notes(catalogue) == before + made  # what was made anew is found


class Foreign(NamedTuple):
    a: int


def test_trainings_come_back_as_they_were():
    """Catches lost types: records, tuples and lists, names and whole numbers as keys, dtypes, axes of size 0."""
    import jax.numpy as jnp
    import optax

    from genjax.core.types import State
    from genjax.losses.times import SecondMoment

    half = jnp.arange(3, dtype=jnp.bfloat16) / 3
    tree = {
        "snapshots": [(1, State(jnp.int32(5), {"net": {"w": jnp.ones((2, 0)), "b": half}}, ())), (2, None)],
        "opt": optax.adam(1e-3).init({"w": jnp.ones(2)}),
        "extra": SecondMoment(np.zeros((2, 3)), np.array([True, False])),
        7: {"7": 0.5, "text": "a word", "empty": optax.EmptyState(), "scalar": jnp.float32(2), "half": half[0]},
    }
    for kept in (runner_store.as_arrays(tree), runner_store.loads(runner_store.dumps(tree))):
        assert type(kept["snapshots"]) is list and type(kept["snapshots"][0]) is tuple
        state = kept["snapshots"][0][1]
        assert type(state) is State and state.opt == () and type(kept["extra"]) is SecondMoment
        assert kept["snapshots"][1][1] is None and set(kept) == {*tree} and type(kept[7]["empty"]) is optax.EmptyState
        assert state.params["net"]["w"].shape == (2, 0) and kept["extra"].count.tolist() == [True, False]
        assert type(kept["opt"][0]) is optax.ScaleByAdamState and kept["opt"][0].mu["w"].shape == (2,)
        assert state.step.dtype == np.int32 and kept["extra"].count.dtype == bool
        for a, b in ((state.params["net"]["b"], half), (kept[7]["half"], half[0])):
            assert a.dtype == jnp.bfloat16 and a.shape == b.shape and (a == np.asarray(b)).all()
        assert all(type(kept[7][name]) is np.ndarray and kept[7][name].shape == () for name in ("7", "text", "scalar"))
        assert kept[7]["text"] == "a word" and kept[7]["7"] == 0.5 and kept[7]["7"].dtype == np.float64


def test_what_cannot_be_kept_is_refused(catalogue):
    """Catches a training that would come back as something else; also without a cache, so that smoke runs find it."""
    import jax

    from genjax.processes import gaussian

    for value, what in (
        ({1, 2}, r"result\['a'\]\[1\]: expected arrays .* got builtins.set"),
        (gaussian.ddpm(100), r"result\['a'\]\[1\]: expected arrays .* got genjax.processes.gaussian.Gaussian"),
        (jax.random.key(0), r"result\['a'\]\[1\]: expected arrays"),
        (np.array([None]), r"result\['a'\]\[1\]: expected arrays"),
        (np.zeros(1, [("x", "f4")]), r"result\['a'\]\[1\]: expected arrays"),
        (Foreign(1), r"result\['a'\]\[1\]: expected a NamedTuple of genjax or optax, got .*Foreign"),
        ({(1, 2): 0}, r"result\['a'\]\[1\]: expected text or whole numbers for keys, got \(1, 2\)"),
    ):
        with pytest.raises(TypeError, match=what):
            runner_store.dumps({"a": [0, value]})
    catalogue["base"].path.write_text(BASE.replace('{"b": jnp.asarray(config.train.b)}', "{1}"))
    with pytest.raises(ExperimentError, match="seed 0: train: TypeError: result: expected arrays"):
        reproduce.reproduce(Runner(catalogue, scale="smoke"), catalogue["base"], say=lambda line: None)


def test_reading_a_training_runs_no_code(tmp_path):
    """Catches files that bring objects or name classes to build."""
    trap = tmp_path / "trap"

    class Trap:
        def __reduce__(self):
            return Path.touch, (trap,)

    def stored(structure, **arrays):
        file = io.BytesIO()
        np.savez(file, structure=np.frombuffer(json.dumps(structure).encode(), np.uint8), **arrays)
        return file.getvalue()

    for data in (
        stored({"array": 0}, **{"0": np.array([Trap()], object)}),
        stored({"array": 0, "dtype": "object"}, **{"0": np.zeros(1, np.uint64)}),
        stored({"record": ["subprocess", "Popen"], "fields": {"args": {"array": 0}}}, **{"0": np.array("true")}),
        stored({"record": ["genjax.cli.runner", "Runner"], "fields": {"experiments": None}}),
        stored({"record": ["genjax.core.types", "State"], "fields": {"step": None}}),
        stored({"set": []}),
        stored({"array": 1}),
        b"",
    ):
        with pytest.raises(ValueError, match="no tree of arrays can be read"):
            runner_store.loads(data)
    assert not trap.exists()
    with np.load(io.BytesIO(stored({}, **{"0": np.array([Trap()], object)})), allow_pickle=True) as file:
        assert len(file["0"]) == 1 and trap.exists()  # the trap is one


def test_a_changed_experiment_is_measured_again_and_a_comment_is_not(catalogue, tmp_path):
    """Catches stale figures of an earlier formula."""
    run(catalogue, "base", tmp_path)
    path = catalogue["base"].path
    hash_before = source_hash(path)
    path.write_text('"""Now with words."""\n' + BASE + "# a comment\n")
    assert source_hash(path) == hash_before
    path.write_text(BASE.replace("config.train.b)", "config.train.b + 1)"))
    content, _ = run(catalogue, "base", tmp_path)
    assert content["verdict"] == "fails" and content["variants"]["only"]["metrics"]["b"]["mean"] == 2.0


def test_source_follows_imports(tmp_path):
    """Catches a formula that can change without its figures being measured again."""
    file = tmp_path / "e.py"
    file.write_text("def f():\n    from genjax.solvers import ode\n    from genjax.oracles.mixture import ring\n")
    names = {"/".join(f.parts[-2:]) for f in source_files(file)}
    assert {"solvers/ode.py", "oracles/mixture.py", "solvers/base.py", "core/types.py"} <= names
    assert "processes/gaussian.py" not in names


def test_smoke_writes_nothing(catalogue, tmp_path):
    runner = Runner(catalogue, cache=None, scale="smoke")
    lines = []
    content = reproduce.reproduce(runner, catalogue["trained"], say=lines.append)
    assert content["seeds"] == [0, 1]
    assert not (tmp_path / "results").exists() and not (tmp_path / "cache").exists()
    assert any("no verdict" in line for line in lines) and not any("HOLDS" in line for line in lines)


def test_smoke_finds_rules_that_take_arrays_for_numbers(catalogue):
    """Catches what only a full run showed: with one seed, an array of figures passes for a number."""
    rule = 't: bool(t["only"]["b"] == 1)'
    path = catalogue["base"].path
    path.write_text(BASE.replace('t: bool((t["only"]["b"] == 1).all())', rule))
    assert rule in path.read_text()
    measured = {"only": {"b": [1.0]}}
    assert report.judge(Runner(catalogue).module("base").CLAIMS, measured)["one"]["verdict"] == "holds"
    with pytest.raises(ExperimentError, match=r"base: CLAIMS\['one'\]: ValueError: The truth value"):
        reproduce.reproduce(Runner(catalogue, scale="smoke"), catalogue["base"], say=lambda line: None)


def command(monkeypatch, tmp_path, *words):
    """The exit code of `genjax reproduce` on the fake catalogue."""
    monkeypatch.setattr(papers, "experiments_root", lambda: tmp_path / "experiments")
    monkeypatch.setattr(reproduce.runtime, "use_cache", lambda: None)
    return main(["reproduce", *words, f"--cache={tmp_path}/cache", f"--results={tmp_path}/results"])


def test_a_failing_measurement_is_named_and_loses_nothing(catalogue, tmp_path, monkeypatch, capsys):
    """Catches a traceback without a place, and measurements or experiments that one failure takes along."""
    path = catalogue["trained"].path
    fault = '    if config.eval.shift and priors["trained"]["w"].shape == (3,):\n        {}["sift"]\n'
    path.write_text(TRAINED.replace('    note("measure")\n', '    note("measure")\n' + fault))
    assert command(monkeypatch, tmp_path, "--all") == 1
    out, err = capsys.readouterr()
    line = path.read_text().splitlines().index('        {}["sift"]') + 1
    first = f"trained: variant 'shifted', seed 0: measure: KeyError: 'sift' (line {line} of trained.py)"
    hint = "(and 1 more measurements failed) (GENJAX_TRACEBACK=1 shows more)"
    assert err == f"genjax reproduce: error: {first} {hint}\n"
    assert f"[2/6] FAILED {first}" in out and "FAILED trained: variant 'shifted', seed 1" in out
    assert "draw" in out and "shifted: nothing measured" in out  # what was measured is told
    assert f"trained                  failed: {first}" in out and "base                     holds" in out
    assert [p.name for p in sorted((tmp_path / "results").iterdir())] == ["base.json", "base.png"]
    assert len(list((tmp_path / "cache" / "measurements" / "trained").iterdir())) == 4
    before = notes(catalogue)
    assert command(monkeypatch, tmp_path, "trained") == 1
    assert notes(catalogue)[len(before) :] == ["measure"] * 2  # no training, and none of the four again
    monkeypatch.setenv("GENJAX_TRACEBACK", "1")
    with pytest.raises(ExperimentError) as found:
        command(monkeypatch, tmp_path, "trained")
    assert isinstance(found.value.__cause__, KeyError)


def test_other_failures_of_an_experiment_are_named(catalogue, tmp_path, monkeypatch, capsys):
    """Catches a traceback out of an import, a training, a prior, a rule or a figure."""
    sources = {"trained": TRAINED, "base": BASE}
    for slug, old, new, message in (
        ("trained", "import jax\n", "import jaxx\n", r"trained: ModuleNotFoundError: No module named 'jaxx' \("),
        ("trained", "CLAIMS = ", "CLAIM = ", "trained: expected CLAIMS in the experiment, found none"),
        ("trained", '["b"]}', '["c"]}', r"variant 'plain', seed 0: train: KeyError: 'c' \(line \d+ of trained\.py\)"),
        ("trained", '"train.rate"', '"train.rat"', "'fast', seed 0: config: ValueError: VARIANTS"),
        ("trained", '["fast"]["value"]', '["fat"]["value"]', r"CLAIMS\['wrong'\]: ValueError: no variant 'fat'"),
        ("trained", "PRIORS = (", "PRIORS = ('bas', ", "ValueError: trained: PRIORS: expected one of"),
        ("trained", "CLAIMS", "def figure(t, path):\n    1 / 0\nCLAIMS", "figure: ZeroDivisionError: .* of trained"),
        ("base", 'note("base")', "raise FloatingPointError", r"prior 'base': train: FloatingPointError \("),
    ):
        file, source = catalogue[slug].path, sources[slug]
        assert source.count(old) == 1
        file.write_text(source.replace(old, new))
        assert command(monkeypatch, tmp_path, "trained") == 1
        err = capsys.readouterr().err.strip().splitlines()[-1]
        assert err.startswith("genjax reproduce: error: trained: ") and re.search(message, err), err
        assert not list((tmp_path / "results").glob("*"))
        file.write_text(source)


def test_write_is_atomic(tmp_path, monkeypatch):
    """Catches a half-written result: the old file stays whole, and no part is left behind."""
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_judge_survives_nan_and_names_unknown_metrics():
    """A NaN never passes a comparison; a misspelt metric is an error, not a verdict."""
    claims = {"low": ("a below 1", lambda t: bool((t["v"]["a"] < 1).all()))}
    judged = report.judge(claims, {"v": {"a": [0.0, float("nan")]}})
    assert judged["low"]["verdict"] == "fails" and report.verdict(judged) == "fails"
    with pytest.raises(ExperimentError, match=r"CLAIMS\['x'\]: ValueError: variant 'v' has no metric 'b'"):
        report.judge({"x": ("", lambda t: t["v"]["b"] < 1)}, {"v": {"a": [0.0]}})
    assert report.verdict({}) == "fails"


def test_non_finite_figures_stay_valid_json(catalogue, tmp_path):
    path = tmp_path / "r.json"
    content = report.result(catalogue["base"], [0], {"v": {}}, {"v": {"a": [float("inf")]}}, {}, 0.0, {}, {})
    report.write_result(path, content)
    metrics = json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(c))["variants"]["v"]["metrics"]
    assert metrics["a"]["values"] == ["inf"]


def test_errors_name_what_was_wrong(catalogue, tmp_path):
    module = Runner(catalogue).module("trained")
    module.VARIANTS["bad"] = {"train.rat": 1.0}
    with pytest.raises(ValueError, match=r"no key 'train.rat', did you mean 'train.rate'"):
        variant_config(module, "bad")
    with pytest.raises(ValueError, match="did you mean 'trained'"):
        papers.select(catalogue, ["traind"])
    with pytest.raises(ValueError, match=r"family: expected one of \['fam'\], got 'diff'"):
        papers.select(catalogue, family="diff")
    with pytest.raises(ValueError, match="at least one"):
        papers.select(catalogue)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match="results: expected a folder that can be written"):
        reproduce.check_writable(Path(file))
    catalogue["base"].path.write_text(BASE.replace('priors["base"]["b"]}', "jnp.ones(2)}"))
    place = r"base: variant 'only', seed 0: measure: TypeError: metric 'b': expected a scalar, got shape \(2,\)"
    with pytest.raises(ExperimentError, match=place):
        run(catalogue, "base", tmp_path)


def test_figures_are_drawn(catalogue, tmp_path):
    """Catches a figure hook that breaks after hours of measuring."""

    min_snr = Runner(papers.find_experiments()).module("min_snr")
    table = {arm: {f"fd_{i / 10:.1f}": np.array([1.0, 2.0]) for i in range(1, 11)} for arm in min_snr.VARIANTS}
    min_snr.figure(table, tmp_path / "a.png")
    measured = {"v": {"small": [1.0], "inf": [float("inf")], "wide": [1e-3]}, "w": {"wide": [1e3]}}
    evidence = [{"variant": v, "metric": m} for v, row in measured.items() for m in row]
    judged = {"claim": {"verdict": "holds", "evidence": evidence}, "blind": {"verdict": "fails", "evidence": []}}
    report.default_figure(measured, judged, tmp_path / "b.png", "title")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_circle_of_priors_is_found(catalogue, tmp_path):
    catalogue["base"].path.write_text(BASE + 'PRIORS = ("trained",)\n')
    circle = papers.find_experiments(tmp_path / "experiments")
    with pytest.raises(ValueError, match="trained -> base -> trained"):
        Runner(circle).priors("trained")


PLAIN = (
    HEADER % 3
    + """
from genjax.cli import runner_digits
def get_config(scale="small"):
    config = runner_digits.base_config("smoke", 0, process={"name": "edm"}, denoiser={"target": "edm"})
    config.sample = {"solver": "heun", "grid": "karras", "steps": 3}
    config.eval = {"num": 50, "metrics": ("sliced_w2",)}
    return config
VARIANTS = {"few": {}, "more": {"sample.steps": 6}, "wide": {"network.width": 20}}
CLAIMS = {"any": ("distances are positive", lambda t: bool((t["few"]["sliced_w2"] > 0).all()))}
"""
)


def test_an_experiment_may_be_a_config_alone(tmp_path):
    """The default trains, samples and evaluates; variants that differ in sampling share one training."""
    folder = tmp_path / "experiments" / "fam"
    folder.mkdir(parents=True)
    (folder / "plain.py").write_text(PLAIN)
    found = papers.find_experiments(tmp_path / "experiments")
    content, _ = run(found, "plain", tmp_path, seeds=1)
    value = {v: row["metrics"]["sliced_w2"]["mean"] for v, row in content["variants"].items()}
    assert len(set(value.values())) == 3
    assert len(list((tmp_path / "cache" / "trainings" / "plain").iterdir())) == 2


def test_snapshots_do_not_change_a_training():
    """Catches keys or data that depend on where a training is cut."""
    import jax

    from genjax import build
    from genjax.cli import runner_default, runner_digits

    config = runner_digits.base_config("smoke", 0, process={"name": "edm"}, denoiser={"target": "edm"})
    dataset = build.dataset(config)
    algorithm = build.algorithm(config, dataset.spec)
    key = jax.random.key(3)
    whole = runner_default.fit(algorithm, dataset.arrays, key, 8, 16)[-1]
    parts = runner_default.fit(algorithm, dataset.arrays, key, 8, 16, snapshots=4)
    assert [step for step, _, _ in parts] == [2, 4, 6, 8]
    for a, b in zip(jax.tree.leaves(whole[1].params), jax.tree.leaves(parts[-1][1].params)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(parts[0][1].params), jax.tree.leaves(whole[1].params))]
    assert max(moved) > 1e-4
    with pytest.raises(ValueError, match="snapshots: expected a divisor of 8 steps, got 3"):
        runner_default.fit(algorithm, dataset.arrays, key, 8, 16, snapshots=3)
