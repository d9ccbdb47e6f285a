"""Models of a known shape with random weights: what a speed is measured on costs no download.

Speed does not depend on what the weights are, only on how many there are and how they are stored.
The files are whole GGUF models all the same, with a made-up vocabulary, so that other programs
load them too. Weights are made a piece at a time, each from a seed of its own: the memory needed is
that of one stored tensor, and the same shape and type always give the same file.
"""

from __future__ import annotations

import itertools
import os
import re
import string
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fireside.engine import FiresideError, architectures, blocks
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.checkpoints.types import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    Tensor,
    Vocabulary,
)
from fireside.engine.config import ModelConfig

_NAMES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
TYPES = {name.lower(): name for name in _NAMES}
CONTEXT = 2048
VOCAB = 32000
SMALLEST_VOCAB = 3 + 256 + 1  # control pieces, bytes, the space
LARGEST = 1 << 20  # of any number in a shape
PIECE = 1 << 20  # weights made at once: whole blocks of every type


@dataclass(frozen=True)
class Shape:
    """What a model is called and how large its parts are."""

    name: str
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    tied: bool = True  # the classifier is the embedding
    vocab_size: int = VOCAB

    def config(self) -> ModelConfig:
        """The same for the engine."""
        return ModelConfig(
            architecture="llama",
            dim=self.dim,
            hidden_dim=self.hidden_dim,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            vocab_size=self.vocab_size,
            context_length=CONTEXT,
            head_dim=self.dim // self.n_heads,
        )


# llama2.c's stories, TinyLlama (Zhang et al. 2024), Llama 2 (Touvron et al. 2023)
SHAPES = {
    shape.name: shape
    for shape in (
        Shape("15m", 288, 768, 6, 6, 6),
        Shape("42m", 512, 1376, 8, 8, 8),
        Shape("110m", 768, 2048, 12, 12, 12),
        Shape("1.1b", 2048, 5632, 22, 32, 4, tied=False),
        Shape("7b", 4096, 11008, 32, 32, 32, tied=False),
    )
}


def parse(text: str) -> tuple[Shape, str]:
    """Shape and type of "15m", "110m:q8_0", "64/172/2/4/2:f16". Raises FiresideError."""
    name, colon, kind = text.strip().lower().partition(":")
    kind = kind if colon else "f32"
    if kind not in TYPES:
        raise FiresideError(
            f"unknown type {kind!r} in {text!r}", f"choose one of {', '.join(TYPES)}"
        )
    if name in SHAPES:
        return SHAPES[name], kind
    if not re.fullmatch(r"[0-9]{1,9}(/[0-9]{1,9}){3,5}", name):
        raise FiresideError(
            f"unknown shape {name!r}",
            f"choose one of {', '.join(SHAPES)},"
            " or spell it out: dim/hidden/layers/heads[/kv[/vocab]]",
        )
    return _spelled_out(name), kind


def _spelled_out(name: str) -> Shape:
    numbers = [int(number) for number in name.split("/")]
    if not all(1 <= number <= LARGEST for number in numbers):
        raise FiresideError(f"a number in {name!r} is not from 1 to {LARGEST}")
    dim, hidden, layers, heads, *rest = numbers
    kv_heads = rest[0] if rest else heads
    vocab = rest[1] if len(rest) > 1 else VOCAB
    if dim % heads or dim // heads % 2 or heads % kv_heads:
        raise FiresideError(
            f"shape {name!r} does not divide",
            "dim must be heads times an even number, and heads a multiple of kv",
        )
    if vocab < SMALLEST_VOCAB:
        raise FiresideError(
            f"a vocabulary of {vocab} is too small", f"take {SMALLEST_VOCAB} or more"
        )
    return Shape(name.replace("/", "-"), dim, hidden, layers, heads, kv_heads, vocab_size=vocab)


class RandomTensor(Tensor):
    """A tensor whose bytes are made when they are asked for, and not kept."""

    def __init__(
        self, name: str, shape: tuple[int, ...], block: str, tell: Callable[[int], None]
    ) -> None:
        # the base is frozen, and its `data` is the property below
        fields: dict[str, Any] = {"name": name, "shape": shape, "block": block, "_tell": tell}
        for key, value in fields.items():
            object.__setattr__(self, key, value)

    @property
    def data(self) -> blocks.Bytes:
        """The bytes as the file has them; `tell` hears how many more weights are there."""
        block = blocks.get(self.block)
        out = np.empty(blocks.nbytes(block, self.count), np.uint8)
        scale = np.float32(1 / np.sqrt(self.shape[-1]))
        seed = zlib.crc32(self.name.encode())

        def make(start: int) -> int:
            rng = np.random.default_rng([seed, start // PIECE])
            count = min(PIECE, self.count - start)
            weights = rng.standard_normal(count, np.float32) * scale
            if len(self.shape) == 1:  # a norm
                weights += np.float32(1)
            first = blocks.nbytes(block, start)
            out[first : first + blocks.nbytes(block, count)] = block.quantise(weights)
            return count

        tell: Callable[[int], None] = self.__dict__["_tell"]
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for count in pool.map(make, range(0, self.count, PIECE)):
                tell(count)
        return out


def vocabulary(size: int) -> Vocabulary:
    """Control pieces, all bytes, then "a", "b", ... "zz" and so on, with and without a space."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    special = len(pieces)
    pieces += itertools.islice(_words(), size - special)
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (size - special)
    scores = [0.0] * special + [-float(rank) for rank in range(size - special)]
    return Vocabulary(
        kind="spm",
        pieces=tuple(pieces),
        scores=np.array(scores, np.float32),
        types=np.array(types, np.int32),
    )


def _words() -> Iterator[str]:
    """Pieces that differ, short ones first, so that each can be joined from two before it."""
    yield "\u2581"
    for length in itertools.count(1):
        for space in ("", "\u2581"):
            for letters in itertools.product(string.ascii_lowercase, repeat=length):
                yield space + "".join(letters)


def destination(shape: Shape, kind: str, out: Path) -> Path:
    """The file to write: `out`, or one named after shape and type where `out` is a folder.

    Raises FiresideError where there is something already: a model is never overwritten.
    """
    path = out / f"{shape.name}-{kind}.gguf" if out.is_dir() else out
    if path.exists() or path.is_symlink():
        raise FiresideError(f"{path} is there already", "remove it, or name another file")
    return path


def make(shape: Shape, kind: str, path: Path, progress: Callable[[int, int], None]) -> None:
    """Write a model; progress(weights written, weights in all). Raises CheckpointError."""
    config = shape.config()
    shapes = dict(architectures.get(config.architecture).shapes(config))
    if shape.tied:
        del shapes["output.weight"]
    total = sum(int(np.prod(sizes, dtype=np.int64)) for sizes in shapes.values())
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    def stored(sizes: tuple[int, ...]) -> str:
        if len(sizes) == 1:
            return "F32"
        whole = sizes[-1] % blocks.get(TYPES[kind]).block_size == 0
        return TYPES[kind] if whole else "F16"

    tensors = {
        name: RandomTensor(name, sizes, stored(sizes), tell) for name, sizes in shapes.items()
    }
    words = vocabulary(shape.vocab_size)
    gguf_writer.write(path, config, tensors, words, f"{shape.name}-{kind}")
