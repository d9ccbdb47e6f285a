"""GPT-2 (Radford et al. 2019): layer norms, learned positions, GELU, biases everywhere."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("gpt2", decoder.shapes, decoder.plan, read_gguf=gguf_readers.gpt2))
