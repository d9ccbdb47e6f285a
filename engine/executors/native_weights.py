"""Weights for the C kernels: every group of a plan packed into one block of memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fireside.engine.checkpoints.derived import sources
from fireside.engine.checkpoints.source import FileTensor
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.executors import Progress, Quant
from fireside.engine.executors.native_library import load, memory, pointer
from fireside.engine.plan import Plan

BLOCK = 32  # weights that share a scale in Q8_0 and Q4_0
PIECE = 8 << 20  # bytes of floats that are made at a time
PANEL = 16  # rows that lie together
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


def packed_rows(tensor: Tensor) -> int:
    """Rows that a matrix takes. Those of each of several experts are filled up to whole panels."""
    if len(tensor.shape) == 3:
        return tensor.shape[0] * -(-tensor.shape[1] // PANEL) * PANEL
    return tensor.shape[0]


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
            cols = sum(tensor.shape[0] for tensor in tensors)
            kind, rows, nbytes = lib.FS_PACK_F32, 1, cols * 4
        else:
            kind = packed_kind(tensors, quant)
            rows = sum(packed_rows(tensor) for tensor in tensors)
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
            first += tensor.shape[0] if packed.vector else packed_rows(tensor)
            done += tensor.nbytes
            if progress:
                progress(done, total)
    for source in frozenset().union(*map(sources, checkpoint.tensors.values())):
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
        where = ffi.cast("float *", address) + first
        ffi.memmove(where, pointer(values, np.float32, tensor.shape, "float[]"), values.nbytes)
        return
    source, offset, owner, descriptor = kinds.get(tensor.block), 0, None, -1
    nbytes = tensor.nbytes
    if source is None or (tensor.block.startswith("Q") and packed.cols % BLOCK):
        source, nbytes = lib.FS_FROM_F32, tensor.count * 4
        owner = np.ascontiguousarray(tensor.to_float32()).reshape(-1).view(np.uint8)
    elif isinstance(tensor, FileTensor):
        offset, descriptor = tensor.start, tensor.source.descriptor
    else:
        owner = tensor.data
    where = ffi.NULL if owner is None else pointer(owner, np.uint8, (nbytes,), "uint8_t[]")
    apart = len(tensor.shape) == 3 and tensor.shape[1] % PANEL  # experts, each with its own padding
    pieces = tensor.shape[0] if apart else 1
    rows, step = tensor.count // packed.cols // pieces, nbytes // pieces
    for piece in range(pieces):
        at = ffi.NULL if owner is None else where + piece * step
        status = lib.fs_pack(
            *(isa, threads, packed.kind, address, packed.rows, packed.cols),
            *(first + piece * packed_rows(tensor) // pieces, rows, source),
            *(at, descriptor, offset + piece * step),
        )
        _check(status, tensor)


def _check(status: int, tensor: Tensor) -> None:
    """Raise what fs_pack came back with."""
    _, lib, _ = load()
    if status > 0 and isinstance(tensor, FileTensor):
        raise tensor.source.unreadable(OSError(status, os.strerror(status)))
    if status == lib.FS_PACK_SHORT and isinstance(tensor, FileTensor):
        raise tensor.source.changed()
    if status:
        raise RuntimeError(f"cannot pack {tensor.name}: {tensor.block} {tensor.shape} ({status})")


def unpack(weights: NativeWeights, packed: Packed, first: int, count: int) -> Any:
    """Rows [first, first + count) of a packed matrix as float32 [count, cols], for tests."""
    _, lib, _ = load()
    out = np.empty((count, packed.cols), np.float32)
    lib.fs_unpack(
        *(packed.kind, weights.address(packed), packed.rows, packed.cols, first, count),
        pointer(out, np.float32, out.shape, "float[]"),
    )
    return out
