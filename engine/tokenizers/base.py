"""What tokenizers of every kind share: special tokens, BOS, the way back to text."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from fireside.engine.checkpoints.types import CONTROL, Vocabulary, ids_of
from fireside.engine.hints import TYPE_CHECKING
from fireside.engine.tokenizers.detokenizer import Detokenizer
from fireside.engine.tokenizers.finder import Finder

if TYPE_CHECKING:
    pass

SURROGATES = "[\ud800-\udfff]"
CACHED_WORDS = 1 << 16
LONGEST_CACHED = 64  # characters

Part = str | int
"""A stretch of text, or the id of a special token."""


def pieces_of(v: Vocabulary, *kinds: int) -> list[str]:
    """The pieces of a vocabulary, "" in the place of those that are of none of these types."""
    pieces = list(v.pieces)
    for i in ids_of(v.types, *set(range(7)).difference(kinds)):  # few: quicker than the others
        pieces[i] = ""
    return pieces


def first_of_equals(texts: list[str]) -> dict[str, int]:
    """Each text's first index."""
    return dict(zip(reversed(texts), range(len(texts) - 1, -1, -1), strict=True))


class PieceTokenizer(ABC):
    """A tokenizer over a vocabulary of pieces. Immutable but for its caches."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._bytes: list[bytes | None] = [None] * len(vocabulary)
        self._cache: dict[str, list[int]] = {}
        self._specials: Finder | None = None

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a text."""
        return frozenset(i for i in (self.vocabulary.eos_id, *self.vocabulary.end_ids) if i >= 0)

    def encode(self, text: str, *, bos: bool | None = None, special: bool = False) -> list[int]:
        """Ids of `text`; `bos` None = as the vocabulary says.

        special: the texts of special tokens become those tokens; else they are text like any
        other. Lone surrogates, which no UTF-8 can hold, count as U+FFFD.
        """
        return self.encode_parts(self.parse(text) if special else [text], bos=bos)

    def parse(self, text: str) -> list[Part]:
        """`text` cut at its special tokens: stretches of text, and ids."""
        return self.specials.split(text)

    def encode_parts(self, parts: Iterable[Part], *, bos: bool | None = None) -> list[int]:
        """Ids of stretches of text, in which no special token is looked for, and of ids.

        Where `bos` is None, a BOS at the beginning of `parts` is not put there twice.
        """
        v = self.vocabulary
        parts = list(parts)
        if bos is None:
            bos = v.add_bos and parts[:1] != [v.bos_id]
        ids = [v.bos_id] if bos and v.bos_id >= 0 else []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            else:
                text = part if part.isascii() else re.sub(SURROGATES, "\ufffd", part)
                self._encode_text(text, i == 0, ids)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`: a BOS and the leading space it brings left out; U+FFFD for bad bytes."""
        detokenizer = Detokenizer(self)
        return "".join(map(detokenizer.push, ids)) + detokenizer.flush()

    def token_bytes(self, token: int) -> bytes:
        """The bytes that `token` adds to a text; b"" for control tokens."""
        if token < 0:
            raise IndexError(f"token {token} is not one of {len(self._bytes)}")
        known = self._bytes[token]
        if known is None:
            known = self._bytes[token] = self._surface(token)
        return known

    @property
    def specials(self) -> Finder:
        """Finds special tokens: those that add nothing to a text."""
        if self._specials is None:
            v = self.vocabulary
            rules = dict(v.bpe.added) if v.bpe is not None else {}
            ids = ids_of(v.types, CONTROL)
            self._specials = Finder({v.pieces[i]: i for i in reversed(ids)}, rules)
        return self._specials

    def _remember(self, word: str, ids: list[int]) -> None:
        """Keep the ids of a word."""
        if len(word) <= LONGEST_CACHED:
            if len(self._cache) >= CACHED_WORDS:
                self._cache.clear()
            self._cache[word] = ids

    @abstractmethod
    def _encode_text(self, text: str, first: bool, ids: list[int]) -> None:
        """Append the ids of `text`; `first`: nothing stands before it."""

    @abstractmethod
    def _surface(self, token: int) -> bytes:
        """The bytes that `token` adds to a text."""
