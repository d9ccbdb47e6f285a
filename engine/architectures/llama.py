"""Llama (Touvron et al. 2023): pre-norm, rope, grouped queries, SwiGLU. llama2.c's stories too.

Mistral (Jiang et al. 2023) is the same with a window, Mixtral (Jiang et al. 2024) with experts.
"""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, HfConfig, HfModel, read_common, windows
from fireside.engine.config import ModelConfig


def read_llama(c: HfConfig) -> ModelConfig:
    """A config.json of Llama's."""
    bias = c.boolean("attention_bias", False)
    ffn_bias = c.boolean("mlp_bias", False)
    return read_common(c, "llama", qkv_bias=bias, output_bias=bias, ffn_bias=ffn_bias)


def read_mistral(c: HfConfig) -> ModelConfig:
    """A config.json of Mistral's."""
    return read_common(c, "llama", **windows(c, c.integer("num_hidden_layers", None, 1, 4096)))


def read_mixtral(c: HfConfig) -> ModelConfig:
    """A config.json of Mixtral's."""
    experts = c.integer("num_local_experts", None, 1, 1 << 12)
    return read_common(
        c,
        "llama",
        theta=1e6,
        n_experts=experts,
        n_experts_used=c.integer("num_experts_per_tok", None, 1, experts),
        **windows(c, c.integer("num_hidden_layers", None, 1, 4096)),
    )


MIXTRAL = {
    **{gguf: name for gguf, name in NAMES.items() if ".mlp." not in name},
    "blk.{}.ffn_gate_inp.weight": "layers.{}.block_sparse_moe.gate.weight",
    "blk.{}.ffn_gate_exps.weight": "layers.{}.block_sparse_moe.experts.*.w1.weight",
    "blk.{}.ffn_down_exps.weight": "layers.{}.block_sparse_moe.experts.*.w2.weight",
    "blk.{}.ffn_up_exps.weight": "layers.{}.block_sparse_moe.experts.*.w3.weight",
}

register(
    Architecture(
        "llama",
        decoder.shapes,
        decoder.plan,
        gguf_readers.llama,
        hf=(
            HfModel(("llama",), read_llama, NAMES),
            HfModel(("mistral",), read_mistral, NAMES),
            HfModel(("mixtral",), read_mixtral, MIXTRAL),
        ),
    )
)
