"""Checked construction: keys by signature, types by default, the nearest name in every error."""

from typing import NamedTuple

import pytest

from genjax.construct import as_type_of, check_arguments, construct, nearest


class Thing(NamedTuple):
    given: object
    width: int = 3
    rate: float = 0.5
    on: bool = False
    kind: str = "a"
    sizes: tuple = (1, 2)
    free: object = None


def needs(given, count):
    if count < 0:
        raise ValueError(f"count: expected at least 0, got {count}")
    return given, count


TABLE = {"thing": Thing, "needs": needs}


def test_builds_by_name_with_values_in_the_type_of_the_defaults():
    made = construct(TABLE, {"name": "thing", "rate": 1, "sizes": [4], "free": "x"}, "part", 7)
    assert made == Thing(7, 3, 1.0, False, "a", (4,), "x") and type(made.rate) is float
    assert construct(TABLE, "thing", "part", 7) == Thing(7)
    assert construct(TABLE, {"name": "needs", "count": 2}, "part", 7) == (7, 2)


def test_fixed_and_default_arguments():
    assert construct(TABLE, "thing", "part", 7, defaults={"width": 9, "other": 1}).width == 9
    assert construct(TABLE, {"name": "thing", "width": 4}, "part", 7, defaults={"width": 9}).width == 4
    assert construct(TABLE, "thing", "part", 7, fixed={"width": 9}).width == 9
    with pytest.raises(ValueError, match=r"part\.width: unknown key"):
        construct(TABLE, {"name": "thing", "width": 4}, "part", 7, fixed={"width": 9})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("thin", r"part\.name: unknown name 'thin'; did you mean 'thing'\?"),
        ("zzz", r"unknown name 'zzz'; expected one of: needs, thing"),
        ({"width": 3}, r"part\.name: expected one of: needs, thing, got none"),
        ({"name": 3}, r"part\.name: expected a name, got 3"),
        (3, "part: expected a name or a group with a name, got 3"),
        ({"name": "thing", "widht": 3}, r"part\.widht: unknown key; did you mean 'width'\?"),
        ({"name": "thing", "given": 3}, r"part\.given: unknown key"),
        ({"name": "thing", "width": 1.5}, r"part\.width: expected a whole number such as 3, got 1\.5"),
        ({"name": "thing", "width": True}, r"part\.width: expected a whole number such as 3, got True"),
        ({"name": "thing", "rate": "fast"}, r"part\.rate: expected a number such as 0\.5, got 'fast'"),
        ({"name": "thing", "on": 1}, r"part\.on: expected true or false such as False, got 1"),
        ({"name": "thing", "kind": 1}, r"part\.kind: expected a name such as 'a', got 1"),
        ({"name": "thing", "sizes": 1}, r"part\.sizes: expected a list such as \(1, 2\), got 1"),
        ({"name": "needs"}, r"part\.count: expected a value, got none"),
        ({"name": "needs", "count": -1}, r"part: count: expected at least 0, got -1"),
    ],
)
def test_what_is_wrong_is_named(node, message):
    with pytest.raises(ValueError, match=message):
        construct(TABLE, node, "part", 7)


def test_arguments_shared_by_two_functions():
    values = check_arguments({"width": 1, "count": 2}, [Thing, needs], "part", given=1)
    assert values == {"width": 1, "count": 2}
    assert as_type_of(None, [1], "f") == [1]
    assert nearest("a", []) == "; none is expected here"
    assert nearest("dsp", ["dps", "gdp", "mcg"]) == "; did you mean 'gdp' or 'dps'?"
