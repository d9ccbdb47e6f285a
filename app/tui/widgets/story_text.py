"""The text behind the manuscript view: parts, paragraphs and the rows they wrap into.

Offsets count the characters of the whole sanitised text, a newline being one. A paragraph is what
stands between two newlines; a part is what one author wrote in one go. Neither knows the other's
borders, so a part may begin in the middle of a row.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from fireside.app.tui.widgets.wrapping import sanitise, wrap


@dataclass(frozen=True)
class Part:
    """What one author wrote in one go."""

    id: int
    author: Literal["writer", "model"]
    text: str
    unfinished: bool = False


class Row(NamedTuple):
    """One row of the page: the text from `start` to `end`, which excludes the newline."""

    start: int
    end: int
    text: str


class _Paragraph:
    """Text between two newlines, kept row by row so that growing it copies no more than a row."""

    __slots__ = ("first_row", "rows", "start", "starts")

    def __init__(self, start: int, first_row: int, text: str, width: int) -> None:
        self.start = start
        self.first_row = first_row
        self.starts = [0]
        self.rows = [""]
        self.set_from(0, text, width)

    @property
    def length(self) -> int:
        return self.starts[-1] + len(self.rows[-1])

    @property
    def end(self) -> int:
        return self.start + self.length

    def set_from(self, at: int, text: str, width: int) -> None:
        """Put `text` in the place of row `at` and all below it."""
        cuts = wrap(text, width)
        origin = self.starts[at]
        self.starts[at:] = [origin + cut for cut in cuts]
        cuts.append(len(text))
        self.rows[at:] = [text[cuts[i] : cuts[i + 1]] for i in range(len(cuts) - 1)]

    def row_of(self, offset: int) -> int:
        """Return the row that holds the character `offset` of the paragraph."""
        return bisect_right(self.starts, offset) - 1

    def slice(self, start: int, end: int) -> str:
        """Return the text between two offsets in the paragraph, which may lie outside of it."""
        start = max(0, start)
        if start >= end:
            return ""
        first, last = self.row_of(start), self.row_of(end)
        origin = self.starts[first]
        return "".join(self.rows[first : last + 1])[start - origin : end - origin]


class StoryText:
    """Parts wrapped to a width; appending touches nothing but the last row."""

    def __init__(self, width: int, *, separate: bool = False) -> None:
        self.width = width
        self.separate = separate  # chat: each part begins a paragraph of its own
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._parts: list[Part] = []
        self._starts: list[int] = []
        self._tail: list[str] = []  # what joined the last part since it was begun
        self._paragraphs = [_Paragraph(0, 0, "", self.width)]

    # -- reading

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, with the text as it was given."""
        self._settle()
        return tuple(self._parts)

    @property
    def last_part(self) -> Part | None:
        """The part that grows; its text may lag behind."""
        return self._parts[-1] if self._parts else None

    @property
    def row_count(self) -> int:
        """Rows of the page; an empty page has one."""
        last = self._paragraphs[-1]
        return last.first_row + len(last.rows)

    @property
    def length(self) -> int:
        """Characters of the sanitised text."""
        return self._paragraphs[-1].end

    def row(self, y: int) -> Row:
        """Return row `y`, 0 <= y < row_count."""
        paragraph = self._paragraphs[self._paragraph_of_row(y)]
        at = y - paragraph.first_row
        start, text = paragraph.start + paragraph.starts[at], paragraph.rows[at]
        return Row(start, start + len(text), text)

    def row_at(self, offset: int) -> int:
        """Return the row that holds the character at `offset`."""
        index = bisect_right(self._paragraphs, offset, key=lambda paragraph: paragraph.start) - 1
        paragraph = self._paragraphs[max(0, index)]
        return paragraph.first_row + paragraph.row_of(offset - paragraph.start)

    def paragraph_at(self, offset: int) -> tuple[int, int]:
        """Return the offsets between which the paragraph of a character stands."""
        paragraph = self._paragraphs[self._paragraph_of_row(self.row_at(offset))]
        return paragraph.start, paragraph.end

    def word_at(self, offset: int) -> tuple[int, int]:
        """Return the offsets between which the word of a character stands, or the gap it is in."""
        start, end = self.paragraph_at(offset)
        for run in re.finditer(r"\w+(?:['’]\w+)*|\s+|[^\w\s]+", self.slice(start, end)):
            if start + run.end() > offset:
                return start + run.start(), start + run.end()
        return end, end

    def slice(self, start: int, end: int) -> str:
        """Return the sanitised text between two offsets."""
        if start >= end:
            return ""
        index = bisect_right(self._paragraphs, start, key=lambda paragraph: paragraph.start) - 1
        pieces = []
        for paragraph in self._paragraphs[max(0, index) :]:
            if paragraph.start > end:
                break
            pieces.append(paragraph.slice(start - paragraph.start, end - paragraph.start))
        return "\n".join(pieces)

    def part_at(self, offset: int) -> Part | None:
        """Return the part that holds the character at `offset`."""
        index = bisect_right(self._starts, offset) - 1
        return self._parts[index] if index >= 0 else None

    def part_of(self, start: int, end: int) -> Part | None:
        """Return the part that all of the text between two offsets belongs to."""
        index = bisect_right(self._starts, start) - 1
        if index < 0 or (index + 1 < len(self._starts) and self._starts[index + 1] < end):
            return None
        return self._parts[index]

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int, Part]]:
        """Yield the parts that stand between two offsets, with the offsets of each piece."""
        index = max(0, bisect_right(self._starts, start) - 1)
        while index < len(self._parts) and start < end:
            following = self._starts[index + 1] if index + 1 < len(self._starts) else end
            stop = min(following, end)
            if stop > start:
                yield start, stop, self._parts[index]
                start = stop
            index += 1

    def begins_at(self, y: int) -> Part | None:
        """Return the part whose first character opens row `y`: where chat puts the name."""
        start = self.row(y).start
        index = bisect_right(self._starts, start) - 1
        if index >= 0 and self._starts[index] == start:
            return self._parts[index]
        return None

    # -- writing: each answers with the first row that changed

    def show(self, parts: Sequence[Part]) -> int:
        """Replace everything, keeping the rows of the text that is common from the beginning."""
        same = self._same_words(parts)
        changed = self.row_count - 1
        cut = same < len(self._parts)
        old, new = self._parts[same:], parts[same:]
        self._parts[:same] = parts[:same]
        common = ""
        if old and new and old[0].author == new[0].author and (len(old) == 1 or not self.separate):
            common = new[0].text[: _common_length(old[0].text, new[0].text)]
        if common:
            changed = self._cut(same + 1, self._starts[same] + len(self._shown(common, same)))
            self._parts[same] = replace(new[0], text=common)
            self.append(new[0].text[len(common) :])
            same += 1
        elif cut and same and self.separate:
            same -= 1  # the empty rows after a turn depend on whether another follows
            changed = self._cut(same, self._starts[same])
        elif cut:
            changed = self._cut(same, self._starts[same])
        for part in parts[same:]:
            changed = min(changed, self.begin(part))
        return changed

    def begin(self, part: Part) -> int:
        """Add a new last part."""
        changed = self.row_count - 1
        self._settle()
        if self.separate and self._parts:
            changed = self._close_turn()
        self._parts.append(replace(part, text=""))
        self._starts.append(self.length)
        return min(changed, self.append(part.text))

    def append(self, text: str) -> int:
        """Let text join the last part."""
        if not self._parts:
            raise ValueError("there is no part the text could join: begin one first")
        changed = self.row_count - 1
        last = self._tail[-1] if self._tail else self._parts[-1].text
        shown = self._shown(text, len(self._parts) - 1, last[-1:], self.length)
        if text:
            self._tail.append(text)
        first, *others = shown.split("\n")
        if first:
            self._extend(first)
        for other in others:
            self._new_paragraph(other)
        return changed

    def rewrap(self, width: int) -> None:
        """Wrap everything to another width."""
        self.width = width
        first_row = 0
        for paragraph in self._paragraphs:
            paragraph.first_row = first_row
            paragraph.set_from(0, "".join(paragraph.rows), width)
            first_row += len(paragraph.rows)

    # -- inside

    def _settle(self) -> None:
        if self._tail:
            text = self._parts[-1].text + "".join(self._tail)
            self._parts[-1] = replace(self._parts[-1], text=text)
            self._tail = []

    def _paragraph_of_row(self, y: int) -> int:
        return bisect_right(self._paragraphs, y, key=lambda paragraph: paragraph.first_row) - 1

    def _extend(self, text: str) -> None:
        paragraph = self._paragraphs[-1]
        paragraph.set_from(len(paragraph.rows) - 1, paragraph.rows[-1] + text, self.width)

    def _new_paragraph(self, text: str) -> None:
        self._paragraphs.append(_Paragraph(self.length + 1, self.row_count, text, self.width))

    def _close_turn(self) -> int:
        """One empty row, and no more, between what two speakers say."""
        while len(self._paragraphs) > 1 and not self._paragraphs[-1].slice(0, self.length).strip():
            if self._paragraphs[-1].start <= self._starts[-1]:
                break
            self._paragraphs.pop()
        changed = self.row_count - 1
        self._new_paragraph("")
        self._new_paragraph("")
        return changed

    def _shown(self, text: str, index: int, after: str = "", offset: int | None = None) -> str:
        """What is drawn of text that stands at `offset` in part `index`, at its start if None."""
        shown = sanitise(text, after)
        at_start = offset is None or offset == self._starts[index]
        return shown.lstrip() if self.separate and at_start else shown

    def _same_words(self, parts: Sequence[Part]) -> int:
        """Return how many parts of the beginning have the same author and text."""
        self._settle()
        same = 0
        for old, new in zip(self._parts, parts, strict=False):
            if (old.author, old.text) != (new.author, new.text):
                break
            same += 1
        return same

    def _cut(self, count: int, offset: int) -> int:
        """Keep the first `count` parts, and of their text what stands before `offset`."""
        del self._parts[count:], self._starts[count:]
        if not count:
            self.clear()
            return 0
        index = bisect_right(self._paragraphs, offset, key=lambda paragraph: paragraph.start) - 1
        del self._paragraphs[index + 1 :]
        paragraph = self._paragraphs[index]
        # A word cut short may fit at the end of the row before its own.
        row = max(0, paragraph.row_of(offset - paragraph.start) - 1)
        kept = paragraph.slice(paragraph.starts[row], offset - paragraph.start)
        paragraph.set_from(row, kept, self.width)
        return paragraph.first_row + row


def _common_length(one: str, other: str) -> int:
    """Return how many characters two texts have in common from the beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # all of `low` characters are known to be common
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
