"""What every reader of a file format returns: one shape for all of them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from fireside.engine import blocks
from fireside.engine.arrays import np
from fireside.engine.config import ModelConfig
from fireside.engine.hints import TYPE_CHECKING, Any, Literal, Protocol
from fireside.engine.records import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fireside.engine.checkpoints.bpe import Bpe


@record
class Tensor:
    """One weight as the file has it: raw bytes (see source.FileTensor: read when asked for).

    `name` is GGUF's ("token_embd.weight", "blk.0.attn_q.weight", ...) whatever the file calls it.
    `shape` is NumPy's: a matrix is [rows out, columns in]. `block` names a block format.
    """

    name: str
    shape: tuple[int, ...]
    block: str
    data: NDArray[np.uint8]  # 1-d

    @property
    def count(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes it takes in the file; nothing is read for that."""
        return blocks.nbytes(blocks.get(self.block), self.count)

    def to_float32(self) -> NDArray[np.float32]:
        """The weights, dequantised: a float32 array of `shape` (F32 data is not copied)."""
        return blocks.get(self.block).dequantise(self.data, self.count).reshape(self.shape)


# sentencepiece's piece types, which GGUF shares
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


class Numbers(Protocol):
    """An array of NumPy's, or the part of a file (memoryview) that holds the same numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def tolist(self) -> Any:
        """The numbers."""
        ...


def ids_of(types: Numbers, *kinds: int) -> list[int]:
    """Ids of the pieces of these types, ascending."""
    # of one byte each, as a GGUF file's are kept, they are looked through where they are
    if isinstance(types, array) and types.typecode == "B":
        values = types.tobytes()
    else:
        values = bytes(types.tolist())
    found: list[int] = []
    for kind in kinds:
        at = values.find(kind)
        while at >= 0:
            found.append(at)
            at = values.find(kind, at + 1)
    return sorted(found)


@record
class Vocabulary:
    """Pieces of a tokenizer, as plain data; fireside.engine.tokenizers makes one that works."""

    kind: Literal["spm", "bpe"]
    pieces: Sequence[str]  # spm: with U+2581 for the space, "<0x0A>" for byte pieces
    scores: Numbers  # [vocab] float32; spm: a higher one is merged first
    types: Numbers  # [vocab] int32; one of the constants above
    bos_id: int = 1  # -1: there is none (eos_id and unk_id likewise)
    eos_id: int = 2
    unk_id: int = 0
    add_bos: bool = True
    add_space_prefix: bool = True  # bpe: decoding drops a space at the beginning
    end_ids: tuple[int, ...] = ()  # further ids that end a text, beside eos_id
    remove_extra_whitespaces: bool = False  # strip the text, runs of spaces become one
    bpe: Bpe | None = None  # the rules of kind "bpe"
    chat_template: str | None = None  # Jinja, where the tokenizer's files carry one

    def __len__(self) -> int:
        return len(self.pieces)


@record
class Checkpoint:
    """An opened model file: header parsed and checked, weights not read yet."""

    path: Path
    format: str  # for people: "llama2.c v1", "GGUF v3"
    name: str  # for people: general.name, or the file's stem
    config: ModelConfig
    tensors: Mapping[str, Tensor]
    vocabulary: Vocabulary | None  # None: the file carries none (--tokenizer gives it)
    metadata: Mapping[str, object] = {}

    @property
    def tied(self) -> bool:
        """Whether the classifier is the embedding itself."""
        return "output.weight" not in self.tensors

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.count for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as the file has them."""
        return sum(tensor.nbytes for tensor in self.tensors.values())
