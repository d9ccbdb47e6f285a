"""OLMo 2 (Walsh et al. 2024): norms behind attention and feed-forward, none before them."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("olmo2", decoder.shapes, decoder.plan, read_gguf=gguf_readers.olmo2))
