"""The page: a story as it is written, smooth at a thousand tokens a second.

A line-API view. Only rows that changed are wrapped and drawn anew, whatever the length of the
story. The writer's words are bold and marked by a bar in the margin, so that they differ from the
model's without colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import events
from textual.geometry import Offset, Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.scrollbar import ScrollBar
from textual.selection import Selection
from textual.strip import Strip

from fireside.app.tui.widgets.page_row import BAR_CELLS, INKS, RowPainter, ink_of, label_cells
from fireside.app.tui.widgets.plain import PlainBar, PlainRows
from fireside.app.tui.widgets.story_text import Part, StoryText

__all__ = ["Manuscript", "Part"]

# Rows kept as drawn: a few windows full.
KEPT_STRIPS = 400


class Manuscript(PlainRows, ScrollView, can_focus=True):
    """The story as a page that follows its end only while the reader is there."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"manuscript--{name}" for name in INKS}

    DEFAULT_CSS = """
    Manuscript {
        background: $background;
        color: $foreground;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-gutter: stable;
        scrollbar-size-vertical: 1;
        & > .manuscript--writer { text-style: bold; }
        & > .manuscript--bar { color: $primary; }
        & > .manuscript--label { color: $primary; text-style: bold; }
        & > .manuscript--quiet { color: $text-muted; }
        & > .manuscript--caret { color: $primary; }
    }
    """

    following: reactive[bool] = reactive(True, init=False, repaint=False)
    """Whether the view stays at the end as the story grows."""
    lines_below: reactive[int] = reactive(0, init=False, repaint=False)
    """Rows that have come since the reader scrolled away and are still below the fold."""
    streaming: reactive[bool] = reactive(False, init=False, repaint=False)
    """Whether words are coming: shows a caret after the last one."""

    class PartClicked(Message):
        """The reader clicked a part of the story."""

        def __init__(self, manuscript: Manuscript, part_id: int) -> None:
            super().__init__()
            self.manuscript = manuscript
            self.part_id = part_id

        @property
        def control(self) -> Manuscript:
            """The page that was clicked."""
            return self.manuscript

    @dataclass
    class FollowingChanged(Message):
        """The reader left the end of the story or came back to it."""

        manuscript: Manuscript
        following: bool

        @property
        def control(self) -> Manuscript:
            """The page that was scrolled."""
            return self.manuscript

    def __init__(
        self,
        parts: Sequence[Part] = (),
        *,
        layout: Literal["story", "chat"] = "story",
        labels: tuple[str, str] = ("You", "Story"),
        measure: int = 76,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        """Create a page.

        parts: what it shows first.
        layout: "story" joins the parts in a line, "chat" begins each with its author's name.
        labels: names of the writer and of the model in a chat.
        measure: cells of a line of text at most.
        """
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        self.measure = measure
        self.labels = labels
        self._chat = layout == "chat"
        self._story = StoryText(measure, separate=self._chat)
        self._strips: dict[int, Strip] = {}
        self._painter: RowPainter | None = None
        self._left = 0  # cells before the margin bar, to centre the column
        self._moving = False  # we scroll, not the reader
        self._rows_when_left = 0
        self._thumb = (0, 0)  # place and size of the scroll bar's thumb, in eighths of a cell
        self._story.show(parts)

    # -- what it shows

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the story, in order."""
        return self._story.parts

    @property
    def text(self) -> str:
        """The whole story as it was given."""
        return "".join(part.text for part in self._story.parts)

    @property
    def page_layout(self) -> Literal["story", "chat"]:
        """How parts stand to each other."""
        return "chat" if self._chat else "story"

    @page_layout.setter
    def page_layout(self, layout: Literal["story", "chat"]) -> None:
        if layout != self.page_layout:
            parts = self._story.parts
            self._chat = layout == "chat"
            self._story = StoryText(self._story.width, separate=self._chat)
            self._story.show(parts)
            if self.is_mounted:
                self._fit(self.size.width)

    def show(self, parts: Sequence[Part]) -> None:
        """Show these parts; the reader keeps the place if it stands in the common beginning."""
        top = self._top()
        selected = self.selected_text if self.is_mounted else ""
        changed = self._story.show(parts)
        if selected and self.selected_text != selected:
            self.screen.clear_selection()
        if not self.following and changed <= self._story.row_at(top):
            self._set_following(True)
        self._changed(changed)

    def begin(self, part: Part) -> None:
        """Add a new last part."""
        self._changed(self._story.begin(part))

    def append(self, text: str) -> None:
        """Let text join the last part."""
        self._changed(self._story.append(text))

    def jump_to_end(self) -> None:
        """Go to the end and follow it."""
        self._set_following(True)
        self._scroll_to_row(self.max_scroll_y)

    def jump_to_start(self) -> None:
        """Go to the beginning and stay there."""
        self._set_following(False)
        self._scroll_to_row(0)

    # -- selection

    @property
    def selected_text(self) -> str:
        """What the mouse has selected, soft line ends left out."""
        selection = self.text_selection
        return "" if selection is None else self._story.slice(*self._selected_range(selection))

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Answer the screen, which gathers the selected text of all widgets."""
        return self._story.slice(*self._selected_range(selection)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Draw the selection."""
        self._forget_drawn()
        self.refresh()

    def _selected_range(self, selection: Selection) -> tuple[int, int]:
        first, last = selection
        start = 0 if first is None else self._offset_of(first)
        end = self._story.length if last is None else self._offset_of(last)
        return start, end

    def _offset_of(self, place: Offset) -> int:
        if place.y >= self._story.row_count:
            return self._story.length
        row = self._story.row(max(0, place.y))
        return row.start + min(max(0, place.x), row.end - row.start)

    # -- place

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """See whether the reader has left the end."""
        if round(old_value) != round(new_value):
            self._repaint_rows(0)
        self._update_bar()
        if not self._moving:
            self._set_following(new_value >= self.max_scroll_y)
        self._count_below()

    def watch_following(self, following: bool) -> None:
        """Tell the screen."""
        self.post_message(self.FollowingChanged(self, following))

    def watch_streaming(self) -> None:
        """Draw or take away the caret."""
        self._painter = None
        last = self._story.row_count - 1
        self._forget_rows(last)
        self._repaint_rows(max(0, last - round(self.scroll_y)))

    def _set_following(self, following: bool) -> None:
        if self.following and not following:
            self._rows_when_left = self._story.row_count
        self.following = following
        self._count_below()

    def _count_below(self) -> None:
        new = self._story.row_count - self._rows_when_left
        hidden = self._story.row_count - round(self.scroll_y) - self.size.height
        self.lines_below = 0 if self.following else max(0, min(new, hidden))

    def _scroll_to_row(self, y: float) -> None:
        with self._our_move():
            # Not by `scroll_to`: the first row too many comes before the bar that it asks for.
            self.app.animator.force_stop_animation(self, "scroll_y")
            self.scroll_target_y = y
            self.scroll_y = y

    @contextmanager
    def _our_move(self) -> Iterator[None]:
        """Scrolling inside is not the reader's doing."""
        before, self._moving = self._moving, True
        try:
            yield
        finally:
            self._moving = before

    def _top(self) -> int:
        """Offset of the first character in view."""
        y = min(round(self.scroll_y), self._story.row_count - 1)
        return self._story.row(y).start

    def _changed(self, first: int) -> None:
        """Rows from `first` on are new."""
        if not self.is_mounted:
            return  # the first resize will see to everything
        rows = self._story.row_count
        # Assigning `virtual_size` would lay out the whole screen for every new row; nothing but
        # the scroll bar depends on it.
        self.set_reactive(Manuscript.virtual_size, Size(0, rows))
        self._rows_when_left = min(self._rows_when_left, rows)
        self._forget_rows(first)
        top, last = round(self.scroll_y), self.max_scroll_y
        if top != last and (self.following or top > last):
            # As `_scroll_to_row` does, but nobody needs to be asked who it was.
            self.app.animator.force_stop_animation(self, "scroll_y")
            self.set_reactive(Manuscript.scroll_target_y, last)
            self.set_reactive(Manuscript.scroll_y, last)
            first = top = last
        self._repaint_rows(max(0, first - top))
        self._update_bar()
        self._count_below()

    def _update_bar(self) -> None:
        """Let the scroll bar follow, where it would look different: drawing it is half a frame."""
        rows, height = self._story.row_count, self.size.height
        thumb = (0, 0)
        if rows > height:
            eighths = height * 8
            thumb = (round(eighths * self.scroll_y / rows), round(eighths * height / rows))
        if thumb == self._thumb:
            return
        self._thumb = thumb
        if (rows > height) != self.show_vertical_scrollbar:
            with self._our_move():
                self._scroll_update(self.virtual_size)
        if self.show_vertical_scrollbar:
            bar = self.vertical_scrollbar
            bar.set_reactive(ScrollBar.window_virtual_size, rows)
            bar.set_reactive(ScrollBar.window_size, height)
            bar.set_reactive(ScrollBar.position, bar.validate_position(self.scroll_y))
            bar.repaint(bar.size.region)

    def _forget_rows(self, first: int) -> None:
        """Rows of the story from `first` on are no longer as they were drawn."""
        for y in [y for y in self._strips if y >= first]:
            del self._strips[y]

    def _repaint_rows(self, top: int) -> None:
        """Have the rows of the window from `top` on drawn anew, but not the scroll bar."""
        height = self.size.height
        if top < height:
            self.repaint(Region(0, top, self._row_width, height - top))

    @property
    def _row_width(self) -> int:
        """Cells of a row, up to the scroll bar."""
        bar = self.scrollbar_size_vertical if self.show_vertical_scrollbar else 0
        return self.size.width - bar

    def on_resize(self, event: events.Resize) -> None:
        """Wrap to the new width; the reader keeps the line that was on top."""
        self._fit(event.size.width)

    def _fit(self, width: int) -> None:
        if not width:
            return  # hidden
        self._forget_drawn()
        gutter = BAR_CELLS + (label_cells(self.labels) if self._chat else 0)
        text_width = max(2, min(self.measure, width - gutter - 1))
        self._left = max(0, (width - text_width - gutter - 1) // 2)
        if text_width != self._story.width or self._chat:
            top, unseen = self._top(), self._story.row_count - self._rows_when_left
            self._story.rewrap(text_width)
            if not self.following:
                self._rows_when_left = self._story.row_count - unseen
                self.set_reactive(Manuscript.virtual_size, Size(0, self._story.row_count))
                self._scroll_to_row(self._story.row_at(top))
        self._changed(0)

    @property
    def vertical_scrollbar(self) -> PlainBar:
        """The scroll bar, made when it is first needed."""
        bar = self._vertical_scrollbar
        if not isinstance(bar, PlainBar):
            self._vertical_scrollbar = bar = PlainBar(
                name="vertical", thickness=self.scrollbar_size_vertical
            )
            bar.display = False
            self.app._start_widget(self, bar)
        return bar

    # -- keys and mouse

    def action_scroll_up(self) -> None:
        """One line back."""
        self.scroll_relative(y=-1, animate=False)

    def action_scroll_down(self) -> None:
        """One line on."""
        self.scroll_relative(y=1, animate=False)

    def action_page_up(self) -> None:
        """One page back; a line stays in view for orientation."""
        self.scroll_relative(y=1 - self.size.height, animate=False)

    def action_page_down(self) -> None:
        """One page on."""
        self.scroll_relative(y=self.size.height - 1, animate=False)

    def action_scroll_home(self) -> None:
        """To the beginning."""
        self.scroll_to(y=0, animate=False)

    def action_scroll_end(self) -> None:
        """To the end, and stay there."""
        self.jump_to_end()

    def on_click(self, event: events.Click) -> None:
        """Tell which part was clicked; two clicks select a word, three the paragraph."""
        _, place = self.screen.get_widget_and_offset_at(event.screen_x, event.screen_y)
        if place is None or place.y >= self._story.row_count:
            return
        offset = self._offset_of(place)
        if event.chain == 1:
            if part := self._story.part_at(offset):
                self.post_message(self.PartClicked(self, part.id))
            return
        event.prevent_default()  # Textual would select the whole story
        find = self._story.word_at if event.chain == 2 else self._story.paragraph_at
        rows = [(end, self._story.row_at(end)) for end in find(offset)]
        ends = [Offset(end - self._story.row(row).start, row) for end, row in rows]
        self.screen.selections = {self: Selection(*ends)}

    # -- drawing

    def notify_style_update(self) -> None:
        """Forget strips drawn in the old theme."""
        super().notify_style_update()
        self._forget_drawn()

    def rows(self, lines: range) -> list[Strip]:
        """Draw rows of the window, and of the padding above and below it."""
        height, width, above = self.size.height, self._row_width, self.styles.padding.top
        top = round(self.scroll_y) - above
        return [
            self._row(y + top, width)
            if above <= y < above + height
            else Strip.blank(width, self.rich_style)
            for y in lines
        ]

    def _row(self, y: int, width: int) -> Strip:
        """Row `y` of the story."""
        strip = self._strips.get(y)
        if strip is None or strip.cell_length != width:
            if len(self._strips) > KEPT_STRIPS:
                self._strips.clear()
            strip = self._strips[y] = self._painter_now(width).draw(y)
        return strip

    def render_line(self, y: int) -> Strip:
        """Row `y` of the window with its places in the text, for the mouse."""
        if not 0 <= y < self.size.height:
            return Strip.blank(self.size.width, self.rich_style)
        painter = self._painter_now(self.size.width)
        return painter.draw(y + round(self.scroll_y), places=True)

    def _painter_now(self, width: int) -> RowPainter:
        """What draws rows of so many cells in the present styles and selection."""
        if self._painter is None or self._painter.width != width:
            selection = self.text_selection
            self._painter = RowPainter(
                self._story,
                ink_of(self, "manuscript"),
                width=width,
                left=self._left,
                labels=self.labels if self._chat else None,
                selected=None if selection is None else self._selected_range(selection),
                streaming=self.streaming,
            )
        return self._painter

    def _forget_drawn(self) -> None:
        """Everything looks different: styles, selection or size changed."""
        self._painter = None
        self._strips.clear()
