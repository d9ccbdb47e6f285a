"""Writes GGUF version 3: models of every architecture, SPM and BPE vocabularies. (docs/gguf.md)

The tensors are streamed in pieces (pieces.py), quantised on the way where that is asked for. The
file appears under its name only when it is complete.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.checkpoints import gguf_header as g
from fireside.engine.checkpoints.atomic import replacing
from fireside.engine.checkpoints.derived import renamed
from fireside.engine.checkpoints.gguf import read_config
from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.gguf_vocabulary import describe_vocabulary
from fireside.engine.checkpoints.pieces import Task, in_order, tasks
from fireside.engine.checkpoints.types import Checkpoint, Tensor, Vocabulary
from fireside.engine.config import ModelConfig
from fireside.engine.errors import UnsupportedError

VERSION = 3
ALIGNMENT = g.DEFAULT_ALIGNMENT
FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q4_K": 14,
    "Q5_K": 16,
    "Q6_K": 18,
    "BF16": 32,
}  # fmt: skip  (llama.cpp's "mostly ...")

# those whose name says which layers have a window
WINDOWS_BY_NAME = ("llama", "gemma", "gemma2", "gemma3", "phi3")
HEAD_NORMS = ("attn_q_norm.weight", "attn_k_norm.weight")

Metadata = Mapping[str, object]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Entry:
    """A tensor and how it goes into the file."""

    tensor: Tensor
    block: blocks.BlockFormat
    offset: int  # from the beginning of the data
    order: Rows | None = None  # which of its rows comes first, second, ...; None: as they are

    @property
    def nbytes(self) -> int:
        """Bytes it takes in the file."""
        return blocks.nbytes(self.block, self.tensor.count)

    def data(self) -> blocks.Bytes:
        """Those bytes."""
        return np.concatenate([task() for task in self.tasks()])

    def tasks(self) -> Iterator[Task]:
        """What makes them, a piece at a time."""
        return tasks(self.tensor, self.block, self.order)


def write_checkpoint(path: Path, checkpoint: Checkpoint, block: str | None = None) -> None:
    """Write an opened model of any format as GGUF; see `write`."""
    vocabulary = checkpoint.vocabulary
    write(path, checkpoint.config, checkpoint.tensors, vocabulary, checkpoint.name, block)


def write(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    vocabulary: Vocabulary | None,
    name: str = "",
    block: str | Mapping[str, str] | None = None,
    metadata: Metadata | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a model as GGUF, or a vocabulary alone where `tensors` is empty.

    block: the format of the matrices; None leaves every tensor as it is. Matrices whose rows are
    not whole blocks become F16; norms stay as they are. A mapping names the format of each tensor.
    metadata: further entries (str, bool, int, float, lists of str, arrays of numbers), which win
    over those made here. progress(bytes done, bytes in all) may raise to give up. UnsupportedError
    for what GGUF cannot hold, FiresideError where the disk is too small, CheckpointError where
    writing fails.
    """
    entries = lay_out({**tensors, **(rope_tensors(config) if tensors else {})}, block, config)
    config = as_written(config)
    everything: dict[str, object] = {
        **describe(config, name, entries),
        **(describe_vocabulary(vocabulary) if vocabulary is not None else {}),
        **(metadata or {}),
    }
    if tensors:
        check_kept(config, everything, {entry.tensor.name: entry.tensor for entry in entries})
    # made before the file is: what cannot be written leaves nothing behind
    header = b"".join(encode_header(everything, entries))
    total = len(header) + ALIGNMENT + sum(e.nbytes + ALIGNMENT for e in entries)
    done = 0
    with replacing(path, total) as file:
        file.write(header)
        pad(file)
        begin, ends = file.tell(), {entry.offset + entry.nbytes for entry in entries}
        for data in in_order((task for entry in entries for task in entry.tasks()), threads):
            file.write(data.data)
            done += len(data)
            progress(done, total)
            if file.tell() - begin in ends:
                pad(file)


def pad(file: BinaryIO) -> None:
    """Zeros up to the alignment."""
    file.write(b"\0" * (-file.tell() % ALIGNMENT))


