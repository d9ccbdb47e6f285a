"""GPT-NeoX and Pythia (Black et al. 2022): attention and feed-forward side by side, part rope."""

from __future__ import annotations

import numpy as np

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import HfConfig, HfModel, read_common
from fireside.engine.checkpoints.derived import picked
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.config import ModelConfig

HF_NAMES = {
    "token_embd.weight": "embed_in.weight",
    "output.weight": "embed_out.weight",
    **{
        f"{gguf}.{part}": f"{name}.{part}"
        for part in ("weight", "bias")
        for gguf, name in (
            ("output_norm", "final_layer_norm"),
            ("blk.{}.attn_norm", "layers.{}.input_layernorm"),
            ("blk.{}.attn_qkv", "layers.{}.attention.query_key_value"),
            ("blk.{}.attn_output", "layers.{}.attention.dense"),
            ("blk.{}.ffn_norm", "layers.{}.post_attention_layernorm"),
            ("blk.{}.ffn_up", "layers.{}.mlp.dense_h_to_4h"),
            ("blk.{}.ffn_down", "layers.{}.mlp.dense_4h_to_h"),
        )
    },
}


def sorted_qkv(tensor: Tensor, name: str, c: ModelConfig) -> Tensor:
    """The file has q, k, v of the first head, then of the second, ...; here all q come first."""
    if tensor.shape[:1] != (3 * c.q_dim,):
        raise ValueError(f"{tensor.shape[:1]} rows, expected {3 * c.q_dim}")
    index = np.arange(3 * c.q_dim).reshape(c.n_heads, 3, c.head_dim)
    return picked(tensor, name, index.transpose(1, 0, 2).reshape(-1))


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json."""
    c.refuse(attention_bias=True)
    # older files name rope's keys otherwise
    older = {"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"}
    values = {new: c.metadata[old] for old, new in older.items() if old in c.metadata}
    c = HfConfig(c.path, {**values, "partial_rotary_factor": 0.25, **values, **c.metadata})
    return read_common(
        c,
        "gptneox",
        n_kv_heads=c.integer("num_attention_heads", None, 1, 1 << 14),
        norm="layer",
        norm_bias=True,
        norm_eps=c.number("layer_norm_eps", 1e-5, 0.0, 1.0),
        qkv_bias=True,
        output_bias=True,
        ffn_bias=True,
        fused_qkv=True,
        gated=False,
        activation=c.activation("hidden_act", "gelu"),
        parallel_residual=c.boolean("use_parallel_residual", True),
    )


register(
    Architecture(
        "gptneox",
        decoder.shapes,
        decoder.plan,
        gguf_readers.gptneox,
        hf=(
            HfModel(
                ("gpt_neox",),
                read_hf,
                HF_NAMES,
                "gpt_neox.",
                {f"blk.{{}}.attn_qkv.{part}": sorted_qkv for part in ("weight", "bias")},
                (".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"),
            ),
        ),
    )
)
