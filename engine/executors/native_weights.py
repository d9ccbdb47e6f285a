"""Weights for the C kernels: every group of a plan packed into one block of memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping

from fireside.engine import blocks
from fireside.engine.arrays import np
from fireside.engine.blocks.native import READ
from fireside.engine.checkpoints.derived import sources
from fireside.engine.checkpoints.source import FileTensor
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.executors import Progress, Quant
from fireside.engine.executors.native_library import load, memory, pointer
from fireside.engine.hints import TYPE_CHECKING, Any
from fireside.engine.plan import Plan
from fireside.engine.records import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIECE = 8 << 20  # bytes of floats that are made at a time
AT_ONCE = 16 << 20  # bytes that are packed in one call, and between two reports of progress
# Of the types that C reads all but these two have a packed kind of the same name.
PACKED_AS = {"Q8_0": "Q8", "Q4_0": "Q4"}
PANEL = 16  # rows that lie together
ALIGNMENT = 4096  # every matrix begins on a page


@record
class Packed:
    """Weights in the kernels' layout: one matrix of all their rows, or one vector."""

    kind: int  # FS_PACK_...
    rows: int  # 1 where it is a vector
    cols: int
    vector: bool
    offset: int  # in the block of memory
    nbytes: int


@record
class NativeWeights:
    """All weights of a plan; `data` owns the memory. A group of a plan whose weights have several
    kinds lies in several groups, see `split`."""

    groups: Mapping[tuple[str, ...], Packed]
    data: Any
    nbytes: int

    def address(self, packed: Packed) -> Any:
        """Where a group lies."""
        ffi, _, _ = load()
        return ffi.cast("char *", self.data) + packed.offset


def readable(tensor: Tensor) -> bool:
    """Whether C reads a tensor as it lies in the file: its type is known, its rows whole blocks."""
    return tensor.block in READ and tensor.shape[-1] % blocks.get(tensor.block).block_size == 0


def packed_kind(tensor: Tensor, quant: Quant) -> int:
    """How a matrix is stored: as asked, else as the file has it, else as floats."""
    _, lib, _ = load()
    if quant != "none":
        kinds = {"f16": lib.FS_PACK_F16, "q8": lib.FS_PACK_Q8, "q4": lib.FS_PACK_Q4}
        return int(kinds[quant])
    name = PACKED_AS.get(tensor.block, tensor.block) if readable(tensor) else "F32"
    return int(getattr(lib, f"FS_PACK_{name}"))


def split(group: tuple[str, ...], checkpoint: Checkpoint, quant: Quant) -> list[tuple[str, ...]]:
    """A group of a plan cut where the kind of its matrices changes: in Q4_K_M's files v has another
    one than q and k."""
    tensors = [checkpoint.tensors[name] for name in group]
    if len(tensors[0].shape) == 1:
        return [group]
    runs = itertools.groupby(tensors, key=lambda tensor: packed_kind(tensor, quant))
    return [tuple(tensor.name for tensor in run) for _, run in runs]


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
    groups = (part for group in plan.weights for part in split(group, checkpoint, quant))
    for group in dict.fromkeys(groups):
        tensors = [checkpoint.tensors[name] for name in group]
        cols = tensors[0].shape[-1]
        vector = len(tensors[0].shape) == 1
        if any(tensor.shape[1:] != tensors[0].shape[1:] for tensor in tensors):
            raise RuntimeError(f"weights {group} do not stack")
        if vector:
            cols = sum(tensor.shape[0] for tensor in tensors)
            kind, rows, nbytes = lib.FS_PACK_F32, 1, cols * 4
        else:
            kind = packed_kind(tensors[0], quant)
            rows = sum(packed_rows(tensor) for tensor in tensors)
            nbytes = lib.fs_packed_nbytes(kind, rows, cols)
        layout[group] = Packed(kind, rows, cols, vector, offset, nbytes)
        offset += _whole_pages(nbytes)
    return layout


def layout_nbytes(plan: Plan, checkpoint: Checkpoint, quant: Quant) -> int:
    """Bytes that `pack` will take."""
    layout = plan_layout(plan, checkpoint, quant)
    return sum(_whole_pages(packed.nbytes) for packed in layout.values())


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


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
    nbytes = sum(_whole_pages(packed.nbytes) for packed in layout.values())
    weights = NativeWeights(layout, memory(nbytes, huge_pages=True), nbytes)
    packer = Packer(weights, isa, threads)
    total = sum(checkpoint.tensors[name].nbytes for group in layout for name in group)
    done = 0
    if progress:
        progress(0, total)
    for group, packed in layout.items():
        first = 0
        for name in group:
            tensor = checkpoint.tensors[name]
            packer.add(tensor, packed, first)
            first += tensor.shape[0] if packed.vector else packed_rows(tensor)
            done += tensor.nbytes
            if progress:
                progress(max(0, done - packer.waiting), total)
    packer.finish()
    if progress:
        progress(total, total)
    for source in frozenset().union(*map(sources, checkpoint.tensors.values())):
        source.check()
    return weights


