"""Phi 3 and 4 (Abdin et al. 2024): Llama with q, k and v in one tensor, gate and up in another."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, HfConfig, HfModel, read_common, windows
from fireside.engine.config import ModelConfig

HF_NAMES = {
    **{gguf: name for gguf, name in NAMES.items() if "bias" not in gguf},
    "blk.{}.attn_qkv.weight": "layers.{}.self_attn.qkv_proj.weight",
    "blk.{}.ffn_up.weight": "layers.{}.mlp.gate_up_proj.weight",
}


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json."""
    c.refuse(attention_bias=False)
    n_layers = c.integer("num_hidden_layers", None, 1, 4096)
    eps = c.number("rms_norm_eps", 1e-5, 0.0, 1.0)
    own = windows(c, n_layers)
    return read_common(c, "phi3", norm_eps=eps, fused_qkv=True, fused_gate_up=True, **own)


register(
    Architecture(
        "phi3",
        decoder.shapes,
        decoder.plan,
        gguf_readers.phi3,
        hf=(HfModel(("phi3",), read_hf, HF_NAMES),),
    )
)
