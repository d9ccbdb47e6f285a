"""The Plan in C: see native/. A step is one call, which lets other Python threads run."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from fireside.engine.arrays import np
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.errors import not_finite
from fireside.engine.executors import (
    KV,
    Aborted,
    Cache,
    ExecutorKind,
    Part,
    Progress,
    Quant,
    Rows,
    register,
)
from fireside.engine.executors.cores import default_threads
from fireside.engine.executors.native_library import choose_isa, load, pointer
from fireside.engine.executors.native_lowering import Lowering
from fireside.engine.executors.native_weights import NativeWeights, layout_nbytes, pack
from fireside.engine.hints import TYPE_CHECKING, Any
from fireside.engine.plan import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK_ROWS = 256  # rows that go through the operations at once, fewer where they are wide
CHUNK_BYTES = 64 << 20


class NativeCache:
    """See executors.Cache; keys and values lie in pages of 64 positions in the extension."""

    def __init__(self, capacity: int, handle: Any, owner: NativeExecutor) -> None:
        self.capacity, self.handle, self.owner = capacity, handle, owner

    @property
    def nbytes(self) -> int:
        """Bytes it holds now; pages that forks share count for each of them."""
        _, lib, _ = load()
        return int(lib.fs_cache_nbytes(self.handle))


class NativeExecutor:
    """See fireside.engine.executors.Executor. Steps of several threads wait for each other."""

    name = "native"

    def __init__(
        self, plan: Plan, weights: NativeWeights, isa: str, threads: int, kv: KV = "f16"
    ) -> None:
        self._ffi, self._lib, _ = ffi, lib, _ = load()
        self._new = ffi.new_allocator(should_clear_after_alloc=False)
        self._rows_all, self._rows_last = lib.FS_ROWS_ALL, lib.FS_ROWS_LAST
        self._rows_none = lib.FS_ROWS_NONE
        self.isa, number = choose_isa(isa)
        if threads > 1 and not lib.fs_has_openmp():
            threads, self.isa = 1, f"{self.isa} (no OpenMP)"
        self.threads = threads
        self.kv: KV = kv
        self.vocab = plan.logits.width
        self._weights = weights
        self._lock = threading.Lock()
        shape, kept = _shape(plan, weights, kv)
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
        _, lib, _ = load()
        return self._cache(capacity, lib.fs_cache_new(self._model, capacity))

    def fork(self, cache: Cache) -> NativeCache:
        """See Executor.fork. Raises MemoryError."""
        _, lib, _ = load()
        with self._lock:  # not while a step fills it
            handle = lib.fs_cache_fork(self._model, self._own(cache).handle)
        return self._cache(cache.capacity, handle)

    def _cache(self, capacity: int, handle: Any) -> NativeCache:
        ffi, lib, _ = load()
        if handle == ffi.NULL:
            raise MemoryError(f"not enough memory for {capacity} positions")
        return NativeCache(capacity, ffi.gc(handle, lib.fs_cache_free), self)

    def _own(self, cache: Cache) -> NativeCache:
        if not isinstance(cache, NativeCache) or cache.owner is not self:
            raise RuntimeError("the cache belongs to another executor")
        return cache

    def step(
        self, cache: Cache, tokens: NDArray[np.int32], position: int, rows: Rows
    ) -> NDArray[np.float32]:
        """See Executor.step."""
        return self._array(*self._step([(cache, tokens, position)], rows))

    def step_rows(
        self, cache: Cache, tokens: list[int], position: int, rows: Rows
    ) -> list[memoryview[float]]:
        """See Executor.step_rows; without NumPy."""
        count, out = self._step([(cache, tokens, position)], rows)
        view, size = memoryview(self._ffi.buffer(out)).cast("B"), 4 * self.vocab
        return [view[i * size : (i + 1) * size].cast("f") for i in range(count)]

    def step_batch(self, parts: Sequence[Part]) -> NDArray[np.float32]:
        """See Executor.step_batch."""
        if len({id(cache) for cache, _, _ in parts}) != len(parts):
            raise RuntimeError("a cache can be only once in a step")
        return self._array(*self._step(parts, "last"))

    def _array(self, count: int, out: Any) -> NDArray[np.float32]:
        shape = count, self.vocab
        return np.frombuffer(self._ffi.buffer(out), np.float32, count * self.vocab).reshape(shape)

    def _step(
        self, parts: Sequence[tuple[Cache, NDArray[np.int32] | list[int], int]], rows: Rows
    ) -> tuple[int, Any]:
        """(rows of logits, where they are)."""
        # A step has taken the interpreter out of the core's caches: here every line counts.
        ffi, lib = self._ffi, self._lib
        described = ffi.new("fs_part[]", len(parts))
        kept = []  # the views must live as long as the call
        for part, (cache, tokens, position) in zip(described, parts, strict=True):
            n = len(tokens)
            if n < 1 or position < 0 or position + n > cache.capacity:
                raise RuntimeError(
                    f"{n} tokens at {position} do not fit {cache.capacity} positions"
                )
            if isinstance(tokens, list):
                kept.append(ffi.new("int32_t[]", tokens))
            else:
                kept.append(pointer(tokens, np.int32, (n,), "int32_t[]"))
            part.cache, part.tokens = self._own(cache).handle, kept[-1]
            part.n, part.position = n, position
        if rows == "all":
            count, which = sum(len(tokens) for _, tokens, _ in parts), self._rows_all
        elif rows == "last":
            count, which = len(parts), self._rows_last
        else:
            count, which = 0, self._rows_none
        out = self._new("float[]", max(count * self.vocab, 1))
        with self._lock:
            status = lib.fs_step(self._model, described, len(parts), which, out)
        if status:
            _check(status)
        return count, out

    def tell(self, cache: Cache, telling: Any) -> None:
        """Run an fs_telling, all set but for the cache: see bursts.py. Raises as `step` does."""
        _, lib, _ = load()
        telling.cache = self._own(cache).handle
        with self._lock:
            status = lib.fs_tell(self._model, self.vocab, telling)
        if not telling.drawn:  # what was drawn before a failure holds
            _check(status)

    def abort(self) -> None:
        """See Executor.abort."""
        _, lib, _ = load()
        lib.fs_abort(self._model)


def _check(status: int) -> None:
    """Raise what a step that ended so is to raise."""
    _, lib, _ = load()
    if status == lib.FS_DONE:
        return
    if status == lib.FS_ABORTED:
        raise Aborted
    if status == lib.FS_NO_MEMORY:
        raise MemoryError("not enough memory for a longer text")
    if status == lib.FS_NOT_FINITE:
        raise not_finite()
    if status == lib.FS_BAD_TOKEN:
        raise RuntimeError("a token is not in the vocabulary")
    if status == lib.FS_BAD_POSITION:
        raise RuntimeError("the positions before a step's first are not in its cache")
    raise RuntimeError(f"the step ended with status {status}")


def _shape(plan: Plan, weights: NativeWeights, kv: KV) -> tuple[Any, list[Any]]:
    """The C description of a model, and what must live as long as it does."""
    ffi, lib, _ = load()
    lowering = Lowering(plan, weights.groups)

    def weight(group: tuple[str, ...]) -> dict[str, Any]:
        packed = weights.groups[group]
        sizes = {"kind": packed.kind, "rows": packed.rows, "cols": packed.cols}
        return {**sizes, "data": weights.address(packed)}

    turns = []
    kept: list[Any] = []
    for rope in lowering.turns:
        kept.append(ffi.new("double[]", rope.frequencies))
        half = rope.style == "half"
        turns.append({"rotary_dim": rope.rotary_dim, "half": half, "frequency": kept[-1]})
        turns[-1]["magnitude"] = rope.magnitude
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
        "cache": getattr(lib, f"FS_CACHE_{kv.upper()}"),
        "vocab": vocab,
        "chunk": max(16, min(CHUNK_ROWS, CHUNK_BYTES // row_bytes)),
    }
    kept += arrays.values()
    return ffi.new("fs_shape *", {**arrays, **counts, **numbers}), kept


def why_not() -> str:
    """Why the C extension cannot be used; "" where it can."""
    return load()[2]


def build(
    plan: Plan,
    checkpoint: Checkpoint,
    quant: Quant,
    threads: int,
    progress: Progress | None,
    kv: KV = "f16",
) -> NativeExecutor:
    """An entry of the registry; threads 0 = as many as there are cores to use."""
    isa, number = choose_isa()
    threads = threads if threads > 0 else default_threads()
    weights = pack(plan, checkpoint, quant, number, threads, progress)
    return NativeExecutor(plan, weights, isa, threads, kv)


register(ExecutorKind("native", layout_nbytes, why_not, build))
