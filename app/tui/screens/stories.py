"""The stories there are: open, search, rename, delete with a way back, export."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from fireside.app.library import Library, LibraryError, StorySummary
from fireside.app.library.export import to_json, to_markdown, to_text, write_export
from fireside.app.tui.keybar import Key
from fireside.app.tui.screens.listing import ListingScreen

FORMATS = {".md": "Markdown", ".txt": "text", ".json": "JSON"}


@dataclass(frozen=True)
class Chosen:
    """What the writer wants of the desk; `renamed` and `deleted` tell of the story on the page."""

    story_id: int


class StoriesScreen(ListingScreen[Chosen]):
    """Dismissed with the story to open, or None."""

    TITLE_TEXT = "Stories"
    FILTER_HINT = "search titles and texts"
    EMPTY_HINT = "No stories yet: what you write on the desk is kept here by itself."
    KEYS = (
        Key("⏎", "open", "screen.open", 0),
        Key("/", "search", "screen.filter", 2),
        Key("r", "rename", "screen.rename", 3),
        Key("d", "delete", "screen.delete", 4),
        Key("u", "undelete", "screen.undelete", 5),
        Key("e", "export", "screen.export", 6),
        Key("esc", "back", "screen.back", 1),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "back", "Back", show=False),
        Binding("r,f2", "rename", "Rename", show=False),
        Binding("d,delete", "delete", "Delete", show=False),
        Binding("u,ctrl+z", "undelete", "Undelete", show=False),
        Binding("e", "export", "Export", show=False),
    ]
    DEFAULT_CSS = """
    StoriesScreen {
        OptionList {
            height: 1fr; margin: 0 1; padding: 0; border: none; background: $background;
            &:focus { border: none; background-tint: transparent; }
        }
        #line {
            height: 1; margin: 0 2; padding: 0; border: none; background: $surface;
            &:focus { border: none; }
        }
    }
    """

    def __init__(
        self,
        library: Library,
        current: int | None,
        told: Callable[[int, str | None], None] = lambda story, title: None,
        begin: str = "",
    ) -> None:
        """`told` hears of a story that was renamed (its title) or deleted (None).

        begin: "rename" or "export" asks at once for what the current story needs.
        """
        super().__init__()
        self.library = library
        self.current = current
        self.told = told
        self.summaries: list[StorySummary] = []
        self.deleted: list[StorySummary] = []
        self._begin = begin
        self._purpose = ""  # of the line at the foot: rename or export
        self._about: StorySummary | None = None

    def compose_list(self) -> Widget:
        """Two lines for each story."""
        return OptionList(id="list")

    def on_mount(self) -> None:
        """Read the list."""
        super().on_mount()
        line = Input(id="line", select_on_focus=False)
        line.display = False
        self.mount(line, before="#detail")
        self.refill("")
        if self._begin:
            self.call_after_refresh(
                self.action_rename if self._begin == "rename" else self.action_export
            )

    def on_resize(self) -> None:
        """Right edges have moved."""
        self.refill(self.query_text)

    # -- the list

    @property
    def options(self) -> OptionList:
        """The list."""
        return self.query_one("#list", OptionList)

    @property
    def highlighted(self) -> StorySummary | None:
        """The story under the cursor."""
        at = self.options.highlighted
        return self.summaries[at] if at is not None and at < len(self.summaries) else None

    def refill(self, query: str) -> None:
        """Show the stories that hold every word of the query."""
        before = self.highlighted
        try:
            self.summaries = self.library.stories(query)
        except LibraryError as error:
            self.detail(str(error))
            return
        width = max(20, self.size.width - 6)
        options = self.options
        options.clear_options()
        options.add_options(
            Option(lines(s, s.id == self.current, width), id=str(s.id)) for s in self.summaries
        )
        ids = [s.id for s in self.summaries]
        wanted = before.id if before is not None else self.current
        if ids:
            options.highlighted = ids.index(wanted) if wanted in ids else 0
        self.show_empty(not ids, "No story holds these words." if query else "")

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.action_open()

    def action_open(self) -> None:
        """Put the story on the page."""
        if self.highlighted is not None:
            self.dismiss(Chosen(self.highlighted.id))

    # -- deleting, and back

    def action_delete(self) -> None:
        """Put the story into the bin."""
        summary = self.highlighted
        if summary is None or not self._try(lambda: self.library.delete(summary.id)):
            return
        self.deleted.append(summary)
        self.told(summary.id, None)
        self.refill(self.query_text)
        self.detail(f"“{summary.display_title}” is deleted. u brings it back.")

    def action_undelete(self) -> None:
        """Take the story that was deleted last out of the bin."""
        if not self.deleted:
            self.detail("Nothing was deleted here.")
            return
        summary = self.deleted.pop()
        if self._try(lambda: self.library.restore(summary.id)):
            self.refill(self.query_text)
            self.detail(f"“{summary.display_title}” is back.")

    # -- the line at the foot

    def action_rename(self) -> None:
        """Ask for a title."""
        if self.highlighted is not None:
            self._ask("rename", self.highlighted, self.highlighted.title, "a title")

    def action_export(self) -> None:
        """Ask for a file."""
        summary = self.highlighted
        if summary is not None:
            path = Path.home() / f"{file_name(summary.display_title)}.md"
            self._ask("export", summary, str(path), "a file: .md, .txt or .json")

    def _ask(self, purpose: str, about: StorySummary, value: str, hint: str) -> None:
        self._purpose, self._about = purpose, about
        line = self.query_one("#line", Input)
        line.value, line.placeholder, line.display = value, hint, True
        line.cursor_position = len(value)
        self.set_focus(line)
        verb = "Rename" if purpose == "rename" else "Export"
        self.detail(f"{verb} “{about.display_title}”: {hint}, then ⏎; esc leaves it.")

    def action_back(self) -> None:
        """Leave the line at the foot, the filter, the screen: one at a time."""
        if self._purpose:
            self._leave_line()
            self.detail("")
        else:
            super().action_back()

    def _leave_line(self) -> None:
        self._purpose = ""
        self.query_one("#line").display = False
        self.set_focus(self.options)

    @on(Input.Submitted, "#line")
    def _line_done(self, event: Input.Submitted) -> None:
        event.stop()
        summary, value = self._about, event.value.strip()
        if summary is None:
            return
        if self._purpose == "rename":
            if self._try(lambda: self.library.rename(summary.id, value)):
                self._leave_line()
                self.told(summary.id, value)
                self.refill(self.query_text)
                self.detail("")
        elif value:
            path = Path(value).expanduser()
            if self._try(lambda: export(self.library, summary.id, path)):
                self._leave_line()
                self.detail(f"Written to {path}.")

    def _try(self, deed: Callable[[], object]) -> bool:
        try:
            deed()
        except (LibraryError, OSError) as error:
            self.detail(str(error))
            return False
        return True


def export(library: Library, story_id: int, path: Path) -> None:
    """Write a story to `path`, in the format of its suffix. Raises LibraryError."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise LibraryError(f"{path.name} says no known format.", f"End it in {', '.join(FORMATS)}.")
    story = library.story(story_id)
    if kind == "JSON":
        text = to_json(story, library.passages(story_id))
    else:
        write = to_markdown if kind == "Markdown" else to_text
        text = write(story, library.path(story_id))
    write_export(path, text)


