"""Block formats: how a run of weights is stored in bytes. One file an entry, one registry.

A block holds `block_size` consecutive weights of one row in `block_bytes` bytes. All arrays of
bytes are 1-d uint8; all weights are float32, row-major.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from fireside.engine.arrays import np
from fireside.engine.errors import UnsupportedError

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
    if name in _REGISTRY:
        return _REGISTRY[name]
    for make in _FAMILIES:
        if (block_format := make(name)) is not None:
            return block_format
    raise UnsupportedError(
        f"unknown tensor type {name!r}", f"this version reads {', '.join(sorted(_REGISTRY))}"
    )


def by_ggml_type(number: int) -> BlockFormat | None:
    """The block format with this GGUF type number, if there is one."""
    return next((f for f in _REGISTRY.values() if f.ggml_type == number), None)


def names() -> tuple[str, ...]:
    """Names of all block formats."""
    return tuple(sorted(_REGISTRY))


def nbytes(block_format: BlockFormat, count: int) -> int:
    """Bytes that `count` weights take; `count` must be whole blocks."""
    blocks, rest = divmod(count, block_format.block_size)
    if rest:
        raise UnsupportedError(
            f"{count} weights are not whole {block_format.name} blocks of {block_format.block_size}"
        )
    return blocks * block_format.block_bytes


from fireside.engine.blocks import (  # noqa: E402, F401  (fill the registry)
    floats,
    ggjt,
    k_quants,
    q4_0,
    q5_0,
    q8_0,
    q8_group,
    tables,
)
