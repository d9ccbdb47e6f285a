"""A Plan as the C step wants it: numbers instead of names, neighbours fused.

A norm or an activation goes into the matmul behind it, a bias into the matmul before it, an
addition into the norm before it, rope and the norms of heads into the attention, where nobody else
reads what is between them: each saves a barrier and a walk through memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from fireside.engine.config import Activation as ActivationKind
from fireside.engine.executors.native_library import load
from fireside.engine.executors.native_weights import Packed
from fireside.engine.hints import Any
from fireside.engine.plan import (
    Activation,
    Add,
    AddBias,
    Attention,
    Embed,
    Experts,
    GatedActivation,
    LayerNorm,
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


def head_dim(op: RMSNorm | LayerNorm) -> int:
    """The width of the heads that an operation normalises one by one; 0 where it does not."""
    return op.head_dim


def number_of(activation: ActivationKind) -> int:
    """fireside.h's number."""
    _, lib, _ = load()
    return int(getattr(lib, f"FS_{activation.upper()}"))


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


class Lowering:
    """Collects the C array of operations of one plan."""

    def __init__(self, plan: Plan, groups: Mapping[tuple[str, ...], Packed]) -> None:
        self.plan, self.groups = plan, groups
        self.ops: list[dict[str, Any]] = []
        self.matrices: list[tuple[str, ...]] = []
        self.vectors: list[tuple[str, ...]] = []
        self.turns: list[Rope] = []
        for op in self.plan.ops:
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
        _, lib, _ = load()
        op = self.plan.ops[i]
        following = self.plan.ops[i + 1] if i + 1 < len(self.plan.ops) else None
        match op:
            case RMSNorm() | LayerNorm() if not head_dim(op) and self._fuses(i, op.out, (op.x,)):
                before = {"before": lib.FS_AFTER_NORM, **self._norm(op)}
                return 1 + self._matmul(i + 1, op.x, **before)
            case RMSNorm() | LayerNorm() if self._adds(i, op):
                assert isinstance(following, Add)
                where = {"x": self._slice(op.x), "out": self._slice(following.out)}
                self._add(lib.FS_NORM, add=True, **where, **self._norm(op))
                return 2
            case GatedActivation() if self._fuses(i, op.out, (op.gate, op.up)):
                before = {"before": lib.FS_AFTER_ACTIVATION, **self._activation(op)}
                return 1 + self._matmul(i + 1, op.gate, **before)
            case Activation() if self._fuses(i, op.out, (op.x,)):
                before = {"before": lib.FS_AFTER_ACTIVATION, **self._activation(op)}
                return 1 + self._matmul(i + 1, op.x, **before)
            case MatMul():
                return self._matmul(i, op.x)
            case RMSNorm() | Rope() | Attention():
                taken = self._attention(i)
                if taken:
                    return taken
        self._lower_alone(op)
        return 1

    def _adds(self, i: int, op: RMSNorm | LayerNorm) -> bool:
        """Whether the operation behind norm i adds what comes out of it, and is the last to."""
        following = self.plan.ops[i + 1] if i + 1 < len(self.plan.ops) else None
        return (
            isinstance(following, Add)
            and following.x == op.out
            and following.out.buffer not in (op.x.buffer, op.out.buffer)
            and self._dead(i + 2, op.out.buffer)
        )

    def _lower_alone(self, op: Op) -> None:
        _, lib, _ = load()
        match op:
            case Embed():
                fields = {"matrix": self._matrix((op.weight,), op.out.width, None)}
                if op.positions:
                    fields["positions"] = self._matrix((op.positions,), op.out.width, None)
                self._add(lib.FS_EMBED, out=self._slice(op.out), scale=op.scale, **fields)
            case RMSNorm() | LayerNorm():
                where = {"x": self._slice(op.x), "out": self._slice(op.out)}
                self._add(lib.FS_NORM, **where, **self._norm(op))
            case Rope():
                turn = self._turn(op)
                self._add(lib.FS_ROPE, x=self._slice(op.x), head_dim=op.head_dim, rope_q=turn)
            case GatedActivation() | Activation():
                gate = op.gate if isinstance(op, GatedActivation) else op.x
                where = {"x": self._slice(gate), "out": self._slice(op.out)}
                self._add(lib.FS_ACTIVATE, **where, **self._activation(op))
            case AddBias():
                vector = self._vector(op.weights, op.x.width)
                self._add(lib.FS_BIAS, out=self._slice(op.x), vector=vector)
            case Add():
                if op.x.width != op.out.width:
                    raise RuntimeError(f"the widths of {op} differ")
                self._add(lib.FS_ADD, x=self._slice(op.x), out=self._slice(op.out))
            case Scale():
                factors = {"scale": op.factor, "softcap": op.softcap}
                self._add(lib.FS_SCALE, x=self._slice(op.x), **factors)
            case Experts():
                self._experts(op)
            case SelectRows():
                self._add(lib.FS_SELECT, x=self._slice(op.x), out=self._slice(op.out))

    def _add(self, kind: int, **fields: Any) -> None:
        none = ("rope_q", "rope_k", "norm_q", "norm_k", "bias", "vector_bias", "positions")
        self.ops.append({"kind": kind, **dict.fromkeys(none, -1), **fields})

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

    def _vector(self, group: tuple[str, ...], width: int) -> int:
        packed = self.groups[group]
        if not packed.vector or packed.cols != width:
            raise RuntimeError(f"weights {group} do not fit their operation")
        return self.vectors.index(group)

    def _norm(self, op: RMSNorm | LayerNorm) -> dict[str, Any]:
        """What of an operation says how a row is normalised."""
        _, lib, _ = load()
        unit = head_dim(op) or op.x.width
        if op.out.width != op.x.width or op.x.width % unit:
            raise RuntimeError(f"the widths of {op} differ")
        fields = {"eps": op.eps, "head_dim": op.head_dim}
        if isinstance(op, RMSNorm):
            return {**fields, "vector": self._vector((op.weight,), unit), "norm": lib.FS_RMS}
        if op.bias:
            fields["vector_bias"] = self._vector((op.bias,), op.x.width)
        fields["vector"] = self._vector((op.weight,), op.x.width)
        return {**fields, "norm": lib.FS_LAYER}

    def _activation(self, op: GatedActivation | Activation) -> dict[str, Any]:
        """What of an operation says which activation it is, and of what."""
        gate = op.gate if isinstance(op, GatedActivation) else op.x
        up = self._slice(op.up) if isinstance(op, GatedActivation) else {"width": 0}
        if up["width"] not in (0, gate.width) or op.out.width != gate.width:
            raise RuntimeError(f"the widths of {op} differ")
        return {"y": up, "activation": number_of(op.activation)}

    def _matmul(self, i: int, x: Slice, **fields: Any) -> int:
        """Append matmul i, of x, and the bias behind it; returns how many operations that took."""
        op = self.plan.ops[i]
        assert isinstance(op, MatMul)
        if op.out.buffer == x.buffer:
            raise RuntimeError("a matmul cannot write into its own input")
        _, lib, _ = load()
        where: dict[str, Any] = {"x": self._slice(x), "add": op.add, **fields}
        if op.weights not in self.groups:
            self._matmuls(op, x, where)
            return 1
        where["matrix"] = self._matrix(op.weights, x.width, op.out.width)
        following = self.plan.ops[i + 1] if i + 1 < len(self.plan.ops) else None
        taken = 1
        if isinstance(following, AddBias) and following.x == op.out:
            where["bias"] = self._vector(following.weights, op.out.width)
            taken = 2
        self._add(lib.FS_MATMUL, out=self._slice(op.out), **where)
        return taken

    def _matmuls(self, op: MatMul, x: Slice, where: Mapping[str, Any]) -> None:
        """Append one matmul for each of the groups that the weights of `op` lie in."""
        _, lib, _ = load()
        start = end = op.out.start
        names = list(op.weights)
        while names:
            found = [tuple(names[:n]) for n in range(len(names), 0, -1)]
            group = next((group for group in found if group in self.groups), None)
            if group is None:
                raise RuntimeError(f"weights {op.weights} are not there")
            end = start + self.groups[group].rows
            out = Slice(op.out.buffer, start, end - start)
            matrix = self._matrix(group, x.width, out.width)
            self._add(lib.FS_MATMUL, out=self._slice(out), matrix=matrix, **where)
            start, names = end, names[len(group) :]
        if end != op.out.start + op.out.width:
            raise RuntimeError(f"weights {op.weights} do not fit their operation")

    def _experts(self, op: Experts) -> None:
        _, lib, _ = load()
        n, hidden, names = op.router.width, 0, (op.gate, op.up, op.down)
        gate, up, down = (self.groups[(name,)] for name in names)
        hidden = gate.rows // n  # of an expert, filled up to whole panels
        fits = gate.rows == up.rows == n * hidden and down.rows == n * -(-op.out.width // 16) * 16
        if not fits or not gate.cols == up.cols == op.x.width or -(-down.cols // 16) * 16 != hidden:
            raise RuntimeError(f"weights {names} do not fit their operation")
        if not 0 < op.used <= n or op.out.buffer in (op.x.buffer, op.router.buffer):
            raise RuntimeError("a mixture uses no experts or writes into its own input")
        where = {"x": op.x, "y": op.router, "out": op.out}
        matrix, up_matrix, down_matrix = (self.matrices.index((name,)) for name in names)
        self._add(
            lib.FS_EXPERTS,
            **{name: self._slice(s) for name, s in where.items()},
            **{"matrix": matrix, "up": up_matrix, "down": down_matrix, "hidden": down.cols},
            **{"used": op.used, "normalise": op.normalise},
            activation=number_of(op.activation),
        )

    def _attention(self, i: int) -> int:
        """Append the attention at i, or behind norms and ropes of its heads; how many that took.

        0 where there is none.
        """
        ops, end = self.plan.ops, i
        while end < len(ops) and isinstance(ops[end], RMSNorm | Rope):
            end += 1
        attention = ops[end] if end < len(ops) else None
        if not isinstance(attention, Attention):
            return 0
        kinds = [type(op) for op in ops[i:end]]
        if kinds not in ([], [Rope, Rope], [RMSNorm, RMSNorm], [RMSNorm, RMSNorm, Rope, Rope]):
            return 0
        fields: dict[str, int | float] = {}
        for op, part in zip(ops[i:end], (attention.q, attention.k) * 2, strict=False):
            letter = "q" if part == attention.q else "k"
            if isinstance(op, Rope) and op.x == part and op.head_dim == attention.head_dim:
                fields[f"rope_{letter}"] = self._turn(op)
            elif isinstance(op, RMSNorm) and op.x == op.out == part and head_dim(op):
                if op.head_dim != attention.head_dim or fields.setdefault("eps", op.eps) != op.eps:
                    return 0
                fields[f"norm_{letter}"] = self._vector((op.weight,), op.head_dim)
            else:
                return 0
        self._attend(attention, fields)
        return end - i + 1

    def _attend(self, op: Attention, fields: Mapping[str, int | float]) -> None:
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
            **{"window": op.window, "softcap": op.softcap, **fields},
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
