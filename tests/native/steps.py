"""Short ways to run one step, or one matmul, on the native executor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fireside.engine import architectures
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.config import ModelConfig
from fireside.engine.executors import KV, Quant
from fireside.engine.executors.native import NativeExecutor
from fireside.engine.executors.native_library import choose_isa
from fireside.engine.executors.native_weights import pack
from fireside.engine.plan import Embed, MatMul, Plan, PlanBuilder, SelectRows
from tests.models import random_tensor

Floats = NDArray[np.float32]
KINDS: list[tuple[Quant, str, KV]] = [
    ("none", "F32", "f32"),
    ("none", "F16", "f16"),
    ("f16", "Q8_0", "f16"),
    ("q8", "F32", "f16"),
    ("q4", "F32", "q8"),
]


def tokens_for(vocab: int, n: int) -> np.ndarray:
    return np.random.default_rng(9).integers(0, vocab, n).astype(np.int32)


def in_pieces(executor: NativeExecutor, tokens: np.ndarray, size: int) -> Floats:
    cache = executor.new_cache(len(tokens))
    parts = [
        executor.step(cache, tokens[i : i + size], i, "all") for i in range(0, len(tokens), size)
    ]
    return np.concatenate(parts)


def build(
    plan: Plan,
    checkpoint: Checkpoint,
    quant: Quant = "none",
    isa: str = "",
    threads: int = 1,
    kv: KV = "f16",
) -> NativeExecutor:
    name, number = choose_isa(isa or None)
    weights = pack(plan, checkpoint, quant, number, threads, None)
    return NativeExecutor(plan, weights, name, threads, kv)


def llama(
    checkpoint: Checkpoint,
    quant: Quant = "none",
    isa: str = "",
    threads: int = 1,
    kv: KV = "f16",
) -> NativeExecutor:
    plan = architectures.get("llama").plan(checkpoint.config, checkpoint.tied)
    return build(plan, checkpoint, quant, isa, threads, kv)


def matmul_model(weights: Floats | Tensor, x: Floats, block: str) -> tuple[Plan, Checkpoint]:
    """A model of one matmul: weights [rows, cols] stored as `block` @ x [n, cols].

    The rows of x are the embedding of tokens 0..n-1, so they reach the matmul as they are.
    """
    rows, cols = weights.shape
    b = PlanBuilder()
    a, chosen, logits = b.buffer("a", cols), b.buffer("chosen", cols), b.buffer("logits", rows)
    b.add(Embed("x", a))
    b.add(SelectRows(a, chosen))
    b.add(MatMul(("w",), chosen, logits))
    plan = Plan(tuple(b.ops), logits, 1, 1, 16, b.buffers)
    config = ModelConfig("llama", cols, 1, 1, 1, 1, len(x), 16, 16)
    stored = weights if isinstance(weights, Tensor) else random_tensor("w", weights, block)
    tensors = {"x": random_tensor("x", x), "w": stored}
    return plan, Checkpoint(Path("test"), "test", "test", config, tensors, None)


def matmul(weights: Floats | Tensor, x: Floats, block: str, isa: str, threads: int = 1) -> Floats:
    """weights [rows, cols] stored as `block` @ x [n, cols] -> [n, rows], in C."""
    plan, checkpoint = matmul_model(weights, x, block)
    executor = build(plan, checkpoint, "none", isa, threads)
    tokens = np.arange(len(x), dtype=np.int32)
    return executor.step(executor.new_cache(len(x)), tokens, 0, "all")
