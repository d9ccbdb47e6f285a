"""Lowering a Plan: fusing changes nothing, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fireside.engine import architectures
from fireside.engine.executors.native_lowering import Lowering
from fireside.engine.executors.native_weights import plan_layout
from fireside.engine.plan import MatMul, Op, Plan, RMSNorm, Rope, SelectRows, Slice
from tests.models import SHAPES, random_checkpoint
from tests.native.steps import build


def plan_of(shape: str) -> Plan:
    return architectures.get("llama").plan(SHAPES[shape], True)


def without_fusing(plan: Plan) -> Plan:
    """The same computation in an order in which no neighbours fuse."""
    nothing = Slice("nothing", 0, SHAPES["odd"].dim)
    ops: list[Op] = []
    for op in plan.ops:
        if isinstance(op, Rope):
            ops.append(op)
            ops.append(RMSNorm("output_norm.weight", Slice("x", 0, 36), nothing, 1e-5))
        elif isinstance(op, MatMul):
            ops.append(RMSNorm("output_norm.weight", nothing, nothing, 1e-5))
            ops.append(op)
        else:
            ops.append(op)
    return replace(plan, ops=tuple(ops), buffers={**plan.buffers, "nothing": 36})


def with_x(op: MatMul | RMSNorm, x: Slice) -> MatMul | RMSNorm:
    return type(op)(**{**vars(op), "x": x})


def lowered(plan: Plan, shape: str) -> Lowering:
    return Lowering(plan, plan_layout(plan, random_checkpoint(SHAPES[shape], 1), "none"))


def test_a_llama_layer_is_five_operations() -> None:
    plan = plan_of("plain")
    layers = SHAPES["plain"].n_layers
    assert len(lowered(plan, "plain").ops) == 1 + 5 * layers + 2


@pytest.mark.parametrize("quant", ["none", "q8"])
def test_fusing_changes_nothing(quant) -> None:  # type: ignore[no-untyped-def]
    plan = plan_of("odd")
    apart = without_fusing(plan)
    assert len(lowered(apart, "odd").ops) > len(lowered(plan, "odd").ops)
    checkpoint = random_checkpoint(SHAPES["odd"], 3)
    tokens = np.arange(30, dtype=np.int32)
    for threads in (1, 2):
        a = build(plan, checkpoint, quant, threads=threads)
        b = build(apart, checkpoint, quant, threads=threads)
        x = a.step(a.new_cache(30), tokens, 0, "all")
        assert x.tobytes() == b.step(b.new_cache(30), tokens, 0, "all").tobytes()
        one = b.new_cache(30)
        rows = [b.step(one, tokens[i : i + 1], i, "last") for i in range(30)]
        assert np.concatenate(rows).tobytes() == x.tobytes()


def test_what_does_not_fit_is_refused() -> None:
    plan = plan_of("plain")
    ops = plan.ops
    select = next(op for op in ops if isinstance(op, SelectRows))
    matmul = next(op for op in ops if isinstance(op, MatMul))
    norm = next(op for op in ops if isinstance(op, RMSNorm))
    bad_plans = [
        replace(plan, ops=tuple(op for op in ops if op is not select)),
        replace(plan, ops=(*ops, select)),
        replace(plan, n_kv_heads=plan.n_kv_heads * 2),
        replace(plan, n_layers=1),
        replace(plan, ops=(*ops, with_x(matmul, matmul.out))),
        replace(plan, ops=(*ops, with_x(norm, Slice("x", 0, 32)))),
        replace(plan, ops=(with_x(norm, Slice("x", 60, 64)), *ops)),
    ]
    for bad in bad_plans:
        with pytest.raises(RuntimeError):
            lowered(bad, "plain")
