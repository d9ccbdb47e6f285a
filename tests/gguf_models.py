"""A small random model in several shapes, for tests of GGUF files."""

from __future__ import annotations

from dataclasses import replace

from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.config import ModelConfig
from tests.model_files import small_vocabulary
from tests.models import random_checkpoint

VOCABULARY = small_vocabulary(288)
# dim, hidden, layers, heads, kv heads, vocab, context, head_dim
CONFIG = ModelConfig("llama", 64, 96, 2, 4, 2, len(VOCABULARY), 128, 16)
CONFIGS = {
    "plain": CONFIG,
    "odd": replace(CONFIG, dim=36, hidden_dim=50, n_heads=6, n_kv_heads=3, head_dim=6),
    "wide heads": replace(CONFIG, head_dim=32, rope_dim=8, rope_theta=5e5, norm_eps=1e-6),
}


def model(name: str = "plain", block: str = "F32", tied: bool = True) -> Checkpoint:
    checkpoint = random_checkpoint(CONFIGS[name], 1, block, tied)
    return replace(checkpoint, vocabulary=VOCABULARY, name="A small one")
