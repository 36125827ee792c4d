"""Config files by name, and overrides from the command line."""

import ast
import importlib.util
import inspect
from pathlib import Path

from genjax.cli import papers
from genjax.construct import nearest


def roots():
    """Folders that config names are looked up in: the one here, then the clone's or the installed one."""
    found = [Path.cwd() / "experiments", papers.experiments_root()]
    return [root for i, root in enumerate(found) if root.is_dir() and root not in found[:i]]


def known():
    """name ("diffusion/edm_digits") -> path of every config file."""
    files = {}
    for root in reversed(roots()):
        for path in root.glob("*/*.py"):
            if not path.name.startswith("_"):
                files[path.relative_to(root).with_suffix("").as_posix()] = path
    return files


def find(name):
    """The path of a config: a file, or a name such as "diffusion/edm_digits", or its last part.

    Raises:
      ValueError: no such config, or two of that last part.
    """
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise ValueError(f"--config: no such file: {name}")
        return path
    files = known()
    wanted = name.replace("-", "_")
    if wanted in files:
        return files[wanted]
    same = [full for full in files if full.split("/")[-1] == wanted]
    if len(same) > 1:
        raise ValueError(f"--config: {name!r} is the name of several: {', '.join(sorted(same))}")
    if same:
        return files[same[0]]
    hint = nearest(wanted, [*files, *(full.split("/")[-1] for full in files)]) if files else "; there are none here"
    raise ValueError(f"--config: unknown config {name!r}{hint}")


def load(name):
    """The ConfigDict of "NAME_OR_PATH" or "NAME_OR_PATH:SCALE".

    Raises:
      ValueError: unknown name, or a file that fails, or whose `get_config` is missing or returns no ConfigDict.
    """
    from ml_collections import ConfigDict

    name, _, scale = name.partition(":")
    path = find(name)
    spec = importlib.util.spec_from_file_location(f"genjax_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"--config: {path} cannot be run: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(f"--config: {path}: expected a function get_config, found none")
    if scale and not inspect.signature(module.get_config).parameters:
        raise ValueError(f"--config: {path}: get_config takes no scale, got {scale!r}")
    config = module.get_config(scale) if scale else module.get_config()
    if not isinstance(config, ConfigDict):
        got = type(config).__name__
        raise ValueError(f"--config: {path}: expected get_config to return an ml_collections.ConfigDict, got a {got}")
    return config


def parse_value(text):
    """A Python literal ("3", "1e-3", "(1, 2)", "{'name': 'mlp'}"), true/false/none in any case, or the text itself."""
    lower = {"true": True, "false": False, "none": None}
    if text.lower() in lower:
        return lower[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def coerce(field, value, old):
    """`value` as the type of `old`.

    A whole number may stand for a float, a single value or a list for a tuple; anything may replace None,
    and None a group or a tuple.

    Raises:
      ValueError: another type.
    """
    if old is None or (value is None and isinstance(old, (tuple, list, dict))):
        return value
    if isinstance(old, bool) or isinstance(value, bool):
        if isinstance(old, bool) and isinstance(value, bool):
            return value
    elif isinstance(old, float) and isinstance(value, int):
        return float(value)
    elif isinstance(old, (tuple, list)):
        if isinstance(value, (tuple, list)):
            return type(old)(value)
        if isinstance(value, str) and all(isinstance(v, str) for v in old):
            return type(old)(part.strip() for part in value.split(",") if part.strip())
        if not isinstance(value, dict):
            return type(old)([value])
    elif isinstance(value, type(old)):
        return value
    raise ValueError(f"{field}: expected {type(old).__name__} such as {old!r}, got {value!r}")


def apply(config, found):
    """Sets every (field, text) of `found`, names before the arguments that belong to them."""
    for field, text in sorted(found, key=lambda pair: not pair[0].endswith(".name")):
        override(config, field, text)


def override(config, field, text):
    """Sets `field` ("a.b.c") of a ConfigDict to what `text` says.

    A group takes keys that it does not hold yet: `build` says whether the object knows them. A whole
    group is given as a dict. Another `name` drops the arguments of the old one.

    Raises:
      ValueError: unknown field, with the nearest right one, or a value of another type.
    """
    from ml_collections import ConfigDict

    node, rest = config, field.split(".")
    for i, part in enumerate(rest):
        last = i == len(rest) - 1
        if not isinstance(node, ConfigDict):
            raise ValueError(f"--config.{field}: {'.'.join(rest[:i])} is not a group of settings")
        if part not in node and not (last and (i or part in _groups())):
            path, group = ".".join([*rest[:i], part]), ".".join(rest[:i])
            hint = f'; a new group is given whole: --config.{group}="{{...}}"' if i and not last else ""
            raise ValueError(f"--config.{field}: unknown key {path!r}{nearest(path, _fields(config))}{hint}")
        if not last:
            node = node[part]
    value, part = parse_value(text), rest[-1]
    old = node.get(part)
    if isinstance(old, ConfigDict):
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"--config.{field}: expected a group such as {old.to_dict()}, got {text!r}")
        old = None
    if isinstance(old, str) and isinstance(value, dict) and "name" in value:
        old = None  # a name may become a group with that name's arguments
    value = coerce(f"--config.{field}", value, old)
    with node.unlocked():
        if part == "name" and node is not config and value != old:
            for other in [key for key in node if key != "name"]:
                del node[other]  # the arguments of another constructor
        if part in node:
            del node[part]  # a ConfigDict refuses a value of another type in the place of an old one
        node[part] = value


def _groups():
    from genjax.build import GROUPS

    return GROUPS


def _fields(config, prefix=""):
    for key, value in config.items():
        yield f"{prefix}{key}"
        if hasattr(value, "items"):
            yield from _fields(value, f"{prefix}{key}.")


def overrides(arguments, prefix="config"):
    """Splits command-line words into [(field, text)] of "--config.field=text" (or two words) and the others."""
    found, others, words = [], [], iter(arguments)
    for word in words:
        if not word.startswith(f"--{prefix}."):
            others.append(word)
            continue
        field, equals, text = word.removeprefix(f"--{prefix}.").partition("=")
        if not equals:
            text = next(words, None)
            if text is None or text.startswith("--"):
                raise ValueError(f"{word}: expected a value, got none")
        if not field:
            raise ValueError(f"{word}: expected --{prefix}.KEY=VALUE")
        found.append((field, text))
    return found, others


def settings(arguments, groups):
    """Splits words into {group: {key: value}} of "--group.key=value" and the others; a value is a literal or text.

    Raises:
      ValueError: a key said twice, or without a value.
    """
    values = {}
    for name in groups:
        found, arguments = overrides(arguments, name)
        values[name] = {}
        for key, text in found:
            if key in values[name]:
                raise ValueError(f"--{name}.{key}: expected once, got {values[name][key]!r} and {parse_value(text)!r}")
            values[name][key] = parse_value(text)
    return values, arguments
