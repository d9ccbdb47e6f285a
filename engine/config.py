"""The shape of a model: plain numbers, the same for every file format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RopeStyle = Literal["interleaved", "half"]


@dataclass(frozen=True)
class ModelConfig:
    """Hyper-parameters of a decoder-only transformer.

    Field names follow llama2.c and GGUF. `rope_style` says which elements of a head turn together:
    "interleaved" = (0,1), (2,3), ... (llama2.c, Meta, GGUF's llama); "half" = (0, d/2), (1, d/2+1),
    ... (GPT-NeoX, Hugging Face).
    """

    architecture: str  # a name in fireside.engine.architectures
    dim: int  # width of the residual stream
    hidden_dim: int  # width of the feed-forward layer
    n_layers: int
    n_heads: int  # query heads
    n_kv_heads: int  # key/value heads; divides n_heads
    vocab_size: int
    context_length: int  # tokens the model was trained to see
    head_dim: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_dim: int = 0  # elements of a head that are rotated; 0 = all
    rope_style: RopeStyle = "interleaved"

    @property
    def q_dim(self) -> int:
        """Width of all query heads together."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key (or value) heads together."""
        return self.n_kv_heads * self.head_dim

    @property
    def rotary_dim(self) -> int:
        """Elements of a head that rope turns."""
        return self.rope_dim or self.head_dim
