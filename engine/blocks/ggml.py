"""What ggml's block formats have in common: an array of equal records, worked on in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireside.engine.blocks import Bytes, Floats, nbytes
from fireside.engine.errors import UnsupportedError

Records = NDArray[np.void]
Integers = NDArray[Any]  # of some small kind
PIECE = 1 << 20  # weights worked on at once: temporary arrays stay within a few megabytes


class GgmlFormat:
    """A format whose block is one record; an entry says how records become weights and back."""

    name: str
    block_size: int
    ggml_type: int
    block_bytes: int
    record: np.dtype[Any]  # of one block

    def __init_subclass__(cls) -> None:
        cls.block_bytes = cls.record.itemsize

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
        records: Records = data[: nbytes(self, count)].view(self.record)
        out = np.empty((len(records), self.block_size), np.float32)
        step = max(1, PIECE // self.block_size)
        with np.errstate(all="ignore"):  # a damaged file may hold infinite scales
            for start in range(0, len(records), step):
                out[start : start + step] = self.unpack(records[start : start + step])
        return out.reshape(-1)

    def quantise(self, weights: Floats) -> Bytes:
        """See BlockFormat.quantise. UnsupportedError where the format is only read."""
        rows = np.ascontiguousarray(weights, np.float32).reshape(-1, self.block_size)
        records = np.zeros(len(rows), self.record)
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
