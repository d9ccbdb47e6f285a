"""Writes llama2.c's files: version 0 (f32), version 2 (int8 in groups), tokenizer.bin.

They hold plain Llama models of its own norm epsilon and rope, and nothing that says otherwise: what
differs is refused. (karpathy/llama2.c, export.py and tokenizer.py)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np

from fireside.engine import blocks
from fireside.engine.blocks import Bytes
from fireside.engine.checkpoints import llama2c
from fireside.engine.checkpoints.atomic import replacing
from fireside.engine.checkpoints.gguf_writer import as_written, rope_order
from fireside.engine.checkpoints.pieces import in_order, tasks
from fireside.engine.checkpoints.types import BYTE, Checkpoint, Vocabulary
from fireside.engine.config import ModelConfig
from fireside.engine.errors import UnsupportedError
from fireside.engine.tokenizers.spm import SPACE

GROUP = 64  # weights that share a scale, halved until the rows are whole groups


def write(
    path: Path,
    checkpoint: Checkpoint,
    version: int,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write an opened model as version 0 or 2.

    UnsupportedError for models that llama2.c cannot run, FiresideError where the disk is too small,
    CheckpointError where writing fails.
    """
    check(checkpoint.config)
    h = header(checkpoint, version)
    places = list(llama2c.layout(h))
    total = len(encode(h)) + sum(
        blocks.nbytes(blocks.get(llama2c.block_of(h, name)), math.prod(shape))
        for name, shape in places
    )
    done = 0
    with replacing(path, total) as file:
        file.write(encode(h))
        for data in weights(checkpoint, h, threads):
            file.write(data.data)
            done += len(data)
            progress(done, total)


def check(c: ModelConfig) -> None:
    """UnsupportedError unless llama2.c computes what the model is."""
    c = as_written(c)
    plain = ModelConfig(
        "llama", c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads, c.vocab_size,
        c.context_length, c.dim // c.n_heads,
    )  # fmt: skip
    for field in fields(ModelConfig):
        mine, theirs = getattr(c, field.name), getattr(plain, field.name)
        if mine != theirs and not (isinstance(mine, float) and math.isclose(mine, theirs)):
            raise UnsupportedError(
                f"llama2.c cannot run a model whose {field.name} is {mine!r}",
                f"it takes {theirs!r} for all of them: choose GGUF",
            )


def header(checkpoint: Checkpoint, version: int) -> llama2c.Header:
    """The header of the file."""
    c = checkpoint.config
    group = GROUP
    while c.dim % group:
        group //= 2
    numbers = (
        *(c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads),
        *(c.vocab_size, c.context_length),
    )
    h = llama2c.make_header(version, numbers, checkpoint.tied, group if version == 2 else 0)
    if fault := h.fault():
        raise UnsupportedError(f"llama2.c cannot hold this model: {fault}", "choose GGUF")
    return h


def encode(h: llama2c.Header) -> bytes:
    """The bytes before the weights."""
    numbers = (h.dim, h.hidden_dim, h.n_layers, h.n_heads, h.n_kv_heads)
    if h.version == 0:
        vocab_size = h.vocab_size if h.shared_classifier else -h.vocab_size
        return struct.pack("<7i", *numbers, vocab_size, h.seq_len)
    data = llama2c.MAGIC + struct.pack("<8i", h.version, *numbers, h.vocab_size, h.seq_len)
    data += struct.pack("<Bi", h.shared_classifier, h.group_size)
    return data.ljust(llama2c.HEADER, b"\0")


def weights(checkpoint: Checkpoint, h: llama2c.Header, threads: int) -> Iterator[Bytes]:
    """The bytes behind the header, in the order of the file."""
    for name, shape in llama2c.layout(h):
        tensor = checkpoint.tensors.get(name)
        if tensor is None:
            yield frequencies(shape[1], checkpoint.config)
            continue
        block = blocks.get(llama2c.block_of(h, name))
        pieces = in_order(tasks(tensor, block, rope_order(checkpoint.config, name)), threads)
        if block.ggml_type >= 0 or tensor.block == block.name:
            yield from pieces
            continue
        # all numbers of a tensor come before all its scales
        scales = []
        for data in pieces:
            count = len(data) // block.block_bytes * block.block_size
            yield data[:count]
            scales.append(data[count:])
        yield np.concatenate(scales)


def frequencies(positions: int, c: ModelConfig) -> Bytes:
    """Rope's tables, cosines then sines, which version 0 holds and nobody reads."""
    angles = np.outer(np.arange(positions), np.array(c.frequencies(0)))
    return np.stack([np.cos(angles), np.sin(angles)]).astype("<f4").reshape(-1).view(np.uint8)


def tokenizer_bin(v: Vocabulary) -> bytes:
    """A tokenizer.bin; UnsupportedError for vocabularies that it cannot hold."""
    plain = (v.bos_id, v.eos_id, v.add_bos, v.add_space_prefix, v.remove_extra_whitespaces)
    if v.kind != "spm" or plain != (1, 2, True, True, False):
        raise UnsupportedError(
            "llama2.c's tokenizer.bin cannot hold this tokenizer",
            "it holds sentencepiece's with BOS 1 and EOS 2",
        )
    raw = []
    for i, piece in enumerate(v.pieces):
        text = {1: "\n<s>\n", 2: "\n</s>\n"}.get(i, piece)
        raw.append((text if v.types[i] == BYTE else text.replace(SPACE, " ")).encode())
    parts = [struct.pack("<I", max(map(len, raw)))]
    for data, score in zip(raw, v.scores.tolist(), strict=True):
        parts.append(struct.pack("<fi", score, len(data)) + data)
    return b"".join(parts)
