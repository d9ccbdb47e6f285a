"""Block formats: how a run of weights is stored in bytes. One file an entry, one registry.

A block holds `block_size` consecutive weights of one row in `block_bytes` bytes. All arrays of
bytes are 1-d uint8; all weights are float32, row-major.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from fireside.engine.arrays import np
from fireside.engine.errors import UnsupportedError
from fireside.engine.hints import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bytes: TypeAlias = "NDArray[np.uint8]"
Floats: TypeAlias = "NDArray[np.float32]"


class BlockFormat(Protocol):
    """What an entry of the registry provides."""

    name: str  # ggml's name: "F32", "F16", "Q8_0", "Q4_0"
    block_size: int  # weights in a block
    block_bytes: int  # bytes of a block
    ggml_type: int  # number in a GGUF file; -1 where ggml has none

    def dequantise(self, data: Bytes, count: int) -> Floats:
        """The `count` weights stored in `data`, as a new float32 array [count]."""
        ...

    def quantise(self, weights: Floats) -> Bytes:
        """The bytes of `weights` (their number is a multiple of block_size)."""
        ...


# Every file of this package that holds formats -> their numbers in GGUF files. A file is imported
# when one of its formats is asked for.
_FILES = {
    "floats": {"F32": 0, "F16": 1, "BF16": 30},
    "q4_0": {"Q4_0": 2, "Q4_1": 3},
    "q5_0": {"Q5_0": 6, "Q5_1": 7},
    "q8_0": {"Q8_0": 8},
    "k_quants": {"Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14},
    "tables": {"IQ4_NL": 20, "IQ4_XS": 23, "MXFP4": 39},
}
_FILE_OF = {name: file for file, entries in _FILES.items() for name in entries}
_NAME_OF = {number: name for entries in _FILES.values() for name, number in entries.items()}
_FAMILY_FILES = ("ggjt", "q8_group")  # of formats that are made when their name is asked for

_REGISTRY: dict[str, BlockFormat] = {}
_FAMILIES: list[Callable[[str], BlockFormat | None]] = []


def register(block_format: BlockFormat) -> None:
    """Add an entry; a second one of the same name is a programming error."""
    if block_format.name in _REGISTRY:
        raise RuntimeError(f"block format {block_format.name!r} is registered twice")
    _REGISTRY[block_format.name] = block_format


def register_family(make: Callable[[str], BlockFormat | None]) -> None:
    """Add formats that differ in a number and are made when their name is asked for."""
    _FAMILIES.append(make)


def get(name: str) -> BlockFormat:
    """The block format called `name`; UnsupportedError lists the known ones."""
    if name not in _REGISTRY and name in _FILE_OF:
        importlib.import_module(f"{__name__}.{_FILE_OF[name]}")
    if name in _REGISTRY:
        return _REGISTRY[name]
    for file in _FAMILY_FILES:
        importlib.import_module(f"{__name__}.{file}")
    for make in _FAMILIES:
        if (block_format := make(name)) is not None:
            return block_format
    raise UnsupportedError(
        f"unknown tensor type {name!r}", f"this version reads {', '.join(names())}"
    )


def by_ggml_type(number: int) -> BlockFormat | None:
    """The block format with this GGUF type number, if there is one."""
    name = _NAME_OF.get(number)
    return None if name is None else get(name)


def names() -> tuple[str, ...]:
    """Names of all block formats."""
    return tuple(sorted(_FILE_OF))


def nbytes(block_format: BlockFormat, count: int) -> int:
    """Bytes that `count` weights take; `count` must be whole blocks."""
    blocks, rest = divmod(count, block_format.block_size)
    if rest:
        raise UnsupportedError(
            f"{count} weights are not whole {block_format.name} blocks of {block_format.block_size}"
        )
    return blocks * block_format.block_bytes
