"""Gemma (Mesnard et al. 2024): Llama with scaled embeddings and GELU."""

from __future__ import annotations

import math

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.gemma2 import NORMS, norm
from fireside.engine.architectures.hf import NAMES, HfConfig, HfModel, read_common
from fireside.engine.config import ModelConfig
from fireside.engine.errors import UnsupportedError


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json; "gelu" there means the approximation, whose name came later."""
    key = "hidden_activation" if "hidden_activation" in c.metadata else "hidden_act"
    name = c.string(key, "gelu")
    if name not in ("gelu", "gelu_pytorch_tanh"):
        raise UnsupportedError(f"{c.path}: {key} is {name[:40]!r}")
    bias = c.boolean("attention_bias", False)
    scale = math.sqrt(c.integer("hidden_size", None, 1, 1 << 20))
    return read_common(
        c,
        "gemma",
        activation="gelu_tanh",
        embedding_scale=scale,
        qkv_bias=bias,
        output_bias=bias,
    )


register(
    Architecture(
        "gemma",
        decoder.shapes,
        decoder.plan,
        gguf_readers.gemma,
        hf=(HfModel(("gemma",), read_hf, NAMES, transforms=dict.fromkeys(NORMS, norm)),),
    )
)
