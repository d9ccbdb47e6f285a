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


# ggml's types of before GGUF: number, and what versions 1 and 2 of ggjt call otherwise today
LEGACY_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8}
LEGACY_BLOCKS = {
    ("Q4_0", 1): "Q4_0_V1", ("Q4_0", 2): "Q4_0_V2", ("Q4_1", 1): "Q4_1_V1",
    ("Q4_1", 2): "Q4_1_V2", ("Q5_0", 1): "Q5_0_V1", ("Q5_1", 1): "Q5_1_V1",
    ("Q8_0", 1): "Q8_0_V2", ("Q8_0", 2): "Q8_0_V2",
}  # fmt: skip
LEGACY_NAMES = {
    "token_embd": "tok_embeddings", "output_norm": "norm", "output": "output",
    "attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv",
    "attn_output": "attention.wo", "attn_norm": "attention_norm", "ffn_gate": "feed_forward.w1",
    "ffn_down": "feed_forward.w2", "ffn_up": "feed_forward.w3", "ffn_norm": "ffn_norm",
}  # fmt: skip


def older_block(block: str, data: NDArray[np.uint8], version: int) -> bytes:
    """Today's blocks of 32 weights as an older version of ggjt had them."""
    if (block, version) not in LEGACY_BLOCKS:
        return data.tobytes()
    scales = 2 if block.endswith("_1") else 1  # f16 numbers at the beginning
    fifth = 4 if block.startswith("Q5") else 0
    rows = data.reshape(-1, 2 * scales + fifth + (32 if block == "Q8_0" else 16))
    head = rows[:, : 2 * scales].copy().view("<f2")
    high, q = rows[:, 2 * scales : 2 * scales + fifth], rows[:, 2 * scales + fifth :]
    if version == 1 and block != "Q8_0":
        numbers = np.concatenate([q & 15, q >> 4], axis=1)
        q = numbers[:, ::2] | numbers[:, 1::2] << 4
    scale = head.astype("<f2" if fifth else "<f4").view(np.uint8)
    return np.concatenate([scale, high, q], axis=1).tobytes()


def legacy_block(
    name: str, raw: NDArray[np.uint8], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The weights [n, 32] of old blocks raw [n, bytes], one by one; scale: [n, d and m]."""
    out = np.zeros((len(raw), 32), np.float32)
    kind, version = name.rsplit("_V", 1)
    for i, block in enumerate(raw):
        if kind == "Q8_0":
            out[i] = block[-32:].view(np.int8) * scale[i, 0]
            continue
        nibbles = block[-16:]
        high = int.from_bytes(block[-20:-16].tobytes(), "little")
        for j in range(32):
            at, up = divmod(j, 2) if version == "1" else (j % 16, j // 16)
            q = int(nibbles[at]) >> 4 * up & 15
            if kind.startswith("Q5"):
                q |= (high >> j & 1) << 4
            if kind.endswith("_1"):
                out[i, j] = np.float32(q) * scale[i, 0] + scale[i, 1]
            else:
                out[i, j] = np.float32(q - (16 if kind == "Q5_0" else 8)) * scale[i, 0]
    return out


def ggml_legacy(checkpoint: Checkpoint, kind: str) -> bytes:
    """A Llama file of before GGUF: "ggml", "ggmf 1", "ggjt 1" to "ggjt 3"."""
    c, (magic, _, number) = checkpoint.config, kind.partition(" ")
    version = int(number or 0)
    data = magic.encode()[::-1] + (struct.pack("<I", version) if version else b"")
    data += struct.pack("<7I", c.vocab_size, c.dim, 256, c.n_heads, c.n_layers, c.head_dim, 0)
    assert checkpoint.vocabulary is not None
    vocabulary = checkpoint.vocabulary
    for i, (piece, score) in enumerate(
        zip(vocabulary.pieces, vocabulary.scores.tolist(), strict=True)
    ):
        raw = bytes([i - 3]) if vocabulary.types[i] == BYTE else piece.replace("▁", " ").encode()
        raw = b"" if vocabulary.types[i] == CONTROL else raw
        data += struct.pack("<I", len(raw)) + raw + (struct.pack("<f", score) if version else b"")
    for tensor in checkpoint.tensors.values():
        stem = tensor.name.removesuffix(".weight")
        if stem.startswith("blk."):
            _, layer, stem = stem.split(".", 2)
            name = f"layers.{layer}.{LEGACY_NAMES[stem]}.weight".encode()
        else:
            name = f"{LEGACY_NAMES[stem]}.weight".encode()
        shape = tensor.shape[::-1]
        data += struct.pack("<III", len(shape), len(name), LEGACY_TYPES[tensor.block])
        data += struct.pack(f"<{len(shape)}I", *shape) + name
        if magic == "ggjt":
            data += bytes(-len(data) % 32)
        data += older_block(tensor.block, tensor.data, version)
    return data
