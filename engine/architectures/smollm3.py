"""SmolLM 3 (Bakouch et al. 2025): Llama; every fourth layer has no rope."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("smollm3", decoder.shapes, decoder.plan, read_gguf=gguf_readers.smollm3))