class Packer:
    """Writes tensors to their places, as many at once as are small."""

    def __init__(self, weights: NativeWeights, isa: int, threads: int) -> None:
        self._weights, self._isa, self._threads = weights, isa, threads
        self._ffi, self._lib, _ = load()
        self._base = self._ffi.cast("char *", weights.data)
        self._jobs: list[tuple[Any, ...]] = []
        self._tensors: list[Tensor] = []
        self._kept: list[Any] = []  # the memory that jobs point to
        self._vectors: list[tuple[Tensor, Any]] = []
        self.waiting = 0  # bytes that are not written yet

    def add(self, tensor: Tensor, packed: Packed, first: int) -> None:
        """Write the rows of one tensor, now or with others, from row `first` of its group on."""
        ffi, lib = self._ffi, self._lib
        address = self._base + packed.offset
        if packed.vector:
            self._vectors.append((tensor, ffi.cast("float *", address) + first))
            return
        rows, padded = tensor.shape[-2], packed_rows(tensor) * tensor.shape[-2]
        padded //= tensor.count // packed.cols  # rows of one expert, filled up
        descriptor = tensor.source.descriptor if isinstance(tensor, FileTensor) else -1
        for piece in _pieces(tensor, packed.cols, rows):
            where = ffi.NULL
            if piece.data is not None:
                where = pointer(piece.data, np.uint8, piece.data.shape, "uint8_t[]")
                self._kept.append(where)
            begin = first + piece.first // rows * padded + piece.first % rows
            if begin % PANEL:  # its first panel has rows of what came before
                self.flush()
            kind, size = getattr(lib, f"FS_FROM_{piece.block}"), (packed.rows, packed.cols)
            job = (packed.kind, kind, descriptor, address, *size, begin, piece.count)
            self._jobs.append((*job, where, piece.offset))
            self._tensors.append(tensor)
            self.waiting += _piece_nbytes(piece, tensor, packed.cols)
            if self.waiting > AT_ONCE:
                self.flush()

    def finish(self) -> None:
        """Write all that was put off.

        The few vectors come last, so that all threads touch new memory first: to clear a huge page
        takes longer than to pack what it holds.
        """
        self.flush()
        for tensor, where in self._vectors:
            self._copy(tensor, where)
        self._vectors = []

    def flush(self) -> None:
        """Write the matrices that were put off."""
        if not self._jobs:
            return
        jobs, failed = self._ffi.new("fs_pack_job[]", self._jobs), self._ffi.new("int32_t *")
        status = self._lib.fs_pack_all(self._isa, self._threads, jobs, len(jobs), failed)
        if status:
            _complain(status, self._tensors[failed[0]])
        self._jobs, self._tensors, self._kept, self.waiting = [], [], [], 0

    def _copy(self, tensor: Tensor, where: Any) -> None:
        """A vector."""
        if isinstance(tensor, FileTensor) and tensor.block == "F32":
            floats = tensor.source.read_bytes(tensor.start, tensor.nbytes)
            self._ffi.memmove(where, floats, tensor.nbytes)
            return
        values = np.ascontiguousarray(tensor.to_float32())
        floats = pointer(values, np.float32, tensor.shape, "float[]")
        self._ffi.memmove(where, floats, values.nbytes)


@record
class Piece:
    """Rows of a tensor that C packs at once: `data`, or what is in the file at `offset`."""

    first: int
    count: int
    block: str
    data: blocks.Bytes | None = None
    offset: int = 0


def _pieces(tensor: Tensor, cols: int, rows: int) -> Iterator[Piece]:
    """All rows of a tensor; of experts with `rows` rows each that are padded no two together:
    as they lie in the file, or floats made of some of them at a time."""
    total = tensor.count // cols
    data = None if isinstance(tensor, FileTensor) else tensor.data
    if readable(tensor):
        step = total if rows % PANEL == 0 else rows
        size = tensor.nbytes // total
        start = tensor.start if isinstance(tensor, FileTensor) else 0
        for first in range(0, total, step):
            part = None if data is None else data[first * size : (first + step) * size]
            yield Piece(first, step, tensor.block, part, start + first * size)
        return
    step = max(PANEL, PIECE // (4 * cols) // PANEL * PANEL)
    for expert in range(0, total, rows):
        for first in range(expert, expert + rows, step):
            count = min(step, expert + rows - first)
            floats = _floats(tensor, data, first * cols, count * cols)
            yield Piece(first, count, "F32", floats.view(np.uint8))


def _piece_nbytes(piece: Piece, tensor: Tensor, cols: int) -> int:
    """Bytes that a piece has, in memory or in the file."""
    if piece.data is not None:
        return piece.data.nbytes
    return piece.count * cols * tensor.nbytes // tensor.count


def _floats(
    tensor: Tensor, data: blocks.Bytes | None, first: int, count: int
) -> NDArray[np.float32]:
    """Weights [first, first + count) of a tensor whose bytes are `data` (None: in its file)."""
    form = blocks.get(tensor.block)
    before = first % form.block_size  # a row may begin within a block
    stop = -(-(first + count) // form.block_size) * form.block_size
    begin, end = (blocks.nbytes(form, i) for i in (first - before, stop))
    if isinstance(tensor, FileTensor):
        data = tensor.source.read(tensor.start + begin, end - begin)
    else:
        assert data is not None
        data = data[begin:end]
    floats = form.dequantise(data, stop - first + before)
    return np.ascontiguousarray(floats[before : before + count])


def _complain(status: int, tensor: Tensor) -> None:
    """Raise what packing came back with."""
    _, lib, _ = load()
    if status > 0 and isinstance(tensor, FileTensor):
        raise tensor.source.unreadable(OSError(status, os.strerror(status)))
    if status == lib.FS_PACK_SHORT and isinstance(tensor, FileTensor):
        raise tensor.source.changed()
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
