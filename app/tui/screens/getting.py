"""More models for the list: from the Hugging Face hub, or from elsewhere on the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from fireside.app import hub, importing
from fireside.app.catalogue import ModelEntry
from fireside.app.tui.keybar import Key
from fireside.app.tui.screens.listing import ListingScreen
from fireside.app.tui.widgets import numbers
from fireside.engine import FiresideError

HINT = "OWNER/NAME[:TYPE] on the Hugging Face hub, or the path of a model on this disk"
SHOWN_EVERY = 0.1  # seconds


class GivenUp(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """The one who waits has gone."""


class VersionsScreen(ListingScreen[hub.Choice]):
    """What a repository of the hub holds; dismissed with the one to get, or None."""

    FILTER_HINT = "filter by name or type"
    EMPTY_HINT = "No such file."
    KEYS = (
        Key("⏎", "get", "screen.get"),
        Key("/", "filter", "screen.filter"),
        Key("esc", "back", "screen.back"),
    )
    DEFAULT_CSS = """
    VersionsScreen OptionList {
        height: 1fr; margin: 0 1; padding: 0; border: none; background: $background;
        &:focus { border: none; background-tint: transparent; }
    }
    """

    def __init__(self, repository: hub.Repository, found: list[hub.Choice]) -> None:
        super().__init__()
        self.TITLE_TEXT = repository.name  # type: ignore[misc]
        self.found = found
        self.shown = found

    def compose_list(self) -> Widget:
        """A line for each."""
        return OptionList(id="list")

    def on_mount(self) -> None:
        """The usual one is under the cursor."""
        super().on_mount()
        self.refill("")

    def refill(self, query: str) -> None:
        """Show those whose names hold every word of the query."""
        words = query.lower().split()
        self.shown = [c for c in self.found if all(w in c.label.lower() for w in words)]
        options = self.query_one("#list", OptionList)
        options.clear_options()
        options.add_options(
            Option(f"  {numbers.memory(c.size):>8}  {hub.type_of(c) or '-':8} {c.label}")
            for c in self.shown
        )
        if self.shown:
            options.highlighted = self.shown.index(hub.default(self.shown))
        self.show_empty(not self.shown)

    @on(OptionList.OptionSelected)
    def action_get(self) -> None:
        """Get the one under the cursor."""
        at = self.query_one("#list", OptionList).highlighted
        if at is not None and at < len(self.shown):
            self.dismiss(self.shown[at])


class GettingScreen(ListingScreen[ModelEntry]):
    """A list of models with a line that gets others. `models`: the folder they go into."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("g", "get", "Get", show=False)]
    DEFAULT_CSS = """
    GettingScreen #line {
        height: 1; margin: 0 2; padding: 0; border: none; background: $surface;
        &:focus { border: none; }
    }
    """

    models: Path
    _getting = False

    def compose(self) -> ComposeResult:
        """The line stands above the foot, and waits for its key."""
        line = Input(id="line", placeholder=HINT, select_on_focus=False)
        line.display = False
        for widget in super().compose():
            if widget.id == "detail":
                yield line
            yield widget

    def got(self, path: Path) -> None:
        """A model has come to `path`."""
        raise NotImplementedError

    def action_get(self) -> None:
        """Ask what to get."""
        if self._getting:
            return
        line = self.query_one("#line", Input)
        line.display = True
        self.set_focus(line)
        self.detail(f"Get a model: {HINT}. Then ⏎; esc leaves it.")

    def action_back(self) -> None:
        """Leave what is under way, the line, the filter, the screen: one at a time."""
        if self._getting:
            self.workers.cancel_group(self, "getting")
            self._leave("Given up. The same again goes on from here.")
        elif self.query_one("#line").display:
            self._leave("")
        else:
            super().action_back()

    def _leave(self, text: str) -> None:
        self._getting = False
        self.query_one("#line").display = False
        self.set_focus(self.query_one("#list"))
        self.detail(text)

    @on(Input.Submitted, "#line")
    def _line_done(self, event: Input.Submitted) -> None:
        event.stop()
        if (wanted := event.value.strip()) and not self._getting:
            self._start(f"Looking at {wanted}…")
            self._look_up(wanted)

    def _start(self, text: str) -> None:
        self._getting = True
        self.set_focus(self.query_one("#list"))
        self.detail(text)

    # -- what threads do

    @work(thread=True, exclusive=True, group="getting")
    def _look_up(self, wanted: str) -> None:
        self._told(lambda: self._import_or_list(wanted))

    @work(thread=True, exclusive=True, group="getting")
    def _fetch(self, repository: hub.Repository, choice: hub.Choice) -> None:
        self._told(lambda: self._pull(repository, choice))

    def _import_or_list(self, wanted: str) -> Path | None:
        path = Path(wanted).expanduser()
        if path.exists() or wanted.startswith(("/", "~", ".")):
            return importing.bring(path, self.models, None, None, False, self._teller(path)).path
        name, file = hub.parse(wanted)
        repository = hub.look_up(name)
        found = hub.choices(repository)
        if not found:
            raise hub.HubError(f"{name} has no GGUF file and no safetensors", "look for another")
        if not file and len(found) > 1:
            self._call(self._offer, repository, found)
            return None
        return self._pull(repository, hub.pick(found, file, name) if file else found[0])

    def _pull(self, repository: hub.Repository, choice: hub.Choice) -> Path:
        tell = self._teller(Path(choice.label))
        return hub.get(repository, choice, self.models, False, lambda name: None, tell)[0]

    def _teller(self, path: Path) -> Callable[[int, int], None]:
        """Shows how far it is; raises GivenUp where nobody waits any more."""
        worker = get_current_worker()
        shown = [0.0]

        def tell(done: int, total: int) -> None:
            if worker.is_cancelled:
                raise GivenUp
            if time.monotonic() - shown[0] > SHOWN_EVERY:
                shown[0] = time.monotonic()
                far = f"{numbers.memory(done)} of {numbers.memory(total)}"
                self._call(self.detail, f"Getting {path.name}: {far}. esc gives it up.")

        return tell

    def _told(self, deed: Callable[[], Path | None]) -> None:
        """Do it, and say on the screen how it went; a result is a model that has come."""
        try:
            path = deed()
        except GivenUp:
            return
        except (FiresideError, OSError) as error:
            self._call(self._leave, str(error))
            return
        if path is not None:
            self._call(self._come, path)

    def _call(self, deed: Callable[..., None], *arguments: object) -> None:
        """In the screen's thread, where it still waits for that."""
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(deed, *arguments)

    # -- what they find

    def _offer(self, repository: hub.Repository, found: list[hub.Choice]) -> None:
        def chosen(choice: hub.Choice | None) -> None:
            if choice is None:
                self._leave("")
            else:
                self._start(f"Getting {choice.label}…")
                self._fetch(repository, choice)

        self.app.push_screen(VersionsScreen(repository, found), chosen)

    def _come(self, path: Path) -> None:
        self.query_one("#line", Input).value = ""
        self._leave("")
        self.got(path)
