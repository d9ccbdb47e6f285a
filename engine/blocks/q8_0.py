"""Q8_0: 32 weights as signed bytes and one half-precision scale. (ggml, block_q8_0)

A block is 34 bytes: scale d (f16), then 32 int8 q; weight = d * q.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fireside.engine.blocks import Bytes, Floats, nbytes, register

SIZE = 32
BLOCK = np.dtype([("d", "<f2"), ("q", "i1", (SIZE,))])
CHUNK = 1 << 15  # blocks worked on at once: temporary arrays stay within a few megabytes


def round_half_away(x: Floats) -> Floats:
    """C's roundf: halves go away from zero (np.rint would send them to even)."""
    magnitude = np.abs(x)
    floored = np.floor(magnitude)
    rounded = floored + np.floor(2 * (magnitude - floored))
    result: Floats = np.sign(x) * rounded
    return result


class Q8_0:  # noqa: N801 (ggml's name)
    """The entry of the registry."""

    name = "Q8_0"
    block_size = SIZE
    block_bytes = BLOCK.itemsize
    ggml_type = 8

    def dequantise(self, data: Bytes, count: int) -> Floats:
        """The weights: d * q."""
        block: NDArray[np.void] = data[: nbytes(self, count)].view(BLOCK)
        out = np.empty((len(block), SIZE), np.float32)
        with np.errstate(invalid="ignore"):  # a damaged file may hold infinite scales
            np.multiply(block["q"], block["d"].astype(np.float32)[:, None], out=out)
        return out.reshape(-1)

    def quantise(self, weights: Floats) -> Bytes:
        """Scale = largest magnitude / 127, each weight rounded to the nearest multiple of it."""
        rows = np.ascontiguousarray(weights, np.float32).reshape(-1, SIZE)
        block = np.empty(len(rows), BLOCK)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            d = np.abs(part).max(axis=1) / np.float32(127)
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                inverse = np.where(d == 0, np.float32(0), 1 / d)
                block["d"][start : start + CHUNK] = d
                rounded = round_half_away(part * inverse[:, None])
                block["q"][start : start + CHUNK] = rounded.astype(np.int8)
        return block.view(np.uint8)


register(Q8_0())
