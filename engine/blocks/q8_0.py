"""Q8_0: 32 weights as signed bytes and one half-precision scale. (ggml, block_q8_0)

A block is 34 bytes: scale d (f16), then 32 int8 q; weight = d * q.
"""

from __future__ import annotations

from fireside.engine.arrays import np
from fireside.engine.blocks import Floats, register
from fireside.engine.blocks.ggml import GgmlFormat, Records, column, product, reciprocal


def round_half_away(x: Floats) -> Floats:
    """C's roundf: halves go away from zero (np.rint would send them to even)."""
    magnitude = np.abs(x)
    floored = np.floor(magnitude)
    rounded = floored + np.floor(2 * (magnitude - floored))
    result: Floats = np.sign(x) * rounded
    return result


class Q8_0(GgmlFormat):  # noqa: N801 (ggml's name)
    """The entry of the registry."""

    name = "Q8_0"
    block_size = 32
    ggml_type = 8
    record = (("d", "<f2"), ("q", "i1", (32,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * q."""
        return product(column(blocks, "d"), blocks["q"])

    def pack(self, rows: Floats) -> Records:
        """Scale = largest magnitude / 127, each weight rounded to the nearest multiple of it."""
        records = np.empty(len(rows), self.dtype)
        d = np.abs(rows).max(axis=1)[:, None] / np.float32(127)
        records["d"] = d[:, 0]
        records["q"] = round_half_away(rows * reciprocal(d)).astype(np.int8)
        return records


register(Q8_0())
