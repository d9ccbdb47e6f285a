"""The models there are, as a table; what cannot run says why in its row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from rich.text import Text
from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import DataTable
from textual.worker import get_current_worker

from fireside.app.catalogue import ModelEntry
from fireside.app.tui.keybar import Key
from fireside.app.tui.screens.getting import GettingScreen

Find = Callable[[], Iterable[ModelEntry]]

# name, title, room from which it is shown
COLUMNS = (
    ("name", "Model", 0),
    ("architecture", "Kind", 84),
    ("parameters", "Size", 44),
    ("type", "Type", 64),
    ("file", "On disk", 54),
    ("none", "as is", 104),
    ("q8", "Q8", 104),
    ("q4", "Q4", 104),
    ("context", "Context", 74),
    ("note", "", 0),
)


TITLES = {name: title for name, title, _ in COLUMNS}
LEFT = ("name", "architecture", "type", "note")


class ModelsScreen(GettingScreen):
    """Dismissed with the model to use, or None."""

    TITLE_TEXT = "Models"
    FILTER_HINT = "filter by name, kind or type"
    EMPTY_HINT = "No such model."
    KEYS = (
        Key("⏎", "use", "screen.use"),
        Key("/", "filter", "screen.filter"),
        Key("g", "get another", "screen.get"),
        Key("esc", "back", "screen.back"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+o", "back", "Back", show=False),
    ]
    DEFAULT_CSS = """
    ModelsScreen DataTable {
        height: 1fr; margin: 0 1; background: $background;
        scrollbar-size-vertical: 1; overflow-x: hidden;
        &:focus { background-tint: transparent; }
        & > .datatable--header { background: $background; color: $text-muted; text-style: none; }
        & > .datatable--cursor { text-style: bold; }
    }
    """

    def __init__(self, find: Find, models: Path, current: str = "") -> None:
        super().__init__()
        self.find = find
        self.models = models
        self.current = current  # path of the model in use
        self.entries: list[ModelEntry] = []
        self.searching = True
        self.wanted: Path | None = None  # a model that has just come

    def compose_list(self) -> Widget:
        """A table whose rows are models."""
        return DataTable(id="list", cursor_type="row", zebra_stripes=False, cell_padding=1)

    def on_mount(self) -> None:
        """Look for models; opening their files may take a moment."""
        super().on_mount()
        self.detail("Looking for models…")
        self._look()

    def got(self, path: Path) -> None:
        """Look again, and stand on what has come."""
        self.wanted = path
        self.entries.clear()
        self.searching = True
        self._look()

    @work(thread=True, exclusive=True, group="looking")
    def _look(self) -> None:
        worker = get_current_worker()
        for entry in self.find():
            if worker.is_cancelled:
                return
            self.app.call_from_thread(self._found, entry)
        self.app.call_from_thread(self._all_found)

    def _found(self, entry: ModelEntry) -> None:
        self.entries.append(entry)
        if self.is_attached:  # it may have been left meanwhile
            self.refill(self.query_text)

    def _all_found(self) -> None:
        self.searching = False
        if self.is_attached:
            self.refill(self.query_text)

    # -- the table

    @property
    def table(self) -> DataTable[Text]:
        """The list."""
        return self.query_one(DataTable)

    def on_resize(self, event: events.Resize) -> None:
        """Show the columns there is room for."""
        self.refill(self.query_text)

    def refill(self, query: str) -> None:
        """Show the models that hold every word of the query."""
        table = self.table
        chosen = self.highlighted
        words = query.lower().split()
        shown = [e for e in self.entries if all(w in _haystack(e) for w in words)]
        rows = [row(entry, str(entry.path) == self.current) for entry in shown]
        table.clear(columns=True)
        widths = column_widths(rows, self.size.width - 6)
        for name, width in widths.items():
            justify: Literal["left", "right"] = "left" if name in LEFT else "right"
            table.add_column(Text(TITLES[name], justify=justify), width=width, key=name)
        for entry, cells in zip(shown, rows, strict=True):
            for name, width in widths.items():
                cells[name].truncate(width, overflow="ellipsis")
            table.add_row(*(cells[name] for name in widths), key=str(entry.path))
        wanted = self.wanted or (chosen.path if chosen is not None else None)
        paths = [entry.path for entry in shown]
        current = [e.path for e in shown if str(e.path) == self.current]
        if wanted not in paths and current:
            wanted = current[0]
        if wanted in paths:
            table.move_cursor(row=paths.index(wanted))
            if wanted == self.wanted:
                self.wanted = None
        self.show_empty(not shown and not self.searching)
        self._tell()

    @property
    def highlighted(self) -> ModelEntry | None:
        """The model under the cursor."""
        table = self.table
        if not table.row_count or not table.is_valid_row_index(table.cursor_row):
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return next((e for e in self.entries if str(e.path) == key), None)

    @on(DataTable.RowHighlighted)
    def _tell(self) -> None:
        entry = self.highlighted
        if entry is None:
            self.detail("Looking for models…" if self.searching else "")
        elif entry.problem:
            self.detail(f"{entry.path}\nCannot run: {entry.problem}")
        else:
            self.detail(f"{entry.path}\n{entry.format}  {entry.title}")

    @on(DataTable.RowSelected)
    def action_use(self) -> None:
        """Take the model into use, if it can run."""
        entry = self.highlighted
        if entry is None:
            return
        if entry.problem:
            self.notify(f"{entry.name} cannot run: {entry.problem}", severity="warning")
        else:
            self.dismiss(entry)


def column_widths(rows: Sequence[Mapping[str, Text]], room: int) -> dict[str, int]:
    """Cells of each column that the screen has room for; the last takes what is left.

    What is cut there stands in full at the foot.
    """
    widths: dict[str, int] = {}
    for name, title, least in COLUMNS:
        if room >= least:
            widths[name] = max([len(title), *(cells[name].cell_len for cells in rows)])
    widths["name"] = min(widths["name"], max(16, room // 3))
    used = sum(width + 2 for name, width in widths.items() if name != "note")
    widths["note"] = max(4, room - used)
    return widths


def row(entry: ModelEntry, in_use: bool) -> dict[str, Text]:
    """The cells of a model, by column."""
    style = "dim" if entry.problem else "bold" if in_use else ""
    mark = "▸ " if in_use else "  "
    if entry.problem:
        note = f"✗ {entry.problem}"
    elif in_use:
        note = "in use"
    else:
        note = "comes with Fireside" if entry.source == "embedded" else ""
    memory = {quant: _bytes(entry.memory.get(quant, 0)) for quant in ("none", "q8", "q4")}
    values = {
        "name": mark + entry.name,
        "architecture": entry.architecture,
        "parameters": _count(entry.parameters),
        "type": "+".join(list(entry.blocks)[:1]),
        "file": _bytes(entry.file_bytes),
        **memory,
        "context": str(entry.context or ""),
        "note": note,
    }
    return {
        name: Text(value, style=style, justify="left" if name in LEFT else "right")
        for name, value in values.items()
    }


def _haystack(entry: ModelEntry) -> str:
    parts = (entry.name, entry.title, entry.architecture, entry.format, *entry.blocks)
    return " ".join(parts).lower()


def _count(value: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return str(value or "")


def _bytes(value: int) -> str:
    if not value:
        return ""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value / 1000:.0f} kB"
