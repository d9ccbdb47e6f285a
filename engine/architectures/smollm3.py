"""SmolLM 3 (Hugging Face 2025): Llama in which every fourth layer has no rope."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, HfConfig, HfModel, read_common, windows
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json; no_rope_layers has a 1 for each layer that has rope, and 0 for the others."""
    n_layers = c.integer("num_hidden_layers", None, 1, 4096)
    interval = c.integer("no_rope_layer_interval", 4, 1, 4096)
    turned = c.per_layer("no_rope_layers", n_layers)
    if turned is None:
        turned = [int((i + 1) % interval != 0) for i in range(n_layers)]
    if not all(type(one) in (bool, int) and one in (0, 1) for one in turned):
        raise CheckpointError(f"{c.path}: no_rope_layers is not of 0 and 1")
    bias = c.boolean("attention_bias", False)
    return read_common(
        c,
        "smollm3",
        theta=2e6,
        qkv_bias=bias,
        output_bias=bias,
        ffn_bias=c.boolean("mlp_bias", False),
        rope_layers=tuple(bool(one) for one in turned),
        **(windows(c, n_layers) if c.boolean("use_sliding_window", False) else {}),
    )


register(
    Architecture(
        "smollm3",
        decoder.shapes,
        decoder.plan,
        gguf_readers.smollm3,
        hf=(HfModel(("smollm3",), read_hf, NAMES),),
    )
)
