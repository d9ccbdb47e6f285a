"""Q4_0: 32 weights as 4-bit numbers and one half-precision scale. (ggml, block_q4_0)

A block is 18 bytes: scale d (f16), then 16 bytes; byte i holds weight i in its low half and
weight i + 16 in its high half; weight = d * (q - 8).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fireside.engine.blocks import Bytes, Floats, nbytes, register

SIZE = 32
HALF = SIZE // 2
BLOCK = np.dtype([("d", "<f2"), ("q", "u1", (HALF,))])
CHUNK = 1 << 15  # blocks worked on at once: temporary arrays stay within a few megabytes


class Q4_0:  # noqa: N801 (ggml's name)
    """The entry of the registry."""

    name = "Q4_0"
    block_size = SIZE
    block_bytes = BLOCK.itemsize
    ggml_type = 2

    def dequantise(self, data: Bytes, count: int) -> Floats:
        """The weights: d * (q - 8)."""
        block: NDArray[np.void] = data[: nbytes(self, count)].view(BLOCK)
        d = block["d"].astype(np.float32)[:, None]
        out = np.empty((len(block), SIZE), np.float32)
        with np.errstate(invalid="ignore"):  # a damaged file may hold infinite scales
            for start, q in ((0, block["q"] & 15), (HALF, block["q"] >> 4)):
                np.multiply(q.view(np.int8) - np.int8(8), d, out=out[:, start : start + HALF])
        return out.reshape(-1)

    def quantise(self, weights: Floats) -> Bytes:
        """Scale = the weight of largest magnitude / -8, so that it becomes 0."""
        rows = np.ascontiguousarray(weights, np.float32).reshape(-1, SIZE)
        block = np.empty(len(rows), BLOCK)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            largest = np.abs(part).argmax(axis=1)[:, None]
            d = np.take_along_axis(part, largest, axis=1) / np.float32(-8)
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                inverse = np.where(d == 0, np.float32(0), 1 / d)
                block["d"][start : start + CHUNK] = d[:, 0]
                # cut off behind the point: 8.5 rounds and centres
                q = (part * inverse + np.float32(8.5)).astype(np.uint8).clip(0, 15)
            block["q"][start : start + CHUNK] = q[:, :HALF] | (q[:, HALF:] << 4)
        return block.view(np.uint8)


register(Q4_0())
