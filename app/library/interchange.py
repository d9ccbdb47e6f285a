"""Reading the JSON form of a story, which may come from anywhere: every value is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn, TypeVar

from fireside.app.library.errors import LibraryError
from fireside.app.library.records import AUTHORS, MODES, Passage, Provenance, Story

FORMAT = "fireside-story"
VERSION = 1

_MOST_BYTES = 64 << 20
_MOST_PASSAGES = 200_000
_LONGEST_SETTINGS = 100_000  # characters of JSON
_LATEST = 253_402_300_800.0  # the year 10000
_PROVENANCE = tuple(field.name for field in fields(Provenance))


def parse(data: str | bytes) -> tuple[Story, list[Passage]]:
    """The story and its passages, parents first; their ids are those of the file."""
    document = _load(data)
    top = _Reader(document, "the document", ("format", "version", "story", "passages"))
    if document.get("format") != FORMAT:
        raise LibraryError(
            "This file is not a story exported by Fireside.",
            f'Its "format" would be "{FORMAT}".',
        )
    version = top.integer("version")
    if version > VERSION:
        raise LibraryError(
            f"This story was exported by a newer Fireside (format version {version}; "
            f"this program reads up to {VERSION}).",
            "Update Fireside.",
        )
    if version < 1:
        _fail("version", "1", version)
    passages = _passages(top.value("passages"))
    return _story(top.value("story"), {passage.id for passage in passages}), passages


def _load(data: str | bytes) -> dict[str, Any]:
    if len(data) > _MOST_BYTES:
        raise LibraryError(
            "This file is too large for a story.", f"The limit is {_MOST_BYTES >> 20} MB."
        )
    try:
        if isinstance(data, str):
            data = data.removeprefix("\ufeff")  # a byte order mark, which editors leave
        document = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # bad UTF-8 and endless digits are ValueErrors
        raise LibraryError(f"This file is not sound JSON ({error}).") from error
    if not isinstance(document, dict):
        _fail("the document", "an object", document)
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _story(value: object, ids: set[int]) -> Story:
    reader = _Reader(value, "story", ("title", "mode", "created", "updated", "head"))
    created = reader.time("created")
    head = reader.optional("head", reader.integer)
    if head is not None and head not in ids:
        _fail("story.head", "the id of one of the passages", head)
    return Story(
        id=0,
        title=reader.string("title"),
        mode=reader.choice("mode", MODES),
        head=head,
        created=created,
        updated=reader.optional("updated", reader.time) or created,
        deleted=None,
        opening="",
    )


def _passages(value: object) -> list[Passage]:
    if not isinstance(value, list):
        _fail("passages", "a list", value)
    if len(value) > _MOST_PASSAGES:
        _fail("passages", f"at most {_MOST_PASSAGES}", len(value))
    found: dict[int, Passage] = {}
    for index, item in enumerate(value):
        passage = _passage(item, f"passages[{index}]")
        if passage.id in found:
            _fail(f"passages[{index}].id", "an id of its own", passage.id)
        found[passage.id] = passage
    return _parents_first(found)


def _passage(value: object, place: str) -> Passage:
    reader = _Reader(value, place, ("id", "parent", "author", "text", "created", "provenance"))
    author = reader.choice("author", AUTHORS)
    provenance = reader.optional("provenance", reader.value)
    return Passage(
        id=reader.integer("id"),
        story_id=0,
        parent=reader.optional("parent", reader.integer),
        author=author,
        text=reader.string("text"),
        created=reader.time("created"),
        provenance=None if provenance is None else _provenance(provenance, f"{place}.provenance"),
    )


def _provenance(value: object, place: str) -> Provenance:
    reader = _Reader(value, place, _PROVENANCE)
    return Provenance(
        model=reader.optional("model", reader.string) or "",
        quant=reader.optional("quant", reader.string) or "",
        kernels=reader.optional("kernels", reader.string) or "",
        isa=reader.optional("isa", reader.string) or "",
        sampling=reader.optional("sampling", reader.settings) or {},
        seed=reader.optional("seed", reader.integer),
        finish_reason=reader.optional("finish_reason", reader.string),
        tokens=reader.optional("tokens", reader.count),
        tok_s=reader.optional("tok_s", reader.number),
    )


def _parents_first(found: Mapping[int, Passage]) -> list[Passage]:
    """The passages in an order in which each follows its parent, else as in the file."""
    ordered: dict[int, Passage] = {}
    for passage in found.values():
        line: dict[int, Passage] = {}  # the passage and its ancestors that have no place yet
        above = passage
        while above.id not in ordered:
            if above.id in line:
                _fail(f"the parent of passage {above.id}", "a passage before it", above.parent)
            line[above.id] = above
            if above.parent is None:
                break
            if above.parent not in found:
                _fail(f"the parent of passage {above.id}", "one of the passages", above.parent)
            above = found[above.parent]
        ordered.update(reversed(line.items()))
    return list(ordered.values())


_Value = TypeVar("_Value")


@dataclass(frozen=True)
class _Reader:
    """An object of the document; a value that is not as it should be is named with its place."""

    object: Any
    place: str
    known: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.object, dict):
            _fail(self.place, "an object", self.object)
        for key in self.object:
            if key not in self.known:
                _fail(self.place, f"only the keys {', '.join(self.known)}", key)

    def value(self, key: str) -> Any:
        """A value that must be there, of any kind."""
        if key not in self.object:
            _fail(self.place, f'a value for "{key}"', None)
        return self.object[key]

    def optional(self, key: str, read: Callable[[str], _Value]) -> _Value | None:
        """What `read` makes of the value; None for null or none."""
        return None if self.object.get(key) is None else read(key)

    def string(self, key: str) -> str:
        """A text."""
        value = self.value(key)
        return value if isinstance(value, str) else self._fail(key, "a text")

    def integer(self, key: str) -> int:
        """A whole number of any size that JSON can hold."""
        value = self.value(key)
        # A bool is an int to Python.
        return value if type(value) is int else self._fail(key, "a whole number")

    def count(self, key: str) -> int:
        """A whole number from 0 on that a database can hold."""
        value = self.integer(key)
        return value if 0 <= value < 1 << 63 else self._fail(key, "a count")

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.value(key)
        if type(value) in (int, float):
            try:
                if math.isfinite(float(value)):
                    return float(value)
            except OverflowError:
                pass
        return self._fail(key, "a number")

    def time(self, key: str) -> float:
        """A moment in Unix seconds, from 1970 until the year 10000."""
        value = self.number(key)
        return value if 0 <= value < _LATEST else self._fail(key, "a time in Unix seconds")

    def choice(self, key: str, among: tuple[_Value, ...]) -> _Value:
        """One of the given values."""
        value = self.value(key)
        for candidate in among:
            if value == candidate:
                return candidate
        return self._fail(key, f"one of {', '.join(map(str, among))}")

    def settings(self, key: str) -> dict[str, Any]:
        """An object of any JSON values, of a reasonable size."""
        value = self.value(key)
        if not isinstance(value, dict) or len(json.dumps(value)) > _LONGEST_SETTINGS:
            self._fail(key, f"an object of at most {_LONGEST_SETTINGS} characters")
        return value

    def _fail(self, key: str, expected: str) -> NoReturn:
        _fail(f"{self.place}.{key}", expected, self.object[key])


def _fail(place: str, expected: str, found: object) -> NoReturn:
    try:
        shown = repr(found)
    except (ValueError, RecursionError):  # thousands of digits, thousands of brackets
        shown = f"a {type(found).__name__}"
    shown = shown if len(shown) <= 60 else shown[:59] + "…"
    raise LibraryError(f"This story cannot be read: {place} should be {expected}, not {shown}.")
