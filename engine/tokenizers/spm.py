"""SPM: sentencepiece's BPE, as Llama 2 uses it. (Kudo and Richardson 2018; Sennrich et al. 2016)

The text becomes characters, its spaces U+2581. Of all neighbours that together are a piece, those
with the highest score are joined first, the leftmost on a tie, until nothing can be joined. A
character that is no piece becomes the pieces of its UTF-8 bytes, or the unknown piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

from fireside.engine.arrays import np
from fireside.engine.checkpoints.types import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    ids_of,
)
from fireside.engine.tokenizers.base import PieceTokenizer
from fireside.engine.tokenizers.finder import Finder
from fireside.engine.tokenizers.merging import join
from fireside.engine.tokenizers.ranks import PieceIds
from fireside.engine.tokenizers.words import words_of

SPACE = "\u2581"  # what stands for the space in pieces
UNKNOWN_SURFACE = " \u2047 ".encode()  # how sentencepiece writes what it does not know
SHORT = 200  # characters
BYTE_PIECE = r"<0x([0-9A-Fa-f]{2})>"  # compiled when it is used: it takes a while


class SpmTokenizer(PieceTokenizer):
    """A tokenizer over an SPM vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        v = vocabulary
        # Control pieces and the like are never found in a text.
        self._pieces = PieceIds(v, NORMAL, USER_DEFINED, UNUSED)
        self._unused = {v.pieces[i] for i in ids_of(v.types, UNUSED)}
        # User-defined pieces are atoms: found before anything is joined, the longest first.
        atoms = {v.pieces[i]: i for i in reversed(ids_of(v.types, USER_DEFINED))}
        self._atoms = Finder(atoms, {})

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        """The pieces that stand for bytes."""
        return byte_ids(self.vocabulary)

    @cached_property
    def _words(self) -> Callable[[str], list[str]]:
        """Cuts a text into words that can be looked up alone."""
        return words_of(self._pieces.all(), SPACE)

    def _encode_text(self, text: str, first: bool, ids: list[int]) -> None:
        """Append the ids of `text`: a space before it stands for the beginning of a word."""
        start = len(ids)
        for part in self._atoms.split(self._normalise(text)):
            if isinstance(part, int):
                ids.append(part)
            else:
                self._encode_plain(part, ids)
        unk = self.vocabulary.unk_id
        if unk in ids[start:] and not self._byte_ids:
            # sentencepiece gives one unknown piece for a run of unknown characters
            new = ids[start:]
            ids[start:] = [i for k, i in enumerate(new) if i != unk or k == 0 or new[k - 1] != unk]

    def _normalise(self, text: str) -> str:
        """`text` with its spaces as pieces have them."""
        v = self.vocabulary
        if v.remove_extra_whitespaces:
            text = re.sub("  +", " ", text.lstrip(" "))
        if text and v.add_space_prefix:
            text = " " + text
        text = text.replace(" ", SPACE)
        return text.rstrip(SPACE) if v.remove_extra_whitespaces else text

    def _encode_plain(self, text: str, ids: list[int]) -> None:
        """Append the ids of `text`, which holds no atoms."""
        cache = self._cache
        # to look through all pieces for where a text can be cut is worth it for a long one only
        for word in self._words(text) if len(text) > SHORT else [text]:
            known = cache.get(word)
            if known is None:
                known = self._merge(word)
                self._remember(word, known)
            ids += known

    def _merge(self, text: str) -> list[int]:
        """Ids of `text`: its characters, joined as often as the pieces allow."""
        parts: dict[str, tuple[str, str]] | None = {} if self._unused else None
        ids: list[int] = []
        for symbol in join(list(text), self._pieces.rank, "", parts):
            self._emit(symbol, parts or {}, ids)
        return ids

    def _emit(self, symbol: str, parts: dict[str, tuple[str, str]], ids: list[int]) -> None:
        """Append the ids of a symbol that is not joined any further."""
        pending = [symbol]
        while pending:
            symbol = pending.pop()
            if symbol in self._unused and symbol in parts:
                pending += reversed(parts[symbol])  # it helps to join others, but never comes out
            elif (known := self._pieces.id(symbol)) is not None:
                ids.append(known)
            elif self._byte_ids:
                unk = self.vocabulary.unk_id
                ids += (self._byte_ids.get(byte, unk) for byte in symbol.encode())
            else:
                ids.append(self.vocabulary.unk_id)

    def _surface(self, token: int) -> bytes:
        """The bytes that a piece of this type adds to a text."""
        piece, kind = self.vocabulary.pieces[token], self.vocabulary.types[token]
        if kind == CONTROL:
            return b""
        if kind == UNKNOWN:
            return UNKNOWN_SURFACE
        if kind == BYTE and (match := re.fullmatch(BYTE_PIECE, piece)):
            return bytes([int(match[1], 16)])
        return piece.replace(SPACE, " ").encode()


def byte_ids(v: Vocabulary) -> dict[int, int]:
    """The pieces of type BYTE: byte -> id, the first of equals."""
    found: dict[int, int] = {}
    for i in ids_of(v.types, BYTE):
        if match := re.fullmatch(BYTE_PIECE, v.pieces[i]):
            found.setdefault(int(match[1], 16), i)
    return found


def byte_pieces(pieces: list[str]) -> np.ndarray:
    """Which of `pieces` have the form of byte pieces, [vocab] bool."""
    return np.array([re.fullmatch(BYTE_PIECE, piece) is not None for piece in pieces], bool)
