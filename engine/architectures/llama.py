"""Llama (Touvron et al. 2023): pre-norm, rope, grouped queries, SwiGLU. llama2.c's stories too."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, register

register(Architecture("llama", decoder.shapes, decoder.plan))
