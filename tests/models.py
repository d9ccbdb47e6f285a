"""Tiny random models, as plain Checkpoint objects, for every test that needs weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fireside.engine import architectures, blocks
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.config import ModelConfig

SHAPES: dict[str, ModelConfig] = {
    # name -> dim, hidden, layers, heads, kv heads, vocab, context, head_dim
    "plain": ModelConfig("llama", 64, 96, 2, 4, 4, 80, 128, 16),
    "grouped": ModelConfig("llama", 96, 128, 2, 6, 2, 100, 128, 16),
    "multi-query": ModelConfig("llama", 64, 96, 1, 4, 1, 70, 128, 16, rope_style="half"),
    "odd": ModelConfig("llama", 36, 50, 2, 6, 3, 67, 128, 6),
    "head-of-ten": ModelConfig("llama", 40, 52, 1, 4, 2, 33, 128, 10),
    "part-rope": ModelConfig("llama", 64, 64, 1, 2, 2, 64, 128, 32, rope_dim=16),
}

_SMALL = ModelConfig("llama", 64, 96, 2, 4, 2, 80, 128, 16, rope_style="half")
_ODD = ModelConfig("llama", 36, 50, 3, 6, 3, 67, 128, 6)
_LAYER = replace(_SMALL, norm="layer", norm_bias=True, gated=False, activation="gelu")
# What architectures have beside Llama's, alone and together.
VARIATIONS: dict[str, ModelConfig] = {
    "head norms": replace(_SMALL, qk_norm="head"),
    "full norms, none before": replace(_SMALL, qk_norm="full", pre_norms=False, post_norms=True),
    "biases of q, k, v": replace(_SMALL, qkv_bias=True),
    "all biases": replace(
        _ODD,
        qkv_bias=True,
        output_bias=True,
        ffn_bias=True,
        classifier_bias=True,
        norm_bias=True,
        norm="layer",
    ),
    "layer norms without bias": replace(_ODD, norm="layer", activation="gelu_tanh"),
    "gelu, not gated": replace(
        _LAYER, ffn_bias=True, learned_positions=128, rope_layers=(False,) * 2
    ),
    "parallel": replace(_LAYER, parallel_residual=True, rope_dim=8, qkv_bias=True, fused_qkv=True),
    "fused": replace(
        _ODD, fused_qkv=True, fused_gate_up=True, rope_magnitude=1.19, rope_factors=(1.0, 1.5, 4.0)
    ),
    "soft caps, windows": replace(
        _SMALL,
        activation="gelu_tanh",
        post_norms=True,
        embedding_scale=8.0,
        attention_softcap=5.0,
        logit_softcap=3.0,
        logit_scale=0.5,
        window=21,
        windowed_layers=(True, False),
        attention_scale=0.4,
    ),
    "long window, own rope": replace(
        _SMALL, qk_norm="head", window=70, window_rope_theta=1e6, windowed_layers=(False, True)
    ),
    "a layer without rope": replace(
        _ODD, rope_layers=(True, False, True), qk_norm="head", window=1
    ),
    "parallel, one norm for both": replace(
        _SMALL, norm="layer", norm_bias=True, parallel_residual=True, shared_norm=True
    ),
    "norms of heads, each its own": replace(
        _ODD, norm="layer", qk_norm="heads", rope_dim=4, rope_style="half"
    ),
    "experts": replace(_SMALL, n_experts=5, n_experts_used=2),
    "odd experts": replace(
        _ODD,
        n_experts=9,
        n_experts_used=3,
        normalise_experts=False,
        activation="gelu",
        post_norms=True,
    ),
}


_NEOX = ModelConfig("qwen2", 64, 96, 3, 4, 2, 288, 128, 16, rope_style="half")
_GPT = replace(
    _NEOX,
    n_kv_heads=4,
    norm="layer",
    norm_bias=True,
    qkv_bias=True,
    output_bias=True,
    ffn_bias=True,
    gated=False,
    fused_qkv=True,
)
# Windows that GGUF can tell of, but llama.cpp does not know with these names (it does OLMo's).
WINDOWS: dict[str, ModelConfig] = {
    "qwen2": replace(_NEOX, qkv_bias=True, window=20, windowed_layers=(False, True, True)),
    "qwen3": replace(
        _NEOX, architecture="qwen3", qk_norm="head", window=20, windowed_layers=(True, True, False)
    ),
    "smollm3": replace(
        _NEOX, architecture="smollm3", rope_style="interleaved", rope_layers=(True,) * 3,
        window=20, windowed_layers=(True, False, True),
    ),
}  # fmt: skip
# Each architecture with what its name says in GGUF files, small.
ARCHITECTURES: dict[str, ModelConfig] = {
    "llama": replace(_NEOX, architecture="llama", rope_style="interleaved"),
    "llama3": replace(
        _NEOX, architecture="llama", rope_style="interleaved", rope_theta=5e5,
        rope_factors=(1.0, 1.0, 1.0, 1.5, 2.5, 8.0, 8.0, 8.0),
    ),
    "linear": replace(
        _NEOX, architecture="llama", rope_style="interleaved", rope_factors=(4.0,) * 8
    ),
    "mistral": replace(_NEOX, architecture="llama", rope_style="interleaved", window=4096),
    "mixtral": replace(
        _NEOX, architecture="llama", rope_style="interleaved", n_experts=4, n_experts_used=2
    ),
    "qwen2": replace(_NEOX, qkv_bias=True),
    "qwen3": replace(_NEOX, architecture="qwen3", qk_norm="head", head_dim=32),
    "qwen3moe": replace(
        _NEOX, architecture="qwen3moe", qk_norm="head", n_experts=6, n_experts_used=3, hidden_dim=32
    ),
    "smollm3": replace(
        _NEOX, architecture="smollm3", rope_style="interleaved", n_layers=5,
        rope_layers=(True, True, True, False, True),
    ),
    "olmo2": replace(
        _NEOX, architecture="olmo2", pre_norms=False, post_norms=True, qk_norm="full"
    ),
    "olmo3": replace(
        _NEOX, architecture="olmo2", pre_norms=False, post_norms=True, qk_norm="full", n_layers=4,
        window=16, windowed_layers=(True, True, True, False),
    ),
    "stablelm": replace(
        _NEOX, architecture="stablelm", norm="layer", norm_bias=True, rope_dim=8, qkv_bias=True
    ),
    "stablelm-12b": replace(
        _NEOX, architecture="stablelm", norm="layer", norm_bias=True, rope_dim=8,
        parallel_residual=True, shared_norm=True, qk_norm="heads",
    ),
    "gpt2": replace(
        _GPT, architecture="gpt2", activation="gelu_tanh", learned_positions=128,
        rope_layers=(False,) * 3,
    ),
    "gptneox": replace(
        _GPT, architecture="gptneox", activation="gelu", parallel_residual=True, rope_dim=8
    ),
    "phi3": replace(
        _NEOX, architecture="phi3", fused_qkv=True, fused_gate_up=True, window=4096,
        rope_factors=(1.0, 1.0, 1.1, 1.2, 1.5, 2.0, 2.5, 3.0), rope_magnitude=1.19,
    ),
    "phi3-long": replace(
        _NEOX, architecture="phi3", fused_qkv=True, fused_gate_up=True, rope_magnitude=1.19,
        rope_factors=(1.0, 1.0, 1.1, 1.2, 1.5, 2.0, 2.5, 3.0), context_length=32,
        long_factors=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0), long_context=128,
    ),
    "gemma": replace(
        _NEOX, architecture="gemma", activation="gelu_tanh", embedding_scale=8.0
    ),
    "gemma2": replace(
        _NEOX, architecture="gemma2", activation="gelu_tanh", embedding_scale=8.0, post_norms=True,
        attention_softcap=50.0, logit_softcap=30.0, window=16, windowed_layers=(True, False, True),
    ),
    "gemma3": replace(
        _NEOX, architecture="gemma3", activation="gelu_tanh", embedding_scale=8.0, post_norms=True,
        qk_norm="head", n_layers=7, window=16, windowed_layers=(True,) * 5 + (False, True),
        rope_theta=1e6, window_rope_theta=10000.0,
    ),
}  # fmt: skip


def random_tensor(name: str, weights: NDArray[np.float32], block: str = "F32") -> Tensor:
    """A tensor that stores `weights` in `block`; F32 where the rows are not whole blocks."""
    block_format = blocks.get(block)
    if weights.shape[-1] % block_format.block_size:
        block_format = blocks.get("F32")
    data = block_format.quantise(np.ascontiguousarray(weights, np.float32).reshape(-1))
    return Tensor(name, weights.shape, block_format.name, data)


def random_checkpoint(
    config: ModelConfig, seed: int, block: str = "F32", tied: bool = True
) -> Checkpoint:
    """A model with random weights of sensible sizes; norms are F32, matrices are `block`."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in architectures.get(config.architecture).shapes(config).items():
        if tied and name == "output.weight":
            continue
        if len(shape) == 1:
            weights = 1 + 0.2 * rng.standard_normal(shape)
            tensors[name] = random_tensor(name, weights.astype(np.float32))
        else:
            weights = rng.standard_normal(shape) / np.sqrt(shape[-1])
            tensors[name] = random_tensor(name, weights.astype(np.float32), block)
    return Checkpoint(Path("random"), "random", "random", config, tensors, None)
