"""The desk on the real inference thread and a tiny model of random weights."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from fireside.app.paths import Paths
from fireside.app.settings import Settings
from fireside.app.tui.app import FLUSHES_PER_SECOND, SLOWEST_S, FiresideApp
from fireside.app.tui.widgets.choice import Choice
from tests.app.tiny import write_tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "models")


@asynccontextmanager
async def running(
    paths: Paths, model: Path, **settings: Any
) -> AsyncIterator[tuple[FiresideApp, Pilot[None]]]:
    app = FiresideApp(Settings(model=str(model), kernels="numpy", **settings), paths=paths)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.desk.switching.info is not None)
        yield app, pilot
    assert not app.inference._thread.is_alive()


async def until(pilot: Pilot[None], condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await pilot.pause(0.02)


async def test_a_story_is_written_and_written_again(paths: Paths, model: Path) -> None:
    async with running(paths, model, passage_tokens=30, temperature=0.0) as (app, pilot):
        app.desk.line.insert("once upon")
        await pilot.press("enter")
        await until(pilot, lambda: not app.desk.scribe.writing)
        first = app.keeper.text
        assert first.startswith("once upon")
        assert app.desk.page.text == first
        await pilot.press("ctrl+r")
        await until(pilot, lambda: not app.desk.scribe.writing)
        assert app.keeper.text == first  # nothing is drawn at temperature 0
        await until(pilot, lambda: app.desk.versions == 2)
        assert app.desk.pace.state.reused


async def test_a_long_story_is_stopped(paths: Paths, model: Path) -> None:
    async with running(paths, model, passage_tokens=100_000, temperature=0.0) as (app, pilot):
        await pilot.press("enter")
        await until(pilot, lambda: len(app.keeper.text) > 200)
        started = time.monotonic()
        await pilot.press("escape")
        await until(pilot, lambda: not app.desk.scribe.writing)
        assert time.monotonic() - started < 2
        kept = app.keeper.text
        assert app.desk.page.text == kept
        await until(pilot, lambda: app.keeper.saved)
        assert app.keeper.story_id is not None
        assert app.keeper.library.text(app.keeper.story_id) == kept


@pytest.mark.parametrize("seconds", [0.0, 1.0])  # of a core, between two looks
async def test_a_screen_that_is_dear_to_draw_is_drawn_less_often(
    paths: Paths, model: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    async with running(paths, model, passage_tokens=100_000, temperature=0.0) as (app, pilot):
        clock = itertools.count(0, seconds)
        monkeypatch.setattr("fireside.app.tui.app.time.thread_time", lambda: next(clock))
        # however soon the model is done on this machine
        monkeypatch.setattr(type(app.desk.scribe), "writing", True)
        looks: list[float] = []
        monkeypatch.setattr(app, "_pump", lambda: looks.append(time.monotonic()))
        await until(pilot, lambda: len(looks) > 5)
        monkeypatch.undo()
        gaps = [after - before for before, after in itertools.pairwise(looks[1:])]
        assert min(gaps) > (SLOWEST_S if seconds else 1 / FLUSHES_PER_SECOND) - 0.01
        assert seconds or min(gaps) < SLOWEST_S - 0.05


async def test_the_weights_change_in_the_middle_of_a_story(paths: Paths, model: Path) -> None:
    async with running(paths, model, passage_tokens=20) as (app, pilot):
        await pilot.press("enter")
        await until(pilot, lambda: not app.desk.scribe.writing)
        before = app.keeper.text
        app.desk.panel.query_one("#quant", Choice).value = "q8"
        await until(
            pilot,
            lambda: app.desk.switching.info is not None and app.desk.switching.info.quant == "q8",
        )
        await pilot.press("enter")
        await until(pilot, lambda: not app.desk.scribe.writing)
        assert app.keeper.text.startswith(before)
        await until(pilot, lambda: app.keeper.saved)
        last = app.keeper.last
        assert last is not None
        assert last.provenance is not None
        assert last.provenance.quant == "q8"


async def test_leaving_while_it_writes(paths: Paths, model: Path) -> None:
    async with running(paths, model, passage_tokens=100_000, temperature=0.0) as (app, pilot):
        await pilot.press("enter")
        await until(pilot, lambda: len(app.keeper.text) > 50)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not app.is_running)
