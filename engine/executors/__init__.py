"""Executors: the only code that knows how to compute. Each runs the same Plan.

`native` is the C extension, `numpy` plain NumPy: slower, and there where no compiler was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.errors import KernelsError
from fireside.engine.plan import Plan

Quant = Literal["none", "q8", "q4"]
QUANTS: tuple[Quant, ...] = ("none", "q8", "q4")
Rows = Literal["last", "all", "none"]
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while weights are laid out; may raise to cancel."""


class Aborted(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """A step was left early because abort() was called; the cache beyond its start is void."""


class Cache(Protocol):
    """Keys and values of one timeline, `capacity` positions long. The session keeps the length."""

    capacity: int

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        ...


class Executor(Protocol):
    """A plan with its weights laid out, ready to run. Immutable but for the abort flag."""

    name: str  # "native" or "numpy"
    isa: str  # instruction set in use: "avx2", "avx512_vnni", "reference", "numpy", ...
    threads: int

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as laid out."""
        ...

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache for `capacity` positions."""
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

    def abort(self) -> None:
        """Make the step that runs now, or the next one, raise Aborted. From any thread."""
        ...


@dataclass(frozen=True)
class ExecutorKind:
    """An entry of the registry."""

    name: str
    weights_nbytes: Callable[[Plan, Checkpoint, Quant], int]  # as they will be laid out
    why_not: Callable[[], str]  # "" where it can run on this machine, else the reason
    build: Callable[[Plan, Checkpoint, Quant, int, Progress | None], Executor]


_REGISTRY: dict[str, ExecutorKind] = {}


def register(kind: ExecutorKind) -> None:
    """Add an entry; a second one of the same name is a programming error."""
    if kind.name in _REGISTRY:
        raise RuntimeError(f"executor {kind.name!r} is registered twice")
    _REGISTRY[kind.name] = kind


def names() -> tuple[str, ...]:
    """Names of all executors, best first."""
    return tuple(_REGISTRY)


def choose(name: str = "auto") -> ExecutorKind:
    """The executor called `name`; "auto" takes the first that can run here."""
    if name == "auto":
        return next(kind for kind in _REGISTRY.values() if not kind.why_not())
    if name not in _REGISTRY:
        raise KernelsError(
            f"unknown kernels {name!r}", f"choose one of auto, {', '.join(_REGISTRY)}"
        )
    kind = _REGISTRY[name]
    if reason := kind.why_not():
        raise KernelsError(f"the {name} kernels cannot run here: {reason}", "use --kernels numpy")
    return kind


from fireside.engine.executors import native, numpy_executor  # noqa: E402, F401  (best first)
