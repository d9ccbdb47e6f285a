"""One of a few, in one line: `( ) as is  (•) Q8  ( ) Q4`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

CHOSEN, FREE = "(•) ", "( ) "
GAP = "  "


class Choice(Widget, can_focus=True):
    """A radio row. Arrows move, enter or space chooses, a digit or a click chooses at once.

    Moving alone changes nothing, since a choice may be costly (it may load a model). Where the
    row is too narrow, what is free has no mark: `(•) as is  Q8  Q4`; where that is too wide too, it
    shows the one under the cursor between arrows.
    """

    ALLOW_SELECT = False

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "move(1)", "Next", show=False),
        Binding("left", "move(-1)", "Previous", show=False),
        Binding("home", "move(-1000)", "First", show=False),
        Binding("end", "move(1000)", "Last", show=False),
        Binding("enter,space", "choose", "Choose", show=False),
    ]

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "choice--label",
        "choice--option",
        "choice--chosen",
        "choice--cursor",
    }

    DEFAULT_CSS = """
    Choice {
        height: 1;
        width: 1fr;
        & > .choice--option { color: $text-muted; }
        & > .choice--chosen { color: $foreground; text-style: bold; }
        & > .choice--cursor { text-style: underline; }
        &:focus > .choice--label { text-style: bold reverse; }
        &:focus > .choice--cursor { text-style: reverse; }
        &:disabled > .choice--label,
        &:disabled > .choice--option,
        &:disabled > .choice--chosen { color: $text-disabled; }
    }
    """

    value: reactive[str] = reactive("", init=False)
    """What is chosen."""
    cursor: reactive[int] = reactive(0, init=False)
    """The option that enter would choose."""

    class Changed(Message):
        """Another option was chosen, by a person or by code."""

        def __init__(self, choice: Choice, value: str) -> None:
            super().__init__()
            self.choice = choice
            self.value = value

        @property
        def control(self) -> Choice:
            """The row that changed."""
            return self.choice

    def __init__(
        self,
        options: Sequence[tuple[str, str]],
        value: str | None = None,
        *,
        label: str = "",
        label_width: int | None = None,
        tooltip: str | None = None,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        """Create a row of `(value, text)` options; the first is chosen, if `value` is not given."""
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        if not options:
            raise ValueError("a choice needs options")
        self.options = tuple(options)
        self.label = label
        self.label_width = (cell_len(label) if label_width is None else label_width) if label else 0
        if tooltip is not None:
            self.tooltip = tooltip
        first = self.options[0][0] if value is None else self.validate_value(value)
        self.set_reactive(Choice.value, first)
        self.set_reactive(Choice.cursor, self._index(first))

    def _index(self, value: str) -> int:
        return next(index for index, option in enumerate(self.options) if option[0] == value)

    def validate_value(self, value: str) -> str:
        """Refuse what is not on offer."""
        known = [option for option, _ in self.options]
        if value not in known:
            raise ValueError(f"{value!r} is none of {', '.join(known)}")
        return value

    def watch_value(self, value: str) -> None:
        """Tell that it changed."""
        self.cursor = self._index(value)
        self.post_message(self.Changed(self, value))

    def validate_cursor(self, cursor: int) -> int:
        """Stay on the options."""
        return min(max(cursor, 0), len(self.options) - 1)

    def action_move(self, count: int) -> None:
        """Move the cursor."""
        self.cursor += count

    def action_choose(self) -> None:
        """Choose what is under the cursor."""
        self.value = self.options[self.cursor][0]

    def on_key(self, event: events.Key) -> None:
        """A digit chooses the option of that number."""
        character = event.character or ""
        if character.isascii() and character.isdigit():
            index = int(character) - 1
            if 0 <= index < len(self.options):
                event.stop()
                self.value = self.options[index][0]

    def on_blur(self) -> None:
        """The cursor returns to what is chosen."""
        self.cursor = self._index(self.value)

    def on_click(self, event: events.Click) -> None:
        """Choose what was clicked."""
        if not self._fits:
            self._step_by_click(event.x - self._start)
            return
        x = self._start
        for value, text in self.options:
            width = cell_len(self._mark(value) + text)
            if x <= event.x < x + width:
                self.value = value
                return
            x += width + len(GAP)

    def _step_by_click(self, x: int) -> None:
        """‹ chooses the option before, the name and › the next, in a circle; nothing else does."""
        width = cell_len("‹ " + FREE + self.options[self.cursor][1] + " ›")
        if 0 <= x < width:
            self.cursor = (self.cursor + (-1 if x < cell_len("‹ ") else 1)) % len(self.options)
            self.action_choose()

    @property
    def _start(self) -> int:
        return self.label_width + 1 if self.label else 0

    @property
    def _room(self) -> int:
        """Cells that are left when the texts of all options have theirs."""
        texts = sum(cell_len(text) + len(GAP) for _, text in self.options) - len(GAP)
        return self.size.width - self._start - texts

    @property
    def _fits(self) -> bool:
        return self._room >= len(CHOSEN)

    def _mark(self, value: str) -> str:
        """What stands before an option."""
        if value == self.value:
            return CHOSEN
        return FREE if self._room >= len(FREE) * len(self.options) or not self._fits else ""

    def render_line(self, y: int) -> Strip:
        """Draw the only line."""
        base = self.rich_style
        if y:
            return Strip.blank(self.size.width, base)
        segments = []
        if self.label:
            style = self.get_component_rich_style("choice--label")
            segments.append(Segment(set_cell_size(self.label, self.label_width), style))
            segments.append(Segment(" ", base))
        if self._fits:
            for index, (_, text) in enumerate(self.options):
                segments.append(Segment(GAP if index else "", base))
                segments.extend(self._draw_option(index, text))
        else:
            quiet = self.get_component_rich_style("choice--option")
            segments.append(Segment("‹ ", quiet))
            segments.extend(self._draw_option(self.cursor, self.options[self.cursor][1]))
            segments.append(Segment(" ›", quiet))
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def _draw_option(self, index: int, text: str) -> list[Segment]:
        chosen = self.options[index][0] == self.value
        style = self.get_component_rich_style("choice--chosen" if chosen else "choice--option")
        cursor = Style.null()
        if self.has_focus and index == self.cursor:
            cursor = self.get_component_rich_style("choice--cursor", partial=True)
        return [Segment(self._mark(self.options[index][0]), style), Segment(text, style + cursor)]
