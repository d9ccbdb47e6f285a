"""Gemma 2 (Riviere et al. 2024): norms before and behind, soft caps, windows."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("gemma2", decoder.shapes, decoder.plan, read_gguf=gguf_readers.gemma2))
