"""StableLM 2 (Bellagente et al. 2024): Llama with layer norms, rope on a part of each head."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("stablelm", decoder.shapes, decoder.plan, read_gguf=gguf_readers.stablelm))
