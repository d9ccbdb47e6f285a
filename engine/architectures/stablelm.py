"""StableLM 2 (Bellagente et al. 2024): Llama with LayerNorm, and rope of a part of each head."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, HfConfig, HfModel, read_common
from fireside.engine.config import ModelConfig

HF_NAMES = {
    **NAMES,
    "output_norm.bias": "norm.bias",
    "blk.{}.attn_norm.bias": "layers.{}.input_layernorm.bias",
    "blk.{}.ffn_norm.bias": "layers.{}.post_attention_layernorm.bias",
}


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json."""
    c.refuse(use_parallel_residual=False, qk_layernorm=False)
    return read_common(
        c,
        "stablelm",
        norm="layer",
        norm_bias=True,
        norm_eps=c.number("layer_norm_eps", 1e-5, 0.0, 1.0),
        qkv_bias=c.boolean("use_qkv_bias", False),
    )


register(
    Architecture(
        "stablelm",
        decoder.shapes,
        decoder.plan,
        gguf_readers.stablelm,
        hf=(HfModel(("stablelm",), read_hf, HF_NAMES),),
    )
)
