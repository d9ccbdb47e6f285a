"""StableLM 2 (Bellagente et al. 2024): Llama with LayerNorm, and rope of a part of each head.

The one of 12 billion weights has the feed-forward layer beside attention, behind the same norm, and
norms of queries and keys whose weights differ from head to head.
"""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import NAMES, HfConfig, HfModel, read_common
from fireside.engine.checkpoints.derived import renamed
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.config import ModelConfig

HF_NAMES = {
    **NAMES,
    "output_norm.bias": "norm.bias",
    "blk.{}.attn_norm.bias": "layers.{}.input_layernorm.bias",
    "blk.{}.ffn_norm.bias": "layers.{}.post_attention_layernorm.bias",
    "blk.{}.attn_q_norm.weight": "layers.{}.self_attn.q_layernorm.norms.*.weight",
    "blk.{}.attn_k_norm.weight": "layers.{}.self_attn.k_layernorm.norms.*.weight",
}


def one_vector(tensor: Tensor, name: str, c: ModelConfig) -> Tensor:
    """The weights of all heads' norms, one behind the other."""
    return renamed(tensor, name, (tensor.count,))


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json."""
    parallel = c.boolean("use_parallel_residual", False)
    return read_common(
        c,
        "stablelm",
        norm="layer",
        norm_bias=True,
        norm_eps=c.number("layer_norm_eps", 1e-5, 0.0, 1.0),
        qkv_bias=c.boolean("use_qkv_bias", False),
        qk_norm="heads" if c.boolean("qk_layernorm", False) else "none",
        parallel_residual=parallel,
        shared_norm=parallel,
    )


register(
    Architecture(
        "stablelm",
        decoder.shapes,
        decoder.plan,
        gguf_readers.stablelm,
        hf=(
            HfModel(
                ("stablelm",),
                read_hf,
                HF_NAMES,
                transforms={f"blk.{{}}.attn_{one}_norm.weight": one_vector for one in "qk"},
            ),
        ),
    )
)
