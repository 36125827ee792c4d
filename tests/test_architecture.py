"""The order of the rooms, the size of files, and documented names, read from the sources by `ast`."""

import ast
import importlib
import inspect
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "genjax"
LEVELS = {
    "construct": 0,
    "core": 0,
    "worlds": 1,
    "processes": 1,
    "networks": 1,
    "oracles": 2,
    "solvers": 2,
    "metrics": 2,
    "losses": 3,
    "guidance": 3,
    "inverse": 3,
    "editing": 3,
    "data": 4,
    "forensics": 4,
    "interop": 4,
    "algorithms": 5,
    "train": 6,
    "build": 7,
    "cli": 8,
}
EQUALS = {("inverse", "guidance"), ("editing", "guidance")}  # equals that may be imported
HEAVY = {"absl", "tensorflow", "torch"}
EXECUTING = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}  # reading runs the file's code
MAX_LINES = 450

FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
ROOMS = sorted({path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES})


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree):
    """Dotted names that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            if node.module == "genjax":
                yield from (f"genjax.{alias.name}" for alias in node.names)


def imports_at_start(tree):
    """Dotted names imported when the module is, that is, outside functions."""
    nodes = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield from imports(ast.Module([node], [])) if isinstance(node, ast.Import | ast.ImportFrom) else ()
        nodes.extend(ast.iter_child_nodes(node))


def forbidden(room, name):
    """Whether a module of `room` may not import `name`."""
    parts = name.split(".")
    if parts[0] != "genjax" or len(parts) == 1 or parts[1] == room or parts[1] not in LEVELS:
        return False
    return LEVELS[parts[1]] >= LEVELS[room] and (room, parts[1]) not in EQUALS


def test_the_rule_itself():
    # the check must see both spellings and tell up from down
    tree = ast.parse("from genjax import solvers\nfrom genjax.core import fold\ndef f():\n    import genjax.train.loop")
    assert {"genjax.solvers", "genjax.core", "genjax.train.loop"} <= set(imports(tree))
    assert "genjax.train.loop" not in set(imports_at_start(tree))
    assert forbidden("core", "genjax.solvers") and forbidden("processes", "genjax.networks.mlp")
    assert not forbidden("solvers", "genjax.core.keys") and not forbidden("inverse", "genjax.guidance")
    assert not forbidden("solvers", "genjax.solvers.base") and not forbidden("solvers", "jax")


def test_every_room_has_a_level():
    assert set(ROOMS) <= set(LEVELS), f"rooms without a level: {sorted(set(ROOMS) - set(LEVELS))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file(path):
    source = path.read_text()
    tree = ast.parse(source)
    wrong = [name for name in imports(tree) if forbidden(room_of(path), name)]
    assert not wrong, f"{room_of(path)} may not import {wrong}"
    heavy = [name for name in imports_at_start(tree) if name.split(".")[0] in HEAVY]
    assert not heavy, f"imported at start: {heavy}"
    executing = [name for name in imports(tree) if name.split(".")[0] in EXECUTING]
    assert not executing, f"stored data is arrays and JSON, got {executing}"
    lines = source.count("\n")
    assert lines <= MAX_LINES, f"{lines} lines, at most {MAX_LINES}: split it by idea"
    assert not source.strip() or ast.get_docstring(tree), "no module docstring"


@pytest.mark.parametrize("room", [room for room in ROOMS if (ROOT / room).is_dir()])
def test_exported_names_are_documented(room):
    module = importlib.import_module(f"genjax.{room}")
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            own = value.__doc__ and not value.__doc__.startswith(f"{name}(")  # dataclasses write their signature
            assert own, f"genjax.{room}.{name} has no docstring"
