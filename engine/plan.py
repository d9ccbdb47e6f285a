"""A Plan: the operations of one forward pass, written once per architecture, run by any executor.

A step pushes `n` rows (tokens) through the plan. Every buffer is a float32 array [n, width]; a
`Slice` names some of its columns. Weights are named as in the checkpoint; a MatMul may stack
several of them (q, k and v; gate and up) into one matrix. After `SelectRows` only the rows whose
logits somebody reads are left.
"""

from __future__ import annotations

from collections.abc import Mapping

from fireside.engine.config import Activation as ActivationKind
from fireside.engine.config import RopeStyle
from fireside.engine.records import record


@record
class Slice:
    """Columns [start, start + width) of a buffer."""

    buffer: str
    start: int
    width: int


@record
class Embed:
    """out[i] = weight[token[i]] * scale, + positions[position of i]; weights: [rows, dim]."""

    weight: str
    out: Slice
    scale: float = 1.0
    positions: str = ""  # "": none


@record
class RMSNorm:
    """out[i] = x[i] / sqrt(mean(x[i]^2) + eps) * weight. (Zhang and Sennrich 2019)

    weight: [x.width]; or [head_dim], then each head of x is a vector of its own.
    """

    weight: str
    x: Slice
    out: Slice
    eps: float
    head_dim: int = 0  # 0: x is one vector


@record
class LayerNorm:
    """out[i] = (x[i] - mean) / sqrt(variance + eps) * weight + bias. (Ba et al. 2016)

    weight, bias: [x.width], also where each head of x is a vector of its own.
    """

    weight: str
    bias: str  # "": none
    x: Slice
    out: Slice
    eps: float
    head_dim: int = 0  # 0: x is one vector


@record
class MatMul:
    """out[i] = stack(weights) @ x[i], or += where `add`; each weight: [rows, x.width]."""

    weights: tuple[str, ...]
    x: Slice
    out: Slice
    add: bool = False


@record
class AddBias:
    """x[i] += the vectors `weights`, one behind the other: [x.width] together."""

    weights: tuple[str, ...]
    x: Slice


@record
class Add:
    """out += x."""

    x: Slice
    out: Slice


@record
class Rope:
    """Turn the first elements of every head of x by position * frequency. (Su et al. 2021)"""

    x: Slice
    head_dim: int
    frequencies: tuple[float, ...]  # radians a position, one for each pair of elements
    style: RopeStyle
    magnitude: float = 1.0  # multiplies cos and sin

    @property
    def rotary_dim(self) -> int:
        """Elements of a head that turn."""
        return 2 * len(self.frequencies)


@record
class Attention:
    """Append k and v to the cache of `layer`, then causal softmax(q k^T * scale) v per head.

    window: a token sees that many positions, itself included (0: all). softcap: scores become
    cap * tanh(score / cap) (0: they stay).
    """

    layer: int
    q: Slice
    k: Slice
    v: Slice
    out: Slice
    head_dim: int
    scale: float
    window: int = 0
    softcap: float = 0.0


@record
class GatedActivation:
    """out[i] = act(gate[i]) * up[i]. (Shazeer 2020)"""

    gate: Slice
    up: Slice
    out: Slice
    activation: ActivationKind = "silu"


@record
class Activation:
    """out[i] = act(x[i])."""

    x: Slice
    out: Slice
    activation: ActivationKind


@record
class Experts:
    """Mixture of experts: out = sum of weight[e] * down[e](act(gate[e] x) * up[e] x).

    The weights are the softmax of `router` [n, n_experts]; the `used` largest count (ties: the
    first), scaled to sum to 1 where `normalise`. gate, up: [n_experts, hidden, dim]; down:
    [n_experts, dim, hidden]. (Shazeer et al. 2017)
    """

    router: Slice
    gate: str
    up: str
    down: str
    x: Slice
    out: Slice
    used: int
    normalise: bool
    activation: ActivationKind = "silu"


@record
class Scale:
    """x[i] *= factor, then cap * tanh(x / cap) where there is a cap."""

    x: Slice
    factor: float
    softcap: float = 0.0


@record
class SelectRows:
    """out = the rows of x whose logits are wanted; what follows runs on those rows only."""

    x: Slice
    out: Slice


Op = (
    Embed
    | RMSNorm
    | LayerNorm
    | MatMul
    | AddBias
    | Add
    | Rope
    | Attention
    | GatedActivation
    | Activation
    | Experts
    | Scale
    | SelectRows
)


@record
class Plan:
    """One forward pass: operations in order, the widths of their buffers, where the logits are."""

    ops: tuple[Op, ...]
    logits: Slice
    n_layers: int
    n_kv_heads: int
    head_dim: int
    buffers: Mapping[str, int] = {}  # name -> width

    @property
    def weights(self) -> tuple[tuple[str, ...], ...]:
        """Every group of stacked weights that the plan reads, once each, in order of first use."""
        groups: dict[tuple[str, ...], None] = {}
        for op in self.ops:
            groups |= dict.fromkeys(weight_groups(op))
        return tuple(groups)


def weight_groups(op: Op) -> tuple[tuple[str, ...], ...]:
    """The groups of stacked weights that an operation reads."""
    match op:
        case MatMul() | AddBias():
            return (op.weights,)
        case Embed():
            return ((op.weight,), (op.positions,)) if op.positions else ((op.weight,),)
        case LayerNorm():
            return ((op.weight,), (op.bias,)) if op.bias else ((op.weight,),)
        case RMSNorm():
            return ((op.weight,),)
        case Experts():
            return ((op.gate,), (op.up,), (op.down,))
        case _:
            return ()


class PlanBuilder:
    """Collects operations; `buffer` declares a buffer and returns the Slice of all its columns."""

    def __init__(self) -> None:
        self.buffers: dict[str, int] = {}
        self.ops: list[Op] = []

    def buffer(self, name: str, width: int) -> Slice:
        """Declare a buffer of `width` columns."""
        if self.buffers.setdefault(name, width) != width:
            raise RuntimeError(f"buffer {name!r} has width {self.buffers[name]}, not {width}")
        return Slice(name, 0, width)

    def add(self, op: Op) -> None:
        """Append an operation."""
        self.ops.append(op)
