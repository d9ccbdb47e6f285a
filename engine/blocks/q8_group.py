"""Q8_GROUPn: llama2.c's version 2. Signed bytes, one f32 scale for each group of n weights.

Unlike ggml's blocks the scales do not stand among the weights: a tensor is all its int8 values,
then all its scales. Groups run on over row ends, so a row need not be whole groups. The group
size is the file's choice, so the formats of this family are made when they are asked for.
"""

from __future__ import annotations

import re

from fireside.engine.arrays import np
from fireside.engine.blocks import BlockFormat, Bytes, Floats, nbytes, register_family

NAME = re.compile(r"Q8_GROUP([1-9][0-9]{0,8})")


class Q8Group:
    """The format with groups of `block_size` weights."""

    ggml_type = -1

    def __init__(self, group_size: int) -> None:
        self.name = f"Q8_GROUP{group_size}"
        self.block_size = group_size
        self.block_bytes = group_size + 4

    def dequantise(self, data: Bytes, count: int) -> Floats:
        """The weights: scale * q."""
        data = data[: nbytes(self, count)]
        q = data[:count].view(np.int8).reshape(-1, self.block_size)
        scales = data[count:].view("<f4")
        out = np.empty(q.shape, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # a damaged file may hold any scale
            np.multiply(q, scales[:, None], out=out)
        return out.reshape(-1)

    def quantise(self, weights: Floats) -> Bytes:
        """Scale = largest magnitude / 127; halves go to even, as in llama2.c's export."""
        groups = np.ascontiguousarray(weights, np.float32).reshape(-1, self.block_size)
        scales = np.abs(groups).max(axis=1) / np.float32(127)
        with np.errstate(divide="ignore", invalid="ignore"):
            # a group of zeros has no scale to divide by
            q = np.where(scales[:, None] == 0, np.float32(0), groups / scales[:, None])
        q8 = np.rint(q).astype(np.int8)
        return np.concatenate([q8.reshape(-1).view(np.uint8), scales.astype("<f4").view(np.uint8)])


def make(name: str) -> BlockFormat | None:
    """The format called `name`, if it is of this family."""
    match = NAME.fullmatch(name)
    return Q8Group(int(match[1])) if match else None


register_family(make)
