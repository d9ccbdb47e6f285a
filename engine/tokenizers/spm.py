"""SPM: sentencepiece's BPE, as Llama 2 uses it. (Kudo and Richardson 2018; Sennrich et al. 2016)

The text becomes characters, its spaces U+2581. Of all neighbours that together are a piece, those
with the highest score are joined first, the leftmost on a tie, until nothing can be joined. A
character that is no piece becomes the pieces of its UTF-8 bytes, or the unknown piece.
"""

from __future__ import annotations

import re
from heapq import heappop, heappush

import numpy as np

from fireside.engine.checkpoints.types import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
)
from fireside.engine.tokenizers.detokenizer import Detokenizer

SPACE = "\u2581"  # what stands for the space in pieces
UNKNOWN_SURFACE = " \u2047 ".encode()  # how sentencepiece writes what it does not know
BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SURROGATES = re.compile("[\ud800-\udfff]")
WORDS = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
CACHED_WORDS = 1 << 16
LONGEST_CACHED = 64  # characters


class SpmTokenizer:
    """A tokenizer over an SPM vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = v = vocabulary
        types = v.types.tolist()
        scores = v.scores.tolist()
        self._bytes = [_surface(p, t) for p, t in zip(v.pieces, types, strict=True)]
        # Control pieces and the like are never found in a text. Of equal pieces the first counts.
        found = [i for i, t in enumerate(types) if t in (NORMAL, USER_DEFINED, UNUSED)]
        self._ids = {v.pieces[i]: i for i in reversed(found)}
        self._scores = {piece: scores[i] for piece, i in self._ids.items()}
        self._unused = {v.pieces[i] for i in found if types[i] == UNUSED}
        self._byte_ids = {
            int(match[1], 16): i
            for i in range(len(types) - 1, -1, -1)
            if types[i] == BYTE and (match := BYTE_PIECE.fullmatch(v.pieces[i]))
        }
        # User-defined pieces are atoms: found before anything is joined, the longest first.
        atoms = {v.pieces[i] for i in found if types[i] == USER_DEFINED and v.pieces[i]}
        ordered = sorted(atoms, key=len, reverse=True)
        self._atoms = re.compile(f"({'|'.join(map(re.escape, ordered))})") if atoms else None
        # Where no piece has a space behind another character, words never join: each can be
        # looked up by itself. Of a vocabulary trained with split_by_whitespace this is true.
        crossing = re.compile(f"[^{SPACE}]{SPACE}").search
        self._by_words = not any(SPACE in piece and crossing(piece) for piece in self._ids)
        self._cache: dict[str, list[int]] = {}

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a text."""
        return frozenset(i for i in (self.vocabulary.eos_id, *self.vocabulary.end_ids) if i >= 0)

    def encode(self, text: str, *, bos: bool | None = None) -> list[int]:
        """Ids of `text`; `bos` None = as the vocabulary says. Special tokens are not parsed.

        Lone surrogates, which no UTF-8 can hold, count as U+FFFD.
        """
        v = self.vocabulary
        ids = [v.bos_id] if (v.add_bos if bos is None else bos) and v.bos_id >= 0 else []
        text = self._normalise(text)
        if self._atoms is None:
            self._encode_plain(text, ids)
        else:
            for i, part in enumerate(self._atoms.split(text)):
                if i % 2:
                    ids.append(self._ids[part])
                elif part:
                    self._encode_plain(part, ids)
        if not self._byte_ids and v.unk_id in ids:
            # sentencepiece gives one unknown piece for a run of unknown characters
            unk = v.unk_id
            ids = [i for k, i in enumerate(ids) if i != unk or k == 0 or ids[k - 1] != unk]
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of `ids`: a BOS and the leading space it brings left out; U+FFFD for bad bytes."""
        detokenizer = Detokenizer(self)
        return "".join(map(detokenizer.push, ids)) + detokenizer.flush()

    def token_bytes(self, token: int) -> bytes:
        """The bytes that `token` adds to a text; b"" for control tokens."""
        if token < 0:
            raise IndexError(f"token {token} is not one of {len(self._bytes)}")
        return self._bytes[token]

    def _normalise(self, text: str) -> str:
        """`text` with its spaces as pieces have them."""
        v = self.vocabulary
        if not text.isascii():
            text = SURROGATES.sub("\ufffd", text)
        if v.remove_extra_whitespaces:
            text = re.sub("  +", " ", text.lstrip(" "))
        if text and v.add_space_prefix:
            text = " " + text
        text = text.replace(" ", SPACE)
        return text.rstrip(SPACE) if v.remove_extra_whitespaces else text

    def _encode_plain(self, text: str, ids: list[int]) -> None:
        """Append the ids of `text`, which holds no atoms."""
        if not self._by_words:
            ids += self._merge(text)
            return
        cache = self._cache
        for word in WORDS.findall(text):
            known = cache.get(word)
            if known is None:
                known = self._merge(word)
                if len(word) <= LONGEST_CACHED:
                    if len(cache) >= CACHED_WORDS:
                        cache.clear()
                    cache[word] = known
            ids += known

    def _merge(self, text: str) -> list[int]:
        """Ids of `text`: its characters, joined as often as the pieces allow."""
        symbols = list(text)  # a joined symbol stands where its first character stood
        after = list(range(1, len(text) + 1))
        before = list(range(-1, len(text) - 1))
        scores = self._scores
        candidates: list[tuple[float, int, int, str]] = []  # (-score, left, right, joined)
        parts: dict[str, tuple[str, str]] = {}  # what an unused piece was joined from

        def consider(left: int, right: int) -> None:
            joined = symbols[left] + symbols[right]
            if (score := scores.get(joined)) is not None:
                heappush(candidates, (-score, left, right, joined))
                if joined in self._unused:
                    parts[joined] = (symbols[left], symbols[right])

        for i in range(len(text) - 1):
            consider(i, i + 1)
        while candidates:
            _, left, right, joined = heappop(candidates)
            # symbols only grow or vanish: equal length means that neither has changed since
            a, b = symbols[left], symbols[right]
            if not a or not b or len(a) + len(b) != len(joined):
                continue
            symbols[left], symbols[right] = joined, ""
            following = after[left] = after[right]
            if following < len(text):
                before[following] = left
                consider(left, following)
            if (preceding := before[left]) >= 0:
                consider(preceding, left)
        ids: list[int] = []
        for symbol in symbols:
            if symbol:
                self._emit(symbol, parts, ids)
        return ids

    def _emit(self, symbol: str, parts: dict[str, tuple[str, str]], ids: list[int]) -> None:
        """Append the ids of a symbol that is not joined any further."""
        pending = [symbol]
        while pending:
            symbol = pending.pop()
            if symbol in parts:  # an unused piece helps to join others, but never comes out
                pending += reversed(parts[symbol])
            elif (known := self._ids.get(symbol)) is not None:
                ids.append(known)
            elif self._byte_ids:
                unk = self.vocabulary.unk_id
                ids += (self._byte_ids.get(byte, unk) for byte in symbol.encode())
            else:
                ids.append(self.vocabulary.unk_id)


def _surface(piece: str, kind: int) -> bytes:
    """The bytes that a piece of this type adds to a text."""
    if kind == CONTROL:
        return b""
    if kind == UNKNOWN:
        return UNKNOWN_SURFACE
    if kind == BYTE and (match := BYTE_PIECE.fullmatch(piece)):
        return bytes([int(match[1], 16)])
    return piece.replace(SPACE, " ").encode()


def byte_pieces(pieces: list[str]) -> np.ndarray:
    """Which of `pieces` have the form of byte pieces, [vocab] bool."""
    return np.array([BYTE_PIECE.fullmatch(piece) is not None for piece in pieces], bool)
