"""Metadata of a GGUF file, read with types and ranges checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fireside.engine.checkpoints.gguf_header import Metadata, show
from fireside.engine.checkpoints.gguf_strings import StringArray
from fireside.engine.errors import CheckpointError
from fireside.engine.hints import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class Fields:
    """The metadata of one file, read with types and ranges checked."""

    def __init__(self, path: Path, metadata: Mapping[str, object]) -> None:
        self.path = path
        self.metadata = metadata

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        """A whole number from `low` to `high`; `default` None means it must be there."""
        value = self.metadata.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.path}: {key} is missing from the metadata")
        if type(value) is not int or not low <= value <= high:
            expected = f"a whole number from {low} to {high}" if low < high else str(low)
            raise CheckpointError(f"{self.path}: {key} is {show(value)}, expected {expected}")
        return value

    def number(self, key: str, default: float | None, low: float, high: float) -> float:
        """A finite number from `low` to `high`."""
        value = self.metadata.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.path}: {key} is missing from the metadata")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise CheckpointError(
                f"{self.path}: {key} is {show(value)}, expected a number from {low:g} to {high:g}"
            )
        return float(value)

    def string(self, key: str, default: str) -> str:
        """A text."""
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise CheckpointError(f"{self.path}: {key} is {show(value)}, expected a text")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.path}: {key} is {show(value)}, expected true or false")
        return value

    def strings(self, key: str) -> StringArray | None:
        """An array of texts, if it is there."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, StringArray):
            raise CheckpointError(
                f"{self.path}: {key} is {show(value)}, expected an array of texts"
            )
        return value

    def array(self, key: str, length: int, letters: str) -> memoryview | None:
        """An array of `length` numbers that is of one of struct's `letters`, if it is there."""
        value: object = None
        if isinstance(self.metadata, Metadata):
            value = self.metadata.numbers(key)
        if value is None and (value := self.metadata.get(key)) is None:
            return None
        if not isinstance(value, memoryview) or value.format not in letters:
            raise CheckpointError(
                f"{self.path}: {key} is {show(value)}, expected an array of numbers"
            )
        if len(value) != length:
            raise CheckpointError(f"{self.path}: {key} has {len(value)} entries, expected {length}")
        return value
