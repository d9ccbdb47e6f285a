"""F32, F16 and BF16: every weight by itself, little-endian."""

from __future__ import annotations

from fireside.engine.arrays import np
from fireside.engine.blocks import Bytes, Floats, register


class F32:
    """Single precision."""

    name = "F32"
    block_size = 1
    block_bytes = 4
    ggml_type = 0

    def dequantise(self, data: Bytes, count: int) -> Floats:
        """The weights; a view of `data`, not a copy."""
        return data[: count * 4].view("<f4").astype(np.float32, copy=False)

    def quantise(self, weights: Floats) -> Bytes:
        """The bytes of `weights`."""
        return np.ascontiguousarray(weights, "<f4").reshape(-1).view(np.uint8)


class F16:
    """Half precision; weights beyond 65504 become infinite, as in ggml."""

    name = "F16"
    block_size = 1
    block_bytes = 2
    ggml_type = 1

    def dequantise(self, data: Bytes, count: int) -> Floats:
        """The weights, widened: exact."""
        return data[: count * 2].view("<f2").astype(np.float32)

    def quantise(self, weights: Floats) -> Bytes:
        """The bytes of `weights`, rounded to the nearest half."""
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(weights).reshape(-1).astype("<f2").view(np.uint8)


class BF16:
    """The upper half of a single (Google's brain float): its range, with 8 bits of precision."""

    name = "BF16"
    block_size = 1
    block_bytes = 2
    ggml_type = 30

    def dequantise(self, data: Bytes, count: int) -> Floats:
        """The weights, widened: exact."""
        return (data[: count * 2].view("<u2").astype("<u4") << 16).view(np.float32)

    def quantise(self, weights: Floats) -> Bytes:
        """The bytes of `weights`, rounded to the nearest, ties to even; NaN stays NaN."""
        bits = np.ascontiguousarray(weights, "<f4").reshape(-1).view("<u4")
        nan = (bits & 0x7FFFFFFF) > 0x7F800000
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        quiet = (bits >> 16) | 0x40  # else rounding could make it infinite
        return np.where(nan, quiet, rounded).astype("<u2").view(np.uint8)


register(F32())
register(F16())
register(BF16())
