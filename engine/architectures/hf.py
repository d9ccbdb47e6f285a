"""What a Hugging Face config.json says, with types checked; what most architectures share of it.

An `HfModel` is the part of an architecture that reads such a folder: types, configuration, names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from fireside.engine.architectures.common import llama3_factors, yarn_factors
from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.config import Activation, ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.hints import Any
from fireside.engine.records import record

# What a weight becomes on its way in: (the file's tensor, its name here, configuration)
Transform = Callable[[Tensor, str, ModelConfig], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip


class HfConfig(Fields):
    """The values of a config.json, or of a section of it; null is as good as absent."""

    def __init__(self, path: Path, values: Mapping[str, object]) -> None:
        super().__init__(path, {key: v for key, v in values.items() if v is not None})

    def section(self, key: str) -> HfConfig:
        """An object within; empty where there is none."""
        value = self.metadata.get(key, {})
        if not isinstance(value, dict):
            raise CheckpointError(f"{self.path}: {key} is not an object")
        return HfConfig(self.path, value)

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        """A list of so many finite numbers above 0."""
        value = self.metadata.get(key)
        if not isinstance(value, list) or len(value) != length:
            raise CheckpointError(f"{self.path}: {key} is not a list of {length} numbers")
        if not all(type(x) in (int, float) and 0 < x < 1e6 for x in value):
            raise CheckpointError(f"{self.path}: {key} has something that is no number above 0")
        return tuple(float(x) for x in value)

    def per_layer(self, key: str, n_layers: int) -> list[object] | None:
        """A list with an entry for each layer, if it is there."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) < n_layers:
            raise CheckpointError(f"{self.path}: {key} is not a list of {n_layers} entries")
        return value[:n_layers]

    def refuse(self, **plain: object) -> None:
        """UnsupportedError where a key is there with another value than that."""
        for key, expected in plain.items():
            value = self.metadata.get(key, expected)
            if type(value) not in (bool, int, float, str) or value != expected:
                raise UnsupportedError(
                    f"{self.path}: {key} is {str(value)[:40]!r}",
                    f"this version runs {expected} only",
                )

    def activation(self, key: str, default: str) -> Activation:
        """The function of the feed-forward layer."""
        name = self.string(key, default)
        if name not in ACTIVATIONS:
            raise UnsupportedError(
                f"{self.path}: {key} is {name[:40]!r}",
                f"this version runs {', '.join(ACTIVATIONS)}",
            )
        return ACTIVATIONS[name]


@record
class HfModel:
    """How the folders of some `model_type`s are read.

    names: GGUF's name -> the file's, both with "{}" for the layer; "*" in the latter: one tensor an
    expert, which are stacked. Without `prefix` (the first that fits), which files may leave out.
    transforms: by GGUF's name. ignored: ends of names of what files hold but nobody needs; dropped:
    their beginnings, of parts for other things than text.
    """

    types: tuple[str, ...]
    read: Callable[[HfConfig], ModelConfig]
    names: Mapping[str, str]
    prefix: str | tuple[str, ...] = "model."
    transforms: Mapping[str, Transform] = {}
    ignored: tuple[str, ...] = ("rotary_emb.inv_freq",)
    dropped: tuple[str, ...] = ()

    def plain(self, name: str) -> str:
        """A name of the files without its prefix; "" where the tensor is not needed."""
        if name.startswith(self.dropped) or name.endswith(self.ignored):
            return ""
        prefixes = (self.prefix,) if isinstance(self.prefix, str) else self.prefix
        fitting = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        return name.removeprefix(fitting)


# Names of Llama's, with which most others begin
NAMES: Mapping[str, str] = {
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "lm_head.weight",
    "blk.{}.attn_norm.weight": "layers.{}.input_layernorm.weight",
    "blk.{}.attn_q.weight": "layers.{}.self_attn.q_proj.weight",
    "blk.{}.attn_k.weight": "layers.{}.self_attn.k_proj.weight",
    "blk.{}.attn_v.weight": "layers.{}.self_attn.v_proj.weight",
    "blk.{}.attn_q.bias": "layers.{}.self_attn.q_proj.bias",
    "blk.{}.attn_k.bias": "layers.{}.self_attn.k_proj.bias",
    "blk.{}.attn_v.bias": "layers.{}.self_attn.v_proj.bias",
    "blk.{}.attn_output.weight": "layers.{}.self_attn.o_proj.weight",
    "blk.{}.attn_output.bias": "layers.{}.self_attn.o_proj.bias",
    "blk.{}.ffn_norm.weight": "layers.{}.post_attention_layernorm.weight",
    "blk.{}.ffn_gate.weight": "layers.{}.mlp.gate_proj.weight",
    "blk.{}.ffn_up.weight": "layers.{}.mlp.up_proj.weight",
    "blk.{}.ffn_down.weight": "layers.{}.mlp.down_proj.weight",
    "blk.{}.ffn_gate.bias": "layers.{}.mlp.gate_proj.bias",
    "blk.{}.ffn_up.bias": "layers.{}.mlp.up_proj.bias",
    "blk.{}.ffn_down.bias": "layers.{}.mlp.down_proj.bias",
}
QK_NORMS: Mapping[str, str] = {
    "blk.{}.attn_q_norm.weight": "layers.{}.self_attn.q_norm.weight",
    "blk.{}.attn_k_norm.weight": "layers.{}.self_attn.k_norm.weight",
}


