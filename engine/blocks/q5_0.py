"""Q5_0 and Q5_1: 32 weights as 5-bit numbers. (ggml, block_q5_0 and block_q5_1)

The low four bits lie as in Q4_0; bit i of the 32-bit word h is the fifth of weight i. Q5_0:
weight = d * (q - 16); Q5_1: weight = d * q + m.
"""

from __future__ import annotations

from fireside.engine.arrays import np
from fireside.engine.blocks import Floats, register
from fireside.engine.blocks.ggml import (
    GgmlFormat,
    Integers,
    Records,
    column,
    into_nibbles,
    nibbles,
    product,
    reciprocal,
)


def numbers(blocks: Records) -> Integers:
    """[n, 32] numbers from 0 to 31."""
    fifth = np.unpackbits(blocks["h"], axis=1, bitorder="little")
    q: Integers = nibbles(blocks["q"]) | (fifth << 4)
    return q


def store(records: Records, q: Integers) -> None:
    """The inverse of `numbers`."""
    records["h"] = np.packbits(q >> 4, axis=1, bitorder="little")
    records["q"] = into_nibbles(q & 15)


class Q5_0(GgmlFormat):  # noqa: N801 (ggml's name)
    """An entry of the registry."""

    name = "Q5_0"
    block_size = 32
    ggml_type = 6
    record = (("d", "<f2"), ("h", "u1", (4,)), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * (q - 16)."""
        centred = numbers(blocks).view(np.int8) - np.int8(16)
        return product(column(blocks, "d"), centred)

    def pack(self, rows: Floats) -> Records:
        """Scale = the weight of largest magnitude / -16, so that it becomes 0."""
        records = np.empty(len(rows), self.dtype)
        largest = np.abs(rows).argmax(axis=1)[:, None]
        d = np.take_along_axis(rows, largest, axis=1) / np.float32(-16)
        records["d"] = d[:, 0]
        store(records, (rows * reciprocal(d) + np.float32(16.5)).astype(np.uint8).clip(0, 31))
        return records


class Q5_1(GgmlFormat):  # noqa: N801 (ggml's name)
    """An entry of the registry."""

    name = "Q5_1"
    block_size = 32
    ggml_type = 7
    record = (("d", "<f2"), ("m", "<f2"), ("h", "u1", (4,)), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * q + m."""
        return product(column(blocks, "d"), numbers(blocks)) + column(blocks, "m")

    def pack(self, rows: Floats) -> Records:
        """From the smallest weight to the largest in 31 steps."""
        records = np.empty(len(rows), self.dtype)
        low = rows.min(axis=1)[:, None]
        d = (rows.max(axis=1)[:, None] - low) / np.float32(31)
        records["d"], records["m"] = d[:, 0], low[:, 0]
        store(
            records, ((rows - low) * reciprocal(d) + np.float32(0.5)).astype(np.uint8).clip(0, 31)
        )
        return records


register(Q5_0())
register(Q5_1())
