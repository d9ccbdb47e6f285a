"""The top line: the program, the story, the model that writes it."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from fireside.app.tui.widgets.meter import gauge

GAP = "   "


def shorten(text: str, width: int) -> str:
    """Cut text to a width, with an ellipsis where something is missing."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


class StoryHeader(Widget):
    """One line; where it is narrow the kernels give way, then the name, then the model."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "header--name",
        "header--title",
        "header--detail",
        "header--bar",
    }

    DEFAULT_CSS = """
    StoryHeader {
        height: 1;
        dock: top;
        padding: 0 1;
        background: $panel;
        color: $foreground;
        & > .header--name { color: $primary; text-style: bold; }
        & > .header--title { text-style: bold; }
        & > .header--detail { color: $text-muted; }
        & > .header--bar { color: $primary; }
    }
    """

    story_title: reactive[str] = reactive("")
    """Name of the story."""
    detail: reactive[str] = reactive("")
    """Model, quantisation and kernels: "storyteller · q8 · native avx2"."""
    progress: reactive[float | None] = reactive[float | None](None)
    """Share of a model that is loaded, 0 to 1; None while none loads."""
    activity: reactive[str] = reactive("")
    """What the bar stands for: "loading Q4"."""

    class TitleClicked(Message):
        """The title was clicked: somebody wants to rename the story."""

        def __init__(self, header: StoryHeader) -> None:
            super().__init__()
            self.header = header

        @property
        def control(self) -> StoryHeader:
            """The header that was clicked."""
            return self.header

    class DetailClicked(TitleClicked):
        """The model was clicked: somebody wants another one."""

    def __init__(
        self,
        story_title: str = "",
        detail: str = "",
        *,
        app_name: str = "Fireside",
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """Create a header."""
        super().__init__(name=name, id=id, classes=classes)
        self.app_name = app_name
        self.set_reactive(StoryHeader.story_title, story_title)
        self.set_reactive(StoryHeader.detail, detail)

    def on_click(self, event: events.Click) -> None:
        """Tell what was clicked."""
        x = event.get_content_offset_capture(self).x
        left, right = self._texts()
        if x >= self.size.width - cell_len(right):
            self.post_message(self.DetailClicked(self))
        elif x < sum(cell_len(text) for text in left):
            self.post_message(self.TitleClicked(self))

    def _right(self, width: int) -> str:
        if self.progress is None:
            return self.detail
        percent = f"{round(self.progress * 100):>3} %"
        bar = gauge(self.progress, 12 if width >= 60 else 6)
        return f"{self.activity} {bar} {percent}".lstrip()

    def _texts(self) -> tuple[tuple[str, str], str]:
        """Name and title at the left, model or progress at the right, as they fit."""
        width = self.size.width
        right = self._right(width)
        name = self.app_name + GAP
        wishes = [(name, right)]
        if self.progress is None:
            words = right.split(" · ")
            wishes += [(name, " · ".join(words[:count])) for count in range(len(words) - 1, 0, -1)]
            wishes += [("", words[0]), (name, "")]
        else:
            wishes.append(("", right))
        for name, right in wishes:
            room = width - cell_len(name) - (cell_len(right) + len(GAP) if right else 0)
            if cell_len(self.story_title) <= room:
                return (name, self.story_title), right
        # Not even the title has room: while a model loads, its bar is worth more.
        right = right if self.progress is not None else ""
        room = width - (cell_len(right) + len(GAP) if right else 0)
        return ("", shorten(self.story_title, room)), shorten(right, width)

    def render_line(self, y: int) -> Strip:
        """Draw the only line."""
        width = self.size.width
        (name, title), right = self._texts()
        style = self.get_component_rich_style
        space = max(0, width - cell_len(name + title) - cell_len(right))
        end = style("header--detail" if self.progress is None else "header--bar")
        segments = [
            Segment(name, style("header--name")),
            Segment(title, style("header--title")),
            Segment(" " * space, self.rich_style),
            Segment(right, end),
        ]
        return Strip(segments).adjust_cell_length(width, self.rich_style)
