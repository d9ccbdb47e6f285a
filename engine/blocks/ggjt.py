"""The blocks of ggml's files of before GGUF that later ones changed: GGJT versions 1 and 2.

Up to version 2 (`_V1`, `_V2`) scales are f32 where they are f16 today, but in Q5; up to version 1
byte i of the 16 holds weights 2i and 2i + 1, not i and i + 16. Only read. (llama.cpp, pull requests
1405 and 1508)
"""

from __future__ import annotations

from fireside.engine.arrays import np
from fireside.engine.blocks import Floats, register_family
from fireside.engine.blocks.ggml import GgmlFormat, Integers, Records, column, nibbles, product


def pairs(q: Integers) -> Integers:
    """[..., n] bytes -> [..., 2n]: the low and the high half of each byte."""
    return np.stack([q & 15, q >> 4], axis=-1).reshape(*q.shape[:-1], -1)


def fifth(blocks: Records) -> Integers:
    """[n, 32] fifth bits, in their place."""
    return np.unpackbits(blocks["h"], axis=1, bitorder="little") << 4


class Wide4(GgmlFormat):
    """An entry of the registry."""

    name = "Q4_0_V2"
    block_size = 32
    ggml_type = -1
    record = (("d", "<f4"), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * (q - 8)."""
        return product(column(blocks, "d"), nibbles(blocks["q"]).view(np.int8) - np.int8(8))


class Paired4(Wide4):
    """An entry of the registry."""

    name = "Q4_0_V1"

    def unpack(self, blocks: Records) -> Floats:
        """d * (q - 8)."""
        return product(column(blocks, "d"), pairs(blocks["q"]).view(np.int8) - np.int8(8))


class Wide4WithLow(GgmlFormat):
    """An entry of the registry."""

    name = "Q4_1_V2"
    block_size = 32
    ggml_type = -1
    record = (("d", "<f4"), ("m", "<f4"), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * q + m."""
        return product(column(blocks, "d"), nibbles(blocks["q"])) + column(blocks, "m")


class Paired4WithLow(Wide4WithLow):
    """An entry of the registry."""

    name = "Q4_1_V1"

    def unpack(self, blocks: Records) -> Floats:
        """d * q + m."""
        return product(column(blocks, "d"), pairs(blocks["q"])) + column(blocks, "m")


class Paired5(GgmlFormat):
    """An entry of the registry."""

    name = "Q5_0_V1"
    block_size = 32
    ggml_type = -1
    record = (("d", "<f2"), ("h", "u1", (4,)), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * (q - 16)."""
        q = pairs(blocks["q"]) | fifth(blocks)
        return product(column(blocks, "d"), q.view(np.int8) - np.int8(16))


class Paired5WithLow(GgmlFormat):
    """An entry of the registry."""

    name = "Q5_1_V1"
    block_size = 32
    ggml_type = -1
    record = (("d", "<f2"), ("m", "<f2"), ("h", "u1", (4,)), ("q", "u1", (16,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * q + m."""
        q = pairs(blocks["q"]) | fifth(blocks)
        return product(column(blocks, "d"), q) + column(blocks, "m")


class Wide8(GgmlFormat):
    """An entry of the registry."""

    name = "Q8_0_V2"  # version 1's too
    block_size = 32
    ggml_type = -1
    record = (("d", "<f4"), ("q", "i1", (32,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * q."""
        return product(column(blocks, "d"), blocks["q"])


FORMATS = {
    f.name: f()
    for f in (Paired4, Wide4, Paired4WithLow, Wide4WithLow, Paired5, Paired5WithLow, Wide8)
}

register_family(FORMATS.get)
