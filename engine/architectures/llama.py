"""Llama (Touvron et al. 2023): pre-norm, rope, grouped queries, SwiGLU. llama2.c's stories too."""

from __future__ import annotations

from collections.abc import Mapping

from fireside.engine.architectures import Architecture, register
from fireside.engine.config import ModelConfig
from fireside.engine.plan import (
    Attention,
    Embed,
    GatedActivation,
    MatMul,
    Plan,
    PlanBuilder,
    RMSNorm,
    Rope,
    SelectRows,
    Slice,
)


def shapes(c: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every weight."""
    result: dict[str, tuple[int, ...]] = {"token_embd.weight": (c.vocab_size, c.dim)}
    for i in range(c.n_layers):
        layer = f"blk.{i}."
        result[layer + "attn_norm.weight"] = (c.dim,)
        result[layer + "attn_q.weight"] = (c.q_dim, c.dim)
        result[layer + "attn_k.weight"] = (c.kv_dim, c.dim)
        result[layer + "attn_v.weight"] = (c.kv_dim, c.dim)
        result[layer + "attn_output.weight"] = (c.dim, c.q_dim)
        result[layer + "ffn_norm.weight"] = (c.dim,)
        result[layer + "ffn_gate.weight"] = (c.hidden_dim, c.dim)
        result[layer + "ffn_up.weight"] = (c.hidden_dim, c.dim)
        result[layer + "ffn_down.weight"] = (c.dim, c.hidden_dim)
    result["output_norm.weight"] = (c.dim,)
    result["output.weight"] = (c.vocab_size, c.dim)
    return result


def plan(c: ModelConfig, tied: bool) -> Plan:
    """The forward pass."""
    b = PlanBuilder()
    x = b.buffer("x", c.dim)  # the residual stream
    normed = b.buffer("normed", c.dim)
    qkv = b.buffer("qkv", c.q_dim + 2 * c.kv_dim)
    q = Slice("qkv", 0, c.q_dim)
    k = Slice("qkv", c.q_dim, c.kv_dim)
    v = Slice("qkv", c.q_dim + c.kv_dim, c.kv_dim)
    attended = b.buffer("attended", c.q_dim)
    gate_up = b.buffer("gate_up", 2 * c.hidden_dim)
    gate, up = Slice("gate_up", 0, c.hidden_dim), Slice("gate_up", c.hidden_dim, c.hidden_dim)
    hidden = b.buffer("hidden", c.hidden_dim)
    last = b.buffer("last", c.dim)
    logits = b.buffer("logits", c.vocab_size)

    b.add(Embed("token_embd.weight", x))
    for i in range(c.n_layers):
        w = f"blk.{i}."
        b.add(RMSNorm(w + "attn_norm.weight", x, normed, c.norm_eps))
        stacked = (w + "attn_q.weight", w + "attn_k.weight", w + "attn_v.weight")
        b.add(MatMul(stacked, normed, qkv))
        for part in (q, k):
            b.add(Rope(part, c.head_dim, c.rotary_dim, c.rope_theta, c.rope_style))
        b.add(Attention(i, q, k, v, attended, c.head_dim, c.head_dim**-0.5))
        b.add(MatMul((w + "attn_output.weight",), attended, x, add=True))
        b.add(RMSNorm(w + "ffn_norm.weight", x, normed, c.norm_eps))
        b.add(MatMul((w + "ffn_gate.weight", w + "ffn_up.weight"), normed, gate_up))
        b.add(GatedActivation(gate, up, hidden))
        b.add(MatMul((w + "ffn_down.weight",), hidden, x, add=True))
    b.add(SelectRows(x, last))
    b.add(RMSNorm("output_norm.weight", last, last, c.norm_eps))
    b.add(MatMul(("token_embd.weight" if tied else "output.weight",), last, logits))
    return Plan(tuple(b.ops), logits, c.n_layers, c.n_kv_heads, c.head_dim, b.buffers)


register(Architecture("llama", shapes, plan))
