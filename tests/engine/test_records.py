"""Records behave as frozen dataclasses do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from fireside.engine.records import FEW, changed, record


def fields() -> type[Any]:
    class Both:
        """A point, and what it is called."""

        x: int
        y: int = 2
        name: str = ""

        @property
        def both(self) -> int:
            """The sum."""
            return self.x + self.y

    return Both


RECORD, DATACLASS = record(fields()), dataclass(frozen=True)(fields())


@pytest.mark.parametrize("arguments", [(1,), (1, 3), (1, 3, "a")])
def test_a_record_is_as_a_dataclass(arguments: tuple[Any, ...]) -> None:
    ours, theirs = RECORD(*arguments), DATACLASS(*arguments)
    assert vars(ours) == vars(theirs)
    assert repr(ours) == repr(theirs)
    assert ours.both == theirs.both
    assert ours == RECORD(*arguments)
    assert hash(ours) == hash(RECORD(*arguments))
    assert ours != RECORD(0, *arguments[1:])
    assert ours != theirs
    assert RECORD(x=1, name="a", y=3) == RECORD(1, 3, "a")


def test_many_are_made_as_the_first_ones() -> None:
    kind = record(fields())
    for n in range(FEW + 2):  # the last ones by a compiled __init__
        assert vars(kind(n, name="a")) == {"x": n, "y": 2, "name": "a"}
        assert list(vars(kind(name="a", x=n))) == ["x", "y", "name"]
    for arguments, named, match in (
        ((1, 2, "", 4), {}, "takes from 2 to 4"),
        ((1,), {"x": 1}, "multiple values"),
    ):
        for wrong in (kind, record(fields())):
            with pytest.raises(TypeError, match=match):
                wrong(*arguments, **named)


@pytest.mark.parametrize("kind", [RECORD, DATACLASS])
def test_nothing_can_be_set_or_left_out(kind: type[Any]) -> None:
    one = kind(1)
    with pytest.raises(AttributeError):
        one.x = 2
    with pytest.raises(AttributeError):
        one.other = 2
    with pytest.raises(AttributeError):
        del one.x
    assert one.x == 1
    with pytest.raises(TypeError, match="missing"):
        kind()
    with pytest.raises(TypeError, match="unexpected"):
        kind(1, z=1)


@record
class Named:
    """With a default that is a table, and a check."""

    name: str
    table: Mapping[str, int] = {}

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("no name")


def test_the_functions_of_dataclasses_take_records() -> None:
    names = [f.name for f in dataclasses.fields(RECORD)]
    assert names == [f.name for f in dataclasses.fields(DATACLASS)]
    assert dataclasses.asdict(RECORD(1)) == dataclasses.asdict(DATACLASS(1))
    assert dataclasses.replace(RECORD(1), y=5) == RECORD(1, 5)
    assert dataclasses.asdict(Named("a")) == {"name": "a", "table": {}}
    assert dataclasses.is_dataclass(Named)


def test_a_copy_with_other_values_is_checked_again() -> None:
    assert changed(RECORD(1), y=5, name="b") == RECORD(1, 5, "b")
    assert changed(Named("a", {"x": 1}), name="b") == Named("b", {"x": 1})
    with pytest.raises(ValueError, match="no name"):
        changed(Named("a"), name="")
    with pytest.raises(TypeError, match="unexpected"):
        changed(RECORD(1), z=1)
