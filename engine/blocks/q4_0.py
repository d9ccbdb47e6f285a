"""Q4_0 and Q4_1: 32 weights as 4-bit numbers. (ggml, block_q4_0 and block_q4_1)

Byte i of the 16 holds weight i in its low half and weight i + 16 in its high half. Q4_0 has a scale
d (f16): weight = d * (q - 8). Q4_1 has a minimum m (f16) too: weight = d * q + m.
"""

from __future__ import annotations

from fireside.engine.arrays import np
from fireside.engine.blocks import Floats, register
from fireside.engine.blocks.ggml import (
    GgmlFormat,
    Records,
    column,
    into_nibbles,
    nibbles,
    product,
    reciprocal,
)


class Q4_0(GgmlFormat):  # noqa: N801 (ggml's name)
    """An entry of the registry."""

    name = "Q4_0"
    block_size = 32
    ggml_type = 2
    record = (("d", "<f2"), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * (q - 8)."""
        centred = nibbles(blocks["q"]).view(np.int8) - np.int8(8)
        return product(column(blocks, "d"), centred)

    def pack(self, rows: Floats) -> Records:
        """Scale = the weight of largest magnitude / -8, so that it becomes 0."""
        records = np.empty(len(rows), self.dtype)
        largest = np.abs(rows).argmax(axis=1)[:, None]
        d = np.take_along_axis(rows, largest, axis=1) / np.float32(-8)
        records["d"] = d[:, 0]
        # cut off behind the point: 8.5 rounds and centres
        q = (rows * reciprocal(d) + np.float32(8.5)).astype(np.uint8).clip(0, 15)
        records["q"] = into_nibbles(q)
        return records


class Q4_1(GgmlFormat):  # noqa: N801 (ggml's name)
    """An entry of the registry."""

    name = "Q4_1"
    block_size = 32
    ggml_type = 3
    record = (("d", "<f2"), ("m", "<f2"), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * q + m."""
        return product(column(blocks, "d"), nibbles(blocks["q"])) + column(blocks, "m")

    def pack(self, rows: Floats) -> Records:
        """From the smallest weight to the largest in 15 steps."""
        records = np.empty(len(rows), self.dtype)
        low = rows.min(axis=1)[:, None]
        d = (rows.max(axis=1)[:, None] - low) / np.float32(15)
        records["d"], records["m"] = d[:, 0], low[:, 0]
        q = ((rows - low) * reciprocal(d) + np.float32(0.5)).astype(np.uint8).clip(0, 15)
        records["q"] = into_nibbles(q)
        return records


register(Q4_0())
register(Q4_1())
