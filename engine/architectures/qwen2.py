"""Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases of queries, keys and values."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, HfConfig, HfModel, read_common, windows
from fireside.engine.config import ModelConfig


def qwen_windows(c: HfConfig) -> dict[str, object]:
    """Which layers have a window, if it is used at all: those from max_window_layers on."""
    if not c.boolean("use_sliding_window", False):
        return {}
    n_layers = c.integer("num_hidden_layers", None, 1, 4096)
    first = c.integer("max_window_layers", n_layers, 0, 1 << 16)
    return windows(c, n_layers, tuple(i >= first for i in range(n_layers)))


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json."""
    return read_common(c, "qwen2", qkv_bias=True, **qwen_windows(c))


register(
    Architecture(
        "qwen2",
        decoder.shapes,
        decoder.plan,
        gguf_readers.qwen2,
        hf=(HfModel(("qwen2",), read_hf, NAMES),),
    )
)
