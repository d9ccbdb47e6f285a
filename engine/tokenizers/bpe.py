"""Byte pair encoding by merges, as GPT-2 and what came after it use it. (Sennrich et al. 2016)

The text is cut into words by the vocabulary's own rules. A word is its characters, or its UTF-8
bytes written as characters (Radford et al. 2019), and of all neighbours that the merges name the
first named are joined first, the leftmost on a tie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from fireside.engine.checkpoints.bpe import Bytes
from fireside.engine.checkpoints.types import (
    BYTE,
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    ids_of,
)
from fireside.engine.tokenizers.base import PieceTokenizer, pieces_of
from fireside.engine.tokenizers.finder import Finder
from fireside.engine.tokenizers.merging import join
from fireside.engine.tokenizers.ranks import Ranks
from fireside.engine.tokenizers.spm import BYTE_PIECE, byte_ids
from fireside.engine.tokenizers.steps import BYTE_OF, compile_normalizers, compile_steps, spell
from fireside.engine.tokenizers.words import words_of


class BpeTokenizer(PieceTokenizer):
    """A tokenizer over a BPE vocabulary; its tables are made when they are first needed."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        if vocabulary.bpe is None:
            raise RuntimeError("a BPE vocabulary without its rules")
        self._bpe = bpe = vocabulary.bpe
        # What is cut before the bytes is cut in characters; a cached word is one of those.
        steps = bpe.pre_tokenizers
        at = next((i for i, step in enumerate(steps) if isinstance(step, Bytes)), len(steps))
        self._cut = compile_steps(steps[:at])
        self._cut_bytes = compile_steps(steps[at + 1 :])
        self._normalise = compile_normalizers(bpe.normalizers)
        self._byte_level = at < len(steps)
        self._separator = bpe.separator if bpe.merges is not None else ""
        self._ids: dict[str, int] = {}
        self._ranks: Mapping[str, float] = {}
        self._byte_ids: dict[int, int] = {}
        self._words: Callable[[str], list[str]] | None = None
        self._atoms = self._late_atoms = Finder({}, {})

    def _prepare(self) -> None:
        """Make the tables."""
        v, bpe = self.vocabulary, self._bpe
        pieces = pieces_of(v, NORMAL, USER_DEFINED)
        self._ids = dict(zip(pieces, range(len(pieces)), strict=True))  # of equals the last
        if bpe.merges is None:
            self._ranks = dict(self._ids)
        else:
            self._ranks = Ranks(bpe.merges)
        self._byte_ids = byte_ids(v) if bpe.byte_fallback else {}
        rules = dict(bpe.added)
        atoms = {v.pieces[i]: i for i in ids_of(v.types, USER_DEFINED)}
        late = {t: i for t, i in atoms.items() if i in rules and rules[i].normalized}
        early = {t: i for t, i in atoms.items() if t not in late}
        self._atoms = Finder(early, rules)
        self._late_atoms = Finder({self._normalise(t): i for t, i in late.items()}, rules)
        if not self._byte_level and bpe.space and bpe.space in self._ids:
            joined = (merge.replace(self._separator, "") for merge in self._ranks)
            self._words = words_of(joined, bpe.space)

    def _encode_text(self, text: str, first: bool, ids: list[int]) -> None:
        """Append the ids of `text`."""
        if not self._ids:
            self._prepare()
        for i, part in enumerate(self._atoms.split(text)):
            if isinstance(part, int):
                ids.append(part)
                continue
            for k, stretch in enumerate(self._late_atoms.split(self._normalise(part))):
                if isinstance(stretch, int):
                    ids.append(stretch)
                else:
                    self._encode_plain(stretch, first and i == k == 0, ids)

    def _encode_plain(self, text: str, first: bool, ids: list[int]) -> None:
        """Append the ids of a stretch without added tokens."""
        cache = self._cache
        words: Sequence[str] = self._cut([text], first)
        if self._words is not None:
            words = [word for long in words for word in self._words(long)]
        for word in words:
            known = cache.get(word)
            if known is None:
                known = self._encode_word(word)
                self._remember(word, known)
            ids += known

    def _encode_word(self, word: str) -> list[int]:
        """Ids of a word."""
        if not self._byte_level:
            return self._merge(word)
        ids: list[int] = []
        for part in self._cut_bytes([spell(word)], False):
            ids += self._merge(part)
        return ids

    def _merge(self, word: str) -> list[int]:
        """Ids of a word, its bytes already written as characters."""
        get = self._ids.get
        if self._bpe.ignore_merges and (whole := get(word)) is not None:
            return [whole]
        symbols = list(word)
        if self.vocabulary.unk_id < 0:  # what nothing stands for is not there: its neighbours meet
            symbols = [c for c in symbols if c in self._ids or self._fallback(c)]
        ids: list[int] = []
        unknown = False  # whether the last one was
        for symbol in join(symbols, self._ranks.get, self._separator):
            if (known := get(symbol)) is not None:
                ids.append(known)
                unknown = False
                continue
            for character in symbol:
                if (known := get(character)) is not None or (raw := self._fallback(character)):
                    ids += raw if known is None else [known]
                    unknown = False
                elif self.vocabulary.unk_id >= 0:
                    if not (unknown and self._bpe.fuse_unk):
                        ids.append(self.vocabulary.unk_id)
                    unknown = True
        return ids

    def _fallback(self, character: str) -> list[int]:
        """The byte pieces of a character; none where one of them is missing."""
        found = [self._byte_ids.get(byte, -1) for byte in character.encode()]
        return [] if -1 in found else found

    def _surface(self, token: int) -> bytes:
        """The bytes that a piece adds to a text."""
        piece, kind = self.vocabulary.pieces[token], self.vocabulary.types[token]
        if kind in (CONTROL, UNUSED):
            return b""
        if self._bpe.word_space:
            piece = " " + piece
        if self._byte_level:
            if kind != USER_DEFINED and all(character in BYTE_OF for character in piece):
                return bytes(BYTE_OF[character] for character in piece)
            return piece.encode()
        if kind == BYTE and (match := re.fullmatch(BYTE_PIECE, piece)):
            return bytes([int(match[1], 16)])
        if kind != USER_DEFINED and self._bpe.space:
            piece = piece.replace(self._bpe.space, " ")
        return piece.encode()
