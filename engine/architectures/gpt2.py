"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases everywhere, no gate."""

from __future__ import annotations

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.hf import HfConfig, HfModel
from fireside.engine.checkpoints.derived import transposed
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.config import ModelConfig

HF_NAMES = {
    "token_embd.weight": "wte.weight",
    "position_embd.weight": "wpe.weight",
    "output.weight": "lm_head.weight",
    **{
        f"{gguf}.{part}": f"{name}.{part}"
        for part in ("weight", "bias")
        for gguf, name in (
            ("output_norm", "ln_f"),
            ("blk.{}.attn_norm", "h.{}.ln_1"),
            ("blk.{}.attn_qkv", "h.{}.attn.c_attn"),
            ("blk.{}.attn_output", "h.{}.attn.c_proj"),
            ("blk.{}.ffn_norm", "h.{}.ln_2"),
            ("blk.{}.ffn_up", "h.{}.mlp.c_fc"),
            ("blk.{}.ffn_down", "h.{}.mlp.c_proj"),
        )
    },
}


def turned(tensor: Tensor, name: str, c: ModelConfig) -> Tensor:
    """The file keeps these matrices as [in, out]."""
    if len(tensor.shape) != 2:
        raise ValueError("no matrix")
    return transposed(tensor, name)


MATRICES = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json; its keys have names of their own."""
    c.refuse(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    dim = c.integer("n_embd", None, 1, 1 << 20)
    n_heads = c.integer("n_head", None, 1, dim)
    positions = c.integer("n_positions", None, 1, 1 << 24)
    n_layers = c.integer("n_layer", None, 1, 4096)
    return ModelConfig(
        architecture="gpt2",
        dim=dim,
        hidden_dim=c.integer("n_inner", 4 * dim, 1, 1 << 24),
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        vocab_size=c.integer("vocab_size", None, 1, 1 << 24),
        context_length=positions,
        head_dim=dim // n_heads,
        norm_eps=c.number("layer_norm_epsilon", 1e-5, 0.0, 1.0),
        rope_style="half",
        rope_layers=(False,) * n_layers,
        norm="layer",
        norm_bias=True,
        qkv_bias=True,
        output_bias=True,
        ffn_bias=True,
        fused_qkv=True,
        gated=False,
        activation=c.activation("activation_function", "gelu_new"),
        learned_positions=positions,
    )


register(
    Architecture(
        "gpt2",
        decoder.shapes,
        decoder.plan,
        gguf_readers.gpt2,
        hf=(
            HfModel(
                ("gpt2",),
                read_hf,
                HF_NAMES,
                "transformer.",
                {f"blk.{{}}.{matrix}.weight": turned for matrix in MATRICES},
                (".attn.bias", ".attn.masked_bias"),
            ),
        ),
    )
)
