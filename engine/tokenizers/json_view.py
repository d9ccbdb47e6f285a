"""A JSON object of a file that nobody vouches for, read with types checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireside.engine.errors import CheckpointError
from fireside.engine.tokenizers.base import SURROGATES

MAX_STEPS = 1 << 16  # objects in a list


@dataclass(frozen=True)
class View:
    """`value`, found at `where` ("model.", "" for the whole file) of the file at `path`."""

    path: Path
    where: str
    value: dict[str, Any]

    def wrong(self, key: str, expected: str) -> CheckpointError:
        """The error for a value of the wrong type."""
        shown = repr(self.value.get(key))
        shown = shown if len(shown) <= 60 else shown[:60] + "…"
        return CheckpointError(f"{self.path}: {self.where}{key} is {shown}, expected {expected}")

    def text(self, key: str, default: str | None = None) -> str:
        """A text of whole characters; `default` where it is absent or null."""
        value = self.value.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or re.search(SURROGATES, value):
            raise self.wrong(key, "a text")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """True or false; `default` where it is absent or null."""
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.value.get(key)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """An object, as it is."""
        value = self.value.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return value

    def items(self, key: str) -> list[Any]:
        """A list, as it is; empty where it is absent or null."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        return value

    def view(self, key: str) -> View:
        """An object."""
        return View(self.path, f"{self.where}{key}.", self.mapping(key))

    def views(self, key: str) -> list[View]:
        """A list of objects."""
        found = self.items(key)
        if len(found) > MAX_STEPS:
            raise CheckpointError(f"{self.path}: {self.where}{key} has {len(found):,} entries")
        views = []
        for i, value in enumerate(found):
            if not isinstance(value, dict):
                raise self.wrong(key, "a list of objects")
            views.append(View(self.path, f"{self.where}{key}[{i}].", value))
        return views
