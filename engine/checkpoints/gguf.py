"""GGUF files: header (gguf_header.py) -> configuration, tensors, SPM vocabulary."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.checkpoints import Format, register
from fireside.engine.checkpoints.gguf_header import (
    MAGIC,
    Header,
    StringArray,
    TensorInfo,
    read_header,
    show,
)
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.checkpoints.types import (
    CONTROL,
    NORMAL,
    USER_DEFINED,
    Checkpoint,
    Tensor,
    Vocabulary,
)
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError

# ggml's types that this version does not read, so that an error can call them by name
OTHER_TYPES = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
    22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0",
    35: "TQ2_0",
}  # fmt: skip

# Pieces that end a text in some model or other, where the file does not say so itself.
END_PIECES = frozenset(
    ("<|im_end|>", "<|eot_id|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>")
)
NO_TOKEN = 0xFFFFFFFF  # -1, as some converters write it


class Fields:
    """The metadata of one file, read with types and ranges checked."""

    def __init__(self, path: Path, metadata: Mapping[str, object]) -> None:
        self.path = path
        self.metadata = metadata

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        """A whole number from `low` to `high`; `default` None means it must be there."""
        value = self.metadata.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.path}: {key} is missing from the metadata")
        if type(value) is not int or not low <= value <= high:
            expected = f"a whole number from {low} to {high}" if low < high else str(low)
            raise CheckpointError(f"{self.path}: {key} is {show(value)}, expected {expected}")
        return value

    def number(self, key: str, default: float | None, low: float, high: float) -> float:
        """A finite number from `low` to `high`."""
        value = self.metadata.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.path}: {key} is missing from the metadata")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise CheckpointError(
                f"{self.path}: {key} is {show(value)}, expected a number from {low:g} to {high:g}"
            )
        return float(value)

    def string(self, key: str, default: str) -> str:
        """A text."""
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise CheckpointError(f"{self.path}: {key} is {show(value)}, expected a text")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.path}: {key} is {show(value)}, expected true or false")
        return value

    def strings(self, key: str) -> StringArray | None:
        """An array of texts, if it is there."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, StringArray):
            raise CheckpointError(
                f"{self.path}: {key} is {show(value)}, expected an array of texts"
            )
        return value

    def array(self, key: str, length: int, kinds: str) -> NDArray[np.generic] | None:
        """An array of `length` numbers whose dtype is of one of `kinds` ("f", "iu"), if there."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
            raise CheckpointError(
                f"{self.path}: {key} is {show(value)}, expected an array of numbers"
            )
        if len(value) != length:
            raise CheckpointError(f"{self.path}: {key} has {len(value)} entries, expected {length}")
        return value


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


def read_vocabulary(path: Path, metadata: Mapping[str, object]) -> Vocabulary | None:
    """The SPM vocabulary in the metadata; None where there is no tokenizer.

    UnsupportedError for tokenizers of other kinds.
    """
    fields = Fields(path, metadata)
    kind = fields.string("tokenizer.ggml.model", "none")
    if kind in ("none", "no_vocab"):
        return None
    if kind != "llama":
        raise UnsupportedError(
            f"{path}: tokenizer.ggml.model is {show(kind)}", "this version reads 'llama' (SPM)"
        )
    tokens = fields.strings("tokenizer.ggml.tokens")
    if not tokens:
        raise CheckpointError(f"{path}: tokenizer.ggml.tokens is missing or empty")
    scores = fields.array("tokenizer.ggml.scores", len(tokens), "f")
    if scores is None:
        raise CheckpointError(f"{path}: tokenizer.ggml.scores is missing")
    types = fields.array("tokenizer.ggml.token_type", len(tokens), "iu")
    if types is None:
        types = np.full(len(tokens), NORMAL)
    if types.min() < 0 or types.max() > 6:
        raise CheckpointError(f"{path}: tokenizer.ggml.token_type holds a number beyond 0 to 6")
    with np.errstate(over="ignore"):
        scores32 = scores.astype(np.float32)
    if np.isnan(scores32).any():
        raise CheckpointError(f"{path}: tokenizer.ggml.scores holds what is not a number")
    pieces = tuple(tokens)

    def special(name: str, default: int) -> int:
        key = f"tokenizer.ggml.{name}_token_id"
        value = metadata.get(key)
        if isinstance(value, int) and value in (NO_TOKEN, -1):
            return -1
        return fields.integer(key, min(default, len(pieces) - 1), -1, len(pieces) - 1)

    eos_id, bos_id = special("eos", 2), special("bos", 1)
    ends = {special("eot", -1), special("eom", -1)}
    for i in np.flatnonzero((types == CONTROL) | (types == USER_DEFINED)).tolist():
        if pieces[i] in END_PIECES:
            ends.add(i)
    return Vocabulary(
        kind="spm",
        pieces=pieces,
        scores=scores32,
        types=types.astype(np.int32),
        bos_id=bos_id,
        eos_id=eos_id,
        unk_id=special("unknown", 0),
        add_bos=fields.boolean("tokenizer.ggml.add_bos_token", True) and bos_id >= 0,
        add_space_prefix=fields.boolean("tokenizer.ggml.add_space_prefix", True),
        end_ids=tuple(sorted(ends - {-1, eos_id})),
        remove_extra_whitespaces=fields.boolean("tokenizer.ggml.remove_extra_whitespaces", False),
    )


register(Format("GGUF (versions 2 and 3)", recognises, read))
