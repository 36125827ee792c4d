"""Data sets by name."""

import inspect
from functools import partial

from genjax.data.digits import digits, digits_vector, table
from genjax.data.folder import folder
from genjax.data.npz import npz
from genjax.data.shapes import shapes
from genjax.data.spec import choose
from genjax.data.stacked import stacked_digits
from genjax.data.tfds import tfds
from genjax.data.toys import MIXTURES, OTHERS, toy
from genjax.data.triangles import triangles
from genjax.worlds.shapes import Ranges

DATASETS = {
    # name: function of (split=..., **options) -> Dataset
    **{name: partial(toy, name) for name in (*MIXTURES, *OTHERS)},
    "digits": digits,
    "digits_vector": digits_vector,
    "stacked_digits": stacked_digits,
    **{name: partial(table, name) for name in ("iris", "wine", "breast_cancer")},
    "shapes": shapes,
    "triangles": triangles,
    "folder": folder,
    "npz": npz,
    "tfds": tfds,
}


def option_names(name):
    """Options that a set takes beside the split, and those among them that must be given."""
    choose("data", name, DATASETS)
    parameters = inspect.signature(DATASETS[name]).parameters.values()
    named = {p.name: p.default is p.empty for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "split"}
    if name in MIXTURES:
        named |= dict.fromkeys(inspect.signature(MIXTURES[name]).parameters, False)
    elif name in OTHERS:
        named |= dict.fromkeys(OTHERS[name][2], False)
    elif name == "shapes":
        named |= dict.fromkeys(Ranges._fields, False) | {"size_range": False}
    return tuple(named), tuple(option for option, needed in named.items() if needed)


def load(name, split="train", **options):
    """The data set `name`.

    Args:
      name: in `DATASETS`.
      split: "train" or "test", and what else a set's own function takes.
      **options: of that function: `path` for "folder" and "npz", `dataset` for "tfds".

    Returns:
      Dataset, checked.

    Raises:
      ValueError: an unknown name or option, with the nearest right one; a missing option; or data
        that do not pass the checks of the set.
    """
    known, needed = option_names(name)
    for option in options:
        choose(f"{name} option", option, known)
    for option in needed:
        if option not in options:
            raise ValueError(f"{name}: expected option {option!r}, got {sorted(options)}")
    return DATASETS[name](split=split, **options)
