"""Phi-3 and Phi-4 mini (Abdin et al. 2024): Llama; q, k and v in one tensor, gate and up too."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("phi3", decoder.shapes, decoder.plan, read_gguf=gguf_readers.phi3))
