"""Gemma (Mesnard et al. 2024): Llama with scaled embeddings and GELU."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("gemma", decoder.shapes, decoder.plan, read_gguf=gguf_readers.gemma))
