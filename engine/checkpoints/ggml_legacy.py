"""ggml's Llama files of before GGUF: ggml (no version), ggmf (version 1), ggjt (versions 1 to 3).

A header of seven numbers, the vocabulary (with scores from ggmf on), then tensors up to the end of
the file: dimensions, name, type, data (aligned to 32 bytes in ggjt). What later formats say and
these do not is taken as llama.cpp took it: a context of 2,048 tokens, a norm epsilon of 5e-6. The
blocks of quantised weights changed with versions 2 and 3 (blocks/ggjt.py); those of files without a
version changed unannounced, and are refused. (llama.cpp, convert-llama-ggml-to-gguf.py)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fireside.engine import blocks
from fireside.engine.checkpoints import Format, register
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.checkpoints.types import BYTE, CONTROL, NORMAL, UNKNOWN, Checkpoint, Vocabulary
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError

MAGICS = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt"}
VERSIONS = {"ggmf": (1,), "ggjt": (1, 2, 3)}
FIELDS = ("n_vocab", "n_embd", "n_mult", "n_head", "n_layer", "n_rot", "ftype")
LIMITS = dict(zip(FIELDS, (1 << 19, 1 << 18, 1 << 20, 4096, 4096, 4096, 1 << 16), strict=True))
LOWEST = {"ftype": 0, "n_vocab": 3}
CONTEXT, NORM_EPS, ALIGNMENT = 2048, 5e-6, 32
MAX_PIECE, MAX_NAME = 1 << 12, 256
DAMAGED = "the file is cut short or damaged: download or copy it again"
K_QUANTS = {10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"}  # of ggjt 3
TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0"}
# what each version calls by the names of today's blocks
CHANGED: Mapping[int, Mapping[str, str]] = {
    1: {
        "Q4_0": "Q4_0_V1",
        "Q4_1": "Q4_1_V1",
        "Q5_0": "Q5_0_V1",
        "Q5_1": "Q5_1_V1",
        "Q8_0": "Q8_0_V2",
    },
    2: {"Q4_0": "Q4_0_V2", "Q4_1": "Q4_1_V2", "Q8_0": "Q8_0_V2"},
    3: {},
}
NAMES = {
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "output": "output",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "attention_norm": "attn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "ffn_norm": "ffn_norm",
}


@dataclass(frozen=True)
class Kind:
    """What the first bytes say of the file."""

    name: str  # "ggml", "ggmf", "ggjt"
    version: int  # 0: it has none

    def __str__(self) -> str:
        return f"{self.name} v{self.version}" if self.version else self.name

    def block(self, path: Path, number: int, name: str) -> str:
        """The block format of a tensor of type `number`."""
        types = {**TYPES, **K_QUANTS} if self.version == 3 else TYPES
        block = types.get(number)
        if block is None:
            raise UnsupportedError(
                f"{path}: tensor {name} is of type {number}",
                f"of {self} this version reads {', '.join(types.values())}",
            )
        if block in ("F32", "F16"):
            return block
        if self.name == "ggml":
            raise UnsupportedError(
                f"{path}: tensor {name} is quantised, in a file without a version",
                "how its blocks lie cannot be known: convert the model again from its source",
            )
        return CHANGED[self.version].get(block, block)


class Cursor:
    """Reads a file from the beginning on, in pieces that are large enough."""

    PIECE = 1 << 20

    def __init__(self, source: Source) -> None:
        self.source, self.position = source, 0
        self._start, self._data = 0, b""

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes."""
        end = self.position + size
        if end > self.source.size:
            raise CheckpointError(
                f"{self.source.path}: ends within {what}: {self.source.size:,} bytes,"
                f" expected at least {end:,}",
                DAMAGED,
            )
        if end > self._start + len(self._data) or self.position < self._start:
            self._start = self.position
            length = min(max(size, self.PIECE), self.source.size - self.position)
            self._data = self.source.read(self._start, length).tobytes()
        data = self._data[self.position - self._start : end - self._start]
        self.position = end
        return data

    def number(self, what: str, low: int, high: int) -> int:
        """An unsigned number of 4 bytes."""
        (number,) = struct.unpack("<I", self.take(4, what))
        if not low <= number <= high:
            raise CheckpointError(
                f"{self.source.path}: {what} is {number}, expected {low} to {high}", DAMAGED
            )
        return int(number)


def recognises(path: Path, head: bytes) -> bool:
    """Whether the file begins with one of the three magics."""
    return head[:4] in MAGICS


