"""safetensors files: a length, a JSON header, then the tensors without gaps.

(huggingface/safetensors: the checks are those of the reference reader.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fireside.engine.checkpoints.json_files import parse_object
from fireside.engine.checkpoints.pickles import shown
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.errors import CheckpointError, UnsupportedError

# Name -> what opens that tensor; errors where it is of a type that is not read
Lazy = Mapping[str, Callable[[], Tensor]]

MAX_HEADER = 1 << 25  # the reference has 100 million; a tensor takes some hundred
MAX_DIMENSIONS = 64
SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
}  # fmt: skip
FLOATS = ("F32", "F16", "BF16")
AGAIN = "the file is cut short or damaged: download or copy it again"


def recognises(head: bytes) -> bool:
    """Whether a file begins with the length of a header and a JSON object."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER


def read(path: Path) -> Lazy:
    """The tensors of a file; CheckpointError unless the header describes all of it."""
    source = Source(path)
    size = int.from_bytes(source.read(0, min(8, source.size)).tobytes(), "little")
    if source.size < 8 or size > min(MAX_HEADER, source.size - 8):
        raise CheckpointError(f"{path}: a header of {size:,} bytes", AGAIN)
    header = parse_object(path, source.read(8, size).tobytes(), "the header")
    check_metadata(path, header.pop("__metadata__", {}))
    tensors: dict[str, Callable[[], Tensor]] = {}
    extents: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        dtype, shape, start, end = read_entry(path, name, entry)
        extents.append((start, end, name))
        tensors[name] = opener(source, name, dtype, shape, 8 + size + start)
    extents.sort()
    begin = (0, 0, "")
    for (_, end, before), (start, _, name) in itertools.pairwise([begin, *extents]):
        if start != end:
            what = "overlap" if start < end else "have a gap between them"
            raise CheckpointError(
                f"{path}: tensors {shown(before)} and {shown(name)} {what}", AGAIN
            )
    last = extents[-1][1] if extents else 0
    if 8 + size + last != source.size:
        raise CheckpointError(
            f"{path}: {source.size:,} bytes, expected {8 + size + last:,} by the header", AGAIN
        )
    return tensors


def check_metadata(path: Path, metadata: object) -> None:
    """Texts for texts, or nothing."""
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ of the header is not of texts", AGAIN)


def read_entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Dtype, shape, and where a tensor begins and ends behind the header."""
    match entry:
        case {"dtype": str() as dtype, "shape": list() as shape, "data_offsets": [start, end]} if (
            len(entry) == 3 and len(shape) <= MAX_DIMENSIONS
        ):
            numbers = [*shape, start, end]
        case _:
            numbers = [None]
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
        raise CheckpointError(f"{path}: tensor {shown(name)} is not described as it should be")
    if dtype not in SIZES:
        raise UnsupportedError(f"{path}: tensor {shown(name)} is of type {shown(dtype)!r}")
    if end - start != math.prod(shape) * SIZES[dtype]:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has {end - start:,} bytes, which is not its shape", AGAIN
        )
    return dtype, tuple(shape), start, end


def opener(
    source: Source, name: str, dtype: str, shape: tuple[int, ...], start: int
) -> Callable[[], Tensor]:
    """What makes the tensor, or says why it cannot be used."""

    def make() -> Tensor:
        if dtype not in FLOATS:
            raise UnsupportedError(
                f"{source.path}: tensor {shown(name)} is of type {dtype}",
                f"this version reads {', '.join(FLOATS)}",
            )
        return FileTensor(name, shape, dtype, source, start)

    return make
