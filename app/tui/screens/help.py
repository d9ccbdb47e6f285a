"""All keys on one page."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from fireside.app.tui.commands import COMMANDS
from fireside.app.tui.keybar import Key, KeyBar

INTRODUCTION = """\
Write a line and press enter: your words join the story and the model goes on. Your own words \
are bold, with a bar beside them. Everything is saved as it is written; nothing is ever lost by \
going back: what you undo, edit or let write again stays as another version. Shift+enter (or \
ctrl+j) begins a new line; tab goes to the panel and back."""


class HelpScreen(Screen[None]):
    """Gone with esc."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q", "dismiss(None)", "Back", show=False),
    ]
    DEFAULT_CSS = """
    HelpScreen {
        background: $background;
        VerticalScroll { padding: 0 2; scrollbar-size-vertical: 1; }
        Static { width: 100%; max-width: 84; }
        .-title { text-style: bold; color: $primary; margin: 1 0 1 0; }
        #introduction { margin: 0 0 1 0; }
    }
    """

    def compose(self) -> ComposeResult:
        """A scrolling page and its foot."""
        with VerticalScroll():
            yield Static("Fireside", classes="-title")
            yield Static(INTRODUCTION, id="introduction", markup=False)
            for group in dict.fromkeys(command.group for command in COMMANDS):
                yield Static(group, classes="-title")
                yield Static(key_table(group), classes="-keys")
        yield KeyBar()

    def on_mount(self) -> None:
        """Say how to get back."""
        self.query_one(KeyBar).keys = (
            Key("↑↓", "scroll", ""),
            Key("esc", "back", "screen.dismiss(None)"),
        )
        self.query_one(VerticalScroll).focus()


def key_table(group: str) -> Table:
    """Key and meaning of the commands of a group."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=7, no_wrap=True)
    table.add_column()
    for command in COMMANDS:
        if command.group == group:
            table.add_row(Text(command.shown or "^p …", style="bold"), command.help)
    return table