def read(path: Path) -> Checkpoint:
    """Open a Llama file of one of those formats."""
    cursor = Cursor(Source(path))
    kind, numbers, vocabulary = read_head(cursor)
    tensors = read_tensors(cursor, kind)
    config = read_config(path, numbers, tensors)
    metadata: dict[str, object] = {"version": kind.version, **numbers}
    return Checkpoint(path, str(kind), path.stem, config, tensors, vocabulary, metadata)


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary alone."""
    vocabulary = read_head(Cursor(Source(path)))[2]
    if vocabulary is None:
        raise UnsupportedError(
            f"{path}: a ggml file without a version has no scores to join pieces by",
            "give the model's tokenizer.model",
        )
    return vocabulary


def read_head(cursor: Cursor) -> tuple[Kind, dict[str, int], Vocabulary | None]:
    """What is before the tensors."""
    kind = read_kind(cursor)
    numbers = {field: cursor.number(field, LOWEST.get(field, 1), LIMITS[field]) for field in FIELDS}
    return kind, numbers, read_pieces(cursor, kind, numbers["n_vocab"])


def read_kind(cursor: Cursor) -> Kind:
    """Magic and version."""
    name = MAGICS[cursor.take(4, "the magic")]
    if name == "ggml":
        return Kind(name, 0)
    (version,) = struct.unpack("<I", cursor.take(4, "the version"))
    if version not in VERSIONS[name]:
        known = ", ".join(map(str, VERSIONS[name]))
        raise UnsupportedError(
            f"{cursor.source.path}: {name} version {version}", f"versions read: {known}"
        )
    return Kind(name, version)


def read_pieces(cursor: Cursor, kind: Kind, count: int) -> Vocabulary | None:
    """The vocabulary; None where its pieces have no scores to join them by."""
    path = cursor.source.path
    raw: list[bytes] = []
    scores = np.zeros(count, np.float32)
    for i in range(count):
        length = cursor.number(f"the length of piece {i}", 0, MAX_PIECE)
        raw.append(cursor.take(length, f"piece {i}"))
        if kind.version:
            (scores[i],) = struct.unpack("<f", cursor.take(4, f"the score of piece {i}"))
    if not kind.version:
        return None
    if np.isnan(scores).any():
        raise CheckpointError(f"{path}: a piece's score is no number", DAMAGED)
    pieces, types = ["<unk>", "<s>", "</s>"], np.full(count, NORMAL, np.int32)
    types[:3] = UNKNOWN, CONTROL, CONTROL
    for i, piece in enumerate(raw[3:], 3):
        if i < 259 and len(piece) == 1:
            pieces.append(f"<0x{piece[0]:02X}>")
            types[i] = BYTE
            continue
        try:
            pieces.append(piece.decode().replace(" ", "\u2581"))
        except UnicodeDecodeError:
            raise CheckpointError(f"{path}: piece {i} is not valid UTF-8", DAMAGED) from None
    return Vocabulary("spm", tuple(pieces), scores, types)


def read_tensors(cursor: Cursor, kind: Kind) -> dict[str, FileTensor]:
    """All tensors up to the end of the file, not read yet."""
    source, path = cursor.source, cursor.source.path
    tensors: dict[str, FileTensor] = {}
    while cursor.position < source.size:
        what = f"tensor {len(tensors)}"
        dimensions = cursor.number(f"the number of dimensions of {what}", 1, 2)
        length = cursor.number(f"the length of the name of {what}", 1, MAX_NAME)
        (number,) = struct.unpack("<I", cursor.take(4, f"the type of {what}"))
        columns_first = [
            cursor.number(f"a dimension of {what}", 1, 1 << 24) for _ in range(dimensions)
        ]
        name = our_name(path, cursor.take(length, f"the name of {what}"))
        if kind.name == "ggjt":
            cursor.position += -cursor.position % ALIGNMENT
        shape = tuple(reversed(columns_first))
        block = kind.block(path, number, name)
        if shape[-1] % blocks.get(block).block_size:
            raise CheckpointError(
                f"{path}: tensor {name} has rows of {shape[-1]}, expected whole {block} blocks"
            )
        if name in tensors:
            raise CheckpointError(f"{path}: tensor {name} is there twice", DAMAGED)
        start = cursor.position
        size = blocks.nbytes(blocks.get(block), math.prod(shape))
        if start + size > source.size:
            raise CheckpointError(
                f"{path}: tensor {name} needs {size:,} bytes at {start:,}, but the file has"
                f" {source.size:,}",
                DAMAGED,
            )
        tensors[name] = FileTensor(name, shape, block, source, start)
        cursor.position = start + size
    return tensors


def our_name(path: Path, raw: bytes) -> str:
    """GGUF's name of a tensor."""
    name = raw.decode("ascii", "replace")
    layer, stem = "", name.removesuffix(".weight")
    if stem.startswith("layers."):
        _, layer, stem = [*stem.split(".", 2), "", ""][:3]
        layer = f"blk.{int(layer)}." if layer.isascii() and layer.isdecimal() else "?"
    if stem not in NAMES or layer == "?" or not name.endswith(".weight"):
        raise UnsupportedError(
            f"{path}: tensor {name[:60]!r} is no part of a Llama", "this version reads Llama files"
        )
    return f"{layer}{NAMES[stem]}.weight"


def read_config(
    path: Path, numbers: Mapping[str, int], tensors: Mapping[str, FileTensor]
) -> ModelConfig:
    """The configuration. Some of it only shapes tell; whether those fit is checked later."""
    dim, heads = numbers["n_embd"], numbers["n_head"]
    if dim % heads or dim // heads % 2:
        raise CheckpointError(f"{path}: n_embd is {dim}, expected an even multiple of n_head")
    head_dim = dim // heads
    if numbers["n_rot"] != head_dim:
        raise CheckpointError(f"{path}: n_rot is {numbers['n_rot']}, expected {head_dim}")
    gate, key = (tensors.get(f"blk.0.{part}.weight") for part in ("ffn_gate", "attn_k"))
    if "output.weight" not in tensors:  # no file of this kind goes without
        raise CheckpointError(f"{path}: tensor output.weight is missing", DAMAGED)
    if gate is None or key is None:
        raise CheckpointError(f"{path}: the tensors of the first layer are missing", DAMAGED)
    kv_heads = key.shape[0] // head_dim
    if kv_heads < 1 or key.shape[0] % head_dim or heads % kv_heads:
        raise CheckpointError(
            f"{path}: tensor {key.name} has {key.shape[0]} rows, expected heads of {head_dim}"
        )
    return ModelConfig(
        architecture="llama",
        dim=dim,
        hidden_dim=gate.shape[0],
        n_layers=numbers["n_layer"],
        n_heads=heads,
        n_kv_heads=kv_heads,
        vocab_size=numbers["n_vocab"],
        context_length=CONTEXT,
        head_dim=head_dim,
        norm_eps=NORM_EPS,
    )


register(Format("ggml of before GGUF (ggml, ggmf, ggjt 1 to 3)", recognises, read))
