"""Gemma 3 (Kamath et al. 2025): Gemma 2 with norms of heads instead of soft caps."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("gemma3", decoder.shapes, decoder.plan, read_gguf=gguf_readers.gemma3))
