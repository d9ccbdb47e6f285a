"""Qwen 3 (Yang et al. 2025): norms of the heads of queries and keys."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("qwen3", decoder.shapes, decoder.plan, read_gguf=gguf_readers.qwen3))
