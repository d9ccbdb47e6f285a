"""What the screens of models and of stories share: a title, a filter line, a list, a foot."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input, Static

from fireside.app.tui.keybar import Key, KeyBar

Result = TypeVar("Result")


class ListingScreen(Screen[Result]):
    """A list that is filtered by typing after `/`; esc goes back where one came from."""

    TITLE_TEXT: ClassVar[str] = ""
    FILTER_HINT: ClassVar[str] = "type to filter"
    EMPTY_HINT: ClassVar[str] = "Nothing here."
    KEYS: ClassVar[tuple[Key, ...]] = ()

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", show=False),
        Binding("escape", "back", "Back", show=False, priority=True),
        Binding("f1", "app.help", "Help", show=False),
    ]

    DEFAULT_CSS = """
    ListingScreen {
        background: $background;
        #heading {
            height: 1; padding: 0 2; margin: 1 0 0 0; text-style: bold; color: $primary;
        }
        #filter {
            height: 1; margin: 0 2 1 2; padding: 0; border: none; background: transparent;
            &:focus { border: none; background-tint: transparent; }
        }
        #detail { height: auto; max-height: 3; padding: 0 2; color: $text-muted; }
        KeyBar { dock: bottom; padding: 0 2; }
        .-empty { padding: 1 2; color: $text-muted; }
    }
    ListingScreen.-low #heading { margin: 0; }
    ListingScreen.-low #filter { margin: 0 2; }
    ListingScreen.-low #detail { max-height: 2; }
    """
    VERTICAL_BREAKPOINTS = [(0, "-low"), (18, "-high")]  # noqa: RUF012  (as Textual types it)

    def compose_list(self) -> Widget:
        """The list itself, with the id "list"."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """Put them one under the other."""
        yield Static(self.TITLE_TEXT, id="heading", markup=False)
        yield Input(placeholder=f"/ {self.FILTER_HINT}", id="filter", select_on_focus=False)
        yield Static(self.EMPTY_HINT, id="empty", classes="-empty", markup=False)
        yield self.compose_list()
        yield Static(id="detail", markup=False)
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        """The list has the focus; the filter waits for its key."""
        self.query_one("#empty").display = False
        self.query_one(KeyBar).keys = self.KEYS
        self.set_focus(self.query_one("#list"))

    @property
    def query_text(self) -> str:
        """What is asked for."""
        return self.query_one("#filter", Input).value.strip()

    def refill(self, query: str) -> None:
        """Show what answers the query."""
        raise NotImplementedError

    def detail(self, text: str) -> None:
        """One line under the list."""
        self.query_one("#detail", Static).update(text)

    def show_empty(self, empty: bool, hint: str = "") -> None:
        """A line above the list that is empty; the list keeps the focus, and with it the keys."""
        line = self.query_one("#empty", Static)
        line.display = empty
        line.update(hint or self.EMPTY_HINT)

    # -- keys

    def action_filter(self) -> None:
        """Go to the filter line."""
        self.set_focus(self.query_one("#filter"))

    def action_back(self) -> None:
        """From the filter to the list, from the list to the desk."""
        line = self.query_one("#filter", Input)
        if self.focused is line or line.value:
            line.value = ""
            self.set_focus(self.query_one("#list"))
        else:
            self.dismiss(None)

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.refill(event.value.strip())

    @on(Input.Submitted, "#filter")
    def _filter_done(self, event: Input.Submitted) -> None:
        event.stop()
        self.set_focus(self.query_one("#list"))
