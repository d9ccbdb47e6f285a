"""What GGUF's metadata says of a decoder, the same for all architectures. (ggml, docs/gguf.md)

Each architecture's file adds what its name alone says: the order of rope's elements, the norms, the
activation. What is neither honoured here nor there is refused: to leave it out would run the model,
but wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fireside.engine.architectures.common import yarn_factors
from fireside.engine.arrays import np
from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.gguf_header import show
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.config import ModelConfig, RopeStyle
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.hints import TYPE_CHECKING, Any, TypeGuard
from fireside.engine.records import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a file may ask for that no decoder here does, and the values that ask for nothing.
PLAIN: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("attention.causal", (True,)),
    ("attention.max_alibi_bias", (0, 0.0)),
    ("attention.clamp_kqv", (0, 0.0)),
    ("attention.temperature_scale", (0, 0.0)),
    ("residual_scale", (0.0, 1.0)),
    ("logit_scale", (0.0, 1.0)),
    ("expert_shared_count", (0,)),
    ("expert_shared_feed_forward_length", (0,)),
    ("expert_weights_scale", (0.0, 1.0)),
    ("expert_weights_norm", (True,)),
    ("expert_gating_func", (1,)),
    ("expert_group_count", (0, 1)),
    ("leading_dense_block_count", (0,)),
    ("interleave_moe_layer_step", (0, 1)),
    ("nextn_predict_layers", (0,)),
    ("rope.scaling.yarn_ext_factor", (1.0,)),
    ("rope.scaling.yarn_log_multiplier", (0.0,)),
)


def is_array(value: object, kinds: str) -> TypeGuard[NDArray[Any]]:
    """Whether a value is an array of numbers whose dtype is of one of these kinds."""
    if value is None or isinstance(value, bool | int | float | str):
        return False  # without a look at NumPy, which may not be there yet
    return isinstance(value, np.ndarray) and value.dtype.kind in kinds


@record
class View:
    """The metadata under an architecture's name, and the tensors of the file."""

    fields: Fields
    tensors: Mapping[str, Tensor]
    prefix: str  # "llama."

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self.tensors

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        """A whole number, or one for each layer where all are the same."""
        value = self.fields.metadata.get(self.prefix + key)
        if is_array(value, "iu") and len(value):
            if (value != value[0]).any():
                raise UnsupportedError(
                    f"{self.fields.path}: {self.prefix}{key} differs from layer to layer",
                    "this version runs models whose layers are alike",
                )
            alike = {**self.fields.metadata, self.prefix + key: int(value[0])}
            return Fields(self.fields.path, alike).integer(self.prefix + key, None, low, high)
        return self.fields.integer(self.prefix + key, default, low, high)

    def number(self, key: str, default: float | None, low: float, high: float) -> float:
        """A number."""
        return self.fields.number(self.prefix + key, default, low, high)

    def refuse(self, key: str, runs: str) -> None:
        """UnsupportedError for the value of a key."""
        value = self.fields.metadata.get(self.prefix + key)
        raise UnsupportedError(
            f"{self.fields.path}: {self.prefix}{key} is {show(value)}", f"this version runs {runs}"
        )


def view(fields: Fields, tensors: Mapping[str, Tensor]) -> View:
    """The view of a file; refuses what no architecture here honours."""
    v = View(fields, tensors, fields.string("general.architecture", "") + ".")
    for key, plain in PLAIN:
        value = fields.metadata.get(v.prefix + key, plain[0])
        if not isinstance(value, str | int | float) or value not in plain:
            v.refuse(key, f"{show(plain[-1])} only")
    return v


