"""An application around widgets under test, which remembers the messages they send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from textual.app import App, ComposeResult
from textual.message import Message
from textual.pilot import Pilot
from textual.widget import Widget

from tests.app.tui.snapshots import screen_text


class Stage(App[None]):
    """Widgets one below the other."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None

    def __init__(self, *widgets: Widget, css: str = "", theme: str = "textual-dark") -> None:
        super().__init__()
        self.widgets = widgets
        self.stylesheet.add_source(css)
        self.wanted_theme = theme
        self.messages: list[Message] = []

    def compose(self) -> ComposeResult:
        yield from self.widgets

    def on_mount(self) -> None:
        self.theme = self.wanted_theme
        self.animation_level = "none"

    def sent(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def rows(self) -> list[str]:
        return screen_text(self.export_screenshot())


Running = tuple[Stage, Pilot[None]]


@asynccontextmanager
async def on_stage(
    *widgets: Widget, size: tuple[int, int] = (80, 24), css: str = "", theme: str = "textual-dark"
) -> AsyncIterator[Running]:
    """Run an application with these widgets and collect what they post."""
    stage = Stage(*widgets, css=css, theme=theme)

    def remember(message: Message) -> None:
        if not any(message is known for known in stage.messages):  # it is seen as it bubbles
            stage.messages.append(message)

    async with stage.run_test(size=size, message_hook=remember) as pilot:
        await pilot.pause()
        yield stage, pilot
