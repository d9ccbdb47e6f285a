"""The Plan in C: see native/. A step is one call, which lets other Python threads run."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.executors import (
    Aborted,
    Cache,
    ExecutorKind,
    Progress,
    Quant,
    Rows,
    register,
)
from fireside.engine.executors.cores import default_threads
from fireside.engine.executors.native_library import choose_isa, load, pointer
from fireside.engine.executors.native_lowering import Lowering
from fireside.engine.executors.native_weights import NativeWeights, layout_nbytes, pack
from fireside.engine.plan import Plan

CHUNK_ROWS = 256  # rows that go through the operations at once, fewer where they are wide
CHUNK_BYTES = 64 << 20


@dataclass
class NativeCache:
    """See Executor.Cache; keys and values lie in the extension's memory, untouched until used."""

    capacity: int
    handle: Any
    owner: NativeExecutor

    @property
    def nbytes(self) -> int:
        """Bytes it takes when full."""
        _, lib, _ = load()
        return int(lib.fs_cache_nbytes(self.handle))


class NativeExecutor:
    """See fireside.engine.executors.Executor. Steps of several threads wait for each other."""

    name = "native"

    def __init__(self, plan: Plan, weights: NativeWeights, isa: str, threads: int) -> None:
        ffi, lib, _ = load()
        self.isa, number = choose_isa(isa)
        if threads > 1 and not lib.fs_has_openmp():
            threads, self.isa = 1, f"{self.isa} (no OpenMP)"
        self.threads = threads
        self._vocab = plan.logits.width
        self._weights = weights
        self._lock = threading.Lock()
        shape, kept = _shape(plan, weights)
        shape.isa, shape.threads = number, threads
        model = lib.fs_model_new(shape)
        del kept  # the model has copied what it needs
        if model == ffi.NULL:
            raise MemoryError("not enough memory for the model's buffers")
        self._model = ffi.gc(model, lib.fs_model_free)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as laid out."""
        return self._weights.nbytes

    def new_cache(self, capacity: int) -> NativeCache:
        """See Executor.new_cache. Raises MemoryError."""
        ffi, lib, _ = load()
        handle = lib.fs_cache_new(self._model, capacity)
        if handle == ffi.NULL:
            raise MemoryError(f"not enough memory for {capacity} positions")
        return NativeCache(capacity, ffi.gc(handle, lib.fs_cache_free), self)

    def step(
        self, cache: Cache, tokens: NDArray[np.int32], position: int, rows: Rows
    ) -> NDArray[np.float32]:
        """See Executor.step."""
        _, lib, _ = load()
        if not isinstance(cache, NativeCache) or cache.owner is not self:
            raise RuntimeError("the cache belongs to another executor")
        n = len(tokens)
        if n < 1 or position < 0 or position + n > cache.capacity:
            raise RuntimeError(f"{n} tokens at {position} do not fit {cache.capacity} positions")
        kept, which = {
            "none": (0, lib.FS_ROWS_NONE),
            "last": (1, lib.FS_ROWS_LAST),
            "all": (n, lib.FS_ROWS_ALL),
        }[rows]
        logits = np.empty((kept, self._vocab), np.float32)
        ids = pointer(tokens, np.int32, (n,), "int32_t[]")
        out = pointer(logits, np.float32, logits.shape, "float[]")
        with self._lock:
            status = lib.fs_step(self._model, cache.handle, ids, n, position, which, out)
        if status == lib.FS_ABORTED:
            raise Aborted
        if status == lib.FS_BAD_TOKEN:
            raise RuntimeError("a token is not in the vocabulary")
        if status != lib.FS_DONE:
            raise RuntimeError(f"the step ended with status {status}")
        return logits

    def abort(self) -> None:
        """See Executor.abort."""
        _, lib, _ = load()
        lib.fs_abort(self._model)


def _shape(plan: Plan, weights: NativeWeights) -> tuple[Any, list[Any]]:
    """The C description of a model, and what must live as long as it does."""
    ffi, _, _ = load()
    lowering = Lowering(plan, weights.groups)

    def weight(group: tuple[str, ...]) -> dict[str, Any]:
        packed = weights.groups[group]
        sizes = {"kind": packed.kind, "rows": packed.rows, "cols": packed.cols}
        return {**sizes, "data": weights.address(packed)}

    turns = []
    kept: list[Any] = []
    for rope, frequency in lowering.frequencies():
        kept.append(ffi.new("double[]", frequency.tolist()))
        half = rope.style == "half"
        turns.append({"rotary_dim": rope.rotary_dim, "half": half, "frequency": kept[-1]})
    widths = [0 if name == plan.logits.buffer else w for name, w in plan.buffers.items()]
    embeddings = [op for op in lowering.ops if "matrix" in op and "x" not in op]
    vocab = min(weights.groups[lowering.matrices[op["matrix"]]].rows for op in embeddings)
    row_bytes = 4 * (sum(widths) + 2 * max(widths))
    lists: dict[str, tuple[str, list[Any]]] = {
        "ops": ("fs_op[]", lowering.ops),
        "widths": ("int32_t[]", widths),
        "matrices": ("fs_weight[]", [weight(group) for group in lowering.matrices]),
        "vectors": ("fs_weight[]", [weight(group) for group in lowering.vectors]),
        "turns": ("fs_turn[]", turns),
    }
    arrays = {name: ffi.new(ctype, values) for name, (ctype, values) in lists.items()}
    counts = {f"n_{name}": len(values) for name, (_, values) in lists.items() if name != "widths"}
    numbers = {
        "n_buffers": len(widths),
        "n_layers": plan.n_layers,
        "n_kv_heads": plan.n_kv_heads,
        "head_dim": plan.head_dim,
        "vocab": vocab,
        "chunk": max(16, min(CHUNK_ROWS, CHUNK_BYTES // row_bytes)),
    }
    kept += arrays.values()
    return ffi.new("fs_shape *", {**arrays, **counts, **numbers}), kept


def why_not() -> str:
    """Why the C extension cannot be used; "" where it can."""
    return load()[2]


def build(
    plan: Plan, checkpoint: Checkpoint, quant: Quant, threads: int, progress: Progress | None
) -> NativeExecutor:
    """An entry of the registry; threads 0 = as many as there are cores to use."""
    isa, number = choose_isa()
    threads = threads if threads > 0 else default_threads()
    weights = pack(plan, checkpoint, quant, number, threads, progress)
    return NativeExecutor(plan, weights, isa, threads)


register(ExecutorKind("native", layout_nbytes, why_not, build))
