"""The decoder-only transformer: its weights and its plan, by what a ModelConfig says of it.

    x = embedding
    each layer:  x += post(attention(pre(x)));  x += post(feed forward(pre(x)))
    logits = classifier(norm(x))

Every architecture of this package is one of these; its own file says how it is configured and
what its weights are called in other files. Names are GGUF's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fireside.engine.config import ModelConfig
from fireside.engine.plan import (
    Activation,
    Add,
    AddBias,
    Attention,
    Embed,
    Experts,
    GatedActivation,
    LayerNorm,
    MatMul,
    Plan,
    PlanBuilder,
    RMSNorm,
    Rope,
    Scale,
    SelectRows,
    Slice,
)

Shape = tuple[int, ...]


def shapes(c: ModelConfig) -> Mapping[str, Shape]:
    """Name and shape of every weight."""
    result: dict[str, Shape] = {"token_embd.weight": (c.vocab_size, c.dim)}
    if c.learned_positions:
        result["position_embd.weight"] = (c.learned_positions, c.dim)
    for i in range(c.n_layers):
        for name, shape in layer_shapes(c):
            result[f"blk.{i}.{name}"] = shape
    result.update(norm_shapes(c, "output_norm"))
    result["output.weight"] = (c.vocab_size, c.dim)
    if c.classifier_bias:
        result["output.bias"] = (c.vocab_size,)
    return result


def norm_shapes(c: ModelConfig, name: str, width: int = 0) -> Iterator[tuple[str, Shape]]:
    """A norm over `width` elements (0: the residual stream's)."""
    yield f"{name}.weight", (width or c.dim,)
    if c.norm_bias:
        yield f"{name}.bias", (width or c.dim,)


def matrix_shapes(name: str, rows: int, cols: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    """A matrix, and its bias where it has one."""
    yield f"{name}.weight", (rows, cols)
    if bias:
        yield f"{name}.bias", (rows,)


def layer_shapes(c: ModelConfig) -> Iterator[tuple[str, Shape]]:
    """The weights of one layer."""
    if c.pre_norms:
        yield from norm_shapes(c, "attn_norm")
    if c.fused_qkv:
        yield from matrix_shapes("attn_qkv", c.q_dim + 2 * c.kv_dim, c.dim, c.qkv_bias)
    else:
        yield from matrix_shapes("attn_q", c.q_dim, c.dim, c.qkv_bias)
        yield from matrix_shapes("attn_k", c.kv_dim, c.dim, c.qkv_bias)
        yield from matrix_shapes("attn_v", c.kv_dim, c.dim, c.qkv_bias)
    if c.qk_norm != "none":
        per_head = c.qk_norm == "head"  # one vector for all heads
        yield "attn_q_norm.weight", (c.head_dim if per_head else c.q_dim,)
        yield "attn_k_norm.weight", (c.head_dim if per_head else c.kv_dim,)
    yield from matrix_shapes("attn_output", c.dim, c.q_dim, c.output_bias)
    if c.post_norms:
        yield from norm_shapes(c, "post_attention_norm")
    if c.pre_norms and not c.shared_norm:
        yield from norm_shapes(c, "ffn_norm")
    if c.n_experts:
        yield "ffn_gate_inp.weight", (c.n_experts, c.dim)
        yield "ffn_gate_exps.weight", (c.n_experts, c.hidden_dim, c.dim)
        yield "ffn_up_exps.weight", (c.n_experts, c.hidden_dim, c.dim)
        yield "ffn_down_exps.weight", (c.n_experts, c.dim, c.hidden_dim)
    elif c.fused_gate_up:
        yield from matrix_shapes("ffn_up", 2 * c.hidden_dim, c.dim, c.ffn_bias)
        yield from matrix_shapes("ffn_down", c.dim, c.hidden_dim, c.ffn_bias)
    else:
        if c.gated:
            yield from matrix_shapes("ffn_gate", c.hidden_dim, c.dim, c.ffn_bias)
        yield from matrix_shapes("ffn_up", c.hidden_dim, c.dim, c.ffn_bias)
        yield from matrix_shapes("ffn_down", c.dim, c.hidden_dim, c.ffn_bias)
    if c.post_norms:
        yield from norm_shapes(c, "post_ffw_norm")


def plan(c: ModelConfig, tied: bool) -> Plan:
    """The forward pass."""
    b = _Builder(c)
    positions = "position_embd.weight" if c.learned_positions else ""
    b.add(Embed("token_embd.weight", b.x, c.embedding_scale, positions))
    for i in range(c.n_layers):
        w = f"blk.{i}."
        source = b.norm(w + "attn_norm", b.x, b.normed) if c.pre_norms else b.x
        b.attention(i, source)
        if c.parallel_residual:
            if not c.shared_norm:
                source = b.norm(w + "ffn_norm", b.x, b.normed)
            b.project(w + "attn_output", b.attended, c.output_bias, "")
        else:
            b.project(w + "attn_output", b.attended, c.output_bias, w + "post_attention_norm")
            source = b.norm(w + "ffn_norm", b.x, b.normed) if c.pre_norms else b.x
        b.feed_forward(w, source)
    b.add(SelectRows(b.x, b.last))
    b.norm("output_norm", b.last, b.last)
    b.add(MatMul(("token_embd.weight" if tied else "output.weight",), b.last, b.logits))
    if c.classifier_bias:
        b.add(AddBias(("output.bias",), b.logits))
    if c.logit_scale != 1 or c.logit_softcap:
        b.add(Scale(b.logits, c.logit_scale, c.logit_softcap))
    return Plan(tuple(b.ops), b.logits, c.n_layers, c.n_kv_heads, c.head_dim, b.buffers)


class _Builder(PlanBuilder):
    """The parts of a layer, on their buffers."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.c = c
        self.x = self.buffer("x", c.dim)  # the residual stream
        self.normed = self.buffer("normed", c.dim)
        self.qkv = self.buffer("qkv", c.q_dim + 2 * c.kv_dim)
        self.attended = self.buffer("attended", c.q_dim)
        self.last = self.buffer("last", c.dim)
        self.logits = self.buffer("logits", c.vocab_size)

    def norm(self, name: str, x: Slice, out: Slice) -> Slice:
        """out = norm(x)."""
        if self.c.norm == "layer":
            bias = name + ".bias" if self.c.norm_bias else ""
            self.add(LayerNorm(name + ".weight", bias, x, out, self.c.norm_eps))
        else:
            self.add(RMSNorm(name + ".weight", x, out, self.c.norm_eps))
        return out

    def attention(self, layer: int, source: Slice) -> None:
        """attended = attention of `source`."""
        c, w = self.c, f"blk.{layer}."
        q = Slice("qkv", 0, c.q_dim)
        k = Slice("qkv", c.q_dim, c.kv_dim)
        v = Slice("qkv", c.q_dim + c.kv_dim, c.kv_dim)
        parts = ("attn_qkv",) if c.fused_qkv else ("attn_q", "attn_k", "attn_v")
        self.add(MatMul(tuple(f"{w}{part}.weight" for part in parts), source, self.qkv))
        if c.qkv_bias:
            self.add(AddBias(tuple(f"{w}{part}.bias" for part in parts), self.qkv))
        if c.qk_norm != "none":
            head_dim = 0 if c.qk_norm == "full" else c.head_dim
            for name, part in (("attn_q_norm.weight", q), ("attn_k_norm.weight", k)):
                if c.qk_norm == "heads":
                    self.add(LayerNorm(w + name, "", part, part, c.norm_eps, head_dim))
                else:
                    self.add(RMSNorm(w + name, part, part, c.norm_eps, head_dim))
        if c.turned(layer):
            # windowed layers with a rope of their own know nothing of the other's magnitude
            own = c.window_rope_theta > 0 and c.windowed(layer)
            magnitude = 1.0 if own else c.rope_magnitude
            for part in (q, k):
                self.add(Rope(part, c.head_dim, c.frequencies(layer), c.rope_style, magnitude))
        scale = c.attention_scale or c.head_dim**-0.5
        window = c.window if c.windowed(layer) else 0
        self.add(
            Attention(layer, q, k, v, self.attended, c.head_dim, scale, window, c.attention_softcap)
        )

    def project(self, name: str, source: Slice, bias: bool, post_norm: str) -> None:
        """x += matrix of `source`, through its bias and its norm where there are any."""
        weights = (name + ".weight",)
        if not (post_norm and self.c.post_norms):
            self.add(MatMul(weights, source, self.x, add=True))
            if bias:
                self.add(AddBias((name + ".bias",), self.x))
            return
        out = self.buffer("projected", self.c.dim)
        self.add(MatMul(weights, source, out))
        if bias:
            self.add(AddBias((name + ".bias",), out))
        self.add(Add(self.norm(post_norm, out, out), self.x))

    def feed_forward(self, w: str, source: Slice) -> None:
        """x += feed forward of `source`."""
        c = self.c
        if c.n_experts:
            self.experts(w, source)
            return
        hidden = self.buffer("hidden", c.hidden_dim)
        if c.gated:
            both = self.buffer("gate_up", 2 * c.hidden_dim)
            parts = ("ffn_up",) if c.fused_gate_up else ("ffn_gate", "ffn_up")
            self.add(MatMul(tuple(f"{w}{part}.weight" for part in parts), source, both))
            if c.ffn_bias:
                self.add(AddBias(tuple(f"{w}{part}.bias" for part in parts), both))
            gate = Slice("gate_up", 0, c.hidden_dim)
            up = Slice("gate_up", c.hidden_dim, c.hidden_dim)
            self.add(GatedActivation(gate, up, hidden, c.activation))
        else:
            self.add(MatMul((w + "ffn_up.weight",), source, hidden))
            if c.ffn_bias:
                self.add(AddBias((w + "ffn_up.bias",), hidden))
            self.add(Activation(hidden, hidden, c.activation))
        self.project(w + "ffn_down", hidden, c.ffn_bias, w + "post_ffw_norm")

    def experts(self, w: str, source: Slice) -> None:
        """x += the chosen experts' feed forward of `source`."""
        c = self.c
        router = self.buffer("router", c.n_experts)
        out = self.buffer("projected", c.dim)
        self.add(MatMul((w + "ffn_gate_inp.weight",), source, router))
        gate, up, down = (f"{w}ffn_{part}_exps.weight" for part in ("gate", "up", "down"))
        normalise, activation = c.normalise_experts, c.activation
        self.add(
            Experts(
                *(router, gate, up, down, source, out),
                *(c.n_experts_used, normalise, activation),
            )
        )
        if c.post_norms:
            self.norm(w + "post_ffw_norm", out, out)
        self.add(Add(out, self.x))
