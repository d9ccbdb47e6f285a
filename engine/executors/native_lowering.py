"""A Plan as the C step wants it: numbers instead of names, neighbours fused.

A norm or a gated activation goes into the matmul behind it, and rope into the attention, where
nobody else reads what is between them: each saves a barrier and a walk through memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fireside.engine.errors import UnsupportedError
from fireside.engine.executors.native_library import load
from fireside.engine.executors.native_weights import Packed
from fireside.engine.plan import (
    Add,
    AddBias,
    Attention,
    Embed,
    Experts,
    GatedActivation,
    MatMul,
    Op,
    Plan,
    RMSNorm,
    Rope,
    Scale,
    SelectRows,
    Slice,
)

LOGITS = -1  # the buffer that the caller owns


def lowers(op: Op) -> bool:
    """Whether native/step.c can do it."""
    match op:
        case Embed():
            return op.scale == 1 and not op.positions
        case RMSNorm():
            return not op.head_dim
        case Rope():
            return op.magnitude == 1
        case Attention():
            return not op.window and not op.softcap
        case GatedActivation():
            return op.activation == "silu"
        case MatMul() | SelectRows():
            return True
        case _:
            return False


def reads(op: Op) -> tuple[Slice, ...]:
    """The slices whose values an operation needs."""
    match op:
        case MatMul():
            return (op.x, op.out) if op.add else (op.x,)
        case GatedActivation():
            return (op.gate, op.up)
        case Add():
            return (op.x, op.out)
        case Experts():
            return (op.router, op.x)
        case Attention():
            return (op.q, op.k, op.v)
        case Embed():
            return ()
        case _:
            return (op.x,)


def writes(op: Op) -> tuple[Slice, ...]:
    """The slices that an operation changes."""
    return (op.x,) if isinstance(op, Rope | AddBias | Scale) else (op.out,)


@dataclass
class Lowering:
    """Collects the C array of operations of one plan."""

    plan: Plan
    groups: Mapping[tuple[str, ...], Packed]
    ops: list[dict[str, Any]] = field(default_factory=list)
    matrices: list[tuple[str, ...]] = field(default_factory=list)
    vectors: list[tuple[str, ...]] = field(default_factory=list)
    turns: list[Rope] = field(default_factory=list)

    def __post_init__(self) -> None:
        for op in self.plan.ops:
            if not lowers(op):
                raise UnsupportedError(
                    f"the native kernels do not know this {type(op).__name__}",
                    "use --kernels numpy",
                )
            for s in (*reads(op), *writes(op)):
                if s.start < 0 or s.start + s.width > self.plan.buffers[s.buffer]:
                    raise RuntimeError(f"{s} is not within its buffer")
        self.buffers = {name: i for i, name in enumerate(self.plan.buffers)}
        for group, packed in self.groups.items():
            (self.vectors if packed.vector else self.matrices).append(group)
        kinds = [type(op) for op in self.plan.ops]
        logits = [s.buffer == self.plan.logits.buffer for op in self.plan.ops for s in writes(op)]
        if kinds.count(SelectRows) != 1 or kinds.index(SelectRows) > logits.index(True):
            raise RuntimeError("a plan selects rows once, before it writes its logits")
        i = 0
        while i < len(self.plan.ops):
            i += self._lower(i)

    def _dead(self, after: int, buffer: str) -> bool:
        """Whether nothing from operation `after` on reads what is now in `buffer`."""
        for op in self.plan.ops[after:]:
            if any(s.buffer == buffer for s in reads(op)):
                return False
            if any(s == Slice(buffer, 0, self.plan.buffers[buffer]) for s in writes(op)):
                return True
        return buffer != self.plan.logits.buffer

    def _fuses(self, i: int, out: Slice, inputs: tuple[Slice, ...]) -> bool:
        """Whether operation i, inputs -> out, can become part of the matmul behind it."""
        if i + 1 == len(self.plan.ops):
            return False
        following = self.plan.ops[i + 1]
        return (
            isinstance(following, MatMul)
            and following.x == out
            and all(following.out.buffer != s.buffer for s in inputs)
            and (not following.add or following.out.buffer != out.buffer)
            and self._dead(i + 2, out.buffer)
        )

    def _lower(self, i: int) -> int:
        """Append operation i, with its neighbours where they fuse; returns how many it took."""
        op, behind = self.plan.ops[i], self.plan.ops[i + 1 : i + 3]
        _, lib, _ = load()
        match op:
            case RMSNorm() if self._fuses(i, op.out, (op.x,)):
                norm = {"before": lib.FS_AFTER_NORM, "vector": self._vector(op), "eps": op.eps}
                self._matmul(self.plan.ops[i + 1], x=op.x, **norm)
                return 2
            case GatedActivation() if self._fuses(i, op.out, (op.gate, op.up)):
                gated = {"before": lib.FS_AFTER_SILU, "y": self._slice(op.up)}
                self._matmul(self.plan.ops[i + 1], x=op.gate, **gated)
                return 2
            case Rope() if len(behind) == 2:
                key, attention = behind
                if (
                    isinstance(key, Rope)
                    and isinstance(attention, Attention)
                    and (op.x, key.x) == (attention.q, attention.k)
                ):
                    self._attention(attention, self._turn(op), self._turn(key))
                    return 3
        self._lower_alone(op)
        return 1

    def _lower_alone(self, op: Op) -> None:
        _, lib, _ = load()
        match op:
            case Embed():
                matrix = self._matrix((op.weight,), op.out.width, None)
                self._add(lib.FS_EMBED, out=self._slice(op.out), matrix=matrix)
            case RMSNorm():
                x, out, vector = self._slice(op.x), self._slice(op.out), self._vector(op)
                self._add(lib.FS_NORM, x=x, out=out, vector=vector, eps=op.eps)
            case MatMul():
                self._matmul(op, x=op.x)
            case Rope():
                turn = self._turn(op)
                self._add(lib.FS_ROPE, x=self._slice(op.x), head_dim=op.head_dim, rope_q=turn)
            case Attention():
                self._attention(op, -1, -1)
            case GatedActivation():
                if op.gate.width != op.up.width or op.out.width != op.up.width:
                    raise RuntimeError(f"the widths of {op} differ")
                gate, up, out = (self._slice(s) for s in (op.gate, op.up, op.out))
                self._add(lib.FS_SILU, x=gate, y=up, out=out)
            case SelectRows():
                self._add(lib.FS_SELECT, x=self._slice(op.x), out=self._slice(op.out))

    def _add(self, kind: int, **fields: Any) -> None:
        self.ops.append({"kind": kind, "rope_q": -1, "rope_k": -1, **fields})

    def _slice(self, s: Slice) -> dict[str, int]:
        buffer = LOGITS if s == self.plan.logits else self.buffers[s.buffer]
        if buffer != LOGITS and s.buffer == self.plan.logits.buffer:
            raise RuntimeError("a part of the logits cannot be used alone")
        return {"buffer": buffer, "start": 0 if buffer == LOGITS else s.start, "width": s.width}

    def _matrix(self, group: tuple[str, ...], cols: int, rows: int | None) -> int:
        packed = self.groups[group]
        if packed.vector or packed.cols != cols or rows not in (None, packed.rows):
            raise RuntimeError(f"weights {group} do not fit their operation")
        return self.matrices.index(group)

    def _vector(self, op: RMSNorm) -> int:
        packed = self.groups[(op.weight,)]
        if not packed.vector or packed.cols != op.x.width or op.out.width != op.x.width:
            raise RuntimeError(f"weight {op.weight} does not fit its norm")
        return self.vectors.index((op.weight,))

    def _matmul(self, op: Op, *, x: Slice, **fields: Any) -> None:
        assert isinstance(op, MatMul)
        if op.out.buffer == x.buffer:
            raise RuntimeError("a matmul cannot write into its own input")
        _, lib, _ = load()
        matrix = self._matrix(op.weights, x.width, op.out.width)
        where = {"x": self._slice(x), "out": self._slice(op.out), "matrix": matrix}
        self._add(lib.FS_MATMUL, add=op.add, **where, **fields)

    def _attention(self, op: Attention, rope_q: int, rope_k: int) -> None:
        _, lib, _ = load()
        plan, width = self.plan, self.plan.n_kv_heads * op.head_dim
        fits = op.head_dim == plan.head_dim and op.k.width == op.v.width == width
        if not fits or op.q.width % width or op.out.width != op.q.width:
            raise RuntimeError("the heads of an attention do not fit the plan's cache")
        if not 0 <= op.layer < plan.n_layers or op.out.buffer in (op.q.buffer, op.k.buffer):
            raise RuntimeError("an attention has no layer or writes into its own input")
        where = {"x": op.q, "y": op.k, "z": op.v, "out": op.out}
        self._add(
            lib.FS_ATTENTION,
            **{name: self._slice(s) for name, s in where.items()},
            **{"layer": op.layer, "head_dim": op.head_dim, "scale": op.scale},
            **{"rope_q": rope_q, "rope_k": rope_k},
        )

    def _turn(self, op: Rope) -> int:
        """The number of a table of angles, shared by all ropes of one kind."""
        if op.rotary_dim % 2 or op.rotary_dim > op.head_dim or op.x.width % op.head_dim:
            raise RuntimeError(f"{op} does not fit its heads")
        for i, known in enumerate(self.turns):
            if (op.frequencies, op.style, op.magnitude) == (
                known.frequencies,
                known.style,
                known.magnitude,
            ):
                return i
        self.turns.append(op)
        return len(self.turns) - 1

    def frequencies(self) -> Iterator[tuple[Rope, Any]]:
        """Each table's radians per position, float64 [rotary_dim / 2]."""
        for op in self.turns:
            yield op, np.array(op.frequencies)
