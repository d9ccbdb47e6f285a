"""One line of what matters, for a terminal too small for the panels."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from fireside.app.tui.widgets.header import shorten
from fireside.app.tui.widgets.meter import MeterState
from fireside.app.tui.widgets.numbers import grouped, seconds

SEPARATOR = " · "


class StatusLine(Widget):
    """Speed, context and model in one line; a note takes its place for as long as it stands."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"status--text", "status--note"}

    DEFAULT_CSS = """
    StatusLine {
        height: 1;
        & > .status--text { color: $text-muted; }
        & > .status--note { color: $foreground; text-style: bold; }
    }
    """

    note: reactive[str] = reactive("")
    """Something to tell right now ("↓ 3 new lines", an error); empty for the usual line."""
    model: reactive[str] = reactive("")
    """Name of the model, the first to go where there is no room."""

    def __init__(
        self,
        state: MeterState | None = None,
        *,
        model: str = "",
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """Create a status line."""
        super().__init__(name=name, id=id, classes=classes)
        self._state = state or MeterState()
        self.set_reactive(StatusLine.model, model)

    def update_state(self, state: MeterState) -> None:
        """Show another state."""
        before, self._state = self._state, state
        if self.display and self._pieces(before) != self._pieces(state):
            self.refresh()

    def _pieces(self, state: MeterState) -> list[str]:
        pieces = []
        if state.reading:
            done, total = grouped(state.prefill_done), grouped(state.prefill_total)
            pieces.append(f"reading {done:>{len(total)}} of {total}")
            if state.prefill_seconds_left is not None:
                pieces.append(f"{seconds(state.prefill_seconds_left)} left")
        else:
            pieces.append(state.speed_text)
        if state.context_size:
            size = grouped(state.context_size)
            pieces.append(f"{grouped(state.context_used):>{len(size)}} of {size}")
        if self.model:
            pieces.append(self.model)
        return pieces

    def render_line(self, y: int) -> Strip:
        """Draw the only line."""
        width = self.size.width
        if self.note:
            text, style = shorten(self.note, width), "status--note"
        else:
            pieces = self._pieces(self._state)
            while len(pieces) > 1 and cell_len(SEPARATOR.join(pieces)) > width:
                pieces.pop()
            text, style = shorten(SEPARATOR.join(pieces), width), "status--text"
        segment = Segment(text, self.get_component_rich_style(style))
        return Strip([segment]).adjust_cell_length(width, self.rich_style)
