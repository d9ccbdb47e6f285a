"""How one row of the page is drawn: margin, words by author, selection, caret."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from fireside.app.tui.widgets.story_text import Row, StoryText
from fireside.app.tui.widgets.wrapping import joins_before

BAR = "▎"
CARET = "▌"
UNFINISHED = "…"

# The styles of a page that have a component class, see `Ink`.
INKS = ("writer", "bar", "label", "quiet", "caret")
# Cells of the margin: the bar and a space.
BAR_CELLS = 2
# Selection offsets of cells left of the text: any x this small means "before the row's text".
_MARGIN = -10_000
_NULL = Style.null()


@dataclass(frozen=True)
class Ink:
    """The styles of a page; all but `base` are laid over it."""

    base: Style
    writer: Style
    bar: Style
    label: Style
    quiet: Style
    caret: Style
    selection: Style


def ink_of(page: Widget, prefix: str) -> Ink:
    """Take the styles from the component classes of a page, as its theme has them now."""
    screen = page.screen
    selection = screen.get_component_rich_style("screen--selection")
    if not screen.get_component_styles("screen--selection").color.a:
        # In most themes a selection colours the background alone.
        selection = Style(bgcolor=selection.bgcolor)
    return Ink(
        base=page.rich_style,
        selection=selection,
        **{name: page.get_component_rich_style(f"{prefix}--{name}") for name in INKS},
    )


@dataclass(frozen=True)
class RowPainter:
    """Draws rows of a story; made anew when what it holds changes."""

    story: StoryText
    ink: Ink
    width: int
    """Cells of a whole row."""
    left: int
    """Cells before the margin, which centre the column."""
    labels: tuple[str, str] | None = None
    """Names of writer and model, in a chat."""
    selected: tuple[int, int] | None = None
    """Offsets between which the text is selected."""
    streaming: bool = False

    def draw(self, y: int, places: bool = False) -> Strip:
        """Draw row `y` of the story, or an empty one below its end.

        places: with the meta data by which the mouse finds the place in the text. Without it all
        rows share a few styles.
        """
        base = self.ink.base
        place = _place if places else _nowhere
        if y >= self.story.row_count:
            return Strip([Segment(" " * self.width, base + place(0, y))], self.width)
        row = self.story.row(y)
        if not places and self._is_plain(y, row):
            text = " " * self._text_at + row.text
            return Strip([Segment(text.ljust(self.width), base)], self.width)
        outside = base + place(_MARGIN, y)
        segments = [Segment(" " * self.left, outside)]
        segments.extend(Segment(text, outside + style) for text, style in self._margin(y, row))
        x = 0
        for text, style in self._words(row):
            segments.append(Segment(text, base + style + place(x, y)))
            x += len(text)
        if y == self.story.row_count - 1:
            segments.extend(Segment(text, base + style) for text, style in self._ending())
        used = sum([cell_len(segment.text) for segment in segments])
        segments.append(Segment(" " * max(0, self.width - used), base + place(x, y)))
        strip = Strip([segment for segment in segments if segment.text], max(self.width, used))
        return strip.adjust_cell_length(self.width, base)

    @property
    def _text_at(self) -> int:
        """Cells before the text."""
        return self.left + BAR_CELLS + (label_cells(self.labels) if self.labels else 0)

    def _is_plain(self, y: int, row: Row) -> bool:
        """Whether a row is nothing but the model's words, all of one look: most rows are."""
        if self.selected is not None or y == self.story.row_count - 1 or not row.text.isascii():
            return False
        part = self.story.part_of(row.start, row.end)
        if part is None or part.author == "writer" or len(row.text) > self.story.width:
            return False
        return self.labels is None or self.story.begins_at(y) is None

    def _margin(self, y: int, row: Row) -> list[tuple[str, Style]]:
        """Name of the speaker (in a chat) and the bar beside the writer's words."""
        pieces = []
        if self.labels is not None:
            part = self.story.begins_at(y)
            label = "" if part is None else self.labels[part.author == "model"]
            pieces.append((set_cell_size(label, label_cells(self.labels)), self.ink.label))
        written = any(
            part.author == "writer" and row.text[start - row.start : end - row.start].strip()
            for start, end, part in self.story.spans(row.start, row.end)
        )
        pieces.append(((BAR if written else " ").ljust(BAR_CELLS), self.ink.bar))
        return pieces

    def _words(self, row: Row) -> list[tuple[str, Style]]:
        """Cut the text of a row where its style changes, never inside a grapheme."""
        text = row.text
        if cell_len(text) > self.story.width:  # spaces that hang over the edge
            text = set_cell_size(text.rstrip(" "), self.story.width)
        cuts = [
            (_snap(text, start - row.start), part.author)
            for start, _, part in self.story.spans(row.start, row.end)
        ]
        pieces = []
        for index, (start, author) in enumerate(cuts):
            end = cuts[index + 1][0] if index + 1 < len(cuts) else len(text)
            style = self.ink.writer if author == "writer" else Style.null()
            pieces.extend(self._mark_selected(text, row, start, end, style))
        return pieces

    def _mark_selected(
        self, text: str, row: Row, start: int, end: int, style: Style
    ) -> list[tuple[str, Style]]:
        if self.selected is None:
            return [(text[start:end], style)]
        first, last = (offset - row.start for offset in self.selected)
        first = min(max(_snap(text, first), start), end)
        last = max(min(_snap(text, last), end), first)
        chosen = style + self.ink.selection
        return [(text[start:first], style), (text[first:last], chosen), (text[last:end], style)]

    def _ending(self) -> list[tuple[str, Style]]:
        """What stands after the last word."""
        if self.streaming:
            return [(CARET, self.ink.caret)]
        last = self.story.last_part
        if last is not None and last.unfinished:
            return [(UNFINISHED, self.ink.quiet)]
        return []


def label_cells(labels: tuple[str, str]) -> int:
    """Cells of the names in a chat, with the gap after them."""
    return max(cell_len(label) for label in labels) + 1


def _snap(text: str, index: int) -> int:
    """Return the border of a grapheme at or after `index`."""
    index = min(max(0, index), len(text))
    while 0 < index < len(text) and joins_before(text, index):
        index += 1
    return index


def _place(x: int, y: int) -> Style:
    """Meta data by which the screen's mouse selection finds the place in the text."""
    return Style.from_meta({"offset": (x, y)})


def _nowhere(x: int, y: int) -> Style:
    """No meta data."""
    return _NULL
