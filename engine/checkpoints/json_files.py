"""JSON files that nobody vouches for."""

from __future__ import annotations

import json
from pathlib import Path

from fireside.engine.checkpoints import read_file
from fireside.engine.errors import CheckpointError

MAX_FILE = 1 << 24
MAX_VALUES = 400_000  # an index of the largest models has a hundred thousand


def values_in(data: bytes) -> int:
    """As many values as there may be in a JSON text, counted before anything is made of them."""
    return 1 + sum(data.count(mark) for mark in b"[{,")


def parse_object(path: Path, data: bytes, what: str = "") -> dict[str, object]:
    """The object that `data` is in JSON; CheckpointError where it is none or has a key twice."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key is there twice")
        return result

    where = f"{path}: {what}" if what else f"{path}"
    if (count := values_in(data)) > MAX_VALUES:
        raise CheckpointError(f"{where}: some {count:,} values, expected at most {MAX_VALUES:,}")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise CheckpointError(
            f"{where}: not sound JSON: {reason}", "download or copy it again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: a JSON object is expected")
    return value


def read_object(path: Path, limit: int = MAX_FILE) -> dict[str, object]:
    """The object in a JSON file of at most `limit` bytes."""
    return parse_object(path, read_file(path, limit))
