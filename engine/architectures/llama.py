"""Llama (Touvron et al. 2023): pre-norm, rope, grouped queries, SwiGLU. llama2.c's stories too.

Mistral (Jiang et al. 2023) and Mixtral (2024) are files of this kind, with windows or experts.
"""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register

register(Architecture("llama", decoder.shapes, decoder.plan, read_gguf=gguf_readers.llama))
