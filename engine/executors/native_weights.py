"""Weights for the C kernels: every group of a plan packed into one block of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.checkpoints.source import FileTensor
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.executors import Progress, Quant
from fireside.engine.executors.native_library import load, memory, pointer
from fireside.engine.plan import Plan

BLOCK = 32  # weights that share a scale in Q8_0 and Q4_0
PIECE = 8 << 20  # bytes of floats that are made at a time
ALIGNMENT = 4096  # every matrix begins on a page


@dataclass(frozen=True)
class Packed:
    """A group of weights in the kernels' layout: one matrix of all their rows, or one vector."""

    kind: int  # FS_PACK_...
    rows: int  # 1 where it is a vector
    cols: int
    vector: bool
    offset: int  # in the block of memory
    nbytes: int


@dataclass(frozen=True)
class NativeWeights:
    """All weights of a plan; `data` owns the memory."""

    groups: Mapping[tuple[str, ...], Packed]
    data: Any
    nbytes: int

    def address(self, packed: Packed) -> Any:
        """Where a group lies."""
        ffi, _, _ = load()
        return ffi.cast("char *", self.data) + packed.offset


def packed_kind(tensors: Sequence[Tensor], quant: Quant) -> int:
    """How a group of matrices is stored: as asked, else as the file has it if that is one kind."""
    _, lib, _ = load()
    if quant != "none":
        return int({"q8": lib.FS_PACK_Q8, "q4": lib.FS_PACK_Q4}[quant])
    kinds = {tensor.block for tensor in tensors}
    whole = tensors[0].shape[-1] % BLOCK == 0
    if kinds == {"F16"}:
        return int(lib.FS_PACK_F16)
    if kinds == {"Q8_0"} and whole:
        return int(lib.FS_PACK_Q8)
    if kinds == {"Q4_0"} and whole:
        return int(lib.FS_PACK_Q4)
    return int(lib.FS_PACK_F32)


def plan_layout(plan: Plan, checkpoint: Checkpoint, quant: Quant) -> dict[tuple[str, ...], Packed]:
    """Where each group of weights goes."""
    _, lib, _ = load()
    layout: dict[tuple[str, ...], Packed] = {}
    offset = 0
    for group in plan.weights:
        tensors = [checkpoint.tensors[name] for name in group]
        cols = tensors[0].shape[-1]
        vector = len(tensors[0].shape) == 1
        if any(tensor.shape[1:] != tensors[0].shape[1:] for tensor in tensors):
            raise RuntimeError(f"weights {group} do not stack")
        if vector:
            kind, rows, nbytes = lib.FS_PACK_F32, 1, cols * 4
        else:
            kind = packed_kind(tensors, quant)
            rows = sum(tensor.shape[0] for tensor in tensors)
            nbytes = lib.fs_packed_nbytes(kind, rows, cols)
        layout[group] = Packed(kind, rows, cols, vector, offset, nbytes)
        offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return layout


def layout_nbytes(plan: Plan, checkpoint: Checkpoint, quant: Quant) -> int:
    """Bytes that `pack` will take."""
    layout = plan_layout(plan, checkpoint, quant)
    return sum(-(-packed.nbytes // ALIGNMENT) * ALIGNMENT for packed in layout.values())


def pack(
    plan: Plan,
    checkpoint: Checkpoint,
    quant: Quant,
    isa: int,
    threads: int,
    progress: Progress | None,
) -> NativeWeights:
    """Lay out all weights of a plan; what `progress` raises ends it."""
    layout = plan_layout(plan, checkpoint, quant)
    nbytes = layout_nbytes(plan, checkpoint, quant)
    weights = NativeWeights(layout, memory(nbytes, huge_pages=True), nbytes)
    total = sum(checkpoint.tensors[name].nbytes for group in layout for name in group)
    done = 0
    if progress:
        progress(0, total)
    for group, packed in layout.items():
        first = 0
        for name in group:
            tensor = checkpoint.tensors[name]
            _pack_tensor(tensor, packed, weights.address(packed), first, isa, threads)
            first += tensor.shape[0]
            done += tensor.nbytes
            if progress:
                progress(done, total)
    for source in {t.source for t in checkpoint.tensors.values() if isinstance(t, FileTensor)}:
        source.check()
    return weights


def _pack_tensor(
    tensor: Tensor, packed: Packed, address: Any, first: int, isa: int, threads: int
) -> None:
    """Write the rows of one tensor, from row `first` of its group on."""
    ffi, lib, _ = load()
    kinds = {
        "F32": lib.FS_FROM_F32,
        "F16": lib.FS_FROM_F16,
        "Q8_0": lib.FS_FROM_Q8_0,
        "Q4_0": lib.FS_FROM_Q4_0,
    }
    if packed.vector:
        values = np.ascontiguousarray(tensor.to_float32())
        ffi.memmove(address, pointer(values, np.float32, (packed.cols,), "float[]"), values.nbytes)
        return
    source = kinds.get(tensor.block)
    if source is None or (tensor.block.startswith("Q") and packed.cols % BLOCK):
        for row, data in _as_floats(tensor):
            part = (pointer(data, np.float32, data.shape, "float[]"), -1, 0)
            lib_args = (isa, threads, packed.kind, address, packed.rows, packed.cols)
            status = lib.fs_pack(*lib_args, first + row, len(data), lib.FS_FROM_F32, *part)
            if status:
                raise RuntimeError(f"cannot pack {tensor.name}: {tensor.block} ({status})")
        return
    if isinstance(tensor, FileTensor):
        where = (ffi.NULL, tensor.source.descriptor, tensor.start)
    else:
        where = (pointer(tensor.data, np.uint8, (tensor.nbytes,), "uint8_t[]"), -1, 0)
    status = lib.fs_pack(
        *(isa, threads, packed.kind, address, packed.rows, packed.cols),
        *(first, tensor.shape[0], source, *where),
    )
    if status > 0 and isinstance(tensor, FileTensor):
        raise tensor.source.unreadable(OSError(status, os.strerror(status)))
    if status == lib.FS_PACK_SHORT and isinstance(tensor, FileTensor):
        raise tensor.source.changed()
    if status:
        raise RuntimeError(f"cannot pack {tensor.name}: {tensor.block} {tensor.shape} ({status})")


def _as_floats(tensor: Tensor) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first row, rows as float32) of a matrix, a few megabytes at a time where blocks allow it."""
    rows, cols = tensor.shape
    block = blocks.get(tensor.block)
    step = max(PIECE // (4 * cols) // 16, 1) * 16
    if not isinstance(tensor, FileTensor) or block.ggml_type < 0 or cols % block.block_size:
        yield 0, np.ascontiguousarray(tensor.to_float32())
        return
    for row in range(0, rows, step):
        count = min(step, rows - row)
        size = blocks.nbytes(block, cols)
        data = tensor.source.read(tensor.start + row * size, count * size)
        yield row, np.ascontiguousarray(block.dequantise(data, count * cols).reshape(count, cols))


def unpack(weights: NativeWeights, packed: Packed, first: int, count: int) -> Any:
    """Rows [first, first + count) of a packed matrix as float32 [count, cols], for tests."""
    _, lib, _ = load()
    out = np.empty((count, packed.cols), np.float32)
    lib.fs_unpack(
        *(packed.kind, weights.address(packed), packed.rows, packed.cols, first, count),
        pointer(out, np.float32, out.shape, "float[]"),
    )
    return out
