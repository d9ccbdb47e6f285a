"""An application on a fake engine and a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from textual.pilot import Pilot

from fireside.app.paths import Paths
from fireside.app.settings import Settings
from fireside.app.tui.app import FiresideApp
from fireside.app.tui.keeper import Leaf
from tests.app.tui.fake import FakeInference


class Desk:
    """A running application in a test's hands."""

    def __init__(self, app: FiresideApp, pilot: Pilot[None], inference: FakeInference) -> None:
        self.app = app
        self.pilot = pilot
        self.inference = inference
        self.desk = app.desk
        self.keeper = app.keeper

    async def settle(self, seconds: float = 0.0) -> None:
        """Let everything that was told arrive on the screen, and in the library."""
        await self.pilot.pause(seconds)
        for _ in range(100):
            self.app._pump()
            await self.pilot.pause()
            if not self.inference.updates and (self.keeper.saved or self.keeper.trouble):
                break
            await self.pilot.pause(0.01)
        self.app._pump()
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def type(self, text: str, *keys: str) -> None:
        self.desk.line.insert(text)
        await self.press(*keys)

    @property
    def parts(self) -> list[tuple[str, str]]:
        return [(leaf.author, leaf.text) for leaf in self.keeper.leaves]

    @property
    def leaves(self) -> list[Leaf]:
        return self.keeper.leaves

    @property
    def text(self) -> str:
        """What stands on the page; the view must agree with the keeper."""
        assert self.desk.page.text == self.keeper.text
        return self.keeper.text

    @property
    def notices(self) -> list[str]:
        return [notification.message for notification in self.app._notifications]

    @property
    def note(self) -> str:
        return str(self.desk.query_one("#book").border_subtitle or "")


Start = Callable[..., AbstractAsyncContextManager[Desk]]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("HOME", str(tmp_path))  # where exports go unless told otherwise
    return Paths(tmp_path / "config.toml", tmp_path / "data", tmp_path / "log")


@pytest.fixture
def start(paths: Paths) -> Start:
    """`async with start(...) as desk`: the application on this test's folder."""

    @asynccontextmanager
    async def run(
        inference: FakeInference | None = None,
        *,
        size: tuple[int, int] = (120, 40),
        **settings: Any,
    ) -> AsyncIterator[Desk]:
        inference = inference or FakeInference()
        app = FiresideApp(Settings(**settings), paths=paths, inference=inference, chance=Random(0))
        async with app.run_test(size=size, notifications=True) as pilot:
            desk = Desk(app, pilot, inference)
            await desk.settle()
            yield desk

    return run
