"""Measures the variants of an experiment over seeds, and remembers every measurement.

An experiment module (see CONTRIBUTING.md) has

  PAPER       literal: number, title, year, arxiv, family, kind
  PRIORS      slugs of experiments whose trained models it needs (default none)
  SEEDS       how many seeds a full run takes (default 3)
  get_config(scale)   "small", "smoke" and, for methods, "paper" -> ConfigDict
  VARIANTS    name -> {dotted config key: value}
  train(config, key, priors) -> tree of arrays        (optional; which trees: `runner_store`)
  measure(config, key, priors) -> {metric: scalar}    (optional: the default samples and evaluates)
  CLAIMS      name -> (statement, rule(table) -> bool)
  figure(table, path)                                 (optional)

`train` sees the config without its groups `sample` and `eval`, so that variants which differ in these alone
share one training; `measure` finds what it returned in `priors[slug]`, beside the priors' own.

A measurement is cached under the hash of its config, its seed and the source it ran: the
experiment and every genjax module that it imports, comments and docstrings aside. An interrupted
run goes on where it stopped, and a changed formula is measured again. What the cache holds is arrays and JSON:
reading it runs no code, and a file that cannot be read is told of and made anew.
"""

import ast
import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genjax.cli import runner_store

PACKAGE = Path(__file__).resolve().parents[1]


class ExperimentError(RuntimeError):
    """Code of an experiment raised something; the message says where and what, the cause is what it was."""


@contextlib.contextmanager
def failing(place, kind=Exception, path=None):
    """Turns what is raised inside into an ExperimentError of one line, "place: what".

    Args:
      place: what was being done.
      kind: of exceptions; ExperimentError to put `place` before one that is on its way.
      path: the experiment's file, whose line is named where the traceback passes through it.
    """
    try:
        yield
    except kind as error:
        if isinstance(error, ExperimentError):
            raise ExperimentError(f"{place}: {error}") from error.__cause__
        what = (str(error).strip().splitlines() or [""])[0]
        what = f"{type(error).__name__}: {what}" if what else type(error).__name__
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f" (line {lines[-1]} of {path.name})" if lines else ""
        raise ExperimentError(f"{place}: {what}{where}") from error


class Measurement(NamedTuple):
    """One variant with one seed."""

    metrics: dict  # name -> float
    seconds: float  # of measuring, training not included
    training: str | None  # hash of the training it used


class Training(NamedTuple):
    """What `train` returned."""

    hash: str
    seconds: float
    result: object  # pytree of numpy arrays


def default_cache():
    """The folder of cached measurements, in the cache that the whole toolkit uses."""
    from genjax.metrics.features import cache_dir

    return cache_dir() / "reproduce"


def load(experiment):
    """The imported module of an experiment.

    Raises:
      ExperimentError: the file cannot be run, or lacks one of `get_config`, `VARIANTS`, `CLAIMS`.
    """
    spec = importlib.util.spec_from_file_location(f"genjax_experiment_{experiment.slug}", experiment.path)
    module = importlib.util.module_from_spec(spec)
    with failing(experiment.slug, path=experiment.path):
        spec.loader.exec_module(module)
    for name in ("get_config", "VARIANTS", "CLAIMS"):
        if not hasattr(module, name):
            raise ExperimentError(f"{experiment.slug}: expected {name} in the experiment, found none")
    return module


def base_config(module, scale):
    """`get_config(scale)` with the fields `part` and `scale`."""
    config = module.get_config(scale)
    config.part, config.scale = config.get("part", ""), scale
    return config


def variant_config(module, variant, scale="small"):
    """The config of one variant: `get_config(scale)` with the variant's overrides.

    Two fields are set here, so that `get_config` may hold nothing but what `genjax train` takes: `part`,
    "" unless the variant names one, and `scale`, by which parts that train nothing choose their sizes. What a variant
    says of `train` makes a smoke run no longer: the lesser of its number and the config's stands.

    Raises:
      ValueError: an override of a key that the config does not have, with the nearest right one.
    """
    config = base_config(module, scale)
    for key, value in module.VARIANTS[variant].items():
        node = config
        *parents, last = key.split(".")
        for part in parents:
            node = node.get(part, {})
        if last not in node:
            near = difflib.get_close_matches(key, _flat_keys(config), 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"VARIANTS[{variant!r}]: the config has no key {key!r}{hint}")
        node[last] = min(node[last], value) if scale == "smoke" and parents == ["train"] else value
    return config


