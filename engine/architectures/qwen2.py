"""Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases of queries, keys and values."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("qwen2", decoder.shapes, decoder.plan, read_gguf=gguf_readers.qwen2))
