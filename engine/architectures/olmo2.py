"""OLMo 2 (Walsh et al. 2024): norms behind attention and feed-forward, and of all q and all k."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, QK_NORMS, HfConfig, HfModel, read_common
from fireside.engine.config import ModelConfig

HF_NAMES = {
    **NAMES,
    **QK_NORMS,
    "blk.{}.post_attention_norm.weight": "layers.{}.post_attention_layernorm.weight",
    "blk.{}.post_ffw_norm.weight": "layers.{}.post_feedforward_layernorm.weight",
}


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json."""
    bias = c.boolean("attention_bias", False)
    return read_common(
        c,
        "olmo2",
        norm_eps=c.number("rms_norm_eps", 1e-5, 0.0, 1.0),
        pre_norms=False,
        post_norms=True,
        qk_norm="full",
        qkv_bias=bias,
        output_bias=bias,
    )


register(
    Architecture(
        "olmo2",
        decoder.shapes,
        decoder.plan,
        gguf_readers.olmo2,
        hf=(HfModel(("olmo2",), read_hf, HF_NAMES),),
    )
)
