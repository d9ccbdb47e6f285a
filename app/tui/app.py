"""The terminal application: it owns what outlives a screen, and closes it in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import App
from textual.binding import Binding, BindingType
from textual.timer import Timer

from fireside import assets
from fireside.app import catalogue
from fireside.app import settings as config
from fireside.app.cli.start import prepare
from fireside.app.inference import Inference, describe
from fireside.app.library import Library, LibraryError
from fireside.app.paths import Paths
from fireside.app.settings import Settings
from fireside.app.tui import themes
from fireside.app.tui.driver import terminal_driver
from fireside.app.tui.keeper import Keeper
from fireside.app.tui.messages import SettingsChanged, Told
from fireside.app.tui.opening import Opening
from fireside.app.tui.palette import DeskCommands
from fireside.app.tui.screens.desk import Desk
from fireside.app.tui.screens.help import HelpScreen
from fireside.app.updates import ModelSpec
from fireside.engine import FiresideError

log = logging.getLogger(__name__)

FLUSHES_PER_SECOND = 12  # both cores may be at work for the model
SHARE = 0.02  # of a core: where drawing takes more while the model writes, it is drawn less often
SLOWEST_S = 0.25  # but never less often than this
KEEP_AFTER_S = 0.5  # a setting is in the file by then, whatever becomes of the process


class FiresideApp(App[None]):
    """`inference`, `paths` and `chance` are the real ones, unless a test gives others."""

    TITLE = "Fireside"
    COMMANDS: ClassVar[set[Any]] = {DeskCommands}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("f1", "help", "Help", show=False),
    ]
    CSS = """
    ToastRack { dock: top; align: right top; margin: 1 1 0 0; }
    """

    def __init__(
        self,
        settings: Settings,
        *,
        paths: Paths | None = None,
        inference: Any = None,
        chance: random.Random | None = None,
    ) -> None:
        super().__init__(driver_class=terminal_driver())
        self.settings = settings
        self.paths = paths or Paths.find()
        self.inference: Inference = inference or Inference()
        self.changes: dict[str, Any] = {}  # set on the desk, to be kept
        self._keeping: Timer | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._welcome = ""
        self.farewell = ""  # what went wrong at the very end
        for theme in themes.THEMES:
            self.register_theme(theme)
        self.keeper = Keeper(self._open_library())
        opening = Opening(assets.openings(), assets.stories(), chance or random.Random())
        self.desk = Desk.make(settings, self.keeper, self.inference, opening)

    def _open_library(self) -> Library:
        """The user's library; where it cannot be opened, one that lasts until the end."""
        try:
            return Library(self.paths.library)
        except (LibraryError, OSError) as error:
            self._welcome = f"What you write now will not be kept: {describe(error)}"
            self._temporary = tempfile.TemporaryDirectory(prefix="fireside-")
            return Library(Path(self._temporary.name) / "stories.db")

    def on_mount(self) -> None:
        """Begin: the last story, the model, the desk."""
        self.theme = self.settings.theme if self.settings.theme in self.available_themes else ""
        self.inference.start()
        try:
            last = self.keeper.library.last()
            if last is not None:
                self.keeper.open(last.id)
        except LibraryError as error:
            self._welcome = str(error)
        if not self.is_headless:
            self._mind_signals()
        self.push_screen(self.desk)
        self.call_after_refresh(self._begin)
        self.run_worker(self._keep_showing())
        if watch := getattr(self._driver, "watch", None):
            self.set_interval(1, watch)

    def _mind_signals(self) -> None:
        """Leave in good order when the terminal closes or somebody ends the process."""
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError, AttributeError):  # not every system has them
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, partial(self.exit, return_code=128 + number))

    def _validate_theme(self, theme: str) -> str:
        return super()._validate_theme(theme or themes.DEFAULT)

    def _begin(self) -> None:
        if self._welcome:
            self.desk.tell(self._welcome, error=True)
        settings = self.settings
        tokenizer = Path(settings.tokenizer).expanduser() if settings.tokenizer else None
        try:
            path = catalogue.chosen(settings, self.paths)
        except FiresideError as error:
            path, tokenizer = assets.storyteller(), None
            self.desk.tell(f"{error.message}. The {path.stem} stands in.", error=True)
        self.desk.switching.use(
            ModelSpec(
                path,
                settings.quant,
                settings.kernels,
                settings.threads,
                settings.context,
                tokenizer,
                settings.speculation,
                settings.kv,
                self._draft(),
            )
        )
        self.desk.show_model()

    def _draft(self) -> Path | None:
        """The file of the draft that is set; where it is missing the page says so."""
        if not self.settings.draft:
            return None
        try:
            return catalogue.resolve(self.settings.draft, self.settings, self.paths)
        except FiresideError as error:
            self.desk.tell(f"no draft: {error.message}", error=True)
            return None

    def on_ready(self) -> None:
        """What is there now stays: the garbage collector need not look at it in mid-frame."""
        gc.collect()
        gc.freeze()

    def _pump(self) -> None:
        """Show what has happened."""
        updates = self.inference.drain()
        if updates or self.desk.restless:
            self.desk.post_message(Told(updates))

    async def _keep_showing(self) -> None:
        """Show it again and again; a model that fills screens has the cores to itself."""
        while True:
            begun, spent = time.monotonic(), time.thread_time()
            writing = self.desk.scribe.writing
            self._pump()
            await asyncio.sleep(1 / FLUSHES_PER_SECOND)
            if writing:
                wait = min((time.thread_time() - spent) / SHARE, SLOWEST_S)
                await asyncio.sleep(begun + wait - time.monotonic())
            else:  # the first words do not wait, but that long, in which some stories are told
                first = self.desk.begun_at + 1 / FLUSHES_PER_SECOND
                await asyncio.sleep(first - time.monotonic())

    def find_models(self) -> Iterator[catalogue.ModelEntry]:
        """The models there are, one at a time."""
        return catalogue.iter_models(self.settings, self.paths)

    async def run_at_desk(self, action: str) -> None:
        """Do what the palette was asked for, from whatever screen."""
        while self.screen is not self.desk:
            await self.pop_screen()
        await self.desk.run_action(action)

    # -- settings -------------------------------------------------------------------------------

    @on(SettingsChanged)
    def _settings_changed(self, event: SettingsChanged) -> None:
        self.changes.update(event.values)
        if self._keeping is None:  # a slider tells of every step
            self._keeping = self.set_timer(KEEP_AFTER_S, self._keep_settings)

    def _keep_settings(self) -> None:
        self._keeping = None
        if self.changes:
            try:
                config.save(self.changes, self.paths.config_file)
                self.changes.clear()
            except (config.SettingsError, OSError) as error:
                log.warning("settings were not saved: %s", error)

    # -- leaving --------------------------------------------------------------------------------

    def action_help(self) -> None:
        """All keys."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    async def action_quit(self) -> None:
        """Leave; what the model writes ends here and is kept."""
        if self.desk.scribe.writing:
            self.desk.scribe.when_idle(self.exit)
        else:
            self.exit()

    def _fatal_error(self) -> None:
        """A mistake of ours: one line on the terminal, the rest in the log."""
        error = self._exception
        log.error("unexpected", exc_info=error)
        self.panic(
            Text(
                f"Fireside had to stop: {type(error).__name__} {error}. The story is saved;"
                f" the details are in {log_file(self.paths)}"
            )
        )

    def on_unmount(self) -> None:
        """Close what was opened; the last words come from the engine into the library."""
        self.inference.abort()
        self.inference.close()
        self.desk.scribe.wind_up(self.inference.drain())
        if refused := self.keeper.close():
            self.farewell = f"{refused} {rescue(self.keeper.text)}"
        with suppress(LibraryError):
            self.keeper.library.purge()
        self.keeper.library.close()
        if self.theme != (self.settings.theme or themes.DEFAULT):
            self.changes["theme"] = self.theme
        self._keep_settings()
        if self._temporary is not None:
            self._temporary.cleanup()


def rescue(text: str) -> str:
    """Put a story that the library does not take into a file of its own; what to say of it."""
    for folder in (Path.home(), Path(tempfile.gettempdir())):
        path = None
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=folder, prefix="fireside-", suffix=".txt", delete=False
            ) as file:
                path = Path(file.name)
                file.write(text + "\n")
        except OSError:
            if path is not None:
                path.unlink(missing_ok=True)
        else:
            return f"The story as it was is in {path}."
    return "Its last words are lost."


def log_file(paths: Paths) -> Path:
    """Where trouble is written down."""
    return paths.log_dir / "fireside.log"


def _log_to_file(paths: Paths) -> None:
    """The terminal belongs to the screen: what is logged goes to a file of bounded size."""
    try:
        paths.log_dir.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            log_file(paths), maxBytes=500_000, backupCount=1, encoding="utf-8", delay=True
        )
    except OSError:
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("fireside")
    logger.addHandler(handler)
    logger.propagate = False
    logging.raiseExceptions = False  # a full disk: the terminal is no place for its traceback


def run(settings: Settings) -> int:
    """Open the application; returns the exit code."""
    prepare(settings)
    paths = Paths.find()
    _log_to_file(paths)
    app = FiresideApp(settings, paths=paths)
    app.run()
    if app.farewell:
        with suppress(OSError):
            sys.stderr.write(f"fireside: error: {app.farewell}\n")
        return app.return_code or 1
    return app.return_code or 0
