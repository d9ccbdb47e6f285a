"""From one type of a file into another in C: the same bytes as by way of floats in NumPy."""

from __future__ import annotations

import os
from functools import cache

from fireside.engine import blocks
from fireside.engine.arrays import np
from fireside.engine.blocks import BlockFormat
from fireside.engine.checkpoints.source import FileTensor
from fireside.engine.errors import UnsupportedError
from fireside.engine.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from fireside.engine.blocks import Bytes

# Types that C reads and writes, and those that it only reads
WRITTEN = frozenset(
    ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
)
READ = WRITTEN | {"Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4"}


@cache
def instruction_set() -> int | None:
    """The number of the fastest there is; None where there is no extension."""
    from fireside.engine.executors import native_library

    return native_library.choose_isa()[1] if native_library.load()[1] is not None else None


def known(stored: BlockFormat, block: BlockFormat) -> bool:
    """Whether C can make the second of the first."""
    return stored.name in READ and block.name in WRITTEN and instruction_set() is not None


def converted(
    stored: BlockFormat, block: BlockFormat, count: int, source: Bytes | FileTensor, start: int
) -> Bytes:
    """`count` weights, whole blocks of both types, as `block` has them.

    source: bytes, or a tensor that lies in a file; they begin `start` bytes on. CheckpointError
    where the file cannot be read.
    """
    from fireside.engine.executors.native_library import load

    ffi, lib, _ = load()
    size = blocks.nbytes(stored, count)
    out = np.empty(blocks.nbytes(block, count), np.uint8)
    where, file = ffi.NULL, -1
    if isinstance(source, FileTensor):
        file, start = source.source.descriptor, source.start + start
    else:
        where, start = ffi.from_buffer("uint8_t[]", source[start : start + size]), 0
    kinds = (getattr(lib, f"FS_FROM_{form.name}") for form in (stored, block))
    status = lib.fs_convert(
        *(instruction_set(), *kinds, count, where, file, start),
        ffi.from_buffer("uint8_t[]", out),
    )
    if status > 0 and isinstance(source, FileTensor):
        raise source.source.unreadable(OSError(status, os.strerror(status)))
    if status == lib.FS_PACK_SHORT and isinstance(source, FileTensor):
        raise source.source.changed()
    if status:
        raise UnsupportedError(f"cannot make {block.name} of {stored.name} ({status})")
    return out