def _flat_keys(config, prefix=""):
    for key, value in config.items():
        yield prefix + key
        if hasattr(value, "items"):
            yield from _flat_keys(value, f"{prefix}{key}.")


def _hash(*parts):
    text = json.dumps(parts, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _imported(tree):
    """Files of the package that a syntax tree imports, at the top or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            folder = PACKAGE
            if first != PACKAGE.name:
                continue
            for part in rest:
                if (folder / part).is_dir():
                    folder = folder / part
                elif (folder / f"{part}.py").is_file():
                    yield folder / f"{part}.py"
                    break
                else:  # a name that the package itself hands out, perhaps lazily: all of it counts
                    yield from folder.glob("*.py")
                    break
            yield folder / "__init__.py"


def source_files(*paths):
    """file -> syntax tree (as text) of the given files and of all genjax modules they import, directly or not."""
    seen, todo = {}, [Path(path) for path in paths]
    while todo:
        file = todo.pop()
        if file in seen or not file.is_file():
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        todo.extend(_imported(tree))
        seen[file] = _without_docstrings(tree)
    return seen


def source_hash(*paths):
    """A hash of `source_files`, in which comments, docstrings and layout do not count."""
    files = source_files(*paths)
    return _hash([files[file] for file in sorted(files)])


def write_atomically(path, data):
    """Writes bytes so that a reader sees the old file or the new one, never a part.

    Raises:
      OSError: the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class Runner:
    """Trains and measures the experiments of one catalogue, each thing once.

    Args:
      experiments: slug -> Experiment, from `find_experiments`.
      cache: folder for measurements and trainings, None to keep nothing.
      scale: the scale handed to `get_config`.
      say: takes a line for each file of the cache that cannot be read.
    """

    def __init__(self, experiments, cache=None, scale="small", say=print):
        self.experiments, self.cache, self.scale, self.say = experiments, cache, scale, say
        self._modules, self._sources, self._trainings = {}, {}, {}

    def module(self, slug):
        if slug not in self._modules:
            self._modules[slug] = load(self.experiments[slug])
        return self._modules[slug]

    def roots(self, slug):
        """The files that the code of an experiment begins with."""
        default = () if hasattr(self.module(slug), "measure") else (Path(__file__).with_name("runner_default.py"),)
        return (self.experiments[slug].path, *default)

    def source(self, slug):
        """Hash of the code that the experiment runs, and of the versions below it."""
        if slug not in self._sources:
            import jax

            self._sources[slug] = _hash(source_hash(*self.roots(slug)), jax.__version__, jax.default_backend())
        return self._sources[slug]

    def _train_function(self, slug):
        module = self.module(slug)
        if hasattr(module, "train") or hasattr(module, "measure"):
            return getattr(module, "train", None)
        from genjax.cli import runner_default

        return runner_default.train

    def priors(self, slug, _chain=()):
        """slug -> Training of the priors of an experiment: their base config, seed 0.

        Raises:
          ValueError: an unknown prior, one that trains nothing, or a circle of priors.
          ExperimentError: the training of a prior failed.
        """
        if slug in _chain:
            raise ValueError(f"PRIORS: expected no circle, got {' -> '.join((*_chain, slug))}")
        trainings = {}
        for prior in self.experiments[slug].priors:
            if prior not in self.experiments:
                raise ValueError(f"{slug}: PRIORS: expected one of {sorted(self.experiments)}, got {prior!r}")
            if self._train_function(prior) is None:
                raise ValueError(f"{slug}: PRIORS: {prior!r} trains nothing that could be a prior")
            below = self.priors(prior, (*_chain, slug))
            with failing(f"{slug}: prior {prior!r}", ExperimentError):
                with failing("get_config", path=self.experiments[prior].path):
                    config = base_config(self.module(prior), self.scale)
                trainings[prior] = self.train(prior, config, 0, below)
        return trainings

    def train(self, slug, config, seed, priors):
        """The Training of one config and seed, from the cache where it is there; None where nothing trains.

        Raises:
          ExperimentError: the training failed.
        """
        function = self._train_function(slug)
        if function is None:
            return None
        import jax

        config = config.copy_and_resolve_references()
        for group in ("sample", "eval"):
            if group in config:
                del config[group]
        name = _hash(slug, config.to_dict(), seed, self.source(slug), sorted(p.hash for p in priors.values()))
        stored = self._stored_training(slug, name)
        if stored is not None:
            return stored
        start = time.perf_counter()
        with failing("train", path=self.experiments[slug].path):
            result = function(config.lock(), jax.random.key(seed), {k: p.result for k, p in priors.items()})
            result = runner_store.as_arrays(result)
        training = self._trainings[name] = Training(name, time.perf_counter() - start, result)
        if self.cache:
            kept = {"seconds": training.seconds, "result": result}
            write_atomically(self._training_path(slug, name), runner_store.dumps(kept))
        return training

    def _training_path(self, slug, name):
        return Path(self.cache) / "trainings" / slug / f"{name}.npz"

    def _stored_training(self, slug, name):
        if name not in self._trainings and self.cache:
            kept = self._stored(self._training_path(slug, name), _read_training)
            if kept is not None:
                self._trainings[name] = Training(name, *kept)
        return self._trainings.get(name)

    def _stored(self, path, read):
        """read(bytes of a file of the cache); None where there is none, or none that can be read."""
        if not path.is_file():
            return None
        try:
            return read(path.read_bytes())
        except (OSError, ValueError) as error:
            self.say(f"warning: {path.parent.name}: {path.name} in the cache is damaged, made anew: {error}")
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def training_seconds(self, slug, name):
        """Wall seconds that a training took, 0 where it is not kept any more."""
        training = self._stored_training(slug, name)
        return training.seconds if training else 0.0

    def measure(self, slug, variant, seed, priors):
        """One variant with one seed -> (Measurement, was it cached).

        Raises:
          ExperimentError: the variant's config, its training or its measurement failed, or a metric is not a
            scalar; the message names experiment, variant and seed.
        """
        with failing(f"{slug}: variant {variant!r}, seed {seed}", ExperimentError):
            return self._measure(slug, variant, seed, priors)

    def _measure(self, slug, variant, seed, priors):
        import jax

        experiment = self.experiments[slug].path
        with failing("config", path=experiment):
            config = variant_config(self.module(slug), variant, self.scale)
        prior_hashes = sorted(p.hash for p in priors.values())
        name = f"{variant}-{seed}-{_hash(slug, config.to_dict(), seed, self.source(slug), prior_hashes)}.json"
        path = self.cache and Path(self.cache) / "measurements" / slug / name
        stored = self._stored(path, _read_measurement) if path else None
        if stored is not None:
            return stored, True
        training = self.train(slug, config, seed, priors)
        given = {k: p.result for k, p in priors.items()}
        if training is not None:
            given[slug] = training.result
        function = getattr(self.module(slug), "measure", None)
        if function is None:
            from genjax.cli import runner_default

            function = runner_default.measure_of(slug)
        start = time.perf_counter()
        with failing("measure", path=experiment):
            found = function(config.lock(), jax.random.key(seed), given)
            metrics = {k: _scalar(k, v) for k, v in found.items()}
        seconds = time.perf_counter() - start
        measurement = Measurement(metrics, seconds, training and training.hash)
        if path:
            write_atomically(path, json.dumps(measurement._asdict()).encode())
        return measurement, False


def _read_training(data):
    kept = runner_store.loads(data)
    if not isinstance(kept, dict) or set(kept) != {"seconds", "result"}:
        raise ValueError("expected seconds and a result")
    return float(kept["seconds"]), kept["result"]


def _read_measurement(data):
    try:
        measurement = Measurement(**json.loads(data))
        for value in measurement.metrics.values():
            float(value)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"expected a measurement ({error})") from None
    return measurement


def _scalar(name, value):
    value = np.asarray(value)
    if value.size != 1 or not (np.issubdtype(value.dtype, np.number) or value.dtype == bool):
        raise TypeError(f"metric {name!r}: expected a scalar, got shape {value.shape} of {value.dtype}")
    return float(value.reshape(()))
