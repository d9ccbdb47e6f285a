"""Gemma 2 (Riviere et al. 2024): norms before and behind, soft caps, a window every other layer."""

from __future__ import annotations

import math
from typing import Any

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, HfConfig, HfModel, read_common, windows
from fireside.engine.checkpoints.derived import plus
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.config import ModelConfig

HF_NAMES = {
    **NAMES,
    "blk.{}.post_attention_norm.weight": "layers.{}.post_attention_layernorm.weight",
    "blk.{}.ffn_norm.weight": "layers.{}.pre_feedforward_layernorm.weight",
    "blk.{}.post_ffw_norm.weight": "layers.{}.post_feedforward_layernorm.weight",
}


def norm(tensor: Tensor, name: str, c: ModelConfig) -> Tensor:
    """The file keeps how far a norm's weights are from 1."""
    return plus(tensor, name, 1.0)


NORMS = (
    "output_norm.weight", "blk.{}.attn_norm.weight", "blk.{}.post_attention_norm.weight",
    "blk.{}.ffn_norm.weight", "blk.{}.post_ffw_norm.weight", "blk.{}.attn_q_norm.weight",
    "blk.{}.attn_k_norm.weight",
)  # fmt: skip


def read_gemma(c: HfConfig, architecture: str, **own: Any) -> ModelConfig:
    """What Gemma 2 and 3 share."""
    c.refuse(use_bidirectional_attention=False)
    bias = c.boolean("attention_bias", False)
    scalar = c.number("query_pre_attn_scalar", 256.0, 1e-3, 1e9)
    usual = scalar == c.metadata.get("head_dim")  # what a ModelConfig says by 0
    return read_common(
        c,
        architecture,
        activation=c.activation("hidden_activation", "gelu_pytorch_tanh"),
        post_norms=True,
        qkv_bias=bias,
        output_bias=bias,
        embedding_scale=math.sqrt(c.integer("hidden_size", None, 1, 1 << 20)),
        attention_scale=0.0 if usual else scalar**-0.5,
        attention_softcap=c.number("attn_logit_softcapping", 0.0, 0.0, 1e6),
        logit_softcap=c.number("final_logit_softcapping", 0.0, 0.0, 1e6),
        **own,
    )


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json; the first layer has the window, the second has not, and so on."""
    n_layers = c.integer("num_hidden_layers", None, 1, 4096)
    return read_gemma(
        c, "gemma2", **windows(c, n_layers, tuple(i % 2 == 0 for i in range(n_layers)))
    )


register(
    Architecture(
        "gemma2",
        decoder.shapes,
        decoder.plan,
        gguf_readers.gemma2,
        hf=(HfModel(("gemma2",), read_hf, HF_NAMES, transforms=dict.fromkeys(NORMS, norm)),),
    )
)
