"""Executors: the only code that knows how to compute. Each runs the same Plan.

`native` is the C extension, `numpy` plain NumPy: slower, and there where no compiler was.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from fireside.engine.arrays import np
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.config import ModelConfig
from fireside.engine.errors import KernelsError
from fireside.engine.hints import TYPE_CHECKING, Literal, Protocol, TypeAlias
from fireside.engine.plan import Plan
from fireside.engine.records import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fireside.engine.samplers.chain import LogitsRow

Quant = Literal["none", "f16", "q8", "q4"]
QUANTS: tuple[Quant, ...] = ("none", "f16", "q8", "q4")
"""How matrices are kept: as the file has them, as halfs, as int8 or 4-bit blocks."""
KV = Literal["f16", "f32", "q8"]
KVS: tuple[KV, ...] = ("f16", "f32", "q8")
"""How keys and values are kept: rounded to halfs, exactly, or to int8 in blocks of 32."""
Rows = Literal["last", "all", "none"]
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while weights are laid out; may raise to cancel."""


def cache_bytes(config: ModelConfig, kv: KV) -> int:
    """Bytes of keys and values that a position takes."""
    scales = 4 * -(-config.head_dim // 32)  # one for each block of 32, or part of it
    head = {"f32": 4 * config.head_dim, "f16": 2 * config.head_dim, "q8": config.head_dim + scales}
    return 2 * config.n_layers * config.n_kv_heads * head[kv]


class Aborted(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """A step was left early because abort() was called; the cache beyond its start is void."""


class Cache(Protocol):
    """Keys and values of one timeline, up to `capacity` positions. The session keeps the length.

    Memory is taken as the text grows.
    """

    capacity: int

    @property
    def nbytes(self) -> int:
        """Bytes it holds now; what forks share counts for each of them."""
        ...


Part: TypeAlias = "tuple[Cache, NDArray[np.int32], int]"
"""A text's share in a step: its cache, the tokens [n] to push, the position of the first."""


class Executor(Protocol):
    """A plan with its weights laid out, ready to run. Immutable but for the abort flag."""

    name: str  # "native" or "numpy"
    isa: str  # instruction set in use: "avx2", "avx512_vnni", "reference", "numpy", ...
    threads: int
    kv: KV  # how its caches keep keys and values

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as laid out."""
        ...

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache for `capacity` positions."""
        ...

    def fork(self, cache: Cache) -> Cache:
        """A cache that holds what `cache` holds, and goes its own way from there.

        The two share their memory until one of them writes over it: a fork costs next to nothing,
        and the siblings of a story keep their common past once. Fork before the step in which the
        texts part:

            siblings = [cache, *(executor.fork(cache) for _ in range(4))]
        """
        ...

    def step(
        self, cache: Cache, tokens: NDArray[np.int32], position: int, rows: Rows
    ) -> NDArray[np.float32]:
        """Push tokens [n] at positions position..position+n-1 through the plan.

        Positions before `position` must be in the cache; it is overwritten from there on. Returns
        a new array of logits [m, vocab] with m = 1, n or 0 as `rows` says. Raises Aborted.
        The result does not depend on how a text is cut into steps, nor on the thread count.
        """
        ...

    def step_rows(
        self, cache: Cache, tokens: list[int], position: int, rows: Rows
    ) -> Sequence[LogitsRow]:
        """`step`, the logits [vocab] of each of the m rows by themselves: no array where none is
        needed."""
        ...

    def step_batch(self, parts: Sequence[Part]) -> NDArray[np.float32]:
        """One step of several texts: new logits [len(parts), vocab], after the last token of each.

        A part is (cache, tokens [n], position of the first), as in `step`; the caches must be
        different ones. All rows go through the weights together, so a token each of five texts
        costs little more than a token of one. Bits are those of one `step` a text:

            parts = [(c, np.array([id], np.int32), n) for c, id, n in zip(siblings, ids, lengths)]
            for logits in executor.step_batch(parts): ...

        Raises Aborted; all of the caches are void beyond their starts then.
        """
        ...

    def abort(self) -> None:
        """Make the step that runs now, or the next one, raise Aborted. From any thread."""
        ...


@record
class ExecutorKind:
    """An entry of the registry."""

    name: str
    weights_nbytes: Callable[[Plan, Checkpoint, Quant], int]  # as they will be laid out
    why_not: Callable[[], str]  # "" where it can run on this machine, else the reason
    build: Build


class Build(Protocol):
    """How an executor is made; threads 0 = as many as there are cores to use."""

    def __call__(
        self,
        plan: Plan,
        checkpoint: Checkpoint,
        quant: Quant,
        threads: int,
        progress: Progress | None,
        kv: KV = "f16",
    ) -> Executor:
        """Lay the weights out; raises what `progress` raises."""
        ...


_FILES = {"native": "native", "numpy": "numpy_executor"}  # best first; imported when asked for
_REGISTRY: dict[str, ExecutorKind] = {}


def register(kind: ExecutorKind) -> None:
    """Add an entry; a second one of the same name is a programming error."""
    if kind.name in _REGISTRY:
        raise RuntimeError(f"executor {kind.name!r} is registered twice")
    _REGISTRY[kind.name] = kind


def names() -> tuple[str, ...]:
    """Names of all executors, best first."""
    return tuple(_FILES)


def get(name: str) -> ExecutorKind:
    """The executor called `name`, whether it can run here or not."""
    importlib.import_module(f"{__name__}.{_FILES[name]}")
    return _REGISTRY[name]


def choose(name: str = "auto") -> ExecutorKind:
    """The executor called `name`; "auto" takes the first that can run here."""
    if name == "auto":
        return next(kind for kind in map(get, _FILES) if not kind.why_not())
    if name not in _FILES:
        raise KernelsError(f"unknown kernels {name!r}", f"choose one of auto, {', '.join(_FILES)}")
    kind = get(name)
    if reason := kind.why_not():
        raise KernelsError(f"the {name} kernels cannot run here: {reason}", "use --kernels numpy")
    return kind
