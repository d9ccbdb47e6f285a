"""Tokenizers: text -> ids -> text. `from_vocabulary` makes one from what a checkpoint carries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fireside.engine.checkpoints.types import Vocabulary
from fireside.engine.hints import Protocol


class Tokenizer(Protocol):
    """Text to ids and back."""

    vocabulary: Vocabulary

    def encode(self, text: str, *, bos: bool | None = None, special: bool = False) -> list[int]:
        """Ids of `text`; `bos` None = as the vocabulary says.

        special: the texts of special tokens become those tokens; else they are text like any other.
        """
        ...

    def parse(self, text: str) -> list[str | int]:
        """`text` cut at its special tokens: stretches of text, and ids."""
        ...

    def encode_parts(self, parts: Iterable[str | int], *, bos: bool | None = None) -> list[int]:
        """Ids of stretches of text, in which no special token is looked for, and of ids.

        Where `bos` is None, a BOS at the beginning of `parts` is not put there twice.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`: a BOS and the leading space it brings left out; U+FFFD for bad bytes."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes that `token` adds to a text; b"" for control tokens."""
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a text."""
        ...


def from_vocabulary(vocabulary: Vocabulary) -> Tokenizer:
    """A tokenizer over the vocabulary of a checkpoint."""
    if vocabulary.kind == "bpe":
        from fireside.engine.tokenizers.bpe import BpeTokenizer

        return BpeTokenizer(vocabulary)
    from fireside.engine.tokenizers.spm import SpmTokenizer

    return SpmTokenizer(vocabulary)


def read_vocabulary(path: Path, vocab_size: int | None = None) -> Vocabulary:
    """Read a tokenizer file, by content, or that of a folder.

    tokenizer.json (Hugging Face), tokenizer.model (sentencepiece, or Llama 3's), tokenizer.bin
    (llama2.c) or a GGUF's. `vocab_size` is what the model expects.
    """
    from fireside.engine.tokenizers.files import read_vocabulary as read

    return read(path, vocab_size)


def read_tokenizer_folder(path: Path, vocab_size: int | None = None) -> Vocabulary:
    """The tokenizer in a model's folder, with what tokenizer_config.json and the like add to it.

    Fewer tokens than `vocab_size` are filled up with unused ones; more are a CheckpointError.
    """
    from fireside.engine.tokenizers.files import read_tokenizer_folder as read

    return read(path, vocab_size)
