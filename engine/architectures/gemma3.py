"""Gemma 3's text models (Kamath et al. 2025): five layers with a window and a rope of their own to
one without; norms of queries and keys.
"""

from __future__ import annotations

from typing import Any

from fireside.engine.architectures import Architecture, decoder, gguf_readers, register
from fireside.engine.architectures.gemma2 import HF_NAMES, NORMS, norm, read_gemma
from fireside.engine.architectures.hf import QK_NORMS, HfConfig, HfModel, read_rope, windows
from fireside.engine.config import ModelConfig

NAMES = {**HF_NAMES, **QK_NORMS}
TRANSFORMS = dict.fromkeys(NORMS, norm)


def read_hf(c: HfConfig) -> ModelConfig:
    """A config.json; those of transformers 5 have a section of rope for each kind of layer."""
    n_layers = c.integer("num_hidden_layers", None, 1, 4096)
    every = c.integer("sliding_window_pattern", 6, 1, 4096)
    own = windows(c, n_layers, tuple((i + 1) % every != 0 for i in range(n_layers)))
    return read_gemma(c, "gemma3", qk_norm="head", **read_ropes(c), **own)


# A section text_config leaves out what is as it was in the first of these models
USUAL = {
    "vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "max_position_embeddings": 131072, "sliding_window": 4096,
}  # fmt: skip


def read_with_pictures(c: HfConfig) -> ModelConfig:
    """A config.json of a model that sees pictures too; only its text is run here."""
    text = c.section("text_config")
    text.refuse(model_type="gemma3_text")
    return read_hf(HfConfig(c.path, {**USUAL, **text.metadata}))


def read_ropes(c: HfConfig) -> dict[str, Any]:
    """Rope of both kinds of layers."""
    head_dim = c.integer("head_dim", 256, 2, 1 << 14)
    context = c.integer("max_position_embeddings", 131072, 1, 1 << 24)
    sections = c.section("rope_parameters")
    if "full_attention" not in sections.metadata:
        values = read_rope(c, c.section("rope_scaling"), head_dim, context, 1e6)
        local = c.number("rope_local_base_freq", 10000.0, 1.0, 1e12)
        return values | {"window_rope_theta": local}
    values = read_rope(c, sections.section("full_attention"), head_dim, context, 1e6)
    sliding = sections.section("sliding_attention")
    sliding.refuse(rope_type="default")
    return values | {"window_rope_theta": sliding.number("rope_theta", 10000.0, 1.0, 1e12)}


register(
    Architecture(
        "gemma3",
        decoder.shapes,
        decoder.plan,
        gguf_readers.gemma3,
        hf=(
            HfModel(("gemma3_text",), read_hf, NAMES, transforms=TRANSFORMS),
            HfModel(
                ("gemma3",),
                read_with_pictures,
                NAMES,
                ("language_model.model.", "language_model.", "model.language_model."),
                TRANSFORMS,
                dropped=(
                    "vision_tower.",
                    "multi_modal_projector.",
                    "model.vision_tower.",
                    "model.multi_modal_projector.",
                ),
            ),
        ),
    )
)
