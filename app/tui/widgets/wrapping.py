"""Where a paragraph breaks into rows: greedy word wrap measured in terminal cells.

Two paths give the same rows: one for rows whose every character is one cell wide (a few slices),
one for everything else (character by character, whole graphemes only). Widths are
those of `rich.cells`, because Textual pads and crops with them: another table would shift a row.

Cutting is incremental by construction: where a row ends depends only on its own text up to the
first thing that did not fit, so text that joins the end can only change the last row, and a row can
be wrapped on without what stands before it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from rich.cells import cell_len

# Letters, digits and punctuation that every terminal draws in exactly one cell. No combining
# marks, no control characters.
_NARROW = re.compile(
    "[ -~\u00a0-\u00ac\u00ae-\u02ff\u0370-\u0377\u0391-\u03a1\u03a3-\u0482"
    "\u2010-\u2027\u2030-\u205e]*"
)

# What may not reach the terminal from a model's or a file's text, and what stands in for it.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_TAB = "    "
_JOINER = "\u200d"

_CLOSING = frozenset(
    ",.!?;:)]}\"'”’»…%、。，．！？；：）］｝」』】〉》〕〗〙〛ーぁぃぅぇぉっゃゅょァィゥェォッャュョ々・"
)
_OPENING = frozenset("([{\"'“‘«（［｛「『【〈《〔〖〘〚")
_DASHES = "-–—"
_AFTER_DASH = re.compile(r"(?<=\w)[-–—](?=\w)")


def sanitise(text: str, after: str = "") -> str:
    """Return `text` as it may be drawn: nothing in it can move the cursor or reorder the line.

    Line ends of all kinds become newlines (`after` is the last raw character before `text`, so
    that a CR LF pair may arrive in two pieces), tabs become spaces, bidirectional overrides and
    soft hyphens vanish, other control characters become visible pictures.
    """
    if text.startswith("\n") and after == "\r":
        text = text[1:]
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(_harmless, text.replace("\r\n", "\n"))


def _harmless(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if character == "\t":
        return _TAB
    if character in "\r\x0b\x0c\x85\u2028\u2029":
        return "\n"
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if code < 0xA0 or 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return ""


class _Kind(NamedTuple):
    """What wrapping needs to know of one character."""

    width: int
    joins: bool  # belongs to the grapheme before it
    regional: bool  # half of a flag


class _Kinds(dict[str, _Kind]):
    """Characters met so far; grows by what stories really use."""

    def __missing__(self, character: str) -> _Kind:
        width = cell_len(character)
        spacing = unicodedata.category(character) == "Mc" or character in "\u0e33\u0eb3"
        regional = "\U0001f1e6" <= character <= "\U0001f1ff"
        kind = self[character] = _Kind(width, width == 0 or spacing, regional)
        return kind


_KINDS = _Kinds()


def joins_before(text: str, index: int) -> bool:
    """Whether the character at `index` > 0 belongs to the grapheme before it (flags apart)."""
    before = text[index - 1]
    joins = before == _JOINER or _KINDS[text[index]].joins
    return joins and before != " " and text[index] != " "


def graphemes(text: str, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield `(start, end, cells)` of each grapheme of `text[start:]`.

    Follows the rules of UAX 29 that matter for cells: marks and variation selectors join what
    stands before them, a zero-width joiner joins both sides, regional indicators pair up.
    """
    kinds = _KINDS
    index, size = start, len(text)
    while index < size:
        cells, _, regional = kinds[text[index]]
        end = index + 1
        if regional and end < size and kinds[text[end]].regional:
            end += 1
        # Nothing below U+0300 joins what stands before it, but for what follows a joiner.
        while end < size and (text[end] >= "\u0300" or text[end - 1] == _JOINER):
            if not joins_before(text, end):
                break
            end += 1
        yield index, end, cells if end == index + 1 else cell_len(text[index:end])
        index = end


def wrap(text: str, width: int, start: int = 0) -> list[int]:
    """Return where the rows of one paragraph begin, the first of them at `start`.

    text: one paragraph, sanitised, without newlines.
    width: cells of a row, at least 2 (the widest grapheme).
    Spaces that do not fit at the end of a row hang there, so no character is lost.
    """
    rows = [start]
    size = len(text)
    # One match for the whole paragraph, or one for each row of a paragraph that is not all plain.
    plain = _NARROW.fullmatch(text, start) is not None
    while True:
        if plain or _NARROW.fullmatch(text, start, start + width + 1):
            start = _next_narrow(text, width, start)
        else:
            start = _next_wide(text, width, start)
        if start >= size:
            return rows
        rows.append(start)


def _next_narrow(text: str, width: int, start: int) -> int:
    """Return where the next row begins if this one is narrow, and one character more."""
    size = len(text)
    end = start + width
    if end >= size:
        return size
    if text[end] == " ":
        cut = end
    else:
        cut = text.rfind(" ", start, end) + 1 or start
        for dash in _AFTER_DASH.finditer(text, max(cut, start + 1), end + 1):
            cut = dash.end()
        if cut == start:
            cut = end
    while cut < size and text[cut] == " ":
        cut += 1
    return cut


def _next_wide(text: str, width: int, start: int) -> int:
    """Return where the next row begins, whatever this one holds."""
    used = 0
    cut = start
    was_wide = False
    for index, _, cells in graphemes(text, start):
        if text[index] == " ":
            used += cells
            was_wide = False
            continue
        is_wide = cells >= 2
        if index > start:
            if text[index - 1] == " " or _may_break(text, start, index, is_wide or was_wide):
                cut = index
            if used + cells > width:
                return cut if cut > start else index
        used += cells
        was_wide = is_wide
    return len(text)


def _may_break(text: str, start: int, index: int, wide: bool) -> bool:
    """Whether a row that began at `start` may end before `index` where no space stands.

    wide: one of the two neighbours fills two cells.
    """
    before = text[index - 1]
    if before in _DASHES:
        return index - 1 > start and _AFTER_DASH.match(text, index - 1) is not None
    return wide and text[index] not in _CLOSING and before not in _OPENING
