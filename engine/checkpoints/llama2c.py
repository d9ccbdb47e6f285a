"""llama2.c's .bin files, versions 0, 1 and 2. (karpathy/llama2.c, export.py and run.c)

version 0   7 int32, then every weight in f32; no magic: what fits exactly is one
version 1   "ak42" header of 256 bytes, then every weight in f32, the norms first
version 2   the same header and a group size; norms in f32, the rest in int8 groups with f32 scales

None of them says its norm epsilon, rope base or tokenizer: they are those of llama2.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.checkpoints import Format, register
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError

MAGIC = struct.pack("<I", 0x616B3432)
FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
V0_HEADER = 28
HEADER = 256
MAX_GROUP = 1 << 20

# Far above any model of this kind. They keep a damaged header from describing a giant, and tell
# version 0, which has no magic, from files of other kinds.
LIMITS = dict(zip(FIELDS, (1 << 18, 1 << 20, 4096, 4096, 4096, 1 << 22, 1 << 22), strict=True))


@dataclass(frozen=True)
class Header:
    """What the first bytes say, in plain numbers."""

    version: int
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int
    shared_classifier: bool
    group_size: int = 0  # version 2 only

    @property
    def head_dim(self) -> int:
        """Elements of one head."""
        return self.dim // self.n_heads

    def fault(self) -> str:
        """What is wrong with the numbers; empty if nothing."""
        for field in FIELDS:
            value = getattr(self, field)
            if not 0 < value <= LIMITS[field]:
                return f"{field} is {value}, expected 1 to {LIMITS[field]}"
        if self.dim % self.n_heads:
            return f"dim is {self.dim}, expected a multiple of n_heads = {self.n_heads}"
        if self.n_heads % self.n_kv_heads:
            return (
                f"n_heads is {self.n_heads}, expected a multiple of n_kv_heads = {self.n_kv_heads}"
            )
        if self.head_dim % 2:
            return f"the head size is {self.head_dim}, expected an even number"
        if self.version == 2 and not 0 < self.group_size <= MAX_GROUP:
            return f"group_size is {self.group_size}, expected 1 to {MAX_GROUP}"
        return ""

    def config(self, norm_eps: float = 1e-5, theta: float = 10000.0) -> ModelConfig:
        """The same for the engine."""
        return ModelConfig(
            architecture="llama",
            dim=self.dim,
            hidden_dim=self.hidden_dim,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            vocab_size=self.vocab_size,
            context_length=self.seq_len,
            head_dim=self.head_dim,
            norm_eps=norm_eps,
            rope_theta=theta,
        )


def make_header(version: int, numbers: Sequence[int], shared: bool, group_size: int = 0) -> Header:
    """A header of the seven numbers (FIELDS) that every version has."""
    dim, hidden, layers, heads, kv_heads, vocab, seq_len = numbers
    return Header(version, dim, hidden, layers, heads, kv_heads, vocab, seq_len, shared, group_size)


def parse_v0(head: bytes) -> Header | None:
    """The header of a version 0 file, or None if these bytes cannot be one."""
    if len(head) < V0_HEADER:
        return None
    *numbers, vocab_size, seq_len = struct.unpack_from("<7i", head)
    header = make_header(0, (*numbers, abs(vocab_size), seq_len), vocab_size > 0)
    return None if header.fault() else header


def recognises(path: Path, head: bytes) -> bool:
    """Whether `head` begins with the magic, or with seven numbers that make a model."""
    return head.startswith(MAGIC) or parse_v0(head) is not None


def parse_header(path: Path, head: bytes) -> Header:
    """The header at the beginning of `head`; CheckpointError names the field at fault."""
    if not head.startswith(MAGIC):
        if (legacy := parse_v0(head)) is None:
            raise CheckpointError(f"{path}: not a llama2.c file")
        return legacy
    if len(head) < HEADER:
        raise CheckpointError(
            f"{path}: the header has {len(head)} bytes, expected {HEADER}: the file is cut short",
            "download or copy it again",
        )
    version, *numbers = struct.unpack_from("<8i", head, 4)
    shared, group_size = struct.unpack_from("<Bi", head, 36)
    if version not in (1, 2):
        raise UnsupportedError(
            f"{path}: llama2.c version {version}", "versions 0, 1 and 2 are read"
        )
    if shared > 1:
        raise CheckpointError(f"{path}: shared_classifier is {shared}, expected 0 or 1")
    header = make_header(version, numbers, bool(shared), group_size if version == 2 else 0)
    if fault := header.fault():
        raise CheckpointError(f"{path}: {fault}", "the header is damaged")
    return header


# What a layer has, in version 0's order
_V0_LAYERS: tuple[str, ...] = (
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
    "ffn_norm", "ffn_gate", "ffn_down", "ffn_up",
)  # fmt: skip
_NORMS = ("attn_norm", "ffn_norm")
_FREQUENCIES = "freq_cis"  # rope's tables, which version 0 holds and nobody reads


def layout(h: Header) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of everything after the header, in the order of the file."""
    q_dim, kv_dim = h.dim, h.n_kv_heads * h.head_dim
    shapes = {
        "attn_norm": (h.dim,),
        "attn_q": (q_dim, h.dim),
        "attn_k": (kv_dim, h.dim),
        "attn_v": (kv_dim, h.dim),
        "attn_output": (h.dim, q_dim),
        "ffn_norm": (h.dim,),
        "ffn_gate": (h.hidden_dim, h.dim),  # w1
        "ffn_down": (h.dim, h.hidden_dim),  # w2
        "ffn_up": (h.hidden_dim, h.dim),  # w3
    }

    def of_all_layers(kind: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        for i in range(h.n_layers):
            yield f"blk.{i}.{kind}.weight", shapes[kind]

    embedding = ("token_embd.weight", (h.vocab_size, h.dim))
    if h.version == 0:
        yield embedding
        for kind in _V0_LAYERS:
            yield from of_all_layers(kind)
        yield "output_norm.weight", (h.dim,)
        yield _FREQUENCIES, (2, h.seq_len, h.head_dim // 2)
    else:
        for kind in _NORMS:
            yield from of_all_layers(kind)
        yield "output_norm.weight", (h.dim,)
        yield embedding
        for kind in _V0_LAYERS:
            if kind not in _NORMS:
                yield from of_all_layers(kind)
    if not h.shared_classifier:
        yield "output.weight", (h.vocab_size, h.dim)


def _count(shape: tuple[int, ...]) -> int:
    """Product of the dimensions in Python's own integers, which cannot overflow."""
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def block_of(h: Header, name: str) -> str:
    """The block format of a tensor."""
    return f"Q8_GROUP{h.group_size}" if h.version == 2 and "norm" not in name else "F32"


def read(path: Path) -> Checkpoint:
    """Open a llama2.c file; CheckpointError unless its size is what the header describes."""
    source = Source(path)
    h = parse_header(path, source.read(0, min(HEADER, source.size)).tobytes())
    tensors: dict[str, FileTensor] = {}
    offset = V0_HEADER if h.version == 0 else HEADER
    for name, shape in layout(h):
        block, count = block_of(h, name), _count(shape)
        block_format = blocks.get(block)
        if count % block_format.block_size:
            raise CheckpointError(
                f"{path}: tensor {name} has {count} weights, expected whole groups of"
                f" {h.group_size} (group_size)"
            )
        end = offset + blocks.nbytes(block_format, count)
        tensors[name] = FileTensor(name, shape, block, source, offset)  # checked below, as a whole
        offset = end
    if offset != source.size:
        what = "cut short" if source.size < offset else "longer than it should be"
        raise CheckpointError(
            f"{path}: {source.size:,} bytes, expected {offset:,}: the file is {what}, or its header"
            " is damaged",
            "download or copy it again",
        )
    tensors.pop(_FREQUENCIES, None)
    check_scales(path, tensors)
    config = h.config()
    metadata: dict[str, object] = {"version": h.version, "shared_classifier": h.shared_classifier}
    if h.version == 2:
        metadata["group_size"] = h.group_size
    return Checkpoint(path, f"llama2.c v{h.version}", path.stem, config, tensors, None, metadata)


def check_scales(path: Path, tensors: dict[str, FileTensor]) -> None:
    """CheckpointError unless the first scales of each quantised tensor can be scales.

    Early exports of version 2 put all scales at the end of the file, which its header does not
    tell and its size does not show; their numbers read here as weights, not as scales.
    """
    for tensor in tensors.values():
        if tensor.block != "F32":
            first = tensor.source.read(
                tensor.start + tensor.count, min(64, tensor.nbytes - tensor.count)
            )
            scales: NDArray[np.float32] = first.view("<f4")
            if not (np.isfinite(scales).all() and (scales >= 0).all() and (scales < 1e3).all()):
                raise CheckpointError(
                    f"{path}: tensor {tensor.name} has no sound scales",
                    "the file is damaged, or of an early version 2: export it again",
                )


register(Format("llama2.c (versions 0 to 2)", recognises, read))
