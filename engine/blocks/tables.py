"""IQ4_NL, IQ4_XS and MXFP4: 4-bit numbers that are looked up in a table. Read only. (ggml)"""

from __future__ import annotations

from fireside.engine.arrays import np
from fireside.engine.blocks import Floats, register
from fireside.engine.blocks.ggml import GgmlFormat, Integers, Records, column, nibbles, product

# ggml's kvalues_iq4nl: steps that grow with the distance from zero
UNEVEN = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
# E2M1 of the Open Compute Project's microscaling formats, doubled
E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def looked_up(table: tuple[int, ...], q: Integers) -> Integers:
    """The numbers of a table at the places `q`."""
    return np.array(table, np.int8)[q]


class IQ4_NL(GgmlFormat):  # noqa: N801 (ggml's name)
    """32 weights, one scale: d * table[q]."""

    name = "IQ4_NL"
    block_size = 32
    ggml_type = 20
    record = (("d", "<f2"), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * table[q]."""
        return product(column(blocks, "d"), looked_up(UNEVEN, nibbles(blocks["q"])))


class IQ4_XS(GgmlFormat):  # noqa: N801 (ggml's name)
    """256 weights; 8 sub-blocks of 32 with scales of 6 bits, less 32."""

    name = "IQ4_XS"
    block_size = 256
    ggml_type = 23
    record = (("d", "<f2"), ("h", "<u2"), ("s", "u1", (4,)), ("q", "u1", (128,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * (scale - 32) * table[q]."""
        low = np.stack([blocks["s"] & 15, blocks["s"] >> 4], axis=2).reshape(-1, 8)
        high = blocks["h"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16) & 3
        scale = (low | high.astype(np.uint8) << 4).astype(np.int8) - np.int8(32)
        step = product(column(blocks, "d"), scale)[:, :, None]
        q = nibbles(blocks["q"].reshape(-1, 8, 16))
        return (step * looked_up(UNEVEN, q)).reshape(-1, 256)


class MXFP4(GgmlFormat):
    """32 weights as E2M1 floats under one power of two (OCP Microscaling Formats 1.0)."""

    name = "MXFP4"
    block_size = 32
    ggml_type = 39
    record = (("e", "u1"), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """2^(e - 128) * table[q]; the table holds doubled values."""
        step = np.ldexp(np.float32(1), blocks["e"].astype(np.int32) - 128)
        return product(step[:, None], looked_up(E2M1, nibbles(blocks["q"])))


for entry in (IQ4_NL(), IQ4_XS(), MXFP4()):
    register(entry)