def config(v: View, style: RopeStyle, **own: Any) -> ModelConfig:
    """The configuration; `own` is what the architecture says of itself."""
    where, a = v.fields.path, v.prefix
    dim = v.integer("embedding_length", None, 1, 1 << 20)
    n_heads = v.integer("attention.head_count", None, 1, 1 << 14)
    n_kv_heads = v.integer("attention.head_count_kv", n_heads, 1, n_heads)
    if n_heads % n_kv_heads:
        raise CheckpointError(
            f"{where}: {a}attention.head_count is {n_heads}, expected a multiple of"
            f" head_count_kv = {n_kv_heads}"
        )
    head_dim = v.integer("attention.key_length", dim // n_heads, 2, 1 << 14)
    v.integer("attention.value_length", head_dim, head_dim, head_dim)
    embedding = v.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{where}: tensor token_embd.weight is missing or no matrix")
    layer_norm = own.get("norm") == "layer"
    eps = "layer_norm_epsilon" if layer_norm else "layer_norm_rms_epsilon"
    result: dict[str, Any] = {
        "architecture": a[:-1],
        "dim": dim,
        "n_layers": layers(v),
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "vocab_size": embedding.shape[0],
        "context_length": v.integer("context_length", None, 1, 1 << 24),
        "head_dim": head_dim,
        "norm_eps": v.number(f"attention.{eps}", None, 0.0, 1.0),
        "norm_bias": layer_norm and v.has("output_norm.bias"),
        "qkv_bias": v.has("blk.0.attn_q.bias") or v.has("blk.0.attn_qkv.bias"),
        "output_bias": v.has("blk.0.attn_output.bias"),
        "ffn_bias": v.has("blk.0.ffn_up.bias"),
        "classifier_bias": v.has("output.bias"),
        "fused_qkv": v.has("blk.0.attn_qkv.weight"),
        "embedding_scale": v.number("embedding_scale", 0.0, 0.0, 1e6) or 1.0,
        "attention_scale": v.number("attention.scale", 0.0, 0.0, 1e6),
        "attention_softcap": v.number("attn_logit_softcapping", 0.0, 0.0, 1e6),
        "logit_softcap": v.number("final_logit_softcapping", 0.0, 0.0, 1e6),
        **feed_forward(v),
        **rope(v, head_dim, style),
        **own,
    }
    if "window" not in own and v.integer("attention.sliding_window", 0, 0, 1 << 30):
        v.refuse("attention.sliding_window", "0 only")
    return ModelConfig(**result)


def feed_forward(v: View) -> dict[str, Any]:
    """Widths of the feed-forward layer, or of its experts."""
    n_experts = v.integer("expert_count", 0, 0, 4096)
    if not n_experts:
        return {"hidden_dim": v.integer("feed_forward_length", None, 1, 1 << 24)}
    default = v.integer("feed_forward_length", 0, 0, 1 << 24)
    return {
        "hidden_dim": v.integer("expert_feed_forward_length", default or None, 1, 1 << 24),
        "n_experts": n_experts,
        "n_experts_used": v.integer("expert_used_count", None, 1, n_experts),
    }


def rope(v: View, head_dim: int, style: RopeStyle) -> dict[str, Any]:
    """How rope turns: `rope.*`, and the factors among the tensors."""
    rope_dim = v.integer("rope.dimension_count", head_dim, 2, head_dim)
    if rope_dim % 2:
        raise CheckpointError(
            f"{v.fields.path}: {v.prefix}rope.dimension_count is {rope_dim},"
            " expected an even number"
        )
    theta = v.number("rope.freq_base", 10000.0, 1.0, 1e12)
    factors, magnitude = scaling(v, rope_dim, theta)
    if v.has("rope_freqs.weight"):
        own = rope_factors(v, "rope_freqs.weight", rope_dim)
        factors = tuple(a * b for a, b in zip(factors, own, strict=True))
    return {
        "rope_theta": theta,
        "rope_dim": 0 if rope_dim == head_dim else rope_dim,
        "rope_style": style,
        "rope_factors": factors if set(factors) != {1.0} else (),
        "rope_magnitude": magnitude,
    }


def scaling(v: View, rope_dim: int, theta: float) -> tuple[tuple[float, ...], float]:
    """By how much the frequencies are divided, [rope_dim / 2], and the factor of cos and sin."""
    pairs = rope_dim // 2
    kind = v.fields.string(v.prefix + "rope.scaling.type", "none")
    factor = v.number("rope.scaling.factor", 0.0, 0.0, 1e6)
    factor = factor or v.number("rope.scale_linear", 0.0, 0.0, 1e6) or 1.0
    if kind == "linear" or (kind == "none" and factor == 1):
        return (factor,) * pairs, 1.0
    if kind == "longrope" and v.has("rope_factors_short.weight"):
        return (1.0,) * pairs, 1.0  # gguf_readers.phi3 reads the factors
    if kind == "yarn":
        fast = v.number("rope.scaling.yarn_beta_fast", 32.0, 1e-3, 1e6)
        slow = v.number("rope.scaling.yarn_beta_slow", 1.0, 1e-3, 1e6)
        context = v.integer("context_length", None, 1, 1 << 24)
        original = v.integer("rope.scaling.original_context_length", context, 1, 1 << 24)
        magnitude = v.number("rope.scaling.attn_factor", 1.0, 1e-3, 1e3)
        factors = yarn_factors(max(theta, 1.001), rope_dim, factor, fast, slow, original)
        return factors, magnitude * (1 + 0.1 * math.log(max(factor, 1.0)))
    if kind == "none":
        v.refuse("rope.scaling.factor", "1 only, where rope.scaling.type is not 'linear'")
    v.refuse("rope.scaling.type", "'none', 'linear' and 'yarn' only")
    raise AssertionError


def rope_factors(v: View, name: str, rope_dim: int) -> tuple[float, ...]:
    """Divisors of the frequencies from a tensor: [rope_dim / 2]."""
    tensor = v.tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"{v.fields.path}: tensor {name} is missing")
    if tensor.shape != (rope_dim // 2,):
        raise CheckpointError(
            f"{v.fields.path}: tensor {name} has shape {list(tensor.shape)}, expected"
            f" {[rope_dim // 2]}"
        )
    factors = tuple(tensor.to_float32().tolist())
    if not all(0 < factor < math.inf for factor in factors):
        raise CheckpointError(f"{v.fields.path}: tensor {name} holds numbers that are no factors")
    return factors


def layers(v: View) -> int:
    """How many layers there are."""
    return v.integer("block_count", None, 1, 4096)


def windows(v: View, period: int, default: int = 0) -> dict[str, Any]:
    """Sliding windows in all layers but every `period`-th; period 0: in all of them."""
    n = layers(v)
    window = v.integer("attention.sliding_window", default, 0, 1 << 30)
    pattern = v.fields.metadata.get(v.prefix + "attention.sliding_window_pattern", period)
    windowed: tuple[bool, ...] = ()
    if is_array(pattern, "bu") and len(pattern) == n:
        windowed = tuple(bool(one) for one in pattern)
    elif type(pattern) is not int or not 0 <= pattern <= 4096:
        v.refuse("attention.sliding_window_pattern", "a number, or true or false for each layer")
    elif pattern:
        windowed = tuple(i % pattern < pattern - 1 for i in range(n))
    if not window or not any(windowed):
        return {"window": 0 if windowed else window, "windowed_layers": ()}
    return {"window": window, "windowed_layers": () if all(windowed) else windowed}


def told_windows(v: View) -> dict[str, Any]:
    """Sliding windows of an architecture whose name says nothing of them: the file has to.

    A window alone, without the layers it is in, is what converters copy of models that do not use
    theirs; it is passed over where no text is longer, and refused where it would matter.
    """
    pattern = v.prefix + "attention.sliding_window_pattern"
    if is_array(v.fields.metadata.get(pattern), "biuf"):
        return windows(v, 0)
    window = v.integer("attention.sliding_window", 0, 0, 1 << 30)
    if 0 < window < v.integer("context_length", None, 1, 1 << 24):
        v.refuse("attention.sliding_window", "those with a sliding_window_pattern, layer by layer")
    return {"window": 0}


def root_scale(width: int) -> float:
    """1 / sqrt(width)."""
    return 1 / math.sqrt(width)
