"""Trainings as bytes: trees of arrays in one .npz, their structure as JSON in it. To read one runs no foreign code.

A tree is made of dicts with names or whole numbers for keys, lists, tuples, None, NamedTuples of genjax and optax
(`core.types.State`, states of samplers, controllers and optimizers) and, as leaves, whatever NumPy takes for an array
of numbers, truth values or text. A NamedTuple is kept as its name and its fields, and comes back as the class that
genjax or optax has under that name now, if it still has these fields; no other class is ever looked up, and no array
of objects is read.
"""

import importlib
import io
import json

import numpy as np

STRUCTURE = "structure"  # the entry that holds the JSON; arrays are "0", "1", ...
PACKAGES = ("genjax", "optax")  # whose NamedTuples are kept
KINDS = "biufcUS"  # of dtypes that .npz files keep


def as_arrays(tree, place="result"):
    """`tree` with a NumPy array for every leaf.

    Args:
      place: what the tree is called in messages.

    Raises:
      TypeError: a part that cannot be kept, with its place.
    """
    if tree is None:
        return None
    kind = type(tree)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind is dict:
        for key in tree:
            if type(key) not in (str, int):
                raise TypeError(f"{place}: expected text or whole numbers for keys, got {key!r}")
        return {key: as_arrays(value, f"{place}[{key!r}]") for key, value in tree.items()}
    if kind in (list, tuple):
        return kind(as_arrays(value, f"{place}[{i}]") for i, value in enumerate(tree))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        if _record(kind.__module__, kind.__qualname__) is not kind:
            raise TypeError(
                f"{place}: expected a NamedTuple of genjax or optax, got {kind.__module__}.{kind.__qualname__}"
            )
        return kind(*(as_arrays(value, f"{place}.{name}") for name, value in zip(tree._fields, tree, strict=True)))
    try:
        leaf = np.asarray(tree)
    except Exception:  # what __array__ of a foreign object raises, such as that of a typed key
        leaf = np.empty((), object)
    if leaf.dtype.kind not in KINDS and not _extension(leaf.dtype):
        raise TypeError(f"{place}: expected arrays in dicts, lists, tuples, NamedTuples or None, got {name}")
    return leaf


def dumps(tree, place="result"):
    """The bytes of `as_arrays(tree)`.

    Raises:
      TypeError: a part that cannot be kept, with its place.
    """
    arrays = []

    def encode(node):
        if node is None:
            return None
        if isinstance(node, np.ndarray):
            extension = _extension(node.dtype)
            arrays.append(node.view(f"u{node.dtype.itemsize}") if extension else node)
            return {"array": len(arrays) - 1, "dtype": node.dtype.name} if extension else {"array": len(arrays) - 1}
        if isinstance(node, dict):
            return {"dict": [[key, encode(value)] for key, value in node.items()]}
        children = [encode(value) for value in node]
        if type(node) in (list, tuple):
            return {type(node).__name__: children}
        kind = type(node)
        return {"record": [kind.__module__, kind.__qualname__], "fields": dict(zip(kind._fields, children))}

    structure = json.dumps(encode(as_arrays(tree, place))).encode()
    file = io.BytesIO()
    entries = {str(i): array for i, array in enumerate(arrays)}
    np.savez(file, **{STRUCTURE: np.frombuffer(structure, np.uint8)}, **entries)
    return file.getvalue()


def loads(data):
    """The tree of `dumps`.

    Raises:
      ValueError: bytes that are not those of `dumps`, or damaged, or with a NamedTuple that is no longer there.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return _decode(json.loads(file[STRUCTURE].tobytes()), file)
    except Exception as error:  # zipfile, zlib and NumPy raise their own kinds on damaged bytes
        what = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"no tree of arrays can be read ({type(error).__name__}: {what})") from error


def _decode(node, file):
    if node is None:
        return None
    if "array" in node:
        array = file[str(node["array"])]
        return array.view(_extension_named(node["dtype"])) if "dtype" in node else array
    if "dict" in node:
        return {key: _decode(value, file) for key, value in node["dict"]}
    if "record" in node:
        kind, fields = _record(*node["record"]), node["fields"]
        if kind is None or set(kind._fields) != set(fields):
            raise ValueError(f"{'.'.join(node['record'])} is no NamedTuple with fields {sorted(fields)}")
        return kind(**{name: _decode(value, file) for name, value in fields.items()})
    (name, children), *_ = node.items()
    return {"list": list, "tuple": tuple}[name](_decode(value, file) for value in children)


def _record(module, name):
    """The NamedTuple class of genjax or optax with this name, None where there is none."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return kind if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields") else None


def _extension(dtype):
    """Whether `dtype` is one that JAX adds to NumPy's, such as bfloat16; files keep these as whole numbers."""
    return dtype.kind == "V" and dtype.itemsize in (1, 2) and not dtype.name.startswith("void")


def _extension_named(name):
    import jax  # whose import makes the names known to NumPy

    dtype = np.dtype(name)
    if dtype.kind != "V" or dtype == np.dtype(f"V{dtype.itemsize}"):
        raise ValueError(f"dtype: expected one of JAX {jax.__version__} beyond NumPy's, got {name!r}")
    return dtype
