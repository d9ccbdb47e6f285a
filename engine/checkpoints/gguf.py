"""GGUF files: header (gguf_header.py) -> configuration, tensors, vocabulary."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

from fireside.engine import blocks
from fireside.engine.checkpoints import Format, register
from fireside.engine.checkpoints.derived import renamed, stacked
from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.gguf_header import (
    MAGIC,
    Header,
    TensorInfo,
)
from fireside.engine.checkpoints.gguf_parts import open_parts
from fireside.engine.checkpoints.gguf_vocabulary import read_vocabulary
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError

ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
# ggml's types that this version does not read, so that an error can call them by name
OTHER_TYPES = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
    22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0",
    35: "TQ2_0",
}  # fmt: skip


def recognises(path: Path, head: bytes) -> bool:
    """Whether the file begins with GGUF's magic."""
    return head.startswith(MAGIC)


def read(path: Path) -> Checkpoint:
    """Open a GGUF file of an architecture and of tensor types that this version knows."""
    parts = open_parts(path)
    header = parts[0][1]
    fields = Fields(path, header.metadata)
    if not any(part.tensors for _, part in parts):
        raise CheckpointError(
            f"{path}: holds no tensors, only a vocabulary or metadata",
            "give it as the tokenizer, and a file with weights as the model",
        )
    tensors: dict[str, Tensor] = {}
    for source, part in parts:
        for key, tensor in read_tensors(source, part).items():
            if key in tensors:
                raise CheckpointError(
                    f"{source.path}: tensor {key} is in another part too", "the file is damaged"
                )
            tensors[key] = tensor
    config = read_config(fields, tensors)
    tensors = {name: t for name, t in tensors.items() if name not in ROPE_TENSORS}
    tensors = put_together(path, config, tensors)
    vocabulary = read_vocabulary(path, header.metadata)
    if vocabulary is not None and len(vocabulary) != config.vocab_size:
        raise CheckpointError(
            f"{path}: tokenizer.ggml.tokens has {len(vocabulary)} entries, expected"
            f" {config.vocab_size}, one for each row of token_embd.weight"
        )
    name = "".join(filter(str.isprintable, fields.string("general.name", "")))[:200] or path.stem
    return Checkpoint(
        path, f"GGUF v{header.version}", name, config, tensors, vocabulary, header.metadata
    )


def read_tensors(source: Source, header: Header) -> dict[str, Tensor]:
    """The tensors, not read yet; CheckpointError unless they lie apart and within the file."""
    path = source.path
    tensors: dict[str, Tensor] = {}
    extents: list[tuple[int, int, str]] = []
    for info in header.tensors:
        block_format = tensor_format(path, info)
        size = blocks.nbytes(block_format, math.prod(info.shape))
        start = header.data_offset + info.offset
        if start + size > source.size:
            raise CheckpointError(
                f"{path}: tensor {info.name} needs {size:,} bytes at {start:,}, but the file has"
                f" {source.size:,}",
                "the file is cut short or damaged: download or copy it again",
            )
        extents.append((start, start + size, info.name))
        tensors[info.name] = FileTensor(info.name, info.shape, block_format.name, source, start)
    extents.sort()
    for (_, end, name), (start, _, following) in itertools.pairwise(extents):
        if start < end:
            raise CheckpointError(
                f"{path}: tensors {name} and {following} overlap", "the file is damaged"
            )
    return tensors


def put_together(
    path: Path, config: ModelConfig, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors in the shapes that are used here.

    Files of early 2024 have a tensor for each expert, blk.0.ffn_up.3.weight. Norms of heads with
    weights of their own, [heads, head_dim], are one vector.
    """
    result = dict(tensors)
    for i in range(config.n_layers if config.n_experts else 0):
        for part in ("gate", "up", "down"):
            names = [f"blk.{i}.ffn_{part}.{e}.weight" for e in range(config.n_experts)]
            if names[0] not in result:
                continue
            experts = [result.pop(name) for name in names if name in result]
            if len(experts) < len(names) or len({(t.shape, t.block) for t in experts}) != 1:
                raise CheckpointError(f"{path}: {names[0]} and so on are not of one kind for all")
            whole = f"blk.{i}.ffn_{part}_exps.weight"
            if whole in result:
                raise CheckpointError(f"{path}: tensor {whole} is there, and its parts too")
            result[whole] = stacked(experts, whole)
    if config.qk_norm == "heads":
        for name, tensor in result.items():
            if name.endswith(("attn_q_norm.weight", "attn_k_norm.weight")):
                result[name] = renamed(tensor, name, (tensor.count,))
    return result


def tensor_format(path: Path, info: TensorInfo) -> blocks.BlockFormat:
    """The block format of a tensor whose rows are whole blocks."""
    block_format = blocks.by_ggml_type(info.ggml_type)
    if block_format is None or info.ggml_type < 0:
        name = OTHER_TYPES.get(info.ggml_type, f"number {info.ggml_type}")
        known = ", ".join(blocks.names())
        raise UnsupportedError(
            f"{path}: tensor {info.name} is of type {name}", f"this version reads {known}"
        )
    if info.shape[-1] % block_format.block_size:
        raise CheckpointError(
            f"{path}: tensor {info.name} has rows of {info.shape[-1]}, expected whole"
            f" {block_format.name} blocks of {block_format.block_size}"
        )
    return block_format


def read_config(fields: Fields, tensors: Mapping[str, Tensor]) -> ModelConfig:
    """The configuration, as the file's architecture reads it."""
    # not at import: the architectures themselves use the types of this package
    from fireside.engine import architectures

    name = fields.string("general.architecture", "")
    if name not in architectures.names():
        raise UnsupportedError(
            f"{fields.path}: architecture {name[:40]!r}",
            f"this version runs {', '.join(architectures.names())}",
        )
    return architectures.get(name).read_gguf(fields, tensors)


register(Format("GGUF (versions 2 and 3)", recognises, read))
