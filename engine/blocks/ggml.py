"""What ggml's block formats have in common: an array of equal records, worked on in pieces."""

from __future__ import annotations

import math

from fireside.engine.arrays import np
from fireside.engine.blocks import Bytes, Floats, nbytes
from fireside.engine.errors import UnsupportedError
from fireside.engine.hints import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

Records: TypeAlias = "NDArray[np.void]"
Integers: TypeAlias = "NDArray[Any]"  # of some small kind
PIECE = 1 << 20  # weights worked on at once: temporary arrays stay within a few megabytes


class GgmlFormat:
    """A format whose block is one record; an entry says how records become weights and back."""

    name: str
    block_size: int
    ggml_type: int
    block_bytes: int
    record: ClassVar[tuple[tuple[Any, ...], ...]]  # of one block, as NumPy's dtype takes it

    def __init_subclass__(cls) -> None:
        sizes = (
            int(kind[-1]) * math.prod(shape[0] if shape else ()) for _, kind, *shape in cls.record
        )
        cls.block_bytes = sum(sizes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's description of a record."""
        return np.dtype(list(self.record))

    def unpack(self, blocks: Records) -> Floats:
        """Weights [n, block_size] of n records."""
        raise NotImplementedError

    def pack(self, rows: Floats) -> Records:
        """Records [n] of weights [n, block_size]."""
        raise UnsupportedError(
            f"weights cannot be stored as {self.name}", "this version only reads that type"
        )

    def dequantise(self, data: Bytes, count: int) -> Floats:
        """See BlockFormat.dequantise."""
        records: Records = data[: nbytes(self, count)].view(self.dtype)
        out = np.empty((len(records), self.block_size), np.float32)
        step = max(1, PIECE // self.block_size)
        with np.errstate(all="ignore"):  # a damaged file may hold infinite scales
            for start in range(0, len(records), step):
                out[start : start + step] = self.unpack(records[start : start + step])
        return out.reshape(-1)

    def quantise(self, weights: Floats) -> Bytes:
        """See BlockFormat.quantise. UnsupportedError where the format is only read."""
        rows = np.ascontiguousarray(weights, np.float32).reshape(-1, self.block_size)
        records = np.zeros(len(rows), self.dtype)
        step = max(1, PIECE // self.block_size)
        with np.errstate(all="ignore"):  # weights may be zero, or not finite
            for start in range(0, len(rows), step):
                records[start : start + step] = self.pack(rows[start : start + step])
        return records.view(np.uint8)


def nibbles(q: Integers) -> Integers:
    """[..., n] bytes -> [..., 2n]: all low halves, then all high halves."""
    return np.concatenate([q & 15, q >> 4], axis=-1)


def into_nibbles(q: Integers) -> Integers:
    """The inverse of `nibbles`."""
    half = q.shape[-1] // 2
    packed: Integers = q[..., :half] | (q[..., half:] << 4)
    return packed


def reciprocal(d: Floats) -> Floats:
    """1 / d, and 0 for 0."""
    return np.where(d == 0, np.float32(0), np.float32(1) / d)


def product(d: Floats, integers: Integers) -> Floats:
    """Float times integer, in single precision."""
    result: Floats = np.multiply(d, integers, dtype=np.float32)
    return result


def column(records: Records, field: str) -> Floats:
    """A half-precision field of each record as float32 [n, 1]."""
    values: Floats = records[field].astype(np.float32)[:, None]
    return values
