"""Qwen 3 (Yang et al. 2025): Llama with norms of each head's queries and keys."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, QK_NORMS, HfConfig, HfModel, read_common
from fireside.engine.architectures.qwen2 import qwen_windows
from fireside.engine.config import ModelConfig


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json."""
    bias = c.boolean("attention_bias", False)
    own = qwen_windows(c)
    return read_common(c, "qwen3", qk_norm="head", qkv_bias=bias, output_bias=bias, **own)


register(
    Architecture(
        "qwen3",
        decoder.shapes,
        decoder.plan,
        gguf_readers.qwen3,
        hf=(HfModel(("qwen3",), read_hf, {**NAMES, **QK_NORMS}),),
    )
)
