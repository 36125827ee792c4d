"""Names and numbers to objects, checked: what a config may say is what the constructor takes.

A group such as {"name": "heun", "churn": 40.0} calls the constructor of that name. Nothing describes the
constructors a second time: keys are checked against the signature and types against the defaults, and
every error names the field and the nearest right name.
"""

import difflib
import inspect
from numbers import Integral, Real

VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def nearest(name, names, *, count=8):
    """What to say after an unknown name: the nearest right one, or the right ones."""
    names = sorted({str(n) for n in names})
    near = difflib.get_close_matches(str(name), names)
    if near:
        alike = lambda other: difflib.SequenceMatcher(None, other, str(name)).ratio()
        return f"; did you mean {' or '.join(repr(n) for n in near if alike(n) == alike(near[0]))}?"
    listed = ", ".join(names[:count]) + (", ..." if len(names) > count else "")
    return f"; expected one of: {listed}" if names else "; none is expected here"


def lookup(table, name, field):
    """table[name].

    Raises:
      ValueError: unknown name, with the nearest right one.
    """
    if not isinstance(name, str):
        raise ValueError(f"{field}: expected a name, got {name!r}")
    if name not in table:
        raise ValueError(f"{field}: unknown name {name!r}{nearest(name, table)}")
    return table[name]


def parameters(function, given=0, hidden=()):
    """Name -> inspect.Parameter that a config may set: all but the first `given` and the `hidden` ones."""
    found = list(inspect.signature(function).parameters.values())[given:]
    return {p.name: p for p in found if p.kind not in VARIABLE and p.name not in hidden}


def settings(node, field, *without):
    """A group as a dict less the keys `without`; {} where it is absent."""
    return {} if node is None else {k: v for k, v in group(node, field).items() if k not in without}


def as_type_of(default, value, field):
    """`value` in the type of `default`: a whole number may be a float, a list a tuple.

    Where the default is None, missing or of a type that configs do not have, any value passes.

    Raises:
      ValueError: another type.
    """
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a name", tuple: "a list"}
    kind = next((k for k in kinds if isinstance(default, k)), None)
    fits = {
        None: lambda v: True,
        bool: lambda v: isinstance(v, bool),
        int: lambda v: isinstance(v, Integral) and not isinstance(v, bool),
        float: lambda v: isinstance(v, Real) and not isinstance(v, bool),
        str: lambda v: isinstance(v, str),
        tuple: lambda v: isinstance(v, (list, tuple)),
    }
    if not fits[kind](value):
        raise ValueError(f"{field}: expected {kinds[kind]} such as {default!r}, got {value!r}")
    if kind in (float, tuple):
        return kind(value)
    return value


def check_arguments(values, functions, field, given=0, hidden=()):
    """`values` checked against the signatures of one function, or of several that share them.

    Args:
      values: dict from a config, without "name".
      functions: what will be called with them.
      field: name of the group in the config.
      given: number of leading parameters that are not the config's.
      hidden: further such parameters.

    Returns:
      The values in the types of the defaults.

    Raises:
      ValueError: an unknown key, a wrong type, or a key that is needed and missing.
    """
    known = {}
    for function in functions:
        known.update(parameters(function, given, hidden))
    for key in values:
        if key not in known:
            raise ValueError(f"{field}.{key}: unknown key{nearest(key, known)}")
    for p in known.values():
        if p.default is p.empty and p.name not in values:
            raise ValueError(f"{field}.{p.name}: expected a value, got none")
    return {key: as_type_of(known[key].default, value, f"{field}.{key}") for key, value in values.items()}


def group(node, field):
    """A config's group as a dict: a name alone means {"name": ...}.

    Raises:
      ValueError: neither a name nor a group.
    """
    if isinstance(node, str):
        return {"name": node}
    if not hasattr(node, "items"):
        raise ValueError(f"{field}: expected a name or a group with a name, got {node!r}")
    return dict(node.items())


def construct(table, node, field, *given, fixed=None, defaults=None, hidden=()):
    """The object that a group of a config describes: table[name](*given, **fixed, **the group's rest).

    Args:
      table: a room's dictionary from name to constructor.
      node: a name, or a mapping with "name".
      field: name of the group in the config, for messages.
      given: leading arguments of the constructor that are not the config's.
      fixed: keyword arguments that are not the config's, handed on where the constructor takes them.
      defaults: keyword arguments handed on where the constructor takes them, unless the config sets them.
      hidden: further parameters that a config may not set.

    Raises:
      ValueError: unknown name or key, wrong type, or a value missing.
    """
    values = group(node, field)
    if "name" not in values:
        raise ValueError(f"{field}.name: expected one of: {', '.join(sorted(table))}, got none")
    function = lookup(table, values.pop("name"), f"{field}.name")
    known = parameters(function, len(given))
    fixed, defaults = ({k: v for k, v in (d or {}).items() if k in known} for d in (fixed, defaults))
    values = check_arguments({**defaults, **values}, [function], field, len(given), (*hidden, *fixed))
    try:
        return function(*given, **fixed, **values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{field}: {error}") from error
