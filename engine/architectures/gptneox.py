"""GPT-NeoX and Pythia (Black et al. 2022): layer norms, rope on a part of each head, GELU."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("gptneox", decoder.shapes, decoder.plan, read_gguf=gguf_readers.gptneox))
