"""What each architecture says of itself beside GGUF's metadata: one function each.

Names of tensors are GGUF's in all of them, and so is what the files were converted to: Llama's rows
of queries and keys are in the order for "interleaved" rope, Gemma's norms have 1 added.
"""

from __future__ import annotations

from collections.abc import Mapping

from fireside.engine.architectures.from_gguf import (
    View,
    config,
    layers,
    root_scale,
    rope_factors,
    told_windows,
    view,
    windows,
)
from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.config import ModelConfig
from fireside.engine.hints import Any
from fireside.engine.records import changed

Tensors = Mapping[str, Tensor]


def llama(fields: Fields, tensors: Tensors) -> ModelConfig:
    """Llama's, Mistral's and Mixtral's: a window, where there is one, is in all layers."""
    v = view(fields, tensors)
    return config(v, "interleaved", **windows(v, 0))


def qwen2(fields: Fields, tensors: Tensors) -> ModelConfig:
    """Qwen 2's: its biases are known by their tensors."""
    v = view(fields, tensors)
    return config(v, "half", **told_windows(v))


def qwen3(fields: Fields, tensors: Tensors) -> ModelConfig:
    """Qwen 3's, with experts or without."""
    v = view(fields, tensors)
    return config(v, "half", qk_norm="head", **told_windows(v))


def smollm3(fields: Fields, tensors: Tensors) -> ModelConfig:
    """SmolLM 3's: every fourth layer has no rope."""
    v = view(fields, tensors)
    turned = tuple((i + 1) % 4 != 0 for i in range(layers(v)))
    return config(v, "interleaved", rope_layers=turned, **told_windows(v))


def olmo2(fields: Fields, tensors: Tensors) -> ModelConfig:
    """OLMo 2's: norms behind attention and feed-forward, none before them.

    OLMo 3 goes by this name too: all but every fourth layer have a window, and there rope is not
    stretched.
    """
    v = view(fields, tensors)
    own: dict[str, Any] = {"pre_norms": False, "post_norms": True, "qk_norm": "full"}
    own |= windows(v, 4)
    c = config(v, "half", **own)
    if c.window and c.rope_factors:
        own["window_rope_theta"] = c.rope_theta
    return changed(c, **own)


def gpt2(fields: Fields, tensors: Tensors) -> ModelConfig:
    """GPT-2's: learned positions, no rope."""
    v = view(fields, tensors)
    return config(
        v,
        "half",
        norm="layer",
        gated=False,
        activation="gelu_tanh",
        learned_positions=v.integer("context_length", None, 1, 1 << 24),
        rope_layers=(False,) * layers(v),
    )


def gptneox(fields: Fields, tensors: Tensors) -> ModelConfig:
    """GPT-NeoX's: feed-forward beside attention, as a rule."""
    v = view(fields, tensors)
    parallel = fields.boolean(v.prefix + "use_parallel_residual", True)
    own = {"gated": False, "activation": "gelu", "parallel_residual": parallel}
    return config(v, "half", norm="layer", **own)


def stablelm(fields: Fields, tensors: Tensors) -> ModelConfig:
    """StableLM's. One with feed-forward beside attention has no ffn_norm of its own."""
    v = view(fields, tensors)
    parallel = not v.has("blk.0.ffn_norm.weight")
    own = {"parallel_residual": parallel, "shared_norm": parallel}
    qk_norm = "heads" if v.has("blk.0.attn_q_norm.weight") else "none"
    return config(v, "half", norm="layer", qk_norm=qk_norm, **own)


def phi3(fields: Fields, tensors: Tensors) -> ModelConfig:
    """Phi-3's: two sets of rope's factors, for texts up to the original context and beyond it."""
    v = view(fields, tensors)
    own: dict[str, Any] = {"fused_gate_up": True, **windows(v, 0)}
    c = config(v, "half", **own)
    if not v.has("rope_factors_short.weight"):
        return c
    short, long = (
        rope_factors(v, f"rope_factors_{kind}.weight", c.rotary_dim) for kind in ("short", "long")
    )
    original = v.integer("rope.scaling.original_context_length", c.context_length, 1, 1 << 24)
    values: dict[str, Any] = {
        "rope_factors": short if set(short) != {1.0} else (),
        "rope_magnitude": v.number("rope.scaling.attn_factor", 1.0, 0.0, 1e3),
        "context_length": min(original, c.context_length),
    }
    if c.context_length > original:
        values |= {"long_context": c.context_length, "long_factors": long}
    return changed(c, **values)


def gemma(fields: Fields, tensors: Tensors) -> ModelConfig:
    """Gemma's."""
    return _gemma(view(fields, tensors))


def gemma2(fields: Fields, tensors: Tensors) -> ModelConfig:
    """Gemma 2's: every second layer has a window."""
    v = view(fields, tensors)
    return _gemma(v, post_norms=True, **windows(v, 2, 4096), **_large(v, 46))


def gemma3(fields: Fields, tensors: Tensors) -> ModelConfig:
    """Gemma 3's: all but every sixth layer have a window, and a rope of their own."""
    v = view(fields, tensors)
    own = windows(v, 6)
    if own["window"]:
        own["window_rope_theta"] = v.number("rope.freq_base_swa", 10000.0, 1.0, 1e12)
    return _gemma(v, post_norms=True, qk_norm="head", **own, **_large(v, 62))


def _gemma(v: View, **own: Any) -> ModelConfig:
    dim = v.integer("embedding_length", None, 1, 1 << 20)
    return config(v, "half", activation="gelu_tanh", embedding_scale=dim**0.5, **own)


def _large(v: View, n_layers: int) -> dict[str, Any]:
    """The largest model, known by its layers, divides scores by another width than a head's."""
    if layers(v) != n_layers:
        return {}
    dim = v.integer("embedding_length", None, 1, 1 << 20)
    heads = v.integer("attention.head_count", None, 1, 1 << 14)
    return {"attention_scale": root_scale(dim // heads)}