def file_name(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"[^\w-]+", "-", title).strip("-").lower()[:60] or "story"


def lines(summary: StorySummary, current: bool, width: int) -> Text:
    """A story in the list: its title and when it was touched, some words under it."""
    when = f"{_parts(summary.passages)} · {ago(summary.updated)}"
    if summary.mode == "chat":
        when = f"chat · {when}"
    title = Text(("▸ " if current else "  ") + summary.display_title, style="bold")
    title.truncate(max(8, width - len(when) - 2), overflow="ellipsis")
    text = title + Text(" " * max(2, width - title.cell_len - len(when)) + when, style="dim")
    words = Text("  " + summary.snippet, no_wrap=True)
    for start, end in summary.matches:
        words.stylize("bold underline", start + 2, end + 2)
    words.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True).join([text, words])


def _parts(count: int) -> str:
    return "1 part" if count == 1 else f"{count} parts"


def ago(moment: float, now: float | None = None) -> str:
    """How long ago, roughly."""
    seconds = (time.time() if now is None else now) - moment
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if seconds < 86_400:
        return f"{int(seconds // 3600)} h ago"
    if seconds < 7 * 86_400:
        days = int(seconds // 86_400)
        return "yesterday" if days == 1 else f"{days} days ago"
    return time.strftime("%d %b %Y", time.localtime(moment))
