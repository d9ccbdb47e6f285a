"""The Plan in C: see native/. (Being written; until then the NumPy executor runs.)"""

from __future__ import annotations

from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.executors import Executor, ExecutorKind, Progress, Quant, register
from fireside.engine.plan import Plan


def why_not() -> str:
    """Why the C extension cannot be used; "" where it can."""
    return "the C extension was not built"


def build(
    plan: Plan, checkpoint: Checkpoint, quant: Quant, threads: int, progress: Progress | None
) -> Executor:
    """An entry of the registry."""
    raise NotImplementedError


register(ExecutorKind("native", why_not, build))