def lay_out(
    tensors: Mapping[str, Tensor],
    block: str | Mapping[str, str] | None,
    config: ModelConfig | None = None,
) -> list[Entry]:
    """Where each tensor goes, in which block format, and for `config` in which order of rows."""
    entries: list[Entry] = []
    offset = 0
    for tensor in tensors.values():
        name = tensor.block
        if isinstance(block, Mapping):
            name = block.get(tensor.name, name)
        elif block is not None and len(tensor.shape) > 1:
            whole = tensor.shape[-1] % blocks.get(block).block_size == 0
            name = block if whole else "F16"
        block_format = blocks.get(name)
        if block_format.ggml_type < 0:
            raise UnsupportedError(
                f"tensor {tensor.name} is of type {name}, which GGUF does not have",
                f"choose one of {', '.join(FILE_TYPES)}",
            )
        order = rope_order(config, tensor.name) if config is not None else None
        if config is not None and config.qk_norm == "heads" and tensor.name.endswith(HEAD_NORMS):
            shape = (tensor.count // config.head_dim, config.head_dim)
            tensor = renamed(tensor, tensor.name, shape)
        entry = Entry(tensor, block_format, offset, order)
        entries.append(entry)
        offset += entry.nbytes + -entry.nbytes % ALIGNMENT
    return entries


def describe(c: ModelConfig, name: str, entries: Sequence[Entry]) -> Metadata:
    """The entries `general.*` and those of the architecture."""
    a = c.architecture + "."
    types = [entry.block.name for entry in entries if len(entry.tensor.shape) > 1]
    kind = "layer_norm_epsilon" if c.norm == "layer" else "layer_norm_rms_epsilon"
    return {
        "general.architecture": c.architecture,
        "general.name": name,
        "general.file_type": FILE_TYPES.get(max(types, key=types.count, default="F32"), 0),
        "general.quantization_version": 2,
        a + "vocab_size": c.vocab_size,
        a + "context_length": c.context_length,
        a + "embedding_length": c.dim,
        a + "block_count": c.n_layers,
        a + "feed_forward_length": c.hidden_dim,
        a + "attention.head_count": c.n_heads,
        a + "attention.head_count_kv": c.n_kv_heads,
        a + "attention.key_length": c.head_dim,
        a + "attention.value_length": c.head_dim,
        a + "attention." + kind: float(c.norm_eps),
        **describe_variations(c),
    }


def describe_variations(c: ModelConfig) -> Metadata:
    """Entries that not every model has."""
    a = c.architecture + "."
    entries: dict[str, object] = {}
    if any(c.turned(i) for i in range(c.n_layers)):
        entries[a + "rope.dimension_count"] = c.rotary_dim
        entries[a + "rope.freq_base"] = float(c.rope_theta)
    if c.rope_magnitude != 1:
        entries[a + "rope.scaling.attn_factor"] = float(c.rope_magnitude)
    if c.architecture == "phi3" and (c.rope_factors or c.long_factors):
        entries[a + "context_length"] = c.longest_context
        entries[a + "rope.scaling.type"] = "longrope"
        entries[a + "rope.scaling.original_context_length"] = c.context_length
    elif len(set(c.rope_factors)) == 1:
        entries[a + "rope.scaling.type"] = "linear"
        entries[a + "rope.scaling.factor"] = float(c.rope_factors[0])
    if c.window_rope_theta not in (0, 10000):
        entries[a + "rope.freq_base_swa"] = float(c.window_rope_theta)
    if c.window:
        entries[a + "attention.sliding_window"] = c.window
        if c.architecture not in WINDOWS_BY_NAME:
            layers = [c.windowed(i) for i in range(c.n_layers)]
            entries[a + "attention.sliding_window_pattern"] = np.array(layers)
    if c.attention_softcap:
        entries[a + "attn_logit_softcapping"] = float(c.attention_softcap)
    if c.logit_softcap:
        entries[a + "final_logit_softcapping"] = float(c.logit_softcap)
    if c.n_experts:
        entries[a + "expert_count"] = c.n_experts
        entries[a + "expert_used_count"] = c.n_experts_used
        entries[a + "expert_feed_forward_length"] = c.hidden_dim
    if c.architecture in ("gptneox", "stablelm"):
        entries[a + "use_parallel_residual"] = c.parallel_residual
    return entries


# ---- what GGUF's architectures want otherwise than a ModelConfig may have it


def permuted(c: ModelConfig) -> bool:
    """Whether rows of queries and keys have another order in GGUF: its Llama turns neighbours."""
    return c.architecture in ("llama", "smollm3") and c.rope_style == "half"


def as_written(c: ModelConfig) -> ModelConfig:
    """The configuration of what `lay_out` puts into the file."""
    return replace(c, rope_style="interleaved") if permuted(c) else c


def rope_order(c: ModelConfig, name: str) -> Rows | None:
    """In which order the rows of a tensor go into the file; None: as they are."""
    heads = {"attn_q": c.n_heads, "attn_k": c.n_kv_heads}.get(name.rpartition(".")[0][-6:])
    if heads is None or not permuted(c):
        return None
    pairs = np.arange(c.rotary_dim).reshape(2, -1).T.reshape(-1)
    head = np.concatenate([pairs, np.arange(c.rotary_dim, c.head_dim)])
    order: Rows = (np.arange(heads)[:, None] * c.head_dim + head).reshape(-1)
    return order


def rope_tensors(c: ModelConfig) -> dict[str, Tensor]:
    """Rope's factors as tensors: one set, or Phi-3's short and long one."""
    factors = {"rope_freqs.weight": c.rope_factors}
    if c.architecture == "phi3" and (c.rope_factors or c.long_factors):
        short = c.rope_factors or (1.0,) * (c.rotary_dim // 2)
        factors = {"rope_factors_short.weight": short}
        factors["rope_factors_long.weight"] = c.long_factors or short
    elif len(set(c.rope_factors)) < 2:
        return {}
    return {
        name: Tensor(name, (len(values),), "F32", np.array(values, "<f4").view(np.uint8))
        for name, values in factors.items()
    }


def check_kept(c: ModelConfig, metadata: Metadata, tensors: Mapping[str, Tensor]) -> None:
    """UnsupportedError unless what is written reads as the same model."""
    again = read_config(Fields(Path("the file"), metadata), tensors)
    for field in fields(ModelConfig):
        mine, theirs = getattr(c, field.name), getattr(again, field.name)
        if isinstance(mine, tuple) and len(mine) == len(theirs):
            same = bool(np.allclose(mine, theirs, rtol=1e-6))
        else:
            same = mine == theirs or (isinstance(mine, float) and math.isclose(mine, theirs))
        if not same:
            raise UnsupportedError(
                f"GGUF's {c.architecture} cannot hold a model whose {field.name} is {mine!r}",
                f"it would be read as {theirs!r}",
            )


def encode_header(metadata: Metadata, entries: Sequence[Entry]) -> Iterator[bytes]:
    """The bytes before the data, without the padding."""
    yield g.MAGIC + struct.pack("<IQQ", VERSION, len(entries), len(metadata))
    for key, value in metadata.items():
        yield encode_string(key)
        yield from encode_value(key, value)
    for entry in entries:
        shape = entry.tensor.shape
        yield encode_string(entry.tensor.name)
        yield struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        yield struct.pack("<IQ", entry.block.ggml_type, entry.offset)


def encode_string(text: str) -> bytes:
    """Length and UTF-8."""
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def encode_value(key: str, value: object) -> Iterator[bytes]:
    """Type and value. Whole numbers are u32 where they fit, as llama.cpp expects its own."""
    if isinstance(value, bool):
        yield struct.pack("<IB", g.BOOL, value)
    elif isinstance(value, int):
        yield encode_integer(key, value)
    elif isinstance(value, float):
        yield struct.pack("<If", g.FLOAT32, value)
    elif isinstance(value, str):
        yield struct.pack("<I", g.STRING) + encode_string(value)
    elif isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == bool:
        yield struct.pack("<IIQ", g.ARRAY, g.BOOL, len(value)) + value.tobytes()
    elif isinstance(value, np.ndarray) and value.ndim == 1 and little(value) in NUMBERS:
        yield struct.pack("<IIQ", g.ARRAY, NUMBERS[little(value)], len(value))
        yield value.astype(little(value)).tobytes()
    elif isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        yield struct.pack("<IIQ", g.ARRAY, g.STRING, len(value))
        yield from map(encode_string, value)
    else:
        raise UnsupportedError(f"{key}: GGUF cannot hold a {type(value).__name__} here")


def little(array: np.ndarray) -> np.dtype[Any]:
    """The dtype of `array`, little-endian."""
    return array.dtype.newbyteorder("<")


# BOOL shares its bytes with UINT8, so it is not found by dtype
NUMBERS = {np.dtype(f"<{letter}"): kind for kind, letter in g.SCALARS.items() if kind != g.BOOL}


def encode_integer(key: str, value: int) -> bytes:
    """A whole number in the smallest of u32, i32, u64 and i64 that holds it."""
    for form, kind in (("I", g.UINT32), ("i", g.INT32), ("Q", g.UINT64), ("q", g.INT64)):
        try:
            return struct.pack("<I" + form, kind, value)
        except struct.error:
            continue
    raise UnsupportedError(f"{key}: {value} does not fit into 64 bits")
