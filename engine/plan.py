"""A Plan: the operations of one forward pass, written once per architecture, run by any executor.

A step pushes `n` rows (tokens) through the plan. Every buffer is a float32 array [n, width]; a
`Slice` names some of its columns. Weights are named as in the checkpoint; a MatMul may stack
several of them (q, k and v; gate and up) into one matrix. After `SelectRows` only the rows whose
logits somebody reads are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fireside.engine.config import RopeStyle


@dataclass(frozen=True)
class Slice:
    """Columns [start, start + width) of a buffer."""

    buffer: str
    start: int
    width: int


@dataclass(frozen=True)
class Embed:
    """out[i] = weight[token[i]]; weight: [vocab, dim]."""

    weight: str
    out: Slice


@dataclass(frozen=True)
class RMSNorm:
    """out[i] = x[i] / sqrt(mean(x[i]^2) + eps) * weight [width]. (Zhang and Sennrich 2019)"""

    weight: str
    x: Slice
    out: Slice
    eps: float


@dataclass(frozen=True)
class MatMul:
    """out[i] = stack(weights) @ x[i], or += where `add`; each weight: [rows, x.width]."""

    weights: tuple[str, ...]
    x: Slice
    out: Slice
    add: bool = False


@dataclass(frozen=True)
class Rope:
    """Turn the first `rotary_dim` elements of every head of x by its position. (Su et al. 2021)"""

    x: Slice
    head_dim: int
    rotary_dim: int
    theta: float
    style: RopeStyle


@dataclass(frozen=True)
class Attention:
    """Append k and v to the cache of `layer`, then causal softmax(q k^T * scale) v per head."""

    layer: int
    q: Slice
    k: Slice
    v: Slice
    out: Slice
    head_dim: int
    scale: float


@dataclass(frozen=True)
class GatedActivation:
    """out[i] = act(gate[i]) * up[i]. (Shazeer 2020)"""

    gate: Slice
    up: Slice
    out: Slice
    activation: Literal["silu"] = "silu"


@dataclass(frozen=True)
class SelectRows:
    """out = the rows of x whose logits are wanted; what follows runs on those rows only."""

    x: Slice
    out: Slice


Op = Embed | RMSNorm | MatMul | Rope | Attention | GatedActivation | SelectRows


@dataclass(frozen=True)
class Plan:
    """One forward pass: operations in order, the widths of their buffers, where the logits are."""

    ops: tuple[Op, ...]
    logits: Slice
    n_layers: int
    n_kv_heads: int
    head_dim: int
    buffers: Mapping[str, int] = field(default_factory=dict)  # name -> width

    @property
    def weights(self) -> tuple[tuple[str, ...], ...]:
        """Every group of stacked weights that the plan reads, once each, in order of first use."""
        groups: dict[tuple[str, ...], None] = {}
        for op in self.ops:
            if isinstance(op, MatMul):
                groups[op.weights] = None
            elif isinstance(op, Embed | RMSNorm):
                groups[(op.weight,)] = None
        return tuple(groups)


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
