"""Qwen 3 with experts (Yang et al. 2025)."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("qwen3moe", decoder.shapes, decoder.plan, read_gguf=gguf_readers.qwen3))
