"""Tiny random models, as plain Checkpoint objects, for every test that needs weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fireside.engine import architectures, blocks
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.config import ModelConfig

SHAPES: dict[str, ModelConfig] = {
    # name -> dim, hidden, layers, heads, kv heads, vocab, context, head_dim
    "plain": ModelConfig("llama", 64, 96, 2, 4, 4, 80, 128, 16),
    "grouped": ModelConfig("llama", 96, 128, 2, 6, 2, 100, 128, 16),
    "multi-query": ModelConfig("llama", 64, 96, 1, 4, 1, 70, 128, 16, rope_style="half"),
    "odd": ModelConfig("llama", 36, 50, 2, 6, 3, 67, 128, 6),
    "head-of-ten": ModelConfig("llama", 40, 52, 1, 4, 2, 33, 128, 10),
    "part-rope": ModelConfig("llama", 64, 64, 1, 2, 2, 64, 128, 32, rope_dim=16),
}


def random_tensor(name: str, weights: NDArray[np.float32], block: str = "F32") -> Tensor:
    """A tensor that stores `weights` in `block`; F32 where the rows are not whole blocks."""
    block_format = blocks.get(block)
    if weights.shape[-1] % block_format.block_size:
        block_format = blocks.get("F32")
    data = block_format.quantise(np.ascontiguousarray(weights, np.float32).reshape(-1))
    return Tensor(name, weights.shape, block_format.name, data)


def random_checkpoint(
    config: ModelConfig, seed: int, block: str = "F32", tied: bool = True
) -> Checkpoint:
    """A model with random weights of sensible sizes; norms are F32, matrices are `block`."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in architectures.get(config.architecture).shapes(config).items():
        if tied and name == "output.weight":
            continue
        if len(shape) == 1:
            weights = 1 + 0.2 * rng.standard_normal(shape)
            tensors[name] = random_tensor(name, weights.astype(np.float32))
        else:
            weights = rng.standard_normal(shape) / np.sqrt(shape[-1])
            tensors[name] = random_tensor(name, weights.astype(np.float32), block)
    return Checkpoint(Path("random"), "random", "random", config, tensors, None)
