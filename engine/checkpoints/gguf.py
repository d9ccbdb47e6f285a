"""GGUF files: header (gguf_header.py) -> configuration, tensors, vocabulary."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

from fireside.engine import blocks
from fireside.engine.checkpoints import Format, register
from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.gguf_header import (
    MAGIC,
    Header,
    TensorInfo,
    read_header,
    show,
)
from fireside.engine.checkpoints.gguf_vocabulary import read_vocabulary
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError

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
    source = Source(path)
    header = read_header(source)
    fields = Fields(path, header.metadata)
    if not header.tensors:
        raise CheckpointError(
            f"{path}: holds no tensors, only a vocabulary or metadata",
            "give it as the tokenizer, and a file with weights as the model",
        )
    tensors = read_tensors(source, header)
    config = read_config(fields, tensors)
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
    """The configuration, from the metadata of the file's architecture."""
    # not at import: the architectures themselves use the types of this package
    from fireside.engine import architectures

    path = fields.path
    architecture = fields.string("general.architecture", "")
    if architecture not in architectures.names():
        raise UnsupportedError(
            f"{path}: architecture {architecture[:40]!r}",
            f"this version runs {', '.join(architectures.names())}",
        )
    a = architecture + "."
    refuse_variants(fields, a)
    dim = fields.integer(a + "embedding_length", None, 1, 1 << 20)
    n_heads = fields.integer(a + "attention.head_count", None, 1, 1 << 14)
    n_kv_heads = fields.integer(a + "attention.head_count_kv", n_heads, 1, n_heads)
    if n_heads % n_kv_heads:
        raise CheckpointError(
            f"{path}: {a}attention.head_count is {n_heads}, expected a multiple of"
            f" head_count_kv = {n_kv_heads}"
        )
    head_dim = fields.integer(a + "attention.key_length", dim // n_heads, 2, 1 << 14)
    fields.integer(a + "attention.value_length", head_dim, head_dim, head_dim)
    rope_dim = fields.integer(a + "rope.dimension_count", head_dim, 2, head_dim)
    if rope_dim % 2:
        raise CheckpointError(
            f"{path}: {a}rope.dimension_count is {rope_dim}, expected an even number"
        )
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{path}: tensor token_embd.weight is missing or no matrix")
    return ModelConfig(
        architecture=architecture,
        dim=dim,
        hidden_dim=fields.integer(a + "feed_forward_length", None, 1, 1 << 24),
        n_layers=fields.integer(a + "block_count", None, 1, 4096),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        vocab_size=embedding.shape[0],
        context_length=fields.integer(a + "context_length", None, 1, 1 << 24),
        head_dim=head_dim,
        norm_eps=fields.number(a + "attention.layer_norm_rms_epsilon", None, 0.0, 1.0),
        rope_theta=fields.number(a + "rope.freq_base", 10000.0, 1.0, 1e12),
        rope_dim=0 if rope_dim == head_dim else rope_dim,
        rope_style="interleaved",
    )


def refuse_variants(fields: Fields, a: str) -> None:
    """UnsupportedError for what the metadata asks of the forward pass beyond plain Llama.

    To leave such a thing out would run the model, but wrongly.
    """
    plain: tuple[tuple[str, object], ...] = (
        (a + "rope.scaling.type", "none"),
        (a + "rope.scale_linear", 1.0),
        (a + "expert_count", 0),
        (a + "attention.sliding_window", 0),
        (a + "attention.causal", True),
    )
    for key, expected in plain:
        value = fields.metadata.get(key, expected)
        if not isinstance(value, str | int | float) or value != expected:
            raise UnsupportedError(
                f"{fields.path}: {key} is {show(value)}", f"this version runs {expected} only"
            )


register(Format("GGUF (versions 2 and 3)", recognises, read))
