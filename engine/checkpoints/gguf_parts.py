"""GGUF models in several files: NAME-00001-of-0000N.gguf and so on, as llama.cpp's gguf-split cuts.

The first part has all metadata, and none of the tensors or some; every part says its number
(`split.no`, from 0), how many there are (`split.count`) and how many tensors all of them hold.
"""

from __future__ import annotations

import re
from pathlib import Path

from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.gguf_header import Header, read_header
from fireside.engine.checkpoints.source import Source
from fireside.engine.errors import CheckpointError

MAX_PARTS = 99_999  # five digits
NAME = r"(?s)(.*)-(\d{5})-of-(\d{5})\.gguf"

Part = tuple[Source, Header]


def open_parts(path: Path) -> list[Part]:
    """All parts of the model whose first file is `path`; of most models it is the only one.

    CheckpointError names parts that are missing or belong to another model.
    """
    first = open_part(path)
    fields = Fields(path, first[1].metadata)
    count = fields.integer("split.count", 0, 0, MAX_PARTS)
    if count <= 1:
        return [first]
    number = fields.integer("split.no", None, 0, count - 1)
    match = re.fullmatch(NAME, path.name)
    if match is None or (int(match[2]), int(match[3])) != (number + 1, count):
        raise CheckpointError(
            f"{path}: part {number + 1} of {count} of a model, but not called so",
            f"its name should end in {part_name('', number, count)}",
        )
    names = [part_name(match[1], i, count) for i in range(count)]
    if number:
        raise CheckpointError(f"{path}: part {number + 1} of {count}", f"open {names[0]}")
    paths = [path.with_name(name) for name in names]
    missing = [part.name for part in paths if not part.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise CheckpointError(
            f"{path}: of {count} parts, {missing[0]}{more} is missing", "put them in one folder"
        )
    parts = [first, *(open_part(part) for part in paths[1:])]
    for i, (part, (_, header)) in enumerate(zip(paths, parts, strict=True)):
        theirs = Fields(part, header.metadata)
        theirs.integer("split.no", None, i, i)
        theirs.integer("split.count", None, count, count)
    total = sum(len(header.tensors) for _, header in parts)
    expected = fields.integer("split.tensors.count", total, 0, 1 << 31)
    if total != expected:
        raise CheckpointError(
            f"{path}: its {count} parts hold {total} tensors, expected {expected}",
            "they are of different models, or damaged",
        )
    return parts


def part_name(prefix: str, number: int, count: int) -> str:
    """What part `number`, from 0, is called."""
    return f"{prefix}-{number + 1:05}-of-{count:05}.gguf"


def open_part(path: Path) -> Part:
    """One file and its header."""
    source = Source(path)
    return source, read_header(source)
