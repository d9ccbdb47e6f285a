"""The Llama forward pass in plain NumPy, as the paper has it. The oracle of every test.

No plan, no cache, no blocks: float32 weights, a whole text at once. T tokens, D = dim, H query
heads of d elements, G key/value heads, F = hidden_dim, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.config import ModelConfig

Array = NDArray[np.float32]


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """[T, D] -> [T, D] (Zhang and Sennrich 2019)."""
    out: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * weight
    return out


def rope(x: Array, c: ModelConfig) -> Array:
    """Turn the heads of x [T, heads, d] by their positions (Su et al. 2021)."""
    n = c.rotary_dim
    frequency = np.array(c.frequencies(0))  # [n/2]
    angle = np.arange(len(x))[:, None] * frequency  # [T, n/2]
    cos, sin = np.cos(angle)[:, None].astype("f4"), np.sin(angle)[:, None].astype("f4")
    first = np.s_[..., 0:n:2] if c.rope_style == "interleaved" else np.s_[..., 0 : n // 2]
    second = np.s_[..., 1:n:2] if c.rope_style == "interleaved" else np.s_[..., n // 2 : n]
    out = x.copy()
    out[first] = x[first] * cos - x[second] * sin
    out[second] = x[first] * sin + x[second] * cos
    return out


def attention(q: Array, k: Array, v: Array) -> Array:
    """Causal softmax(q k^T / sqrt(d)) v; q [T, H, d], k and v [T, G, d] -> [T, H, d]."""
    T, H, d = q.shape
    k, v = (x.repeat(H // x.shape[1], axis=1) for x in (k, v))  # each group serves H/G heads
    scores = np.einsum("thd,shd->hts", q, k) / np.float32(np.sqrt(d))  # [H, T, T]
    scores[:, np.triu(np.ones((T, T), bool), 1)] = -np.inf  # nobody sees the future
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out: Array = np.einsum("hts,shd->thd", weights, v)
    return out


def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    out: Array = x / (1 + np.exp(-x))
    return out


def forward(c: ModelConfig, w: Mapping[str, Array], tokens: Sequence[int]) -> Array:
    """Logits [T, V] of a text of T tokens; w maps GGUF's tensor names to float32 arrays."""
    T = len(tokens)
    x: Array = w["token_embd.weight"][list(tokens)]  # [T, D]
    for i in range(c.n_layers):
        b = f"blk.{i}."
        h = rms_norm(x, w[b + "attn_norm.weight"], c.norm_eps)
        q = (h @ w[b + "attn_q.weight"].T).reshape(T, c.n_heads, c.head_dim)
        k = (h @ w[b + "attn_k.weight"].T).reshape(T, c.n_kv_heads, c.head_dim)
        v = (h @ w[b + "attn_v.weight"].T).reshape(T, c.n_kv_heads, c.head_dim)
        a = attention(rope(q, c), rope(k, c), v).reshape(T, c.q_dim)
        x += a @ w[b + "attn_output.weight"].T
        h = rms_norm(x, w[b + "ffn_norm.weight"], c.norm_eps)
        gate, up = h @ w[b + "ffn_gate.weight"].T, h @ w[b + "ffn_up.weight"].T  # [T, F]
        x += (silu(gate) * up) @ w[b + "ffn_down.weight"].T
    x = rms_norm(x, w["output_norm.weight"], c.norm_eps)
    return x @ w.get("output.weight", w["token_embd.weight"]).T


def weights(checkpoint: Checkpoint) -> dict[str, Array]:
    """Every tensor of a checkpoint as float32."""
    return {name: tensor.to_float32() for name, tensor in checkpoint.tensors.items()}
