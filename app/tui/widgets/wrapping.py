"""Where a paragraph breaks into rows: greedy word wrap measured in terminal cells.

Two paths give the same rows: one for text whose every character is one cell wide (a few slices
for each row), one for everything else (character by character, whole graphemes only). Widths are
those of `rich.cells`, because Textual pads and crops with them: another table would shift a row.

Cutting is incremental by construction: where a row ends depends only on the text up to the first
thing that did not fit, so text that joins the end can only change the last row.
"""

from __future__ import annotations

import re
import unicodedata
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
        joins = width == 0 or spacing
        kind = _Kind(width, joins, "\U0001f1e6" <= character <= "\U0001f1ff")
        self[character] = kind
        return kind


KINDS = _Kinds()


def joins_before(text: str, index: int) -> bool:
    """Whether the character at `index` > 0 belongs to the grapheme before it (flags apart)."""
    if text[index] == " " or text[index - 1] == " ":
        return False
    return KINDS[text[index]].joins or text[index - 1] == "\u200d"


def graphemes(text: str, start: int = 0) -> list[tuple[int, int, int]]:
    """Return `(start, end, cells)` of each grapheme of `text[start:]`.

    Follows the rules of UAX 29 that matter for cells: marks and variation selectors join what
    stands before them, a zero-width joiner joins both sides, regional indicators pair up.
    """
    found: list[tuple[int, int, int]] = []
    kinds = KINDS
    index, size = start, len(text)
    while index < size:
        kind = kinds[text[index]]
        end = index + 1
        if kind.regional and end < size and kinds[text[end]].regional:
            end += 1
        while end < size and joins_before(text, end):
            end += 1
        found.append((index, end, kind.width if end == index + 1 else cell_len(text[index:end])))
        index = end
    return found


def wrap(text: str, width: int, start: int = 0) -> list[int]:
    """Return where the rows of one paragraph begin, the first of them at `start`.

    text: one paragraph, sanitised, without newlines.
    width: cells of a row, at least 2 (the widest grapheme).
    Spaces that do not fit at the end of a row hang there, so no character is lost.
    """
    if _NARROW.fullmatch(text, start):
        return _wrap_narrow(text, width, start)
    return _wrap_wide(text, width, start)


def _wrap_narrow(text: str, width: int, start: int) -> list[int]:
    rows = [start]
    size = len(text)
    while size - start > width:
        end = start + width
        if text[end] == " ":
            cut = end
        else:
            cut = text.rfind(" ", start, end) + 1 or start
            for dash in _AFTER_DASH.finditer(text, cut, end + 1):
                cut = dash.end()
            if cut == start:
                cut = end
        while cut < size and text[cut] == " ":
            cut += 1
        if cut == size:
            break
        rows.append(cut)
        start = cut
    return rows


def _may_break(text: str, index: int, wide: bool) -> bool:
    """Whether a row may begin at `index`; `wide`: one of the two neighbours fills two cells."""
    before, behind = text[index - 1], text[index]
    if before == " ":
        return True
    if before in _DASHES and _AFTER_DASH.match(text, index - 1):
        return True
    return wide and behind not in _CLOSING and before not in _OPENING


def _wrap_wide(text: str, width: int, start: int) -> list[int]:
    rows = [start]
    used = used_at_break = 0
    may_break_at = row_start = start
    was_wide = False
    for index, _, cells in graphemes(text, start):
        if text[index] == " ":
            used += cells
            was_wide = False
            continue
        is_wide = cells >= 2
        if index > row_start and _may_break(text, index, is_wide or was_wide):
            may_break_at, used_at_break = index, used
        while used + cells > width and index > row_start:
            if may_break_at > row_start:
                row_start, used = may_break_at, used - used_at_break
            else:
                row_start, used = index, 0
            rows.append(row_start)
            used_at_break = 0
        used += cells
        was_wide = is_wide
    return rows
