"""Reading the JSON form of a story, which may come from anywhere: every value is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

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


def _parents_first(found: dict[int, Passage]) -> list[Passage]:
    """The passages in an order in which each follows its parent, siblings as in the file."""
    ordered: list[Passage] = []
    placed: set[int] = set()
    for passage in found.values():
        line: list[Passage] = []  # the passage and its ancestors that have no place yet
        above: Passage | None = passage
        while above is not None and above.id not in placed:
            line.append(above)
            placed.add(above.id)
            if above.parent is None:
                break
            if above.parent not in found:
                _fail(f"the parent of passage {above.id}", "one of the passages", above.parent)
            above = found[above.parent]
            if any(above is below for below in line[-1:]) or (above in line and True):
                _fail(f"the parent of passage {line[-1].id}", "no loop", above.id)
        ordered += reversed(line)
    return ordered


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