def read_common(c: HfConfig, architecture: str, **own: Any) -> ModelConfig:
    """A configuration of the keys that most models have; `own` is what is otherwise with this one.

    Among `own` may be `theta`, rope's base where the file names none.
    """
    dim = c.integer("hidden_size", None, 1, 1 << 20)
    n_heads = c.integer("num_attention_heads", None, 1, 1 << 14)
    n_kv_heads = c.integer("num_key_value_heads", n_heads, 1, n_heads)
    head_dim = c.integer("head_dim", dim // n_heads, 2, 1 << 14)
    if n_heads % n_kv_heads or head_dim % 2:
        raise CheckpointError(
            f"{c.path}: {n_heads} heads of {head_dim}, {n_kv_heads} for keys and values: expected"
            " a multiple, of even size"
        )
    values: dict[str, Any] = {
        "architecture": architecture,
        "dim": dim,
        "n_layers": c.integer("num_hidden_layers", None, 1, 4096),
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "vocab_size": c.integer("vocab_size", None, 1, 1 << 24),
        "context_length": c.integer("max_position_embeddings", 2048, 1, 1 << 24),
        "head_dim": head_dim,
        "rope_style": "half",
    }
    if "hidden_dim" not in own:
        values["hidden_dim"] = c.integer("intermediate_size", None, 1, 1 << 24)
    if "norm_eps" not in own:
        values["norm_eps"] = c.number("rms_norm_eps", 1e-6, 0.0, 1.0)
    if "activation" not in own:
        values["activation"] = c.activation("hidden_act", "silu")
    rope = c.section("rope_parameters") if "rope_parameters" in c.metadata else None
    scaling = rope or c.section("rope_scaling")
    theta = own.pop("theta", 10000.0)
    if "rope_theta" not in own:
        values |= read_rope(c, scaling, head_dim, values["context_length"], theta)
    return ModelConfig(**(values | own))


def read_rope(
    c: HfConfig, scaling: HfConfig, head_dim: int, context: int, theta: float = 10000.0
) -> dict[str, Any]:
    """The fields of a ModelConfig that tell of rope; `scaling` holds what stretches it."""
    theta = c.number("rope_theta", theta, 2.0, 1e12)
    theta = scaling.number("rope_theta", theta, 2.0, 1e12)
    part = c.number("partial_rotary_factor", 1.0, 0.0, 1.0)
    part = scaling.number("partial_rotary_factor", part, 0.0, 1.0)
    n = int(head_dim * part)
    if n < 2 or n % 2:
        raise CheckpointError(f"{c.path}: rope turns {n} elements, expected an even number")
    values: dict[str, Any] = {"rope_theta": theta, "rope_dim": 0 if n == head_dim else n}
    kind = scaling.string("rope_type", scaling.string("type", "default"))
    if kind in ("default", "none"):
        return values
    pairs = n // 2
    if kind in ("longrope", "su"):
        return values | read_longrope(c, scaling, pairs, context)
    factor = scaling.number("factor", None, 1.0, 1e6)
    original = scaling.integer(
        "original_max_position_embeddings",
        c.integer("original_max_position_embeddings", context, 1, 1 << 24),
        *(2, 1 << 24),
    )
    if kind == "linear":
        return values | {"rope_factors": (factor,) * pairs}
    if kind == "llama3":
        low = scaling.number("low_freq_factor", None, 1e-6, 1e6)
        high = scaling.number("high_freq_factor", None, 1e-6, 1e6)
        if low >= high:
            raise CheckpointError(f"{c.path}: low_freq_factor is not below high_freq_factor")
        return values | {"rope_factors": llama3_factors(theta, n, factor, low, high, original)}
    if kind == "yarn":
        scaling.refuse(truncate=True)
        if "mscale" in scaling.metadata or "mscale_all_dim" in scaling.metadata:
            raise UnsupportedError(f"{c.path}: yarn with mscale")
        fast = scaling.number("beta_fast", 32.0, 1e-3, 1e6)
        slow = scaling.number("beta_slow", 1.0, 1e-3, 1e6)
        magnitude = 0.1 * math.log(factor) + 1
        return values | {
            "rope_factors": yarn_factors(theta, n, factor, fast, slow, original),
            "rope_magnitude": scaling.number("attention_factor", magnitude, 1e-3, 1e3),
        }
    raise UnsupportedError(
        f"{c.path}: rope scaling of type {kind[:40]!r}",
        "this version runs default, linear, llama3, yarn and longrope",
    )


def read_longrope(c: HfConfig, scaling: HfConfig, pairs: int, context: int) -> dict[str, Any]:
    """Phi-3's: a set of factors up to the original context, another for texts beyond it."""
    original = scaling.integer(
        "original_max_position_embeddings",
        c.integer("original_max_position_embeddings", context, 1, 1 << 24),
        *(2, 1 << 24),
    )
    scale = context / original
    magnitude = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    values: dict[str, Any] = {
        "rope_factors": scaling.numbers("short_factor", pairs),
        "rope_magnitude": scaling.number("attention_factor", magnitude, 1e-3, 1e3),
        "context_length": min(context, original),
    }
    if context > original:
        long = {"long_context": context, "long_factors": scaling.numbers("long_factor", pairs)}
        return values | long
    return values


def windows(c: HfConfig, n_layers: int, default: tuple[bool, ...] = ()) -> dict[str, Any]:
    """The fields of a ModelConfig that tell of sliding windows: layer_types, else `default`."""
    window = c.integer("sliding_window", 0, 0, 1 << 24)
    kinds = c.per_layer("layer_types", n_layers)
    if kinds is not None:
        known = {"sliding_attention": True, "full_attention": False}
        if not all(isinstance(kind, str) and kind in known for kind in kinds):
            raise UnsupportedError(f"{c.path}: layer_types names other kinds than {list(known)}")
        default = tuple(known[str(kind)] for kind in kinds)
        if any(default) and not window:
            raise CheckpointError(f"{c.path}: sliding layers, but no sliding_window")
    if not window or (default and not any(default)):
        return {}
    return {"window": window, "windowed_layers": () if all(default) else default}
