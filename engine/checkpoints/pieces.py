"""Tensors on their way from one file into another: in pieces, by several threads, in order.

A piece is read, dequantised and quantised by one thread, in C where that knows both types, so that
the memory needed is that of a few pieces, whatever the tensors' sizes. Tensors that are not simply
bytes of a file (transposed, joined, in another order of rows, in llama2.c's groups) are made as a
whole, one at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.blocks import BlockFormat, Bytes, native
from fireside.engine.checkpoints.source import FileTensor
from fireside.engine.checkpoints.types import Tensor

PIECE = 1 << 21  # weights; whole blocks of every format
Task = Callable[[], Bytes]
Rows = NDArray[np.intp]


def tasks(tensor: Tensor, block: BlockFormat, order: Rows | None = None) -> Iterator[Task]:
    """What makes the bytes of `tensor` in format `block`, one piece after another.

    order: which of its rows comes first, second, ...; None: as they are.
    """
    stored = blocks.get(tensor.block)
    grouped = stored.ggml_type < 0  # its scales do not lie among its weights
    source: Bytes | FileTensor
    read: Callable[[int, int], Bytes]
    if order is None and not grouped and isinstance(tensor, FileTensor):
        source, read = tensor, partial(read_part, tensor)
    else:
        data = tensor.data
        if order is not None:
            data = data.reshape(len(order), -1)[order].reshape(-1)
        if grouped and block.name != tensor.block:
            stored, data = blocks.get("F32"), dequantised(stored, data, tensor.count)
        elif grouped:
            yield lambda: data
            return
        source, read = data, partial(part_of, data)
    in_c = stored.name != block.name and native.known(stored, block)
    for first in range(0, tensor.count, PIECE):
        count = min(PIECE, tensor.count - first)
        start, size = blocks.nbytes(stored, first), blocks.nbytes(stored, count)
        if in_c:
            yield partial(native.converted, stored, block, count, source, start)
        else:
            yield partial(piece, read, start, size, count, stored, block)


def read_part(tensor: FileTensor, start: int, size: int) -> Bytes:
    """Bytes of a tensor that lies in a file."""
    return tensor.source.read(tensor.start + start, size)


def part_of(data: Bytes, start: int, size: int) -> Bytes:
    """Bytes of one that is in memory."""
    return data[start : start + size]


def dequantised(stored: BlockFormat, data: Bytes, count: int) -> Bytes:
    """The weights as F32."""
    return stored.dequantise(data, count).view(np.uint8)


def piece(
    read: Callable[[int, int], Bytes],
    start: int,
    size: int,
    count: int,
    stored: BlockFormat,
    block: BlockFormat,
) -> Bytes:
    """`count` weights in their new format."""
    data = read(start, size)
    if stored.name == block.name:
        return data
    return block.quantise(stored.dequantise(data, count))


def in_order(work: Iterable[Task], threads: int) -> Iterator[Bytes]:
    """What the tasks return, in their order; a few are computed ahead."""
    with ThreadPoolExecutor(threads, "convert") as pool:
        waiting: deque[Future[Bytes]] = deque()
        try:
            for task in work:
                waiting.append(pool.submit(task))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
