"""What the desk says: notes at the foot of the page, words in borders, errors above everything."""

from __future__ import annotations

from typing import Literal

from textual import on
from textual.content import Content
from textual.screen import Screen
from textual.style import Style
from textual.timer import Timer

from fireside.app.tui.widgets.manuscript import Manuscript
from fireside.app.tui.widgets.statusline import StatusLine

NOTE_SECONDS = 8.0


class DeskNotes(Screen[None]):
    """Speaks in one line at a time."""

    page: Manuscript

    def __init__(self) -> None:
        super().__init__()
        self._note_timer: Timer | None = None
        self._labels: dict[tuple[str, str], str] = {}

    def tell(self, message: str, error: bool = False) -> None:
        """One line for the writer: at the foot of the page, what went wrong above everything."""
        if error:
            self.notify(message, severity="error", timeout=12, markup=False)
            return
        self._note(message)
        if self._note_timer is not None:
            self._note_timer.stop()
        self._note_timer = self.set_timer(NOTE_SECONDS, self.show_lines_below)

    def _note(self, message: str) -> None:
        self.label("#book", "border_subtitle", message)
        self.query_one(StatusLine).note = message

    def label(
        self,
        selector: str,
        place: Literal["border_title", "border_subtitle"],
        text: str,
        action: str = "",
    ) -> None:
        """Set a word in a border, if it differs: it draws all that the border holds anew.

        action: of the screen, what a click on it does.
        """
        if self._labels.get((selector, place)) != text:
            self._labels[selector, place] = text
            click = Style.from_meta({"@click": f"screen.{action}"}) if action else Style()
            setattr(self.query_one(selector), place, Content.styled(text, click) if text else None)

    @on(Manuscript.FollowingChanged)
    def show_lines_below(self) -> None:
        """Say how much has come below the fold, if the reader is not at the end."""
        below = self.page.lines_below
        self._note(f"↓ {below} new line{'s' if below != 1 else ''}" if below else "")
