"""Small files of the formats we read, made on the spot and without our own readers' tables."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.checkpoints.types import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    Checkpoint,
    Vocabulary,
)

PIECES = "▁o n c e ▁t i m ▁a h ▁u p ▁on ce ▁once ▁ti me ▁time ▁up on ▁upon er ▁the é 猫 😀 ▁ ▁▁"


def small_vocabulary(size: int = 0) -> Vocabulary:
    """Unknown, BOS, EOS, 256 bytes, some pieces; filled up to `size` where that is more."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *PIECES.split()]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(PIECES.split())
    while len(pieces) < size:
        pieces.append(f"▁word{len(pieces)}")
        types.append(NORMAL)
    scores = np.zeros(len(pieces), np.float32)
    scores[259:] = -np.arange(len(pieces) - 259)
    return Vocabulary("spm", tuple(pieces), scores, np.array(types, np.int32))


def tokenizer_bin(vocabulary: Vocabulary) -> bytes:
    """llama2.c's tokenizer.bin, as its tokenizer.py exports it."""
    raw = []
    for i, piece in enumerate(vocabulary.pieces):
        text = {1: "\n<s>\n", 2: "\n</s>\n"}.get(i, piece)
        raw.append(text.replace("▁", " ").encode())
    data = struct.pack("<I", max(map(len, raw)))
    for piece_bytes, score in zip(raw, vocabulary.scores.tolist(), strict=True):
        data += struct.pack("<fI", score, len(piece_bytes)) + piece_bytes
    return data


def llama2c(checkpoint: Checkpoint, version: int, group_size: int = 0) -> bytes:
    """A llama2.c file of version 0, 1 or 2, in the order of its export.py."""
    c = checkpoint.config
    weights = {name: t.to_float32() for name, t in checkpoint.tensors.items()}
    sizes = (c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads)
    tied = checkpoint.tied

    def of_layers(*kinds: str) -> list[NDArray[np.float32]]:
        return [weights[f"blk.{i}.{k}.weight"] for k in kinds for i in range(c.n_layers)]

    matrices = of_layers(
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up"
    )
    embedding, norm = weights["token_embd.weight"], weights["output_norm.weight"]
    classifier = [] if tied else [weights["output.weight"]]
    if version == 0:
        vocab = c.vocab_size if tied else -c.vocab_size
        header = struct.pack("<7i", *sizes, vocab, c.context_length)
        attention = of_layers("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output")
        ffn = of_layers("ffn_norm", "ffn_gate", "ffn_down", "ffn_up")
        frequencies = np.zeros((2, c.context_length, c.head_dim // 2), np.float32)
        parts = [embedding, *attention, *ffn, norm, frequencies, *classifier]
        return header + b"".join(part.astype("<f4").tobytes() for part in parts)
    header = struct.pack("<I8i", 0x616B3432, version, *sizes, c.vocab_size, c.context_length)
    header += struct.pack("<B", tied)
    if version == 2:
        header += struct.pack("<i", group_size)
    header = header.ljust(256, b"\0")
    body = [*of_layers("attn_norm"), *of_layers("ffn_norm"), norm]
    data = header + b"".join(part.astype("<f4").tobytes() for part in body)
    for part in [embedding, *matrices, *classifier]:
        if version == 1:
            data += part.astype("<f4").tobytes()
        else:
            data += blocks.get(f"Q8_GROUP{group_size}").quantise(part.reshape(-1)).tobytes()
    return data


def sentencepiece_model(vocabulary: Vocabulary) -> bytes:
    """A tokenizer.model: ModelProto with pieces and the little else that a BPE model needs."""

    def field(number: int, value: bytes) -> bytes:
        assert len(value) < 128
        return bytes([number << 3 | 2, len(value)]) + value

    data = b""
    for piece, score, kind in zip(
        vocabulary.pieces, vocabulary.scores.tolist(), vocabulary.types.tolist(), strict=True
    ):
        message = field(1, piece.encode()) + b"\x15" + struct.pack("<f", score)
        data += field(1, message + bytes([3 << 3, kind]))
    data += field(2, bytes([3 << 3, 2]))  # trainer: BPE
    prefix, extra = vocabulary.add_space_prefix, vocabulary.remove_extra_whitespaces
    return data + field(3, bytes([3 << 3, prefix, 4 << 3, extra]))


def gguf_file(
    checkpoint: Checkpoint, changes: Mapping[str, object] | None = None
) -> tuple[bytes, int]:
    """A GGUF file and the bytes of its header; `changes` to its metadata, None takes one away."""
    entries = gguf_writer.lay_out(checkpoint.tensors, None)
    metadata = dict(gguf_writer.describe(checkpoint.config, checkpoint.name, entries))
    if checkpoint.vocabulary is not None:
        metadata |= gguf_writer.describe_vocabulary(checkpoint.vocabulary)
    metadata = {k: v for k, v in (metadata | dict(changes or {})).items() if v is not None}
    header = b"".join(gguf_writer.encode_header(metadata, entries))
    data = header + bytes(-len(header) % 32)
    for entry in entries:
        data += entry.data().tobytes() + bytes(-entry.nbytes % 32)
    return data, len(header)
