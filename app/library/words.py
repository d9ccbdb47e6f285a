"""Text as the library keeps it: cleaned for storage, folded for search, cut for titles."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

OPENING = 160  # characters of a story kept beside it for its title and its line in the list
TITLE = 48
_BEFORE, _AFTER = 32, 72  # characters of a snippet around what was found

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

# Marks that people leave out when they type a query: Latin, Greek and Cyrillic accents, Hebrew
# points and Arabic vowel signs. Marks of other scripts are letters to their readers (the voicing
# of kana, the vowels of Devanagari and Thai) and stay.
_OPTIONAL_MARKS = (
    *range(0x0300, 0x0370),
    *range(0x0591, 0x05C8),
    *range(0x064B, 0x0660),
    0x0670,
)
_TYPED = str.maketrans("‘’‚‛“”„‟‐‑‒–—―", "''''\"\"\"\"------")
_DROP = dict.fromkeys(_OPTIONAL_MARKS)


def clean(text: str) -> str:
    """The text with what a database or a UTF-8 file cannot hold replaced by U+FFFD.

    Surrogate pairs become the character they stand for; lone surrogates and NUL hold no words.
    """
    if not _UNSTORABLE.search(text):
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return joined.replace("\x00", "\ufffd")


class _FoldTable(dict[int, str]):
    """Code point -> how it is spelled in the search index, found when first met."""

    def __missing__(self, code: int) -> str:
        # Compatibility forms may uncover capitals, and case folding may uncover marks.
        text = unicodedata.normalize("NFKD", chr(code)).casefold()
        text = unicodedata.normalize("NFKD", text).translate(_DROP).translate(_TYPED)
        self[code] = folded = unicodedata.normalize("NFC", text)
        return folded


_FOLD = _FoldTable()


def fold(text: str) -> str:
    """The text as it is searched: no case, no optional marks, plain quotes and dashes.

    Character by character after NFC, so that a place in it can be traced back to the text.
    """
    return unicodedata.normalize("NFC", text).translate(_FOLD)


def one_line(text: str) -> str:
    """The text with every run of white space as one blank."""
    return " ".join(text.split())


def title_from(opening: str) -> str:
    """A title from the first words of a story."""
    line = one_line(opening)
    if len(line) <= TITLE:
        return line or "Untitled"
    # Break between words; a script without blanks, or one endless word, breaks anywhere.
    cut = line.rfind(" ", TITLE // 2, TITLE)
    return line[: cut if cut > 0 else TITLE - 1].rstrip(" ,;:-–—") + "…"


def snippet(text: str, terms: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The words around the first place of `terms[0]`, and where all terms are in them.

    `terms` are folded; returns the start of the text when the first is not in it.
    """
    line = unicodedata.normalize("NFC", one_line(text))
    at = fold(line).find(terms[0])
    start, end = 0, 0
    if at >= 0:
        start, end = _trace(line, at, at + len(terms[0]))
    left, right = max(0, start - _BEFORE), min(len(line), end + _AFTER)
    if left:
        blank = line.find(" ", left, start)
        left = blank + 1 if blank >= 0 else left
    if right < len(line):
        blank = line.rfind(" ", end, right)
        right = blank if blank > 0 else right
    shown = ("…" if left else "") + line[left:right] + ("…" if right < len(line) else "")
    return shown, _spans(shown, terms)


def _trace(line: str, start: int, end: int) -> tuple[int, int]:
    """Where a place in the folded line is in the line itself (which is in NFC)."""
    if line.isascii():
        return start, end

    def folded_length(stop: int) -> int:
        return len(line[:stop].translate(_FOLD))

    stops = range(len(line) + 1)
    return (
        bisect_right(stops, start, key=folded_length) - 1,
        bisect_left(stops, end, key=folded_length),
    )


def _spans(line: str, terms: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Every place of every term in a short line, without overlaps, from left to right."""
    source: list[int] = []  # for each folded character the one of the line that it came from
    folded = ""
    for index, character in enumerate(line):
        spelled = character.translate(_FOLD)
        folded += spelled
        source += [index] * len(spelled)
    found: list[tuple[int, int]] = []
    for term in terms:
        at = folded.find(term)
        while at >= 0:
            found.append((source[at], source[at + len(term) - 1] + 1))
            at = folded.find(term, at + len(term))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
