"""Qwen 3 with experts (Yang et al. 2025)."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, QK_NORMS, HfConfig, HfModel, read_common
from fireside.engine.architectures.qwen2 import qwen_windows
from fireside.engine.config import ModelConfig
from fireside.engine.errors import UnsupportedError


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json; every layer has experts."""
    c.refuse(decoder_sparse_step=1)
    if c.metadata.get("mlp_only_layers", []) != []:
        raise UnsupportedError(f"{c.path}: layers without experts beside those with them")
    bias = c.boolean("attention_bias", False)
    key = "num_experts" if "num_experts" in c.metadata else "num_local_experts"
    experts = c.integer(key, None, 1, 1 << 12)
    return read_common(
        c,
        "qwen3moe",
        qk_norm="head",
        qkv_bias=bias,
        output_bias=bias,
        hidden_dim=c.integer("moe_intermediate_size", None, 1, 1 << 24),
        n_experts=experts,
        n_experts_used=c.integer("num_experts_per_tok", None, 1, experts),
        normalise_experts=c.boolean("norm_topk_prob", False),
        **qwen_windows(c),
    )


HF_NAMES = {
    **{gguf: name for gguf, name in NAMES.items() if ".mlp." not in name},
    **QK_NORMS,
    "blk.{}.ffn_gate_inp.weight": "layers.{}.mlp.gate.weight",
    "blk.{}.ffn_gate_exps.weight": "layers.{}.mlp.experts.*.gate_proj.weight",
    "blk.{}.ffn_up_exps.weight": "layers.{}.mlp.experts.*.up_proj.weight",
    "blk.{}.ffn_down_exps.weight": "layers.{}.mlp.experts.*.down_proj.weight",
}

register(
    Architecture(
        "qwen3moe",
        decoder.shapes,
        decoder.plan,
        gguf_readers.qwen3,
        hf=(HfModel(("qwen3_moe",), read_hf, HF_NAMES),),
    )
)
