"""A small Llama in PyTorch: RMSNorm, rotary positions, grouped queries, SwiGLU, tied embeddings.

Rotary positions turn *neighbouring* pairs (2i, 2i+1) of a head, as Meta's and llama2.c's weights
have it and as GGUF's "llama" architecture expects: the export needs no permutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Config:
    """Matrix rows (dim, hidden) have to be multiples of 32, the length of a Q8_0 block."""

    vocab_size: int = 4096
    context: int = 1024
    dim: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 704
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """How many numbers each head works on."""
        return self.dim // self.heads


class RMSNorm(nn.Module):
    """x / root mean square of x, times a learned weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """X [..., dim] -> the same."""
        return functional.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Causal self-attention; several query heads share a key/value head."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.heads, c.kv_heads, c.head_dim
        self.wq = nn.Linear(c.dim, c.heads * c.head_dim, bias=False)
        self.wk = nn.Linear(c.dim, c.kv_heads * c.head_dim, bias=False)
        self.wv = nn.Linear(c.dim, c.kv_heads * c.head_dim, bias=False)
        self.wo = nn.Linear(c.heads * c.head_dim, c.dim, bias=False)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """X [batch, length, dim] -> the same."""
        batch, length, _ = x.shape
        q = rotate(self.wq(x).view(batch, length, self.heads, self.head_dim), angles)
        k = rotate(self.wk(x).view(batch, length, self.kv_heads, self.head_dim), angles)
        v = self.wv(x).view(batch, length, self.kv_heads, self.head_dim)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if x.device.type == "cpu":
            out = attend(q, k, v)
        else:
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.wo(out.transpose(1, 2).reshape(batch, length, -1))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention written out: q [batch, heads, length, head_dim] -> the same shape.

    On a CPU the backward pass of PyTorch's fused attention takes five times as long as this. Query
    head h reads key/value head h // (heads / kv_heads), so the query heads of one key/value head
    are laid end to end and share its matrix product.
    """
    batch, heads, length, head_dim = q.shape
    kv_heads = k.shape[1]
    group, many = heads // kv_heads, batch * kv_heads
    q = (q * head_dim**-0.5).reshape(many, group * length, head_dim)
    k, v = k.reshape(many, length, head_dim), v.reshape(many, length, head_dim)
    scores = torch.bmm(q, k.transpose(1, 2)).view(many, group, length, length)
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.float().masked_fill(future, float("-inf")).softmax(-1).to(v.dtype)
    out = torch.bmm(weights.view(many, group * length, length), v)
    return out.view(batch, heads, length, head_dim)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.gate = nn.Linear(c.dim, c.hidden, bias=False)
        self.up = nn.Linear(c.dim, c.hidden, bias=False)
        self.down = nn.Linear(c.hidden, c.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """X [..., dim] -> the same."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """Attention, then feed-forward, each beside the residual stream."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(c.dim, c.norm_eps)
        self.attention = Attention(c)
        self.ffn_norm = RMSNorm(c.dim, c.norm_eps)
        self.ffn = FeedForward(c)

    def forward(self, x: Tensor, angles: Tensor, dropout: float) -> Tensor:
        """X [batch, length, dim] -> the same."""
        x = x + drop(self.attention(self.attention_norm(x), angles), dropout)
        return x + drop(self.ffn(self.ffn_norm(x)), dropout)


class Storyteller(nn.Module):
    """The whole model; the embedding is its classifier too."""

    def __init__(self, config: Config, dropout: float = 0.0) -> None:
        super().__init__()
        self.config, self.dropout = config, dropout
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.register_buffer("angles", rope_angles(config), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # the two matrices that write into the residual stream start smaller
                into_stream = name.endswith(("wo.weight", "down.weight"))
                std = 0.02 / (2 * config.layers) ** 0.5 if into_stream else 0.02
                nn.init.normal_(weight, std=std)

    def hidden_states(self, tokens: Tensor) -> Tensor:
        """tokens [batch, length] -> normed hidden states [batch, length, dim]."""
        dropout = self.dropout if self.training else 0.0
        x = self.embedding(tokens)
        if torch.is_autocast_enabled(tokens.device.type):
            x = x.to(torch.get_autocast_dtype(tokens.device.type))
        angles = self.angles[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, angles, dropout)
        return self.norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [batch, length] -> logits [batch, length, vocab_size], f32."""
        return functional.linear(self.hidden_states(tokens), self.embedding.weight).float()

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats over the positions whose target is not negative."""
        here = targets.flatten() >= 0
        states = self.hidden_states(tokens).flatten(0, 1)[here]
        targets = targets.flatten()[here]
        if torch.is_grad_enabled():
            return TiedCrossEntropy.apply(states, self.embedding.weight, targets)
        logits = functional.linear(states, self.embedding.weight).float()
        return functional.cross_entropy(logits, targets)


class TiedCrossEntropy(torch.autograd.Function):
    """Mean cross entropy of softmax(states @ weight.T), a few rows at a time.

    With thousands of pieces the logits are the largest array of a step by far. Here they never
    exist as a whole: each slice stays in the cache while its loss and its gradient are made.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
        """States [rows, dim], weight [vocab_size, dim], targets [rows] -> loss."""
        rows, step = states.shape[0], 256 if states.device.type == "cpu" else 8192
        narrow = weight.to(states.dtype)
        grad_states = torch.empty_like(states)
        grad_weight = torch.zeros_like(weight)
        loss = torch.zeros((), device=states.device)
        for start in range(0, rows, step):
            x, target = states[start : start + step], targets[start : start + step, None]
            logits = (x @ narrow.T).float()
            right = logits.gather(1, target)
            top = logits.amax(1, keepdim=True)
            p = logits.sub_(top).exp_()
            total = p.sum(1, keepdim=True)
            loss += (total.log() + top - right).sum()
            p.div_(total).scatter_add_(1, target, torch.full_like(right, -1.0))
            p = p.to(states.dtype)
            grad_states[start : start + step] = p @ narrow
            grad_weight += p.T @ x
        ctx.save_for_backward(grad_states, grad_weight)
        ctx.rows = rows
        return loss / rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        """What forward has already worked out, scaled."""
        grad_states, grad_weight = ctx.saved_tensors
        scale = grad / ctx.rows
        return grad_states * scale.to(grad_states.dtype), grad_weight * scale, None


def rope_angles(c: Config) -> Tensor:
    """The turn of every pair at every position, as a complex number: [context, 1, head_dim / 2]."""
    frequencies = c.rope_base ** -(torch.arange(0, c.head_dim, 2).float() / c.head_dim)
    turns = torch.outer(torch.arange(c.context).float(), frequencies)
    return torch.polar(torch.ones_like(turns), turns)[:, None, :]


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the neighbouring pairs of x [batch, length, heads, head_dim]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * angles).flatten(-2).to(x.dtype)


def drop(x: Tensor, rate: float) -> Tensor:
    """Dropout with one mask of channels per row: random numbers are dear on a CPU."""
    if rate == 0.0:
        return x
    keep = torch.rand(x.shape[0], 1, x.shape[2], device=x.device) >= rate
    return x * (keep / (1 - rate)).to(x.dtype)


def count_parameters(model: nn.Module) -> int:
    """Tied weights count once."""
    return sum(p.numel() for p in model.parameters())
